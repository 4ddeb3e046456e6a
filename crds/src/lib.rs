//! The two kinds of the API group `selextract.io`, as Rust types, and the `CustomResourceDefinition`s made from them.
//!
//! Pure: no I/O. Thresholds and defaults live here once, each with the section of the performance guide that it comes from.
//! A section stands here only when something acts on it.

#![expect(
    clippy::doc_markdown,
    reason = "the docs are what kubectl explain prints, where backticks are noise"
)]

mod artifacts;
mod cluster;
mod components;
mod cost;
mod definitions;
mod monitoring;
mod placement;
mod pod;
mod scaling;
mod schema;
mod scrape_task;
mod slo;
mod status;
mod stores;
mod thresholds;
mod upstreams;

pub use artifacts::{ArtifactStore, ArtifactsSpec, S3Spec};
pub use cluster::{DeletionPolicy, ImageSpec, Profile, PullPolicy, SelextractCluster, SelextractClusterSpec};
pub use components::{
    AllowSpec, ApiSpec, BrowserSpec, EgressSpec, IngressSpec, KeeperSpec, PgBouncerSpec, PoolSpec, SandboxMode,
    WorkerSpec,
};
pub use cost::{
    ComponentCostStatus, CostPrices, CostSpec, CostStatus, CostTargets, EfficiencyStatus, Price, RecommendationStatus,
};
pub use definitions::{cluster_definition, scrape_task_definition};
pub use monitoring::{
    AlertsSpec, DashboardsSpec, ExternalPrometheusSpec, ManagedPrometheusSpec, MonitoringSpec, PrometheusProvider,
    PrometheusSpec, RoutingSpec,
};
pub use placement::{
    Affinity, LabelSelector, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity,
    PodAffinityTerm, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
pub use pod::{Compute, LocalObjectReference, PodSettings, Quantity, Resources};
pub use scaling::{
    ApiScaling, ApiTriggers, ConstraintStatus, DecisionStatus, ScaleChange, ScaleStatus, ScalingMode, ScalingPause,
    ScalingSchedule, ScalingSpec, ScalingStatus, SignalStatus, WorkerScaling, WorkerTriggers,
};
pub use scrape_task::{
    ClusterRef, CredentialsFrom, LastError, OnChange, RunState, ScheduleSpec, ScrapeTask, ScrapeTaskSpec,
    ScrapeTaskStatus,
};
pub use slo::{
    AvailabilityStatus, BurnRateStatus, ObjectiveAvailability, ObjectiveMemory, ObjectiveP95, ObjectiveP99,
    ObjectiveStatus, OutageStatus, SloProfile, SloSpec, SloStatus, SloTargets,
};
pub use status::{ComponentStatus, DatabaseStatus, Endpoints, ImageStatus, ReplicaSlotStatus, SelextractClusterStatus};
pub use stores::{ExternalDatabase, PostgresSpec, Provider, RedisCacheSpec, RedisQueueSpec, RedisSpec, SslMode};
pub use thresholds::{
    ConnectionLevels, CpuLevels, DashboardLevels, DatabaseQueryLevels, DiskLevels, ErrorRateLevels, LoginLevels,
    MemoryLevels, NetworkLevels, Percent, QueueWaitLevels, RedisLevels, ReplicationLagLevels, ResponseTimeLevels,
    TaskCreationLevels, TaskProcessingLevels, TaskResultsLevels, ThresholdsSpec,
};
pub use upstreams::{Resolves, Stickiness, UpstreamHealth, UpstreamPool, UpstreamProxy};

/// The API group of both kinds.
pub const GROUP: &str = "selextract.io";

/// The version of both kinds.
pub const VERSION: &str = "v1alpha1";
