//! The backlog as an external metric: what a Prometheus adapter answers to a `HorizontalPodAutoscaler`, asked of Prometheus each time.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{Json, Router, extract::State, http::StatusCode, routing::get, serve::Listener};
use base64::Engine as _;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::platforms::OURS;
use crate::{cluster::HOST, prometheus::Prometheus, world::World};

/// The metric's name.
pub const METRIC: &str = "selextract_backlog";
const GROUP: &str = "external.metrics.k8s.io";
/// Every group that is added: this one and the one of metrics-server.
const GROUPS: [&str; 2] = [GROUP, super::metrics_server::GROUP];
const VERSION: &str = "v1beta1";
/// What the operator asks, too.
const QUERY: &str = "max(selextract_queue_runnable_tasks{component=\"keeper\",cluster=\"CLUSTER\"})";
const HANDSHAKE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(1);

/// Serves until it is dropped.
pub struct Adapter {
    serving: JoinHandle<()>,
}

impl Drop for Adapter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Adapter {
    /// Listens on the host's end of the local cluster's bridge, and becomes a part of its API.
    pub async fn start(world: &World, prometheus: Prometheus) -> Result<Self> {
        let name = format!("external-metrics.{}.svc", world.namespace);
        let certified = rcgen::generate_simple_self_signed([name])?;
        let tls = acceptor(&certified.cert.pem(), &certified.signing_key.serialize_pem())?;
        let listener = TcpListener::bind((IpAddr::from(HOST), 0)).await?;
        let port = listener.local_addr()?.port();
        let base = format!("/apis/{GROUP}/{VERSION}");
        let router = Router::new()
            .route(&base, get(describe))
            .route(&format!("{base}/namespaces/{{namespace}}/{METRIC}"), get(answer))
            .with_state(Arc::new(prometheus));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(Tls { listener, tls }, router).await {
                eprintln!("the adapter: {error}");
            }
        });
        let trusted = base64::engine::general_purpose::STANDARD.encode(certified.cert.pem());
        let adapter = Self { serving };
        register(world, "external-metrics", GROUP, port, &json!({ "caBundle": trusted })).await?;
        Ok(adapter)
    }
}

/// Makes a program on the host the server of a group of the API, and waits until the API server reaches it.
pub async fn register(world: &World, service: &str, group: &str, port: u16, trust: &Value) -> Result<()> {
    let mut spec = json!({
        "group": group, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": { "name": service, "namespace": "NAMESPACE", "port": 443 },
    });
    if let (Some(spec), Some(trust)) = (spec.as_object_mut(), trust.as_object()) {
        spec.extend(trust.clone());
    }
    let api = format!("{VERSION}.{group}");
    let objects = json!([
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": service, "namespace": "NAMESPACE" },
          "spec": { "ports": [{ "name": "https", "port": 443, "targetPort": port }] } },
        { "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
          "metadata": { "name": service, "namespace": "NAMESPACE", "labels": { "kubernetes.io/service-name": service } },
          "addressType": "IPv4", "endpoints": [{ "addresses": [HOST.to_string()], "conditions": { "ready": true } }],
          "ports": [{ "name": "https", "port": port, "protocol": "TCP" }] },
        { "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": api }, "spec": spec },
    ]);
    world.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string())?;
    let reached = || {
        let found = world.get(&format!("apiservice/{api}"))?;
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let available = conditions
            .iter()
            .any(|c| c["type"] == "Available" && c["status"] == "True");
        Ok(available.then_some(()))
    };
    let hint = "a local cluster of before this needs `selextract-local down` once";
    world
        .wait_until(&format!("{api} is served"), PATIENCE, reached)
        .await
        .context(hint)
}

/// Takes the groups of the API away again that [`register`] added.
pub fn unregister(world: &World) -> Result<()> {
    let groups = GROUPS.map(|group| format!("{VERSION}.{group}"));
    let delete = ["delete", "apiservice", "--ignore-not-found", &groups[0], &groups[1]];
    world.kubectl(&delete).map(drop)
}

async fn describe() -> Json<Value> {
    Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [{ "name": METRIC, "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": ["get"] }],
    }))
}

async fn answer(State(prometheus): State<Arc<Prometheus>>) -> Result<Json<Value>, StatusCode> {
    let asked = prometheus
        .ask("query", &[("query", &QUERY.replace("CLUSTER", OURS))])
        .await;
    let found = asked.map_err(|_| StatusCode::BAD_GATEWAY)?;
    // Without a series there is nothing to tell, and the autoscaler leaves everything as it is.
    let value = found["result"][0]["value"][1].as_str().ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(json!({
        "kind": "ExternalMetricValueList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
        "items": [{ "metricName": METRIC, "metricLabels": {}, "timestamp": Timestamp::now().to_string(), "value": value }],
    })))
}

fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Tls {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Only the API server comes here; who does not shake hands is let go.
            let Ok((stream, peer)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, self.tls.accept(stream)).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
