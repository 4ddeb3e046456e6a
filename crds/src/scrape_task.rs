//! `ScrapeTask`: what to extract, and on which cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
pub use selextract_task::{ConcurrencyPolicy, feed::OnChange};
use selextract_task::{Duration, TaskSpec};
use serde::{Deserialize, Serialize};

use crate::schema::{conditions, rule};

/// What to extract, when and on which cluster.
#[expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn is an attribute of its own"
)]
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "selextract.io",
    version = "v1alpha1",
    kind = "ScrapeTask",
    plural = "scrapetasks",
    shortname = "sxt",
    category = "selextract",
    namespaced,
    status = "ScrapeTaskStatus",
    derive = "PartialEq",
    doc = "What to extract from web pages, when, and on which SelextractCluster. Deleting it cancels its run; results that exist stay in the platform.",
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "The reason of the condition Ready."
    ),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterRef.name",
        description = "The SelextractCluster that runs it."
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Where the newest run stands."
    ),
    printcolumn(
        name = "Waiting",
        type_ = "string",
        json_path = ".status.waiting",
        description = "Why the newest run waits, once that has lasted for a minute."
    ),
    printcolumn(
        name = "Pages",
        type_ = "integer",
        json_path = ".status.pages",
        description = "Pages that the newest run has committed."
    ),
    printcolumn(
        name = "Records",
        type_ = "integer",
        json_path = ".status.records",
        description = "Records that the newest run has committed."
    ),
    printcolumn(
        name = "Next Run",
        type_ = "string",
        json_path = ".status.nextRunTime",
        description = "When the schedule runs next.",
        priority = 1
    ),
    printcolumn(
        name = "Error",
        type_ = "string",
        json_path = ".status.error.class",
        description = "Why the newest run failed.",
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
#[serde(rename_all = "camelCase")]
pub struct ScrapeTaskSpec {
    /// The SelextractCluster that runs it. It cannot change.
    #[schemars(extend("x-kubernetes-validations" = [rule(
        "self == oldSelf",
        "clusterRef cannot change; create a second ScrapeTask for the other cluster",
    )]))]
    pub cluster_ref: ClusterRef,

    /// What to extract. A change starts a new run; with a schedule it holds from the next tick. onChange says what becomes of a run that is under way.
    pub task: TaskSpec,

    /// Where task.credentials are: Api, stored for the owner k8s:<namespace> by the API; or Secret, in the Secret of that name and of type selextract.io/credentials in this namespace, which the operator hands to the cluster and follows.
    #[serde(default)]
    pub credentials_from: CredentialsFrom,

    /// Which of the namespace's tasks go first: 9 first, 0 last.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 9))]
    pub priority: u8,

    /// No new run starts while it is set; a run that is under way goes on.
    #[serde(default)]
    pub suspend: bool,

    /// When it runs. Without one it runs once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,

    /// What a changed task does to a run of the old one that is under way, with or without a schedule: Replace cancels it and starts the new one at once, Forbid refuses the change until the run has ended. While suspend is set the run goes on.
    #[serde(default)]
    pub on_change: OnChange,

    /// How long a finished run and its results are kept, such as 24h. Of the newest run its state stays. Without it they are kept as long as the cluster keeps any (spec.keeper.retention).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Duration>,

    /// How many succeeded runs are kept with their results; the newest run always stays. Without it their number is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub successful_runs_history_limit: Option<u32>,

    /// How many failed and canceled runs are kept with their results; the newest run always stays. Without it their number is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub failed_runs_history_limit: Option<u32>,
}

/// Where credentials are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialsFrom {
    /// In the cluster's API.
    #[default]
    Api,
    /// In a Secret of the namespace.
    Secret,
}

fn default_priority() -> u8 {
    5
}

/// A `SelextractCluster`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 30), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Its namespace, which must admit this one in allowedNamespaces. Without it, the ScrapeTask's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// When a task runs again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// A cron expression of five fields: minute, hour, day of the month, month, day of the week.
    #[schemars(length(min = 9, max = 100), regex(pattern = "^\\S+(\\s+\\S+){4}$"))]
    pub cron: String,

    /// An IANA time zone, such as Europe/Berlin.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][-+_/A-Za-z0-9]*$"))]
    pub time_zone: String,

    /// What a tick does while a run is under way: Forbid waits for its end until the starting deadline, Replace cancels it and starts another one, Allow starts another one beside it.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,

    /// How late a tick may start its run, after a pause of the platform or behind a run that is under way: 10s to 7d, without it 10m. A later one is missed. Of several missed ticks at most the newest starts a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline: Option<Duration>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What became of it: accepted by its cluster (the condition Ready), and the newest run (the condition Succeeded).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScrapeTaskStatus {
    /// The generation of the spec that this status speaks of; -1 before the operator has looked at it.
    pub observed_generation: i64,

    /// Ready (accepted and valid), Reconciling and Stalled, of which exactly one is True; Succeeded is the outcome of the newest run, Unknown while it is under way; SchemaDrift is True when it found far less than the runs before it; TickHeld is there while a tick of the schedule waits for a quota.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,

    /// The newest run's id, as in the API's paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub run_id: Option<String>,

    /// The hash of the task that the newest run runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub spec_hash: Option<String>,

    /// Where the newest run stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,

    /// Why the newest run waits, once that has lasted for a minute: DomainLimited, HostUnavailable, QuotaExceeded, NoWorker, Paused, RetryBackoff.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub waiting: Option<String>,

    /// What the newest run that could be compared found far less of than the runs before it, such as field price; empty when nothing drifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65), inner(length(max = 128)), extend("x-kubernetes-list-type" = "atomic"))]
    pub drift: Option<Vec<String>>,

    /// Pages that the newest run has committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pages: Option<i64>,

    /// Records that the newest run has committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub records: Option<i64>,

    /// Why the newest run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<LastError>,

    /// When the newest run was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub created_at: Option<String>,

    /// When the newest run started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub started_at: Option<String>,

    /// When the newest run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub finished_at: Option<String>,

    /// When the schedule runs next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub next_run_time: Option<String>,

    /// The first records of the newest finished run, as a JSON array that may be cut short to whole records.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub preview: Option<String>,

    /// Where all results are: a path of the cluster's API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub results: Option<String>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunState {
    /// Accepted, waits for a worker or for a retry.
    Pending,
    /// A worker holds it.
    Running,
    /// Every page was read.
    Succeeded,
    /// It ended with an error; what was committed stays.
    Failed,
    /// Somebody ended it.
    Canceled,
}

impl From<selextract_task::feed::RunState> for RunState {
    fn from(state: selextract_task::feed::RunState) -> Self {
        use selextract_task::feed::RunState as Feed;
        match state {
            Feed::Pending => Self::Pending,
            Feed::Running => Self::Running,
            Feed::Succeeded => Self::Succeeded,
            Feed::Failed => Self::Failed,
            Feed::Canceled => Self::Canceled,
        }
    }
}

/// Why a run failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// A stable word, such as Timeout or NoRecords.
    #[schemars(length(max = 64))]
    pub class: String,

    /// One sentence for people.
    #[schemars(length(max = 1024))]
    pub message: String,
}
