//! Limits of one kind, for every client: counted in the cache for all replicas, and by this replica alone while that does not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use moka::future::Cache as Local;
use selextract_platform::cache::{Cache as Shared, Limit};
use tokio::sync::Mutex;

use super::meter::{Meter, Step, Verdict};

/// Clients that a replica remembers; beyond that the least recently seen starts afresh in it, and goes on in the shared bucket.
const CLIENTS: u64 = 10_000;
/// How long the cache is not asked again after it did not answer: otherwise each request would wait for it.
const REST: Duration = Duration::from_secs(1);

/// Limits of one kind. Cheap to clone.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    name: &'static str,
    limit: Limit,
    shared: Shared,
    meters: Local<String, Arc<Mutex<Meter>>>,
    started: Instant,
    /// Milliseconds after `started` until which the cache is left alone.
    rests_until: AtomicU64,
}

impl Limiter {
    /// With nobody counted by this replica.
    pub fn new(name: &'static str, limit: Limit, shared: Shared) -> Self {
        // An entry that is forgotten after this long would be full again.
        let idle = limit.period + REST;
        Self(Arc::new(Inner {
            name,
            limit,
            shared,
            meters: Local::builder().max_capacity(CLIENTS).time_to_idle(idle).build(),
            started: Instant::now(),
            rests_until: AtomicU64::new(0),
        }))
    }

    /// The limit's name, as clients see it.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// What is counted.
    pub fn limit(&self) -> Limit {
        self.0.limit
    }

    /// Counts a request of a client. Its other requests wait meanwhile, so that they ask the cache once.
    pub async fn admit(&self, client: &str) -> Verdict {
        let inner = &*self.0;
        let fresh = async { Arc::new(Mutex::new(Meter::new(inner.limit, Instant::now()))) };
        let meter = inner.meters.get_with_by_ref(client, fresh).await;
        let mut meter = meter.lock().await;
        match meter.step(inner.limit, Instant::now()) {
            Step::Decided(verdict) => verdict,
            Step::Ask(_) if inner.rests() => meter.alone(inner.limit, Instant::now()),
            Step::Ask(tokens) => {
                let key = format!("rate:{}:{client}", inner.name);
                if let Some(grant) = inner.shared.take_tokens(&key, inner.limit, tokens).await {
                    meter.granted(grant, Instant::now())
                } else {
                    inner.rest();
                    meter.alone(inner.limit, Instant::now())
                }
            }
        }
    }
}

impl Inner {
    fn rests(&self) -> bool {
        self.elapsed() < self.rests_until.load(Ordering::Relaxed)
    }

    fn rest(&self) {
        let rest = u64::try_from(REST.as_millis()).unwrap_or(u64::MAX);
        self.rests_until.store(self.elapsed() + rest, Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
