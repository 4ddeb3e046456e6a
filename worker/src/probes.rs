//! The listener for probes and metrics.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Registry, TEXT_FORMAT};
use selextract_telemetry::render;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::claims::Claims;

const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// What the probes look at.
#[derive(Clone)]
pub struct Probes {
    registry: Registry,
    claims: Arc<Claims>,
    stop: CancellationToken,
}

impl Probes {
    /// Ready while ledger and frontier answer, until `stop`.
    pub fn new(registry: Registry, claims: Arc<Claims>, stop: CancellationToken) -> Self {
        Self { registry, claims, stop }
    }

    /// `/healthz`, `/readyz` and `/metrics`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn readyz(State(probes): State<Probes>) -> impl IntoResponse {
    if probes.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match timeout(READY_TIMEOUT, probes.claims.ping()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n"),
        Ok(Err(_)) | Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the ledger or the frontier does not answer\n",
        ),
    }
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT_FORMAT)], render(&probes.registry))
}
