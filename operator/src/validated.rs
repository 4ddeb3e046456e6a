//! A cluster's spec together with what the operator was started with, as types that the builders cannot fail on. Pure.
//!
//! Everything that is wrong is told at once, as (reason, message) pairs that are used as they are in condition and event.

mod artifacts;
mod check;
mod cost;
mod egress;
mod monitoring;
mod pods;
mod scaling;
mod sizes;
mod slo;
mod stores;
mod thresholds;

use std::fmt;

pub use artifacts::{Artifacts, Bucket};
pub use check::validate;
pub use cost::Cost;
pub use monitoring::{
    Alerts, Credentials, ExternalPrometheus, ManagedPrometheus, Monitoring, PrometheusEndpoint, Source,
};
pub use scaling::{Scaling, Sizing};
use selextract_crds::{
    BrowserSpec, Compute, DeletionPolicy, ExternalDatabase, IngressSpec, KeeperSpec, PodSettings, PoolSpec, PullPolicy,
    Quantity, S3Spec, UpstreamPool,
};
use selextract_task::Duration;
pub use slo::Slo;
pub use stores::connections as server_connections;
pub use thresholds::{Levels, Thresholds};

/// What the operator was started with and every cluster shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The registry and path of the images; empty means none.
    pub registry: String,
    /// The tag of the images.
    pub tag: String,
    /// The namespace that the operator runs in; its pods are let in to the internal listener.
    pub namespace: String,
    /// The operator as the subject of a service-account token.
    pub subject: String,
}

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A `CamelCase` word, for the condition.
    pub reason: &'static str,
    /// One sentence that names the field, the value and the cure.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A cluster as the builders read it.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedCluster {
    /// `metadata.name`, at most 30 characters.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The namespace that the operator runs in.
    pub operator_namespace: String,
    /// The operator as the subject of a service-account token.
    pub operator_subject: String,
    /// The images.
    pub images: Images,
    /// What happens to data when the cluster is deleted.
    pub deletion_policy: DeletionPolicy,
    /// Whether volumes of another cluster object are taken over.
    pub adopt_foreign_data: bool,
    /// Which further namespaces are served.
    pub admission: Admission,
    /// The API.
    pub api: Api,
    /// The keeper.
    pub keeper: Keeper,
    /// The workers.
    pub worker: Worker,
    /// The database.
    pub postgres: Postgres,
    /// The pooler.
    pub pgbouncer: PgBouncer,
    /// The queue.
    pub queue: Redis,
    /// The cache.
    pub cache: Redis,
    /// The egress proxy.
    pub egress: Egress,
    /// Where artifacts are kept.
    pub artifacts: Artifacts,
    /// What is sized from measurements.
    pub scaling: Scaling,
    /// Prometheus, alerts and dashboards.
    pub monitoring: Monitoring,
    /// What is promised.
    pub slo: Slo,
    /// What is paid.
    pub cost: Cost,
}

/// The images in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// API, keeper, egress proxy, migrations.
    pub platform: String,
    /// Workers.
    pub browser: String,
    /// PostgreSQL, `PgBouncer`, Valkey, Prometheus.
    pub data: String,
    /// When nodes pull them.
    pub pull_policy: PullPolicy,
}

/// Which namespaces besides the cluster's own are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Every one.
    All,
    /// These.
    Named(Vec<String>),
}

impl ValidatedCluster {
    /// The Secrets of the user's own that open the artifacts' bucket.
    pub fn bucket_secrets(&self) -> Vec<String> {
        self.artifacts
            .bucket
            .iter()
            .flat_map(|bucket| secrets_of(&bucket.spec))
            .collect()
    }
}

/// The Secrets of the user's own that a bucket is opened with.
pub fn secrets_of(bucket: &S3Spec) -> Vec<String> {
    let authority = bucket.ca_secret_ref.iter().map(|authority| authority.name.clone());
    std::iter::once(bucket.credentials_secret_ref.name.clone())
        .chain(authority)
        .collect()
}

impl Admission {
    /// Whether `ScrapeTask`s of this namespace are served.
    pub fn admits(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == namespace),
        }
    }
}

/// The pods of a component: the user's settings, and resources that are complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// The user's settings.
    pub settings: PodSettings,
    /// Requests and limits of the main container, the profile's where the user names none.
    pub requests: Compute,
    /// See `requests`.
    pub limits: Compute,
}

/// The API.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// How many pods.
    pub replicas: i32,
    /// The Ingress.
    pub ingress: Option<IngressSpec>,
    /// The database connections of one pod.
    pub pool: PoolSpec,
    /// Its pods.
    pub pod: Pod,
}

/// The keeper.
#[derive(Clone, Debug, PartialEq)]
pub struct Keeper {
    /// The intervals.
    pub spec: KeeperSpec,
    /// Its pods.
    pub pod: Pod,
}

/// The workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// How many pods.
    pub replicas: i32,
    /// Tasks at a time.
    pub concurrency: u8,
    /// How long a claim holds.
    pub lease: Duration,
    /// Tasks until it starts anew.
    pub max_tasks: u32,
    /// Whom the owners of sites may write to.
    pub contact: Option<String>,
    /// Chromium.
    pub browser: BrowserSpec,
    /// `browser.maxMemory` in megabytes.
    pub browser_memory_mb: u64,
    /// Its pods.
    pub pod: Pod,
}

/// The database.
#[derive(Clone, Debug, PartialEq)]
pub struct Postgres {
    /// The database that exists; `None` where the operator runs one.
    pub external: Option<ExternalDatabase>,
    /// The size of each volume.
    pub storage: Quantity,
    /// Their class.
    pub storage_class_name: Option<String>,
    /// Connections.
    pub max_connections: u16,
    /// Read replicas.
    pub read_replicas: u8,
    /// How far a replica may lag.
    pub max_lag: Duration,
    /// The memory limit in megabytes, of which the server's buffers are made.
    pub memory_mb: u64,
    /// Its pods.
    pub pod: Pod,
}

impl Postgres {
    /// Whether the operator runs it.
    pub fn is_managed(&self) -> bool {
        self.external.is_none()
    }
}

/// The pooler.
#[derive(Clone, Debug, PartialEq)]
pub struct PgBouncer {
    /// How many pods in each Deployment.
    pub replicas: i32,
    /// Clients of one pod.
    pub max_client_conn: u16,
    /// Server connections of one pod.
    pub default_pool_size: u16,
    /// Tracked statements.
    pub max_prepared_statements: u16,
    /// Its pods.
    pub pod: Pod,
}

/// The queue or the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// How much data it holds, in bytes.
    pub max_memory: u64,
    /// The volume and its class; `None` for the cache.
    pub volume: Option<(Quantity, Option<String>)>,
    /// Its pod.
    pub pod: Pod,
}

/// A private destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Where.
    pub destination: Destination,
    /// The ports there.
    pub ports: Vec<u16>,
}

/// Where a private destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A host name.
    Host(String),
    /// A network.
    Network(ipnet::IpNet),
}

/// The egress proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// How many pods.
    pub replicas: i32,
    /// Ports in the public network.
    pub ports: Vec<u16>,
    /// Private destinations, each with host or network.
    pub allow: Vec<Allowed>,
    /// Pools of upstream proxies, whose URLs are good.
    pub upstreams: Vec<UpstreamPool>,
    /// Its pods.
    pub pod: Pod,
}
