//! Tells the one Prometheus whom to scrape, and answers for the pods that are only played.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use anyhow::Result;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api as Objects, Client, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    WHOLE,
    recording::{COMPONENTS, EVERY, Recording, address},
};
use crate::{cluster::HOST, world::World};

/// Serves until it is dropped.
pub struct Feed {
    told: Arc<Told>,
    port: u16,
    serving: JoinHandle<()>,
}

struct Told {
    client: Client,
    namespace: String,
    port: u16,
    began: Instant,
    recording: OnceLock<Recording>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Feed {
    /// Listens on the host's end of the local cluster's bridge.
    pub async fn start(world: &World) -> Result<Self> {
        let listener = TcpListener::bind((IpAddr::from(HOST), 0)).await?;
        let port = listener.local_addr()?.port();
        let told = Arc::new(Told {
            client: world.client.clone(),
            namespace: world.namespace.clone(),
            port,
            began: Instant::now(),
            recording: OnceLock::new(),
        });
        let router = Router::new()
            .route("/targets", get(targets))
            .route("/metrics/{cluster}/{component}", get(metrics))
            .with_state(Arc::clone(&told));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the feed: {error}");
            }
        });
        Ok(Self { told, port, serving })
    }

    /// Where Prometheus asks whom to scrape.
    pub fn targets_url(&self) -> String {
        format!("http://{HOST}:{}/targets", self.port)
    }

    /// From now on the played pods answer with this.
    pub fn play(&self, recording: Recording) {
        // There is one recording; a second would be for nobody.
        drop(self.told.recording.set(recording));
    }
}

/// Every pod that runs, in the form of Prometheus' HTTP service discovery.
async fn targets(State(told): State<Arc<Told>>) -> Result<Json<Value>, StatusCode> {
    let labels = format!("app.kubernetes.io/component in ({})", COMPONENTS.join(","));
    let list = Objects::<Pod>::namespaced(told.client.clone(), &told.namespace)
        .list(&ListParams::default().labels(&labels).match_any())
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    let groups: Vec<_> = list.iter().filter_map(|pod| target(pod, told.port)).collect();
    Ok(Json(json!(groups)))
}

fn target(pod: &Pod, port: u16) -> Option<Value> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Running") || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let label = |name: &str| pod.labels().get(&format!("app.kubernetes.io/{name}"));
    let (cluster, component) = (label("instance")?, label("component")?);
    let (at, path) = if cluster == WHOLE {
        (address(pod).ok()??, "/metrics".to_owned())
    } else {
        (format!("{HOST}:{port}"), format!("/metrics/{cluster}/{component}"))
    };
    Some(json!({ "targets": [at], "labels": {
        "__metrics_path__": path, "job": component, "namespace": pod.namespace()?, "cluster": cluster,
        "component": component, "pod": pod.name_any(),
    } }))
}

/// What a component of a played cluster tells: each cluster is at another moment of the recording.
async fn metrics(
    State(told): State<Arc<Told>>,
    Path((cluster, component)): Path<(String, String)>,
) -> Result<String, StatusCode> {
    let recording = told.recording.get().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let number: usize = cluster
        .rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default();
    let passed = usize::try_from(told.began.elapsed().as_secs() / EVERY.as_secs()).unwrap_or_default();
    let text = recording
        .text(&component, passed + number)
        .ok_or(StatusCode::NOT_FOUND)?;
    Ok(text.to_owned())
}
