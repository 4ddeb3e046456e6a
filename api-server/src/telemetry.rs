//! What the cluster asks the program on a port of its own: whether it lives, whether it may get requests, and its metrics.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing,
};
use http::{StatusCode, header};
use prometheus::{IntGauge, Registry};
use selextract_telemetry::render;
use tokio_util::sync::CancellationToken;

/// How often the database is asked; probes read the last answer, so that they cost nothing and cannot pile up.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether requests may come.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reachable: AtomicBool,
    leaving: AtomicBool,
    /// What Prometheus is told of it.
    gauge: OnceLock<IntGauge>,
}

impl Readiness {
    /// Tells it as a metric too: a pod that is not ready gets no requests, and so counts none that fail.
    ///
    /// # Errors
    /// When something has that name.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let help = "1 while this pod takes requests: the database answers it, and it does not end.";
        let gauge = IntGauge::new("selextract_api_ready", help)?;
        registry.register(Box::new(gauge.clone()))?;
        self.0.gauge.get_or_init(|| gauge);
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        if let Some(gauge) = self.0.gauge.get() {
            gauge.set(self.is_ready().into());
        }
    }

    /// The database answers, and the program does not end.
    pub fn is_ready(&self) -> bool {
        self.0.reachable.load(Ordering::Relaxed) && !self.0.leaving.load(Ordering::Relaxed)
    }

    /// The program ends: no further requests, please.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Relaxed);
        self.tell();
    }

    /// Asks `check` again and again until `end`.
    pub async fn follow<C, E>(self, check: C, end: CancellationToken)
    where
        C: AsyncFn() -> Result<(), E>,
        E: std::fmt::Display,
    {
        loop {
            let reachable = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "The database is not reachable.");
                    false
                }
                Err(_) => {
                    tracing::warn!("The database did not answer in time.");
                    false
                }
            };
            self.0.reachable.store(reachable, Ordering::Relaxed);
            self.tell();
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
        }
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn router(registry: Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", routing::get(|| async { "ok" }))
        .route("/readyz", routing::get(ready).with_state(readiness))
        .route("/metrics", routing::get(metrics).with_state(registry))
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, &'static str) {
    if readiness.is_ready() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

async fn metrics(State(registry): State<Registry>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], render(&registry)).into_response()
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn status(readiness: &Readiness, path: &str) -> StatusCode {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        router(Registry::new(), readiness.clone())
            .oneshot(request)
            .await
            .unwrap()
            .status()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_while_the_database_answers_and_not_when_it_leaves() {
        let (readiness, up, end) = (
            Readiness::default(),
            Arc::new(AtomicBool::new(true)),
            CancellationToken::new(),
        );
        assert_eq!(
            status(&readiness, "/readyz").await,
            StatusCode::SERVICE_UNAVAILABLE,
            "before the first answer"
        );
        let answers = up.clone();
        let check = async move || {
            if answers.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("gone")
            }
        };
        let registry = Registry::new();
        readiness.register(&registry).unwrap();
        let told = || render(&registry).contains("\nselextract_api_ready 1");
        assert!(!told());
        let following = tokio::spawn(readiness.clone().follow(check, end.clone()));
        tokio::time::sleep(CHECK_INTERVAL / 2).await;
        assert_eq!(status(&readiness, "/readyz").await, StatusCode::OK);
        assert!(told());
        up.store(false, Ordering::Relaxed);
        tokio::time::sleep(CHECK_INTERVAL).await;
        assert_eq!(status(&readiness, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!told());
        assert_eq!(
            status(&readiness, "/healthz").await,
            StatusCode::OK,
            "a lost database is no reason to restart"
        );
        up.store(true, Ordering::Relaxed);
        tokio::time::sleep(CHECK_INTERVAL).await;
        readiness.leave();
        assert_eq!(status(&readiness, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        end.cancel();
        following.await.unwrap();
    }
}
