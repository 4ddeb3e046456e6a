//! Whether the keeper goes on with its work, as probes and Prometheus ask.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus::Registry;
use selextract_telemetry::render;

/// After this long without a finished turn the keeper is not well, and is restarted by its liveness probe.
const STUCK: Duration = Duration::from_mins(5);

/// What is known of the keeper's turns.
pub struct Health {
    registry: Registry,
    started: Instant,
    last_turn_milliseconds: AtomicU64,
    ready: AtomicBool,
}

impl Health {
    /// Before the first turn.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            started: Instant::now(),
            last_turn_milliseconds: AtomicU64::new(0),
            ready: AtomicBool::new(false),
        }
    }

    /// A turn was made; `ready` says whether the database was there for it.
    pub fn turned(&self, ready: bool) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_turn_milliseconds.store(elapsed, Ordering::Relaxed);
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn is_stuck(&self) -> bool {
        let last = Duration::from_millis(self.last_turn_milliseconds.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last) > STUCK
    }
}

/// The probes and the metrics.
pub fn routes(health: Arc<Health>) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(async |State(health): State<Arc<Health>>| status(!health.is_stuck())),
        )
        .route(
            "/readyz",
            get(async |State(health): State<Arc<Health>>| status(health.ready.load(Ordering::Relaxed))),
        )
        .route(
            "/metrics",
            get(async |State(health): State<Arc<Health>>| render(&health.registry)),
        )
        .with_state(health)
}

fn status(well: bool) -> StatusCode {
    if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
