//! What the operator says about itself: `/healthz`, `/readyz`, `/metrics`. The only place that knows the metrics library.

mod accounts;
mod sizing;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use selextract_telemetry::render;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    monitoring::live::Live,
    scaling::{Decision, Target},
};
use accounts::Accounts;
use sizing::Sizing;

/// Edges that hold every threshold of the guide.
const EDGES: [f64; 12] = [0.01, 0.05, 0.2, 0.3, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0];

/// The metrics and the readiness of this process.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Registry,
    reconciles: HistogramVec,
    errors: IntCounterVec,
    desired: IntGaugeVec,
    ready: IntGaugeVec,
    cluster_ready: IntGaugeVec,
    tasks: IntGaugeVec,
    queue: IntGaugeVec,
    writes: IntCounterVec,
    leader: IntGauge,
    sizing: Sizing,
    accounts: Accounts,
    waits_for: Arc<Mutex<Vec<String>>>,
}

impl Telemetry {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> prometheus::Result<Self> {
        let object = ["kind", "namespace", "name"];
        let telemetry = Self {
            registry: Registry::new(),
            reconciles: HistogramVec::new(
                HistogramOpts::new(
                    "selextract_reconcile_duration_seconds",
                    "How long a reconcile took, by kind and namespace.",
                )
                .buckets(EDGES.to_vec()),
                &["kind", "namespace"],
            )?,
            errors: IntCounterVec::new(
                Opts::new("selextract_reconcile_errors_total", "Reconciles that failed."),
                &object,
            )?,
            desired: IntGaugeVec::new(
                Opts::new("selextract_replicas_desired", "Replicas that a component should have."),
                &["namespace", "cluster", "component"],
            )?,
            ready: IntGaugeVec::new(
                Opts::new("selextract_replicas_ready", "Replicas of a component that are ready."),
                &["namespace", "cluster", "component"],
            )?,
            cluster_ready: IntGaugeVec::new(
                Opts::new(
                    "selextract_cluster_ready",
                    "1 while the condition Ready of a cluster is True.",
                ),
                &["namespace", "cluster"],
            )?,
            tasks: IntGaugeVec::new(
                Opts::new("selextract_scrape_tasks", "ScrapeTasks by the state of their last run."),
                &["namespace", "state"],
            )?,
            queue: IntGaugeVec::new(
                Opts::new(
                    "selextract_reconcile_queue_depth",
                    "Objects that wait for their reconcile, by kind; those under way and those at rest are not among them.",
                ),
                &["kind"],
            )?,
            writes: IntCounterVec::new(
                Opts::new(
                    "selextract_api_server_writes_total",
                    "Writes to the Kubernetes API, by what was written.",
                ),
                &["what"],
            )?,
            leader: IntGauge::new("selextract_operator_leader", "1 while this replica leads.")?,
            sizing: Sizing::new()?,
            accounts: Accounts::new()?,
            waits_for: Arc::new(Mutex::new(vec!["its start".to_owned()])),
        };
        telemetry.register()?;
        Ok(telemetry)
    }

    fn register(&self) -> prometheus::Result<()> {
        let registry = &self.registry;
        registry.register(Box::new(self.reconciles.clone()))?;
        registry.register(Box::new(self.errors.clone()))?;
        registry.register(Box::new(self.desired.clone()))?;
        registry.register(Box::new(self.ready.clone()))?;
        registry.register(Box::new(self.cluster_ready.clone()))?;
        registry.register(Box::new(self.tasks.clone()))?;
        registry.register(Box::new(self.queue.clone()))?;
        registry.register(Box::new(self.writes.clone()))?;
        registry.register(Box::new(self.leader.clone()))?;
        registry.register(Box::new(self.accounts.clone()))?;
        self.sizing.register(registry)
    }

    /// A reconcile of this object ended.
    pub fn reconciled(&self, kind: &str, namespace: &str, name: &str, took: Duration, failed: bool) {
        self.reconciles
            .with_label_values(&[kind, namespace])
            .observe(took.as_secs_f64());
        if failed {
            self.errors.with_label_values(&[kind, namespace, name]).inc();
        }
    }

    /// One write to the Kubernetes API was done.
    pub fn wrote(&self, what: &str) {
        self.writes.with_label_values(&[what]).inc();
    }

    /// What a component of a cluster should have and has.
    pub fn replicas(&self, namespace: &str, name: &str, component: &str, desired: i32, ready: i32) {
        self.desired
            .with_label_values(&[namespace, name, component])
            .set(desired.into());
        self.ready
            .with_label_values(&[namespace, name, component])
            .set(ready.into());
    }

    /// Whether a cluster is ready.
    pub fn cluster(&self, namespace: &str, name: &str, ready: bool) {
        self.cluster_ready
            .with_label_values(&[namespace, name])
            .set(ready.into());
    }

    /// A `ScrapeTask` went from one state to another; `None` is "not there".
    pub fn task_moved(&self, namespace: &str, from: Option<&str>, to: Option<&str>) {
        if let Some(from) = from {
            self.tasks.with_label_values(&[namespace, from]).dec();
        }
        if let Some(to) = to {
            self.tasks.with_label_values(&[namespace, to]).inc();
        }
    }

    /// Objects came to the queue of a kind, or left it.
    pub fn queued(&self, kind: &str, by: i64) {
        self.queue.with_label_values(&[kind]).add(by);
    }

    /// A `ScrapeTask` is gone: its series goes with it.
    pub fn forget_task(&self, namespace: &str, name: &str) {
        // A series that was never set cannot be removed; that is no fault.
        let _ = self.errors.remove_label_values(&["ScrapeTask", namespace, name]);
    }

    /// A cluster is gone: its series go with it.
    pub fn forget_cluster(&self, namespace: &str, name: &str, components: &[&str]) {
        for component in components {
            // A series that was never set cannot be removed; that is no fault.
            let _ = self.desired.remove_label_values(&[namespace, name, component]);
            let _ = self.ready.remove_label_values(&[namespace, name, component]);
        }
        let _ = self.cluster_ready.remove_label_values(&[namespace, name]);
        for target in Target::ALL {
            self.forget_sizing(namespace, name, target);
        }
        self.accounts.set(namespace, name, &[]);
        let _ = self.errors.remove_label_values(&["SelextractCluster", namespace, name]);
    }

    /// A part of a cluster is not sized any more: what was decided about it and seen of it goes.
    pub fn forget_sizing(&self, namespace: &str, name: &str, target: Target) {
        self.sizing.forget(namespace, name, target);
    }

    /// A Prometheus was asked.
    pub fn measured(&self, took: Duration, failed: bool) {
        self.sizing.measured(took, failed);
    }

    /// What a decision about a cluster saw.
    pub fn signals(&self, namespace: &str, name: &str, decision: &Decision) {
        self.sizing.signals(namespace, name, decision);
    }

    /// A decision was taken and written.
    pub fn decided(&self, namespace: &str, name: &str, decision: &Decision) {
        self.sizing.decided(namespace, name, decision);
    }

    /// How the promises of a cluster are held, and what it costs.
    pub fn live(&self, namespace: &str, name: &str, all: &[Live]) {
        self.accounts.set(namespace, name, all);
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// What the process waits for before it can work; nothing makes it ready.
    pub fn waits_for(&self, what: Vec<String>) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn missing(&self) -> Vec<String> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Opens the listening socket.
///
/// # Errors
/// When the address cannot be bound.
pub async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("cannot listen on {addr}"))
}

/// Serves `/healthz`, `/readyz` and `/metrics` until the token is canceled.
///
/// # Errors
/// When the socket breaks.
pub async fn serve(telemetry: Telemetry, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router(telemetry))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?;
    Ok(())
}

fn router(telemetry: Telemetry) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(telemetry)
}

async fn readyz(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    let missing = telemetry.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("waits for {}\n", missing.join(", ")),
        )
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    (
        [("content-type", "text/plain; version=0.0.4")],
        render(&telemetry.registry),
    )
}

/// What `/metrics` answers.
#[cfg(test)]
pub fn text_of(telemetry: &Telemetry) -> String {
    render(&telemetry.registry)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    async fn get_path(telemetry: &Telemetry, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(telemetry.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readyz_names_what_is_missing_until_nothing_is() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.waits_for(vec!["CustomResourceDefinition scrapetasks.selextract.io".into()]);
        let (status, body) = get_path(&telemetry, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "waits for CustomResourceDefinition scrapetasks.selextract.io\n");
        assert_eq!(get_path(&telemetry, "/healthz").await.0, StatusCode::OK);

        telemetry.waits_for(Vec::new());
        assert_eq!(get_path(&telemetry, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_series_of_a_task_that_failed_goes_with_it() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.reconciled("ScrapeTask", "team", "docs", Duration::ZERO, true);
        telemetry.queued("ScrapeTask", 2);
        let before = get_path(&telemetry, "/metrics").await.1;
        assert!(
            before.contains(r#"selextract_reconcile_errors_total{kind="ScrapeTask",name="docs",namespace="team"} 1"#)
        );
        assert!(before.contains(r#"selextract_reconcile_queue_depth{kind="ScrapeTask"} 2"#));
        telemetry.forget_task("team", "docs");
        assert!(!get_path(&telemetry, "/metrics").await.1.contains("docs"));
    }

    #[tokio::test]
    async fn the_series_of_a_cluster_go_with_it() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.replicas("demo", "shop", "api", 2, 1);
        telemetry.cluster("demo", "shop", true);
        let before = get_path(&telemetry, "/metrics").await.1;
        assert!(before.contains(r#"selextract_replicas_desired{cluster="shop",component="api",namespace="demo"} 2"#));
        telemetry.forget_cluster("demo", "shop", &["api"]);
        assert!(!get_path(&telemetry, "/metrics").await.1.contains("shop"));
    }
}
