//! What PostgreSQL, the poolers and Redis say about themselves, told by the active keeper alone under the names of their usual exporters (ADR 32).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use selextract_platform::{
    cache::Cache,
    frontier::Frontier,
    ledger::Ledger,
    stores::{self, HELP},
};
use selextract_telemetry::{Figure, description, families};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::poolers::Poolers;

/// As often as the keeper's slower figures are worth.
const EVERY: Duration = Duration::from_secs(15);
/// After how long what did not answer is left out.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was said last; nothing while another keeper is the active one.
#[derive(Clone)]
pub(super) struct Stores {
    description: Desc,
    said: Arc<Mutex<Said>>,
}

#[derive(Default)]
struct Said {
    active: bool,
    figures: Vec<Figure>,
}

/// Whom it asks, and what nobody could answer.
pub(super) struct Sources {
    pub(super) ledger: Ledger,
    pub(super) queue: Frontier,
    pub(super) cache: Option<Cache>,
    pub(super) poolers: Option<Poolers>,
    /// The size of the database's volume in bytes, where the operator made it.
    pub(super) postgres_storage: Option<u64>,
    /// The size of the queue's volume.
    pub(super) redis_queue_storage: Option<u64>,
}

impl Stores {
    /// Registers the figures.
    ///
    /// # Errors
    /// Never but for the registry's own reasons.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let stores = Self {
            description: description("pg_up")?,
            said: Arc::default(),
        };
        registry.register(Box::new(stores.clone()))?;
        Ok(stores)
    }

    /// Whether this keeper speaks for the platform.
    pub(super) fn active(&self, active: bool) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.active = active;
        if !active {
            // When it speaks again, what it knew is old.
            said.figures.clear();
        }
    }

    /// Asks again and again until `end`.
    pub(super) async fn follow(self, mut sources: Sources, end: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while end.run_until_cancelled(ticks.tick()).await.is_some() {
            if !self.said.lock().unwrap_or_else(PoisonError::into_inner).active {
                sources.rest();
                continue;
            }
            let figures = sources.ask().await;
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.active {
                said.figures = figures;
            }
        }
    }
}

impl Sources {
    /// Nothing is asked for a while.
    fn rest(&mut self) {
        if let Some(poolers) = &mut self.poolers {
            poolers.leave();
        }
    }

    async fn ask(&mut self) -> Vec<Figure> {
        let (database, queue, cache, pools) = tokio::join!(
            timeout(PATIENCE, self.ledger.figures()),
            timeout(PATIENCE, self.queue.info()),
            timeout(PATIENCE, async { Some(self.cache.as_ref()?.info().await) }),
            async { Some(self.poolers.as_mut()?.figures(PATIENCE).await) },
        );
        let mut figures = database.unwrap_or_else(|_| vec![Figure::gauge("pg_up", HELP, 0.0)]);
        figures.extend(redis("queue", queue.ok().and_then(Result::ok).as_deref()));
        match cache {
            Ok(None) => {}
            Ok(Some(info)) => figures.extend(redis("cache", info.ok().as_deref())),
            Err(_) => figures.extend(redis("cache", None)),
        }
        figures.extend(pools.into_iter().flatten());
        // The queue's log is all that lies on its volume.
        let log = figures
            .iter()
            .find(|figure| figure.name() == "redis_aof_current_size_bytes");
        let used = log
            .filter(|_| self.redis_queue_storage.is_some())
            .map(|log| stores::storage_used("redis-queue", log.value()));
        figures.extend(used);
        figures.extend(self.postgres_storage.map(|bytes| capacity("postgres", bytes)));
        figures.extend(self.redis_queue_storage.map(|bytes| capacity("redis-queue", bytes)));
        figures
    }
}

#[expect(clippy::cast_precision_loss, reason = "a volume's size")]
fn capacity(volume: &str, bytes: u64) -> Figure {
    Figure::gauge(
        "selextract_storage_capacity_bytes",
        "How much the volume can hold.",
        bytes as f64,
    )
    .with("volume", volume)
}

fn redis(name: &str, info: Option<&str>) -> Vec<Figure> {
    let up = Figure::gauge("redis_up", HELP, f64::from(u8::from(info.is_some()))).with("redis", name);
    let said = info.map(|info| stores::redis(info, name)).unwrap_or_default();
    said.into_iter().chain([up]).collect()
}

impl Collector for Stores {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.active {
            families(&said.figures)
        } else {
            Vec::new()
        }
    }
}
