//! From which values on alerts fire, as numbers: seconds and shares of 1. Pure.

use selextract_crds::{Percent, ThresholdsSpec};
use selextract_task::Duration;

use super::check::Check;

/// Target, warning and critical, in seconds or as a share of 1.
pub type Levels = [f64; 3];

/// From which values on alerts fire; each is documented in the spec.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "ThresholdsSpec documents each, by the same name")]
pub struct Thresholds {
    pub error_rate: Levels,
    pub response_time: Levels,
    pub login: Levels,
    pub dashboard: Levels,
    pub task_creation: Levels,
    pub task_results: Levels,
    pub task_processing: Levels,
    pub database_query: Levels,
    pub redis: Levels,
    pub queue_wait: Levels,
    pub cpu: Levels,
    pub memory: Levels,
    pub disk: Levels,
    pub network: Levels,
    pub database_connections: Levels,
    pub replication_lag: Levels,
    pub backlog: f64,
    pub response_time_increase: f64,
    pub resource_increase: f64,
    pub api_to_database: f64,
    pub api_to_redis: f64,
    pub worker_to_queue: f64,
}

impl Check {
    pub(super) fn thresholds(&mut self, spec: &ThresholdsSpec) -> Thresholds {
        Thresholds {
            error_rate: self.shares("errorRate", spec.error_rate.all()),
            response_time: self.times("responseTime", spec.response_time.all()),
            login: self.times("login", spec.login.all()),
            dashboard: self.times("dashboard", spec.dashboard.all()),
            task_creation: self.times("taskCreation", spec.task_creation.all()),
            task_results: self.times("taskResults", spec.task_results.all()),
            task_processing: self.times("taskProcessing", spec.task_processing.all()),
            database_query: self.times("databaseQuery", spec.database_query.all()),
            redis: self.times("redis", spec.redis.all()),
            queue_wait: self.times("queueWait", spec.queue_wait.all()),
            cpu: self.shares("cpu", spec.cpu.all()),
            memory: self.shares("memory", spec.memory.all()),
            disk: self.shares("disk", spec.disk.all()),
            network: self.shares("network", spec.network.all()),
            database_connections: self.shares("databaseConnections", spec.database_connections.all()),
            replication_lag: self.times("replicationLag", spec.replication_lag.all()),
            backlog: f64::from(spec.backlog),
            response_time_increase: self.share(&field("responseTimeIncrease"), &spec.response_time_increase),
            resource_increase: self.share(&field("resourceIncrease"), &spec.resource_increase),
            api_to_database: spec.api_to_database.get().as_secs_f64(),
            api_to_redis: spec.api_to_redis.get().as_secs_f64(),
            worker_to_queue: spec.worker_to_queue.get().as_secs_f64(),
        }
    }

    fn shares(&mut self, name: &str, levels: [&Percent; 3]) -> Levels {
        let texts = levels.map(Percent::as_str).join(", ");
        let levels = levels.map(|level| self.share(&field(name), level));
        self.ascending(name, texts, levels)
    }

    fn times(&mut self, name: &str, levels: [&Duration; 3]) -> Levels {
        let texts = levels.map(ToString::to_string).join(", ");
        self.ascending(name, texts, levels.map(|level| level.get().as_secs_f64()))
    }

    fn ascending(&mut self, name: &str, texts: String, levels: Levels) -> Levels {
        if !levels.is_sorted() {
            let cure = "target, warning and critical must not fall in this order; raise the later ones or lower the earlier ones";
            self.refuse("InvalidThreshold", &field(name), texts, cure);
        }
        levels
    }
}

fn field(name: &str) -> String {
    format!("spec.monitoring.alerts.thresholds.{name}")
}
