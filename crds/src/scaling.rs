//! How the platform is sized: `spec.scaling`, and what the status says about it. The guide's figures ("Horizontal Scaling Strategy") stand here as defaults.

use schemars::JsonSchema;
use selextract_task::Duration;
use serde::{Deserialize, Serialize};

use crate::schema::rule;

/// How API and workers are sized. Without it, and for a target that is not in it, the number of pods is fixed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingSpec {
    /// What the operator leaves alone for a while: In adds pods but takes none away, Out takes away but adds none, Both holds what is.
    pub paused: ScalingPause,

    /// Decide and explain, in status, events and metrics, but change nothing.
    pub dry_run: bool,

    /// Sizes the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiScaling>,

    /// Sizes the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerScaling>,
}

/// What the operator leaves alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingPause {
    /// Nothing.
    #[default]
    None,
    /// No pod is taken away.
    In,
    /// No pod is added.
    Out,
    /// The number of pods stays.
    Both,
}

/// Who sets the number of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// The operator, from what Prometheus measures.
    #[default]
    Operator,
    /// Somebody else, such as a HorizontalPodAutoscaler or KEDA: the operator does not touch the number.
    External,
}

/// How the API is sized (guide: "API Layer Scaling").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "self.minReplicas <= self.maxReplicas",
    "scaling.api.minReplicas is above maxReplicas; lower it or raise maxReplicas",
)]))]
pub struct ApiScaling {
    /// Who sets the number of pods.
    pub mode: ScalingMode,

    /// The fewest pods (guide: 2).
    #[schemars(range(min = 1, max = 10))]
    pub min_replicas: u8,

    /// The most pods (guide: 10).
    #[schemars(range(min = 1, max = 10))]
    pub max_replicas: u8,

    /// A pod is taken away after everything was calm for so long.
    pub stabilization_window: Duration,

    /// The least time between two changes, so that one can show its effect. One pod is added or taken away at a time (guide: scale increment 1).
    pub cooldown: Duration,

    /// What adds a pod.
    pub triggers: ApiTriggers,

    /// Known peaks, for which pods are there beforehand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub schedules: Vec<ScalingSchedule>,
}

impl Default for ApiScaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::Operator,
            min_replicas: 2,
            max_replicas: 10,
            stabilization_window: Duration::from_secs(300),
            cooldown: Duration::from_secs(60),
            triggers: ApiTriggers::default(),
            schedules: Vec::new(),
        }
    }
}

/// What adds a pod to the API: any of these (guide: "API Layer Scaling", triggers).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiTriggers {
    /// CPU of the pods above this share of their limit, else of their request, in percent (guide: 70 %).
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percent: u8,

    /// CPU counts when it was above that for so long without a break (guide: 5 minutes).
    pub cpu_for: Duration,

    /// The response time's 95th percentile above this (guide: 1 second).
    #[serde(rename = "latencyP95")]
    pub latency_p95: Duration,

    /// Answers with a status of 500 and above, in percent of all (guide: 1 %).
    #[schemars(range(min = 1, max = 100))]
    pub error_percent: u8,
}

impl Default for ApiTriggers {
    fn default() -> Self {
        Self {
            cpu_percent: 70,
            cpu_for: Duration::from_secs(300),
            latency_p95: Duration::from_secs(1),
            error_percent: 1,
        }
    }
}

/// How the workers are sized (guide: "Worker Scaling").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "self.minReplicas <= self.maxReplicas",
    "scaling.worker.minReplicas is above maxReplicas; lower it or raise maxReplicas",
)]))]
pub struct WorkerScaling {
    /// Who sets the number of pods.
    pub mode: ScalingMode,

    /// The fewest pods. 0 lets the last worker go when nothing is to be done; the first task brings one back within seconds.
    #[schemars(range(min = 0, max = 100))]
    pub min_replicas: u8,

    /// The most pods.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: u8,

    /// Pods are taken away down to the most that was needed within so long.
    pub stabilization_window: Duration,

    /// The least time between two changes; one changes the number by at most half.
    pub cooldown: Duration,

    /// What adds pods.
    pub triggers: WorkerTriggers,

    /// Known peaks, for which pods are there beforehand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub schedules: Vec<ScalingSchedule>,
}

impl Default for WorkerScaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::Operator,
            min_replicas: 1,
            max_replicas: 20,
            stabilization_window: Duration::from_secs(300),
            cooldown: Duration::from_secs(30),
            triggers: WorkerTriggers::default(),
            schedules: Vec::new(),
        }
    }
}

/// What adds workers: any of these (guide: "Worker Scaling", triggers).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerTriggers {
    /// More tasks than this that could run now. Those that wait for their site do not count: more workers do not help them (guide: 100 tasks).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue_length: u32,

    /// Those tasks have waited longer than this, on average (guide: 30 seconds). It is also the time in which a backlog should be worked off.
    pub wait: Duration,

    /// CPU of the workers with their browsers above this share of their limit, else of their request, in percent (guide: 80 %).
    #[schemars(range(min = 1, max = 100))]
    pub cpu_percent: u8,
}

impl Default for WorkerTriggers {
    fn default() -> Self {
        Self {
            queue_length: 100,
            wait: Duration::from_secs(30),
            cpu_percent: 80,
        }
    }
}

/// A known peak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingSchedule {
    /// When it begins: minute, hour, day, month, weekday, such as "45 7 * * 1-5".
    #[schemars(length(min = 9, max = 100))]
    pub cron: String,

    /// The IANA time zone that cron is read in.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,

    /// How long it lasts.
    pub duration: Duration,

    /// The fewest pods meanwhile; above maxReplicas it counts as that.
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: u8,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What API and workers have, should have, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingStatus {
    /// The API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ScaleStatus>,

    /// The workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<ScaleStatus>,
}

/// Replicas that are wanted and that exist, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleStatus {
    /// How many are wanted.
    #[schemars(range(min = 0))]
    pub desired: i32,

    /// How many exist.
    #[schemars(range(min = 0))]
    pub current: i32,

    /// The last decision that differed from the one before, with what it saw. Absent where the number is fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionStatus>,

    /// The last changes of the number, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<ScaleChange>,
}

/// A decision about a number of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DecisionStatus {
    /// When it was first taken.
    #[schemars(length(max = 64))]
    pub time: String,

    /// The number before.
    #[schemars(range(min = 0))]
    pub from: i32,

    /// The number that was decided.
    #[schemars(range(min = 0))]
    pub to: i32,

    /// The number that the signals alone ask for.
    #[schemars(range(min = 0))]
    pub wanted: i32,

    /// Why, as one CamelCase word.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// Why, for people.
    #[schemars(length(max = 1024))]
    pub message: String,

    /// What was measured, against what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub signals: Vec<SignalStatus>,

    /// What bound the number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub constraints: Vec<ConstraintStatus>,
}

/// One thing that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignalStatus {
    /// Which.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,

    /// Fresh; Idle: measured, and there was nothing to do; or Unknown: a target is missing or silent.
    #[schemars(length(max = 16))]
    pub state: String,

    /// What was measured, with its unit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub value: String,

    /// What it is held against.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub threshold: String,

    /// Whether it is beyond that.
    pub exceeded: bool,

    /// Since when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub since: Option<String>,
}

/// Something that bound a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConstraintStatus {
    /// Which, as one CamelCase word.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,

    /// What it says, for people.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// A change of a number of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleChange {
    /// When.
    #[schemars(length(max = 64))]
    pub time: String,

    /// The number before.
    #[schemars(range(min = 0))]
    pub from: i32,

    /// The number after.
    #[schemars(range(min = 0))]
    pub to: i32,

    /// Why, as one CamelCase word.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// Why, for people.
    #[schemars(length(max = 1024))]
    pub message: String,
}
