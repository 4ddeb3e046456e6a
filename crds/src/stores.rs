//! The sections of what keeps data: PostgreSQL and Redis.

use schemars::JsonSchema;
use selextract_task::Duration;
use serde::{Deserialize, Serialize};

use crate::{
    pod::{PodSettings, Quantity},
    schema::{may_only_grow, rule},
};

/// The ledger's database: PostgreSQL 17 that the operator runs, or one that exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "(self.provider == 'External') == has(self.external)",
        "postgres.external goes with provider External: name the Secret with the URL there, or set provider to Managed and remove external",
    ),
    rule(
        "self.provider != 'External' || (!has(self.storage) && !has(self.storageClassName) && self.readReplicas == 0)",
        "storage, storageClassName and readReplicas are read with provider Managed only; remove them, and put a read replica's URL under external.readKey",
    ),
    rule(
        "has(self.storageClassName) == has(oldSelf.storageClassName)",
        "postgres.storageClassName cannot be set or removed later; create a second SelextractCluster with the wanted class and move the data",
    ),
]))]
pub struct PostgresSpec {
    /// Managed: the operator runs PostgreSQL 17. External: a Secret names a database that exists. It cannot change.
    pub provider: Provider,

    /// The database that exists, with provider External.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalDatabase>,

    /// The size of the volume of the primary and of each replica. It may only grow. Without it the profile gives it: Current 100Gi, Small 2Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [may_only_grow("postgres.storage")]))]
    pub storage: Option<Quantity>,

    /// The StorageClass of the volumes. Without it the cluster's default class. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rule(
        "self == oldSelf",
        "postgres.storageClassName cannot change; create a second SelextractCluster with the wanted class and move the data",
    )]))]
    pub storage_class_name: Option<String>,

    /// The connections that the server admits (guide: "Database Connection Exhaustion", max_connections). With the provider External say
    /// here how many yours admits: the poolers' sizes follow from it.
    #[schemars(range(min = 20, max = 2000))]
    pub max_connections: u16,

    /// How many read replicas stream from the primary (guide: "Read Replicas", for analytics and reporting).
    #[schemars(range(min = 0, max = 5))]
    pub read_replicas: u8,

    /// How far a read replica may lag behind; beyond it reads go elsewhere, to the primary in the end.
    pub max_lag: Duration,

    /// The pods of the primary and of the replicas.
    pub pod: PodSettings,
}

impl Default for PostgresSpec {
    fn default() -> Self {
        Self {
            provider: Provider::Managed,
            external: None,
            storage: None,
            storage_class_name: None,
            max_connections: 100,
            read_replicas: 0,
            max_lag: Duration::from_secs(10),
            pod: PodSettings::default(),
        }
    }
}

/// Who runs PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Provider {
    /// The operator.
    #[default]
    Managed,
    /// Somebody else.
    External,
}

/// A database that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalDatabase {
    /// A Secret in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: String,

    /// The key of the URL in it: postgres://role:password@host:port/database. The role owns the database's schema.
    #[serde(default = "url_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,

    /// The key of a second URL in it, for reading only, such as a read replica's. Without it reads go to the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub read_key: Option<String>,

    /// The key of a certificate authority (PEM) in it, which signed the server's certificate. Without it the authorities that the images trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub ca_key: Option<String>,

    /// How the server's certificate is checked.
    #[serde(default)]
    pub ssl_mode: SslMode,
}

fn url_key() -> String {
    "url".to_owned()
}

/// How the server's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SslMode {
    /// Signed by the authority and made for the host.
    #[default]
    VerifyFull,
    /// Signed by the authority.
    VerifyCa,
    /// Encrypted, not checked.
    Require,
}

impl SslMode {
    /// As libpq and `PgBouncer` write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyFull => "verify-full",
            Self::VerifyCa => "verify-ca",
            Self::Require => "require",
        }
    }
}

/// The queue and the cache, two servers, because they want opposite settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisSpec {
    /// The queue: nothing is evicted, appends are written each second.
    pub queue: RedisQueueSpec,

    /// The cache: the least recently used goes first, nothing is written to disk.
    pub cache: RedisCacheSpec,
}

/// The queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "has(self.storageClassName) == has(oldSelf.storageClassName)",
    "redis.queue.storageClassName cannot be set or removed later; create a second SelextractCluster with the wanted class",
)]))]
pub struct RedisQueueSpec {
    /// The size of the volume. It may only grow. Without it the profile gives it: Current 10Gi, Small 1Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [may_only_grow("redis.queue.storage")]))]
    pub storage: Option<Quantity>,

    /// The StorageClass of the volume. Without it the cluster's default class. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rule(
        "self == oldSelf",
        "redis.queue.storageClassName cannot change; create a second SelextractCluster with the wanted class",
    )]))]
    pub storage_class_name: Option<String>,

    /// How much data it holds. Without it three quarters of the profile's memory: Current 1Gi (guide: "Vertical Scaling Guidelines"), Small 128Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Quantity>,

    /// Its pod.
    pub pod: PodSettings,
}

/// The cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisCacheSpec {
    /// How much data it holds. Without it three quarters of the profile's memory: Current 1Gi (guide: "Vertical Scaling Guidelines"), Small 128Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Quantity>,

    /// Its pod.
    pub pod: PodSettings,
}
