//! The objectives beside availability, and the levels that they are at (guide: "Key Performance Metrics", "Performance Budgets"). Pure.

use std::time::Duration;

use selextract_crds::ObjectiveStatus;

use super::text;
use crate::{
    monitoring::queries::{Query, Unit, api, resources, stores, work},
    validated::{Levels, Slo},
};

/// How well an objective is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is known.
    Unknown,
    /// Within the target.
    Met,
    /// Beyond the target.
    Missed,
    /// Beyond the warning.
    Warning,
    /// Beyond the critical figure.
    Critical,
}

impl Level {
    /// The level of a value that should be small, by target, warning and critical. A hair's breadth beyond is not beyond.
    pub fn of(value: f64, levels: Levels) -> Self {
        let beyond = |level: f64| value > level + level.abs() * 1e-9;
        match levels.map(beyond) {
            _ if !value.is_finite() => Self::Unknown,
            [_, _, true] => Self::Critical,
            [_, true, _] => Self::Warning,
            [true, ..] => Self::Missed,
            _ => Self::Met,
        }
    }

    /// As in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Met => "Met",
            Self::Missed => "Missed",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
        }
    }

    /// As a metric's value: 0 is Met, 3 is Critical; `None` while unknown.
    pub fn number(text: &str) -> Option<f64> {
        match text {
            "Met" => Some(0.0),
            "Missed" => Some(1.0),
            "Warning" => Some(2.0),
            "Critical" => Some(3.0),
            _ => None,
        }
    }
}

/// Something that the platform should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Objective {
    /// API Response Time (P95).
    ResponseTimeP95,
    /// API Response Time (P99).
    ResponseTimeP99,
    /// Error Rate.
    ErrorRate,
    /// Task Processing Time.
    TaskProcessing,
    /// Database Query Time (P95).
    DatabaseQuery,
    /// Redis Operations (P95).
    Redis,
    /// Worker Queue Latency.
    QueueWait,
    /// User Login.
    Login,
    /// Dashboard Load.
    Dashboard,
    /// Task Creation.
    TaskCreation,
    /// Task Results.
    TaskResults,
    /// CPU Usage.
    Cpu,
    /// Memory Usage.
    Memory,
    /// Disk Usage.
    Disk,
    /// Network Bandwidth.
    Network,
}

impl Objective {
    /// Every objective: Key Performance Metrics, Response Time Budget, Resource Budget.
    pub const ALL: [Self; 15] = [
        Self::ResponseTimeP95,
        Self::ResponseTimeP99,
        Self::ErrorRate,
        Self::TaskProcessing,
        Self::DatabaseQuery,
        Self::Redis,
        Self::QueueWait,
        Self::Login,
        Self::Dashboard,
        Self::TaskCreation,
        Self::TaskResults,
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Network,
    ];

    /// What those with a range are measured over.
    pub const WINDOW: Duration = Duration::from_hours(1);

    /// As in the status, and as the field of its levels is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ResponseTimeP95 => "responseTimeP95",
            Self::ResponseTimeP99 => "responseTimeP99",
            Self::ErrorRate => "errorRate",
            Self::TaskProcessing => "taskProcessing",
            Self::DatabaseQuery => "databaseQuery",
            Self::Redis => "redis",
            Self::QueueWait => "queueWait",
            Self::Login => "login",
            Self::Dashboard => "dashboard",
            Self::TaskCreation => "taskCreation",
            Self::TaskResults => "taskResults",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Network => "network",
        }
    }

    /// What is asked over [`Self::WINDOW`]. Of several answers for a cluster (components, pods, volumes, queue and cache) the greatest counts.
    pub const fn query(self) -> Query {
        match self {
            Self::ResponseTimeP95 => api::RESPONSE_P95,
            Self::ResponseTimeP99 => api::RESPONSE_P99,
            Self::ErrorRate => api::ERROR_RATIO,
            Self::TaskProcessing => work::TASK_P95,
            Self::DatabaseQuery => stores::QUERY_P95,
            Self::Redis => stores::REDIS_P95,
            Self::QueueWait => work::BACKLOG_WAIT,
            Self::Login => api::LOGIN_P95,
            Self::Dashboard => api::DASHBOARD_P95,
            Self::TaskCreation => api::TASK_CREATION_P95,
            Self::TaskResults => api::TASK_RESULTS_P95,
            Self::Cpu => resources::CPU_RATIO,
            Self::Memory => resources::MEMORY_RATIO,
            Self::Disk => resources::STORAGE_RATIO,
            Self::Network => resources::NETWORK_BUSIEST,
        }
    }

    /// Target, warning and critical.
    pub fn levels(self, slo: &Slo) -> Levels {
        let thresholds = &slo.thresholds;
        match self {
            Self::ResponseTimeP95 => slo.response_time_p95,
            Self::ResponseTimeP99 => slo.response_time_p99,
            Self::ErrorRate => thresholds.error_rate,
            Self::TaskProcessing => thresholds.task_processing,
            Self::DatabaseQuery => thresholds.database_query,
            Self::Redis => thresholds.redis,
            Self::QueueWait => thresholds.queue_wait,
            Self::Login => thresholds.login,
            Self::Dashboard => thresholds.dashboard,
            Self::TaskCreation => thresholds.task_creation,
            Self::TaskResults => thresholds.task_results,
            Self::Cpu => thresholds.cpu,
            Self::Memory => slo.memory,
            Self::Disk => thresholds.disk,
            Self::Network => thresholds.network,
        }
    }

    /// What the status says about an answer of its query.
    pub fn status(self, slo: &Slo, answer: Option<f64>) -> ObjectiveStatus {
        let levels = self.levels(slo);
        let value = answer.filter(|value| value.is_finite() && *value >= 0.0);
        let value = value.and_then(|value| self.held(slo, value));
        let text = |value: f64| match self.query().unit {
            Unit::Seconds => text::seconds(value),
            _ => text::share(value),
        };
        ObjectiveStatus {
            name: self.as_str().to_owned(),
            value: value.map(text),
            target: text(levels[0]),
            level: value
                .map_or(Level::Unknown, |value| Level::of(value, levels))
                .as_str()
                .to_owned(),
        }
    }

    /// The network is a share of what it carries.
    fn held(self, slo: &Slo, value: f64) -> Option<f64> {
        if self != Self::Network {
            return Some(value);
        }
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits of it")]
        let most = slo.network_bytes as f64;
        (most > 0.0).then(|| value / most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::observe::tests::production;

    #[test]
    fn the_guides_figures_give_the_levels() {
        let slo = production();
        for (objective, value, level) in [
            (Objective::ResponseTimeP95, 0.5, Level::Met),
            (Objective::ResponseTimeP95, 0.51, Level::Missed),
            (Objective::ResponseTimeP95, 1.1, Level::Warning),
            (Objective::ResponseTimeP95, 2.1, Level::Critical),
            (Objective::ResponseTimeP99, 1.5, Level::Missed),
            (Objective::ErrorRate, 0.0012, Level::Missed),
            (Objective::TaskProcessing, 61.0, Level::Warning),
            (Objective::DatabaseQuery, 0.09, Level::Met),
            (Objective::Redis, 0.06, Level::Warning),
            (Objective::QueueWait, 61.0, Level::Critical),
            (Objective::Login, 0.6, Level::Warning),
            (Objective::Dashboard, 2.5, Level::Critical),
            (Objective::TaskCreation, 0.4, Level::Met),
            (Objective::TaskResults, 1.6, Level::Critical),
            (Objective::Cpu, 0.81, Level::Warning),
            (Objective::Memory, 0.86, Level::Warning),
            (Objective::Disk, 0.71, Level::Missed),
            (Objective::Network, 63e6, Level::Missed),
        ] {
            let status = objective.status(&slo, Some(value));
            assert_eq!(status.level, level.as_str(), "{objective:?} at {value}");
        }
    }

    #[test]
    fn what_is_not_known_is_unknown_and_never_met() {
        for answer in [None, Some(f64::NAN), Some(f64::INFINITY), Some(-1.0)] {
            for objective in Objective::ALL {
                let status = objective.status(&production(), answer);
                assert_eq!((status.value, status.level.as_str()), (None, "Unknown"));
            }
        }
    }

    #[test]
    fn values_are_written_in_their_unit_beside_their_target() {
        let status = Objective::ResponseTimeP95.status(&production(), Some(0.534));
        assert_eq!(
            (status.value.as_deref(), status.target.as_str()),
            (Some("534ms"), "500ms")
        );
        let status = Objective::Network.status(&production(), Some(62.5e6));
        assert_eq!((status.value.as_deref(), status.target.as_str()), (Some("50%"), "50%"));
    }
}
