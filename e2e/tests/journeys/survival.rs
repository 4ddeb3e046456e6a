//! What goes wrong by itself, and what people do to it: nothing is lost, and what was declared comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use crate::platform::{DONE, Platform, shared};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_worker_that_dies_in_the_middle_loses_and_doubles_nothing() -> Result<()> {
    let platform = shared().await?;
    let api = platform.api().await?;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(api.create_task(&platform.parameters_task()?).await?);
    }
    let started = |task: &Value| task["pages"].as_u64().is_some_and(|pages| pages > 0);
    for _ in 0..200 {
        let mut any = false;
        for id in &ids {
            any |= started(&api.get(&format!("tasks/{id}")).await?);
        }
        if any {
            break;
        }
    }
    for pod in platform.pods("worker")? {
        platform
            .world
            .kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force", "--wait=false"])?;
    }
    let expected = platform.expected_parameters().await?;
    for id in &ids {
        let ended = api.wait_for_end(id, DONE).await?;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        let records = api.records(id).await?;
        assert_eq!(expected.compare(&records)?, (0, 0), "a record is lost or doubled");
    }
    Ok(())
}

// The load goes on while this waits for kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_pod_is_deleted_under_load_and_no_request_fails() -> Result<()> {
    let platform = shared().await?;
    let load = Load::start(&platform).await?;
    let pod = platform.pods("api")?.remove(0);
    platform.world.kubectl(&["delete", "pod", &pod, "--wait=true"])?;
    platform.wait_until_ready().await?;
    load.end().await
}

#[tokio::test]
async fn a_child_that_is_edited_or_deleted_by_hand_comes_back() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    let before = world.get("service/shop-api")?["spec"]["ports"].clone();
    world.kubectl(&[
        "patch",
        "service",
        "shop-api",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/ports/0/port","value":12345}]"#,
    ])?;
    world
        .wait_until("the Service has its port again", MINUTE, || {
            Ok((world.get("service/shop-api")?["spec"]["ports"] == before).then_some(()))
        })
        .await?;
    let uid = |object: &str| Ok::<_, anyhow::Error>(world.get(object)?["metadata"]["uid"].clone());
    let old = uid("networkpolicy/shop-api").or_else(|_| uid("configmap/shop-egress"))?;
    let object = if uid("networkpolicy/shop-api").is_ok() {
        "networkpolicy/shop-api"
    } else {
        "configmap/shop-egress"
    };
    world.kubectl(&["delete", object])?;
    world
        .wait_until("the deleted child is back", MINUTE, || {
            Ok(uid(object).ok().filter(|new| *new != old))
        })
        .await?;
    platform.wait_until_ready().await?;
    Ok(())
}

#[tokio::test]
async fn a_hand_scaled_deployment_is_put_back_and_explained() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    let wanted = platform
        .number("deployment/shop-worker", "/spec/replicas")?
        .context("no replicas")?;
    world.kubectl(&["scale", "deployment/shop-worker", "--replicas=3"])?;
    world
        .wait_until("the replicas are what the cluster says", MINUTE, || {
            Ok((platform.number("deployment/shop-worker", "/spec/replicas")? == Some(wanted)).then_some(()))
        })
        .await?;
    world
        .wait_until("an Event names who scaled by hand", MINUTE, || {
            let events = world.kubectl(&["get", "events.events.k8s.io", "-o", "json"])?;
            let events: Value = serde_json::from_str(&events)?;
            let told = events["items"].as_array().into_iter().flatten().any(|event| {
                let note = event["note"].as_str().unwrap_or_default();
                event["regarding"]["name"] == "shop" && note.contains("kubectl") && note.contains("shop-worker")
            });
            Ok(told.then_some(()))
        })
        .await?;
    platform.wait_until_ready().await?;
    Ok(())
}

/// Requests that go on until they are ended; each of them must succeed.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Result<u64>>>,
}

impl Load {
    /// Four clients that list and create.
    pub async fn start(platform: &Platform) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for _ in 0..4 {
            let (api, stop) = (platform.api().await?, stop.clone());
            clients.push(tokio::spawn(async move {
                let mut requests = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = api.send(Method::GET, "tasks", None).await?;
                    anyhow::ensure!(status.is_success(), "listing tasks: {status}: {body}");
                    let task = json!({ "url": "http://example.invalid/", "maxRetries": 0, "fields": [{ "name": "title", "selector": "title" }] });
                    api.create_task(&task).await?;
                    requests += 2;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(requests)
            }));
        }
        Ok(Self { stop, clients })
    }

    /// Ends it.
    ///
    /// # Errors
    /// The first failed request.
    pub async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut requests = 0;
        for client in self.clients {
            requests += client.await??;
        }
        anyhow::ensure!(requests > 20, "only {requests} requests were made");
        Ok(())
    }
}
