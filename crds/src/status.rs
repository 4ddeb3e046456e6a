//! The status of a `SelextractCluster`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CostStatus, ScalingStatus, SloStatus, schema::conditions};

/// What the operator last saw. It is written when its meaning changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SelextractClusterStatus {
    /// The generation of the spec that this status speaks of; -1 before the operator has looked at it.
    pub observed_generation: i64,

    /// Ready, Reconciling and Stalled sum up (exactly one of them is True); the others name one part each: CertificatesReady, DatabaseReady, ReplicasReady, PoolerReady, QueueReady, EgressReady, Migrated, ApiReady, WorkersReady, MonitoringReady, BrowserSandbox.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,

    /// The images that the platform runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageStatus>,

    /// Where it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// Wanted and ready pods of each component.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub components: Vec<ComponentStatus>,

    /// The replicas of API and workers that are wanted and that exist, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,

    /// The database and its pooler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,

    /// How the promises of spec.slo are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo: Option<SloStatus>,

    /// What the platform costs in a month, and what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostStatus>,
}

/// The images that the platform runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageStatus {
    /// The tag, or the digest, of the image platform that was rolled out last.
    #[schemars(length(max = 128))]
    pub tag: String,

    /// The image whose migrations were applied last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 400))]
    pub migrated: Option<String>,
}

/// Where the platform is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// The public API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub api: Option<String>,

    /// The Secret that holds the password of the user admin, under admin-password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub admin_secret: Option<String>,
}

/// Wanted and ready pods of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// The component, as in the label app.kubernetes.io/component.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// How many pods are wanted.
    #[schemars(range(min = 0))]
    pub desired: i32,

    /// How many are ready.
    #[schemars(range(min = 0))]
    pub ready: i32,
}

/// The database and its pooler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseStatus {
    /// Who runs it: Managed or External.
    #[schemars(length(max = 32))]
    pub provider: String,

    /// The server's version, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub server_version: Option<String>,

    /// The pooler's version, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub pooler_version: Option<String>,

    /// How many server connections one pod of a pooler may open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<i32>,

    /// The replication slots on the primary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub slots: Vec<ReplicaSlotStatus>,
}

/// A replication slot on the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSlotStatus {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Streaming, Waiting, Cloning, Lagging or Lost.
    #[schemars(length(max = 32))]
    pub state: String,
}
