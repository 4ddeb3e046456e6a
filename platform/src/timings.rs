//! How long a program waits for PostgreSQL and Redis, and how many connections its pools have.
//!
//! Made before the logs, beside which [`Timings::statements_layer`] hears of each statement; who opens a store is given them; registered where the
//! program has its registry. What is opened without them is not measured.

mod statements;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use selextract_telemetry::SHORT_SECONDS;
use sqlx::PgPool;
use statements::Statements;
use tracing::Subscriber;
use tracing_subscriber::{Layer, registry::LookupSpan};

/// What a program waits for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Timings {
    statements: HistogramVec,
    acquiring: Histogram,
    operations: HistogramVec,
    round_trips: HistogramVec,
    pools: Pools,
}

/// One Redis of a program.
#[derive(Clone, Debug)]
pub(crate) struct RedisTimings {
    redis: &'static str,
    operations: HistogramVec,
    /// Of a `PING`.
    pub(crate) round_trip: Histogram,
}

impl RedisTimings {
    /// Of an operation; its names stand in this crate's source alone, so that they are few.
    pub(crate) fn operation(&self, operation: &'static str) -> Histogram {
        self.operations.with_label_values(&[self.redis, operation])
    }
}

impl Timings {
    /// Nothing was waited for yet.
    ///
    /// # Errors
    /// Never but for the metrics library's own reasons.
    pub fn new() -> prometheus::Result<Self> {
        let vec = |name: &str, help: &str, labels: &[&str]| HistogramVec::new(seconds(name, help), labels);
        Ok(Self {
            statements: vec(
                "selextract_database_query_duration_seconds",
                "Time of a statement on its connection.",
                &["operation"],
            )?,
            acquiring: Histogram::with_opts(seconds(
                "selextract_database_acquire_duration_seconds",
                "Time until a pool gave a connection, opening one included; who got none is not counted.",
            ))?,
            operations: vec(
                "selextract_redis_operation_duration_seconds",
                "Time of a command, script or pipeline. What waits by design is not counted.",
                &["redis", "operation"],
            )?,
            round_trips: vec(
                "selextract_round_trip_seconds",
                "Time of a probe on an open connection.",
                &["to"],
            )?,
            pools: Pools::new()?,
        })
    }

    /// What hears of statements beside the logs, and prints nothing.
    pub fn statements_layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        Statements::new(self).with_filter(Statements::filter())
    }

    /// Registers all of them.
    ///
    /// # Errors
    /// When a name is taken in the registry.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.statements.clone()))?;
        registry.register(Box::new(self.acquiring.clone()))?;
        registry.register(Box::new(self.operations.clone()))?;
        registry.register(Box::new(self.round_trips.clone()))?;
        registry.register(Box::new(self.pools.clone()))
    }

    pub(crate) fn queue(&self) -> RedisTimings {
        self.redis("queue", "redis-queue")
    }

    pub(crate) fn cache(&self) -> RedisTimings {
        self.redis("cache", "redis-cache")
    }

    fn redis(&self, redis: &'static str, to: &str) -> RedisTimings {
        RedisTimings {
            redis,
            operations: self.operations.clone(),
            round_trip: self.round_trips.with_label_values(&[to]),
        }
    }

    /// Shows a pool's connections from now on; returns where its probes are told.
    pub(crate) fn pool(&self, name: &'static str, pool: &PgPool) -> Histogram {
        let mut pools = self.pools.shown.lock().unwrap_or_else(PoisonError::into_inner);
        pools.push((name, pool.clone()));
        self.round_trips.with_label_values(&["postgres"])
    }
}

/// Awaits an answer and counts its time, also when nobody waits for it any more. What fails at once says nothing of the time; what failed by
/// taking too long, as `late` tells, does.
pub(crate) async fn timed<T, E>(
    time: Option<Histogram>,
    late: impl Fn(&E) -> bool,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    // It counts when it is dropped, here or with the future.
    let timer = time.map(|time| time.start_timer());
    let answer = answer.await;
    if answer.as_ref().is_err_and(|error| !late(error))
        && let Some(timer) = timer
    {
        timer.stop_and_discard();
    }
    answer
}

fn seconds(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(SHORT_SECONDS.to_vec())
}

/// A program's pools, looked at when they are scraped.
#[derive(Clone, Debug)]
struct Pools {
    shown: Arc<Mutex<Vec<(&'static str, PgPool)>>>,
    connections: IntGaugeVec,
    limit: IntGaugeVec,
}

impl Pools {
    fn new() -> prometheus::Result<Self> {
        let gauge = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            shown: Arc::default(),
            connections: gauge(
                "selextract_database_pool_connections",
                "Connections of the program's pools, used and idle.",
                &["pool", "state"],
            )?,
            limit: gauge(
                "selextract_database_pool_limit",
                "The most connections that a pool opens.",
                &["pool"],
            )?,
        })
    }
}

impl Collector for Pools {
    fn desc(&self) -> Vec<&Desc> {
        [self.connections.desc(), self.limit.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let pools = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, pool) in pools.iter() {
            let idle = i64::try_from(pool.num_idle()).unwrap_or(i64::MAX);
            // The two are read one after the other: for a moment more may be idle than there were.
            let used = (i64::from(pool.size()) - idle).max(0);
            self.connections.with_label_values(&[name, "used"]).set(used);
            self.connections.with_label_values(&[name, "idle"]).set(idle);
            self.limit
                .with_label_values(&[name])
                .set(pool.options().get_max_connections().into());
        }
        [self.connections.collect(), self.limit.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use selextract_telemetry::render;

    use super::*;

    #[test]
    fn every_threshold_of_the_guide_is_an_edge() {
        for threshold in [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0] {
            assert!(SHORT_SECONDS.contains(&threshold), "{threshold}");
        }
    }

    #[tokio::test]
    async fn a_pool_that_was_opened_is_shown_with_its_limit() {
        let (timings, registry) = (Timings::new().unwrap(), Registry::new());
        timings.register(&registry).unwrap();
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(7)
            .connect_lazy("postgres://localhost:1/none")
            .unwrap();
        timings.pool("primary", &pool);
        let text = render(&registry);
        for line in [
            "selextract_database_pool_connections{pool=\"primary\",state=\"used\"} 0",
            "selextract_database_pool_limit{pool=\"primary\"} 7",
            "selextract_round_trip_seconds_count{to=\"postgres\"} 0",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
