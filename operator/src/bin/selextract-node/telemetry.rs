//! Probes and metrics of the node program.

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use prometheus::{IntCounter, IntGauge, Registry};
use selextract_telemetry::render;

/// Whether profile and label are in place.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Registry,
    ready: IntGauge,
    failures: IntCounter,
}

impl Telemetry {
    /// Not ready, no failure.
    pub fn new() -> prometheus::Result<Self> {
        let telemetry = Self {
            registry: Registry::new(),
            ready: IntGauge::new(
                "selextract_node_profile_ready",
                "1 while the seccomp profile and the node's label are in place.",
            )?,
            failures: IntCounter::new(
                "selextract_node_failures_total",
                "Looks at profile and label that failed.",
            )?,
        };
        telemetry.registry.register(Box::new(telemetry.ready.clone()))?;
        telemetry.registry.register(Box::new(telemetry.failures.clone()))?;
        Ok(telemetry)
    }

    /// Takes the outcome of one look.
    pub fn report(&self, ready: bool) {
        self.ready.set(i64::from(ready));
        if !ready {
            self.failures.inc();
        }
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(telemetry: Telemetry) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(telemetry)
}

async fn readyz(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    if telemetry.ready.get() == 1 {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the profile or the label is not in place\n",
        )
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> String {
    render(&telemetry.registry)
}
