//! What the operator and the API of a cluster say to each other on the API's internal listener, as JSON.
//!
//! The operator upserts every `ScrapeTask` in bulk and follows one change feed per cluster. Both ends read leniently.

pub mod credentials;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ConcurrencyPolicy, Duration, TaskSpec};

/// The most items in one [`Upserts`] or [`Removals`], and the most changes in one [`Changes`].
pub const MAX_ITEMS: usize = 500;

/// The most records in [`Run::preview`].
pub const PREVIEW_RECORDS: usize = 3;

/// The body of `PUT /internal/v1/scrape-tasks`: at most [`MAX_ITEMS`] items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upserts {
    /// The tasks as they should be. Those that are not named stay as they are.
    pub items: Vec<Upsert>,
}

/// One `ScrapeTask` as its cluster should know it. Idempotent: the same item twice changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upsert {
    /// `metadata.uid`: the identity. A name is not one.
    pub uid: String,
    /// `metadata.namespace`; the owner is `k8s:<namespace>`.
    pub namespace: String,
    /// `metadata.name`, for people.
    pub name: String,
    /// A hash of the canonical [`TaskSpec`]: a one-shot whose key changed is a new run, per [`Upsert::on_change`]; a schedule runs the new
    /// spec from its next tick.
    pub spec_hash: String,
    /// What to extract.
    pub task: TaskSpec,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// No new run starts while it is set; a run that is under way goes on.
    pub suspend: bool,
    /// When it runs. Without one it runs once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What a changed spec does to a run that is under way.
    pub on_change: OnChange,
    /// How long a finished run and its results are kept; without it as long as the platform keeps any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Duration>,
    /// How many succeeded runs are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successful_runs_history_limit: Option<u32>,
    /// How many failed and canceled runs are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_runs_history_limit: Option<u32>,
}

/// When a task runs again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// A cron expression of five fields.
    pub cron: String,
    /// An IANA time zone name.
    pub time_zone: String,
    /// What a tick does while a run is under way.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// How late a tick may start its run; without it ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline: Option<Duration>,
}

/// What a changed spec does to a run of the old one that is under way, with or without a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum OnChange {
    /// The run is canceled and one of the new spec starts at once.
    #[default]
    Replace,
    /// The change is refused until the run has ended.
    Forbid,
}

/// The answer to [`Upserts`]: one answer for each item, in the same order. An item that could not be stored has none; it is to be sent
/// again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpsertAnswers {
    /// In the order of the items.
    pub items: Vec<UpsertAnswer>,
}

/// What became of one [`Upsert`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpsertAnswer {
    /// The item's uid.
    pub uid: String,
    /// The newest run, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// When the schedule runs next, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<String>,
    /// Why the schedule's tick that is due waits, as one sentence with figures: its owner has used up a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Why the item was refused, as one sentence that names the field, the value and the cure. `None` when it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// It was refused for a quota that is used up, and is to be sent again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quota_exceeded: bool,
}

/// The body of `POST /internal/v1/scrape-tasks/remove`: their runs are canceled, their schedules end, their results stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removals {
    /// `metadata.uid` of each.
    pub uids: Vec<String>,
}

/// The answer to `GET /internal/v1/scrape-tasks?after=UID`: what the ledger knows, by uid, at most [`MAX_ITEMS`]; the last page is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTasks {
    /// In the order of their uids.
    pub items: Vec<KnownTask>,
}

/// One `ScrapeTask` that the ledger knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTask {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// The answer to `GET /internal/v1/changes?after=N&waitSeconds=S`, held until there is a change or the wait is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// In the order in which they became visible; at most one per uid (the newest).
    pub changes: Vec<Change>,
    /// What to send as `after` next time. It never goes back.
    pub next: i64,
}

/// A run of a `ScrapeTask` was accepted, started or finished, or a tick of its schedule begins or ends to wait for a quota.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// `metadata.uid` of the `ScrapeTask`.
    pub uid: String,
    /// The run as it is now.
    pub run: Run,
    /// When the schedule runs next, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<String>,
    /// Why the schedule's tick that is due waits, as one sentence with figures: its owner has used up a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

/// One run, as the operator mirrors it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The task's id in the ledger (`UUIDv7`), as in the API's paths.
    pub id: String,
    /// The hash of the spec that it runs, as in [`Upsert::spec_hash`].
    pub spec_hash: String,
    /// Where it stands.
    pub state: RunState,
    /// Pages committed.
    pub pages: u64,
    /// Records committed.
    pub records: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// The first records, at most [`PREVIEW_RECORDS`], only when it has finished.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preview: Vec<Map<String, Value>>,
    /// Why it waits, once that has lasted for a minute: a stable word such as `HostUnavailable`, as in the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// What drifted, when it has ended: names such as `field price`; empty when nothing did, and none while there is too little to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Vec<String>>,
}

/// Where a run stands; the texts are those of the ledger and of the guide's index `idx_tasks_active`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Accepted, waits for a worker (or for a retry).
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

impl RunState {
    /// As in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether it can still change.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    /// Reads a text of the ledger.
    pub fn from_ledger(text: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Running,
            Self::Succeeded,
            Self::Failed,
            Self::Canceled,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// A stable CamelCase word, such as `HttpStatus`, `Timeout`, `NoRecords`, `EgressRefused`, `AttemptsExhausted`.
    pub class: String,
    /// One sentence for people.
    pub message: String,
}
