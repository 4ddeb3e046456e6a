//! The sections of the programs of the platform: API, keeper, worker, `PgBouncer` and the egress proxy.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use selextract_task::Duration;
use serde::{Deserialize, Serialize};

use crate::{UpstreamPool, pod::PodSettings, schema::rule};

/// The API server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiSpec {
    /// How many pods. Without it the profile gives it: Current 3 (guide: "API Layer Scaling"), Small 2. The guide's limits are 2 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub replicas: Option<u8>,

    /// An Ingress to the public API. Without it there is only the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,

    /// The database connections of one API pod (guide: "Database Connection Pooling").
    pub pool: PoolSpec,

    /// The pods of the API.
    pub pod: PodSettings,
}

/// An Ingress to the public API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// The host name under which the API is reached.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub host: String,

    /// The IngressClass. Without it the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,

    /// A Secret of type kubernetes.io/tls in the same namespace. Without it the Ingress speaks plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,

    /// Annotations for the Ingress, as its controller reads them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub annotations: BTreeMap<String, String>,
}

/// The database connections of one API pod (guide: "Database Connection Pooling").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSpec {
    /// Connections that are kept (guide: pool_size 20).
    #[schemars(range(min = 1, max = 200))]
    pub size: u16,

    /// Connections above that under load (guide: max_overflow 30).
    #[schemars(range(min = 0, max = 200))]
    pub overflow: u16,

    /// How long a request waits for a connection before it is answered with 503 (the guide's pool_timeout of 30 s is above its own limit for an answer).
    pub acquire_timeout: Duration,

    /// After which age a connection is replaced (guide: pool_recycle 3600).
    pub max_lifetime: Duration,
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            size: 20,
            overflow: 30,
            acquire_timeout: Duration::from_secs(2),
            max_lifetime: Duration::from_secs(3600),
        }
    }
}

/// The keeper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KeeperSpec {
    /// How often tasks that are due and missing in the queue are put there.
    pub refill_interval: Duration,

    /// How often expired leases are taken back.
    pub sweep_interval: Duration,

    /// How long finished tasks and their results are kept; whole months go at once (guide: "Table Partitioning").
    pub retention: Duration,

    /// How many months ahead partitions are made (guide: "Table Partitioning").
    #[schemars(range(min = 1, max = 24))]
    pub partitions_ahead: u8,

    /// The pods of the keeper.
    pub pod: PodSettings,
}

impl Default for KeeperSpec {
    fn default() -> Self {
        Self {
            refill_interval: Duration::from_secs(5),
            sweep_interval: Duration::from_secs(5),
            retention: Duration::from_secs(90 * 86_400),
            partitions_ahead: 3,
            pod: PodSettings::default(),
        }
    }
}

/// The workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerSpec {
    /// How many pods. Without it the profile gives it: Current 5 (guide: "Worker Scaling"), Small 1. 0 stops all fetching.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: Option<u8>,

    /// How many tasks one pod works on at a time (guide: CELERY_WORKER_CONCURRENCY 4).
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u8,

    /// How long a claim holds without being renewed; after it the task goes to another worker.
    pub lease: Duration,

    /// After how many tasks a worker starts anew (guide: CELERY_WORKER_MAX_TASKS_PER_CHILD 1000).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_tasks: u32,

    /// Whom the owners of scraped sites may write to, a web page or a mail address; it stands in the User-Agent of every request. Without it the project's home.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), regex(pattern = "^[!#-'*-:<-\\[\\]-~]+$"))]
    pub contact: Option<String>,

    /// Chromium in the workers.
    pub browser: BrowserSpec,

    /// The pods of the workers.
    pub pod: PodSettings,
}

impl Default for WorkerSpec {
    fn default() -> Self {
        Self {
            replicas: None,
            concurrency: 4,
            lease: Duration::from_secs(30),
            max_tasks: 1000,
            contact: None,
            browser: BrowserSpec::default(),
            pod: PodSettings::default(),
        }
    }
}

/// Chromium in the workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BrowserSpec {
    /// Chromium's own sandbox: Auto uses it when nodes with the seccomp profile exist; Required runs workers on such nodes only; Disabled never uses it (the guide's --no-sandbox). The condition BrowserSandbox tells which.
    pub sandbox: SandboxMode,

    /// After how many pages a browser is replaced.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_pages: u32,

    /// After which age a browser is replaced.
    pub max_age: Duration,

    /// Above which memory a browser is replaced.
    pub max_memory: crate::Quantity,
}

impl Default for BrowserSpec {
    fn default() -> Self {
        Self {
            sandbox: SandboxMode::Auto,
            max_pages: 100,
            max_age: Duration::from_secs(1800),
            max_memory: crate::Quantity::new("500M"),
        }
    }
}

/// Whether Chromium's own sandbox is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SandboxMode {
    /// Where the nodes have the profile.
    #[default]
    Auto,
    /// Always; without such nodes the workers wait.
    Required,
    /// Never.
    Disabled,
}

/// The connection pooler: one Deployment for the primary and one for the read replicas, in transaction mode (guide: "Database Scaling").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PgBouncerSpec {
    /// How many pods in each of the two Deployments. Without it the profile gives it: Current 2, Small 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub replicas: Option<u8>,

    /// How many clients one pod admits (guide: MAX_CLIENT_CONN 1000).
    #[schemars(range(min = 10, max = 10_000))]
    pub max_client_conn: u16,

    /// How many server connections one pod holds for the application (guide: DEFAULT_POOL_SIZE 20). Without it: 20, or fewer where the
    /// pods of both poolers and 15 connections for others would be more than `spec.postgres.maxConnections`. What it is now stands in
    /// `status.database.poolSize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 500))]
    pub default_pool_size: Option<u16>,

    /// How many prepared statements are tracked for each connection. 0 would hand clients each other's statements and is refused.
    #[schemars(range(min = 100, max = 10_000))]
    pub max_prepared_statements: u16,

    /// The pods of the pooler.
    pub pod: PodSettings,
}

impl Default for PgBouncerSpec {
    fn default() -> Self {
        Self {
            replicas: None,
            max_client_conn: 1000,
            default_pool_size: None,
            max_prepared_statements: 200,
            pod: PodSettings::default(),
        }
    }
}

/// The egress proxy: it resolves a name once, refuses what is not globally routable, and dials what it checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressSpec {
    /// How many pods. Without it the profile gives it: Current 2, Small 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub replicas: Option<u8>,

    /// The ports that may be reached in the public network.
    #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 65535)), extend("x-kubernetes-list-type" = "set"))]
    pub ports: Vec<u16>,

    /// Private destinations that may be reached nevertheless. The default is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow: Vec<AllowSpec>,

    /// Pools of upstream proxies that tasks may name in proxyPool. The default is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub upstreams: Vec<UpstreamPool>,

    /// The pods of the proxy.
    pub pod: PodSettings,
}

impl Default for EgressSpec {
    fn default() -> Self {
        Self {
            replicas: None,
            ports: vec![80, 443],
            allow: Vec::new(),
            upstreams: Vec::new(),
            pod: PodSettings::default(),
        }
    }
}

/// One private destination: a host name or a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "has(self.host) != has(self.cidr)",
    "an entry of egress.allow names either host or cidr; write two entries for both",
)]))]
pub struct AllowSpec {
    /// A host name, whatever it resolves to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub host: Option<String>,

    /// A network, such as 10.9.0.0/16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 49), regex(pattern = "^[0-9a-fA-F:.]+/[0-9]{1,3}$"))]
    pub cidr: Option<String>,

    /// The ports there. Without any, egress.ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 1, max = 65535)), extend("x-kubernetes-list-type" = "set"))]
    pub ports: Vec<u16>,
}
