//! From which values on alerts fire: the guide's figures, as defaults on leaves. The only place of these figures.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use selextract_task::Duration;
use serde::{Deserialize, Serialize};

/// A share of a whole, written like 5% or 0.1%.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(String);

impl Percent {
    /// A share of this text, which is not checked.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In millionths: 5% is 50,000. `None` when the text is no share.
    pub fn millionths(&self) -> Option<u32> {
        let number = self.0.strip_suffix('%')?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let fits = (1..=4).contains(&whole.len()) && fraction.len() <= 4 && digits(whole) && digits(fraction);
        if !fits || number.ends_with('.') {
            return None;
        }
        format!("{whole}{fraction:0<4}").parse().ok()
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{1,4}(\\.[0-9]{1,4})?%$", "maxLength": 10 })
    }
}

/// Three thresholds of one kind: beyond the target is info, beyond the others what they are called.
macro_rules! levels {
    ($(#[$doc:meta])* $name:ident: $kind:ty = $target:expr, $warning:expr, $critical:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            /// Beyond it an alert of severity info fires.
            pub target: $kind,

            /// Beyond it an alert of severity warning fires.
            pub warning: $kind,

            /// Beyond it an alert of severity critical fires.
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

fn percent(text: &str) -> Percent {
    Percent::new(text)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

levels! {
    /// API error rate: warning and critical of the guide's "Alerting Strategy", target of its "Key Performance Metrics".
    ErrorRateLevels: Percent = percent("0.1%"), percent("1%"), percent("5%")
}
levels! {
    /// API response time (P95): warning and critical of the guide's "Alerting Strategy", target of its "Key Performance Metrics".
    ResponseTimeLevels: Duration = millis(500), millis(2_000), millis(5_000)
}
levels! {
    /// User Login (guide: "Response Time Budget").
    LoginLevels: Duration = millis(200), millis(500), millis(1_000)
}
levels! {
    /// Dashboard Load (guide: "Response Time Budget").
    DashboardLevels: Duration = millis(300), millis(800), millis(2_000)
}
levels! {
    /// Task Creation (guide: "Response Time Budget").
    TaskCreationLevels: Duration = millis(500), millis(1_000), millis(3_000)
}
levels! {
    /// Task Results (guide: "Response Time Budget").
    TaskResultsLevels: Duration = millis(200), millis(600), millis(1_500)
}
levels! {
    /// Task Processing Time (guide: "Key Performance Metrics").
    TaskProcessingLevels: Duration = millis(30_000), millis(60_000), millis(120_000)
}
levels! {
    /// Database Query Time, P95 (guide: "Key Performance Metrics").
    DatabaseQueryLevels: Duration = millis(100), millis(500), millis(1_000)
}
levels! {
    /// Redis Operations, P95 (guide: "Key Performance Metrics").
    RedisLevels: Duration = millis(10), millis(50), millis(100)
}
levels! {
    /// Worker Queue Latency (guide: "Key Performance Metrics").
    QueueWaitLevels: Duration = millis(5_000), millis(30_000), millis(60_000)
}
levels! {
    /// CPU Usage (guide: "Resource Budget").
    CpuLevels: Percent = percent("60%"), percent("80%"), percent("95%")
}
levels! {
    /// Memory Usage: the warning of the guide's "Alerting Strategy" (its "Resource Budget" says 85 %), target and critical of its "Resource Budget".
    MemoryLevels: Percent = percent("70%"), percent("90%"), percent("95%")
}
levels! {
    /// Disk Usage (guide: "Alerting Strategy" and "Resource Budget").
    DiskLevels: Percent = percent("70%"), percent("85%"), percent("95%")
}
levels! {
    /// Network Bandwidth (guide: "Resource Budget").
    NetworkLevels: Percent = percent("50%"), percent("80%"), percent("95%")
}
levels! {
    /// The share of the database's connections that are taken; the guide names the query and no figure, so these are those of its "Resource Budget" for memory.
    ConnectionLevels: Percent = percent("70%"), percent("85%"), percent("95%")
}
levels! {
    /// How far a read replica is behind; critical is the guide's "Eventual consistency" of five minutes.
    ReplicationLagLevels: Duration = millis(10_000), millis(60_000), millis(300_000)
}

/// From which values on alerts fire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ThresholdsSpec {
    /// The share of requests answered with 5xx (guide: "Alerting Strategy").
    pub error_rate: ErrorRateLevels,

    /// API response time, P95 (guide: "Alerting Strategy").
    pub response_time: ResponseTimeLevels,

    /// Signing in, P95 (guide: "Response Time Budget").
    pub login: LoginLevels,

    /// Loading the dashboard, P95 (guide: "Response Time Budget").
    pub dashboard: DashboardLevels,

    /// Creating a task, P95 (guide: "Response Time Budget").
    pub task_creation: TaskCreationLevels,

    /// Reading results, P95 (guide: "Response Time Budget").
    pub task_results: TaskResultsLevels,

    /// Working through a task, P95 (guide: "Key Performance Metrics").
    pub task_processing: TaskProcessingLevels,

    /// Database Query Time, P95 (guide: "Key Performance Metrics").
    pub database_query: DatabaseQueryLevels,

    /// Redis Operations, P95 (guide: "Key Performance Metrics").
    pub redis: RedisLevels,

    /// Mean wait of what a worker could begin (guide: "Key Performance Metrics").
    pub queue_wait: QueueWaitLevels,

    /// CPU of a component (guide: "Resource Budget").
    pub cpu: CpuLevels,

    /// Memory of a pod (guide: "Alerting Strategy", "Resource Budget").
    pub memory: MemoryLevels,

    /// A volume (guide: "Alerting Strategy", "Resource Budget").
    pub disk: DiskLevels,

    /// The network of a pod (guide: "Resource Budget").
    pub network: NetworkLevels,

    /// Connections of the database (guide: "Prometheus Queries").
    pub database_connections: ConnectionLevels,

    /// How far read replicas are behind (guide: "Data Consistency").
    pub replication_lag: ReplicationLagLevels,

    /// Tasks that wait for a worker, for the info "Task queue backlogs" (guide: "Worker Scaling", Queue length > 100 tasks).
    #[schemars(range(min = 1))]
    pub backlog: u32,

    /// By how much response times may grow over a week before it is told (guide: "Pre-deployment Checks").
    pub response_time_increase: Percent,

    /// By how much CPU and memory of a pod may grow over a week before it is told (guide: "Pre-deployment Checks").
    pub resource_increase: Percent,

    /// API to database, P95 of a probe (guide: "Internal Communication").
    pub api_to_database: Duration,

    /// API to Redis, P95 of a probe (guide: "Internal Communication").
    pub api_to_redis: Duration,

    /// Worker to queue, P95 of a probe (guide: "Internal Communication").
    pub worker_to_queue: Duration,
}

impl Default for ThresholdsSpec {
    fn default() -> Self {
        Self {
            error_rate: ErrorRateLevels::default(),
            response_time: ResponseTimeLevels::default(),
            login: LoginLevels::default(),
            dashboard: DashboardLevels::default(),
            task_creation: TaskCreationLevels::default(),
            task_results: TaskResultsLevels::default(),
            task_processing: TaskProcessingLevels::default(),
            database_query: DatabaseQueryLevels::default(),
            redis: RedisLevels::default(),
            queue_wait: QueueWaitLevels::default(),
            cpu: CpuLevels::default(),
            memory: MemoryLevels::default(),
            disk: DiskLevels::default(),
            network: NetworkLevels::default(),
            database_connections: ConnectionLevels::default(),
            replication_lag: ReplicationLagLevels::default(),
            backlog: 100,
            response_time_increase: percent("10%"),
            resource_increase: percent("20%"),
            api_to_database: millis(5),
            api_to_redis: millis(1),
            worker_to_queue: millis(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_in_millionths() {
        for (text, millionths) in [
            ("5%", 50_000),
            ("0.1%", 1_000),
            ("100%", 1_000_000),
            ("12.34%", 123_400),
        ] {
            assert_eq!(percent(text).millionths(), Some(millionths), "{text}");
        }
        for text in ["", "%", "5", "-1%", "1.%", "5.00001%", "x%"] {
            assert_eq!(percent(text).millionths(), None, "{text}");
        }
    }

    #[test]
    fn no_default_is_beyond_the_next_worse() {
        let all = ThresholdsSpec::default();
        for levels in [
            all.error_rate.all(),
            all.cpu.all(),
            all.memory.all(),
            all.disk.all(),
            all.network.all(),
        ] {
            assert!(
                levels.map(|level| level.millionths().unwrap()).is_sorted(),
                "{levels:?}"
            );
        }
        for levels in [
            all.login.all(),
            all.dashboard.all(),
            all.task_creation.all(),
            all.task_results.all(),
        ] {
            assert!(levels.map(|level| level.get()).is_sorted(), "{levels:?}");
        }
    }
}
