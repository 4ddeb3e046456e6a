//! Watching for change: which records are new, changed or gone since the last run, and what becomes of a run whose site has changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a run is compared by with the last one of the same task that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.key) || (!has(self.ignore) && !has(self.report))",
    "message": "watch.ignore and watch.report need watch.key; name the fields that tell one record from another",
}]))]
pub struct Watch {
    /// The fields that tell one record from another, such as its URL or number. With them records are told to be new, changed, gone or the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub key: Vec<String>,

    /// Fields that change all the time and tell nothing, such as a counter of visitors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub ignore: Vec<String>,

    /// What the results of a run hold: all records (without it), or only new and changed ones. Those that are gone are told by the API's changes alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,

    /// What becomes of a run that finds far less than the runs before it: it is marked (without it), or it fails with the class `SchemaDrift`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_drift: Option<OnDrift>,
}

/// What the results of a run hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Report {
    /// Every record.
    All,
    /// Only records that are new or changed; of the first run every one.
    Changes,
}

/// What becomes of a run that has drifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OnDrift {
    /// It succeeds and is marked.
    Warn,
    /// It fails with `SchemaDrift`; what it read stays, and is compared with nothing.
    Fail,
}

impl Watch {
    /// Whether the results hold only what is new or changed.
    pub fn reports_changes_only(&self) -> bool {
        self.report == Some(Report::Changes)
    }

    /// Whether a run that has drifted fails.
    pub fn fails_on_drift(&self) -> bool {
        self.on_drift == Some(OnDrift::Fail)
    }
}
