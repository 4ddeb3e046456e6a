//! What the platform promises (`spec.slo`) and how it keeps it (`status.slo`). Objectives that are the alerts' thresholds too stand in `thresholds` alone.

use schemars::JsonSchema;
use selextract_task::Duration;
use serde::{Deserialize, Serialize};

use crate::Percent;

/// What the platform promises (guide: "SLA and Performance Targets").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SloSpec {
    /// The availability that is promised: Production 99.9 %, Staging 99 %, Development none (guide: "Availability Targets").
    pub profile: SloProfile,

    /// The objectives. Those that are not here are held against monitoring.alerts.thresholds, which have the guide's figures.
    pub targets: SloTargets,
}

/// The availability that is promised (guide: "Availability Targets").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SloProfile {
    /// 99.9 %: 43.2 minutes in 30 days.
    #[default]
    Production,
    /// 99 %: 7.2 hours in 30 days.
    Staging,
    /// Best effort: availability is told and held against nothing.
    Development,
}

/// Three levels of one objective.
macro_rules! objective {
    ($(#[$doc:meta])* $name:ident: $kind:ty = $target:expr, $warning:expr, $critical:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            /// Beyond it the objective is Missed.
            pub target: $kind,

            /// Beyond it the objective is at Warning.
            pub warning: $kind,

            /// Beyond it the objective is at Critical.
            pub critical: $kind,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { target: $target, warning: $warning, critical: $critical }
            }
        }

        impl $name {
            /// Target, warning, critical.
            pub fn all(&self) -> [&$kind; 3] {
                [&self.target, &self.warning, &self.critical]
            }
        }
    };
}

objective! {
    /// API Response Time, P95 (guide: "Key Performance Metrics"); the alerts keep the figures of the guide's "Alerting Strategy".
    ObjectiveP95: Duration = Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)
}
objective! {
    /// API Response Time, P99 (guide: "Key Performance Metrics").
    ObjectiveP99: Duration = Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)
}
objective! {
    /// Memory Usage (guide: "Resource Budget"); the alerts keep the warning of the guide's "Alerting Strategy".
    ObjectiveMemory: Percent = Percent::new("70%"), Percent::new("85%"), Percent::new("95%")
}

/// The levels of availability (guide: "Key Performance Metrics").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectiveAvailability {
    /// Below it the objective is Missed. Without it the profile gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Percent>,

    /// Below it, and below the target, the objective is at Warning.
    pub warning: Percent,

    /// Below it, and below the target, the objective is at Critical.
    pub critical: Percent,
}

impl Default for ObjectiveAvailability {
    fn default() -> Self {
        Self {
            target: None,
            warning: Percent::new("99.5%"),
            critical: Percent::new("99%"),
        }
    }
}

/// The objectives that differ from the alerts' thresholds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SloTargets {
    /// Availability over 30 days (guide: "Key Performance Metrics", "Availability Targets").
    pub availability: ObjectiveAvailability,

    /// API Response Time, P95 (guide: "Key Performance Metrics").
    pub response_time_p95: ObjectiveP95,

    /// API Response Time, P99 (guide: "Key Performance Metrics").
    pub response_time_p99: ObjectiveP99,

    /// Memory of a pod (guide: "Resource Budget").
    pub memory: ObjectiveMemory,

    /// How soon the API is back after an outage (guide: "Recovery Time").
    pub recovery_time: Duration,
}

impl Default for SloTargets {
    fn default() -> Self {
        Self {
            availability: ObjectiveAvailability::default(),
            response_time_p95: ObjectiveP95::default(),
            response_time_p99: ObjectiveP99::default(),
            memory: ObjectiveMemory::default(),
            recovery_time: Duration::from_secs(900),
        }
    }
}

/// How the promises are kept. It is written once an hour, and when a level or an outage changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SloStatus {
    /// When it was written.
    #[schemars(length(max = 64))]
    pub time: String,

    /// Since when the API answers, as far as it is known; absent during an outage.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub up_since: Option<String>,

    /// Availability over 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<AvailabilityStatus>,

    /// How fast the error budget is spent; 1 spends all of it in 30 days. A window of which nothing is known is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["window"]))]
    pub burn_rates: Vec<BurnRateStatus>,

    /// The other objectives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub objectives: Vec<ObjectiveStatus>,

    /// The last outages of the API, newest first; one without an end is under way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub outages: Vec<OutageStatus>,
}

/// Availability over 30 days, and what is left of the error budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AvailabilityStatus {
    /// What is promised; absent with the profile Development.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub target: Option<String>,

    /// The share of requests that were not answered with 5xx; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub requests: Option<String>,

    /// The share of the time in which the API answered; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub time: Option<String>,

    /// How much of the 30 days was measured; absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub measured: Option<String>,

    /// Met, Missed, Warning, Critical or Unknown, of the worse of the two shares.
    #[schemars(length(max = 16))]
    pub level: String,

    /// Minutes that the API may be down in 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub budget_minutes: Option<String>,

    /// Minutes of those that are left; below 0 they are overspent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub budget_left_minutes: Option<String>,

    /// The share of the budget that is left, by the worse of the two shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub budget_left: Option<String>,
}

/// How fast the error budget is spent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BurnRateStatus {
    /// The window that was looked at: 5m, 30m, 1h, 6h or 3d.
    #[schemars(length(min = 1, max = 16))]
    pub window: String,

    /// Budgets in 30 days, at this pace.
    #[schemars(length(max = 32))]
    pub rate: String,
}

/// One objective.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectiveStatus {
    /// Which, such as responseTimeP95.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// What was measured over the last hour; absent while unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub value: Option<String>,

    /// What it is held against.
    #[schemars(length(max = 32))]
    pub target: String,

    /// Met, Missed (beyond the target), Warning, Critical or Unknown.
    #[schemars(length(max = 16))]
    pub level: String,
}

/// An outage of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutageStatus {
    /// When it was first seen.
    #[schemars(length(max = 64))]
    pub start: String,

    /// When the API was first seen to be back; absent while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub end: Option<String>,

    /// From start to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub duration: Option<String>,

    /// Whether it was over within targets.recoveryTime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_target: Option<bool>,

    /// NotReady: no API pod was ready. NotAnswering: none answered Prometheus, or all requests were answered with 5xx.
    #[schemars(length(max = 32))]
    pub reason: String,
}
