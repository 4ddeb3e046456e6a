//! `SelextractCluster`: a whole scraping platform. The sections for its components lie in `components` and `stores`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    artifacts::ArtifactsSpec,
    components::{ApiSpec, EgressSpec, KeeperSpec, PgBouncerSpec, WorkerSpec},
    cost::CostSpec,
    monitoring::MonitoringSpec,
    scaling::ScalingSpec,
    schema::rule,
    slo::SloSpec,
    status::SelextractClusterStatus,
    stores::{PostgresSpec, RedisSpec},
};

/// What the platform should be. Every section is optional; an empty spec is a whole platform.
#[expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn is an attribute of its own"
)]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "selextract.io",
    version = "v1alpha1",
    kind = "SelextractCluster",
    plural = "selextractclusters",
    shortname = "sxc",
    category = "selextract",
    namespaced,
    status = "SelextractClusterStatus",
    derive = "PartialEq",
    doc = "A whole scraping platform: API, keeper, workers, PostgreSQL with read replicas and PgBouncer, Redis, the egress proxy and Prometheus.",
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "The reason of the condition Ready."
    ),
    printcolumn(
        name = "API",
        type_ = "integer",
        json_path = ".status.components[?(@.name==\"api\")].ready",
        description = "API pods that are ready."
    ),
    printcolumn(
        name = "Workers",
        type_ = "integer",
        json_path = ".status.components[?(@.name==\"worker\")].ready",
        description = "Worker pods that are ready."
    ),
    printcolumn(
        name = "API Wants",
        type_ = "integer",
        json_path = ".status.scaling.api.desired",
        description = "API pods that are wanted.",
        priority = 1
    ),
    printcolumn(
        name = "Workers Want",
        type_ = "integer",
        json_path = ".status.scaling.worker.desired",
        description = "Worker pods that are wanted.",
        priority = 1
    ),
    printcolumn(
        name = "API Scaling",
        type_ = "string",
        json_path = ".status.scaling.api.decision.reason",
        description = "Why there are as many API pods as there are.",
        priority = 1
    ),
    printcolumn(
        name = "Scaling",
        type_ = "string",
        json_path = ".status.scaling.worker.decision.reason",
        description = "Why there are as many workers as there are.",
        priority = 1
    ),
    printcolumn(
        name = "Postgres",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"DatabaseReady\")].reason",
        description = "The reason of the condition DatabaseReady."
    ),
    printcolumn(
        name = "Replicas",
        type_ = "integer",
        json_path = ".status.components[?(@.name==\"postgres-replica\")].ready",
        description = "Read replicas that stream.",
        priority = 1
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.image.tag",
        description = "The tag of the images that the platform runs.",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "The message of the condition Ready.",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "When it was created."
    )
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "(has(self.postgres) ? self.postgres.provider : 'Managed') == (has(oldSelf.postgres) ? oldSelf.postgres.provider : 'Managed')",
        "spec.postgres.provider cannot change; create a second SelextractCluster with the other provider and move the data with pg_dump and pg_restore",
    ),
    rule(
        "!has(self.scaling) || !has(self.scaling.api) || !has(self.api) || !has(self.api.replicas)",
        "spec.api.replicas fixes the number that spec.scaling.api sizes; remove one of them",
    ),
    rule(
        "!has(self.scaling) || !has(self.scaling.worker) || !has(self.worker) || !has(self.worker.replicas)",
        "spec.worker.replicas fixes the number that spec.scaling.worker sizes; remove one of them",
    ),
]))]
pub struct SelextractClusterSpec {
    /// The sizes that hold where a section gives none: Current is the column "Current" of the guide's table ("Vertical Scaling Guidelines"), Small fits one machine.
    pub profile: Profile,

    /// The images of the platform.
    pub image: ImageSpec,

    /// What happens to volumes and to the Secrets that open them when the cluster is deleted: Retain keeps them, so that a cluster of the same name finds its data again; Delete removes them.
    pub deletion_policy: DeletionPolicy,

    /// Start on volumes that another cluster object wrote, for example after a restore from a backup of the namespace. Without it such volumes are left alone and the condition Stalled has the reason ForeignData.
    pub adopt_foreign_data: bool,

    /// The namespaces besides the cluster's own whose ScrapeTasks are served; "*" admits all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"),
        inner(length(min = 1, max = 63), regex(pattern = "^(\\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$")))]
    pub allowed_namespaces: Vec<String>,

    /// The API server.
    pub api: ApiSpec,

    /// The keeper: schedules, refill of the queue, sweeping of expired leases, partitions and retention.
    pub keeper: KeeperSpec,

    /// The workers.
    pub worker: WorkerSpec,

    /// The ledger's database.
    pub postgres: PostgresSpec,

    /// The connection pooler in front of the database.
    pub pgbouncer: PgBouncerSpec,

    /// The queue and the cache.
    pub redis: RedisSpec,

    /// The one way out for everything that is fetched.
    pub egress: EgressSpec,

    /// Where screenshots, PDFs and copies of pages are kept.
    pub artifacts: ArtifactsSpec,

    /// How API and workers are sized from what is measured. Without it, and for a target that is not in it, the number of pods is fixed.
    pub scaling: ScalingSpec,

    /// What the platform promises, which the status is held against.
    pub slo: SloSpec,

    /// What the platform's parts cost, from which the status tells what it costs and what to change.
    pub cost: CostSpec,

    /// Prometheus, alerts and dashboards.
    pub monitoring: MonitoringSpec,
}

/// The sizes that hold where a section gives none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Profile {
    /// One machine: few replicas, small requests, small volumes.
    Small,
    /// The guide's column "Current" ("Vertical Scaling Guidelines").
    #[default]
    Current,
}

/// What happens to data when the cluster is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Volumes and the Secrets that open them stay.
    #[default]
    Retain,
    /// Volumes and Secrets go with the cluster.
    Delete,
}

/// The images of the platform: `<registry>/platform:<tag>` and so on, unless one is named in full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageSpec {
    /// The registry and path that hold the images platform, browser and data. Without it, what the operator was started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), regex(pattern = "^[a-zA-Z0-9][-a-zA-Z0-9._:/]*$"))]
    pub registry: Option<String>,

    /// The tag of the images: the platform's version. Without it, what the operator was started with. Changing it upgrades the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[a-zA-Z0-9_][-a-zA-Z0-9_.]*$"))]
    pub tag: Option<String>,

    /// When nodes pull the images.
    pub pull_policy: PullPolicy,

    /// The image of API, keeper, egress proxy and migrations in full, in place of registry and tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 400), regex(pattern = "^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$"))]
    pub platform: Option<String>,

    /// The image of the workers in full, in place of registry and tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 400), regex(pattern = "^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$"))]
    pub browser: Option<String>,

    /// The image of PostgreSQL, PgBouncer, Valkey and Prometheus in full, in place of registry and tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 400), regex(pattern = "^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$"))]
    pub data: Option<String>,
}

/// When nodes pull the images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At each start of a pod.
    Always,
    /// When the node does not have them.
    #[default]
    IfNotPresent,
    /// Not at all; they are loaded beforehand.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}
