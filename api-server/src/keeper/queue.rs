//! What the operator sizes workers from: how much a free worker could begin now, what waits for its site, and whether what the platform
//! stands on answers.
//!
//! The queue's figures come from the active keeper alone and are absent elsewhere, so that nothing is counted twice and silence is not
//! calm. Whether the dependencies answer is looked at by every keeper: without a database none is active.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use selextract_platform::{
    cache::Cache,
    frontier::{Frontier, Size},
    ledger::Ledger,
};
use selextract_telemetry::{Figure, description, families};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// How often the dependencies are asked.
const EVERY: Duration = Duration::from_secs(5);
/// After how long one that does not answer is down.
const PATIENCE: Duration = Duration::from_secs(2);

/// The last measured queue; nothing while another keeper is the active one.
#[derive(Clone)]
pub(super) struct Queue {
    description: Desc,
    size: Arc<Mutex<Option<Size>>>,
}

impl Queue {
    /// Registers the queue's metrics.
    ///
    /// # Errors
    /// When a name is taken in the registry.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let queue = Self {
            description: description("selextract_queue_runnable_tasks")?,
            size: Arc::default(),
        };
        registry.register(Box::new(queue.clone()))?;
        Ok(queue)
    }

    /// What was measured now; `None` when nothing is known.
    pub(super) fn set(&self, size: Option<Size>) {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = size;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a number of entries, at most some hundred thousand"
)]
fn figures(size: Size) -> [Figure; 5] {
    const HELD: &str =
        "Tasks and pages that wait for something else than a worker, by what: their site, or their time.";
    let held = |reason, entries: u64| {
        Figure::gauge("selextract_queue_held_tasks", HELD, entries as f64).with("reason", reason)
    };
    [
        Figure::gauge(
            "selextract_queue_runnable_tasks",
            "Tasks and pages that a free worker could begin now; of a host that rests between its pages at most one.",
            size.runnable as f64,
        ),
        Figure::gauge(
            "selextract_queue_wait_seconds",
            "How long those have waited for a worker so far, in the mean.",
            size.waited.as_secs_f64(),
        ),
        Figure::gauge(
            "selextract_queue_oldest_runnable_seconds",
            "How long the one that has waited longest has waited for a worker.",
            size.longest.as_secs_f64(),
        ),
        held("DomainLimited", size.limited),
        held("Scheduled", size.later),
    ]
}

impl Collector for Queue {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let size = *self.size.lock().unwrap_or_else(PoisonError::into_inner);
        size.map(|size| families(&figures(size))).unwrap_or_default()
    }
}

/// Whether what the platform stands on answers.
pub(super) struct Dependencies {
    up: IntGaugeVec,
    /// Through the pooler, as API and workers go.
    pooled: Option<Ledger>,
    direct: Ledger,
    queue: Frontier,
    cache: Option<Cache>,
}

impl Dependencies {
    /// Registers the metric. Before the first look there is none.
    ///
    /// # Errors
    /// When the name is taken in the registry.
    pub(super) fn register(
        registry: &Registry,
        (pooled, direct): (Option<Ledger>, Ledger),
        (queue, cache): (Frontier, Option<Cache>),
    ) -> prometheus::Result<Self> {
        let up = IntGaugeVec::new(
            Opts::new(
                "selextract_dependency_up",
                "1 for what answers the keeper within 2 seconds.",
            ),
            &["dependency"],
        )?;
        registry.register(Box::new(up.clone()))?;
        Ok(Self {
            up,
            pooled,
            direct,
            queue,
            cache,
        })
    }

    /// Asks again and again until `end`.
    pub(super) async fn follow(self, end: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while end.run_until_cancelled(ticks.tick()).await.is_some() {
            let (postgres, pooler, queue, cache) = tokio::join!(
                timeout(PATIENCE, self.direct.ping()),
                timeout(PATIENCE, async { Some(self.pooled.as_ref()?.ping().await) }),
                timeout(PATIENCE, self.queue.ping()),
                timeout(PATIENCE, async { Some(self.cache.as_ref()?.ping().await) }),
            );
            let postgres = matches!(postgres, Ok(Ok(())));
            // A pooler in front of a database that is down says nothing about itself.
            let pooler = self
                .pooled
                .is_some()
                .then_some(matches!(pooler, Ok(Some(Ok(())))) || !postgres);
            let cache = self.cache.is_some().then_some(matches!(cache, Ok(Some(Ok(())))));
            let answers = [
                ("postgres", Some(postgres)),
                ("pgbouncer", pooler),
                ("redis-queue", Some(matches!(queue, Ok(Ok(()))))),
                ("redis-cache", cache),
            ];
            for (dependency, up) in answers.into_iter().filter_map(|(name, up)| Some((name, up?))) {
                self.up.with_label_values(&[dependency]).set(up.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use selextract_telemetry::render;

    use super::*;

    #[test]
    fn a_keeper_that_is_not_active_says_nothing_about_the_queue() {
        let registry = Registry::new();
        let queue = Queue::register(&registry).unwrap();
        assert_eq!(render(&registry), "");
        queue.set(Some(Size {
            runnable: 120,
            limited: 7,
            waited: Duration::from_millis(1500),
            ..Size::default()
        }));
        let text = render(&registry);
        for line in [
            "selextract_queue_runnable_tasks 120",
            "selextract_queue_wait_seconds 1.5",
            "selextract_queue_held_tasks{reason=\"DomainLimited\"} 7",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        queue.set(None);
        assert_eq!(render(&registry), "");
    }
}
