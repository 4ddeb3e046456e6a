//! Two platforms with the same backlog: the workers of one are sized by the operator, those of the other by an autoscaler.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api as Objects, ResourceExt, api::ListParams};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench::clusters, documentation, world::World};

/// The platform that the operator sizes.
pub const OURS: &str = "ours";
/// Its workers.
pub const OURS_WORKER: &str = "ours-worker";
/// The workers of the other platform.
pub const THEIRS_WORKER: &str = "theirs-worker";
const THEIRS: &str = "theirs";
/// What waits beyond which the operator, and an autoscaler for each pod, want another one.
pub const QUEUE: u32 = 20;
/// The most workers.
pub const MOST: u32 = 4;
/// How many tasks come at once.
const BACKLOG: usize = 200;
/// Under how many names the sites are reached: a task that waits for its host would be no reason for another worker.
const HOSTS: usize = 25;
const PATIENCE: Duration = Duration::from_mins(3);

/// Both.
pub struct Platforms<'a> {
    world: &'a World,
    tasks: Vec<Value>,
}

impl<'a> Platforms<'a> {
    /// Applies them and waits until they are Ready and measured.
    pub async fn start(world: &'a World) -> Result<Self> {
        let sites: Vec<_> = (0..HOSTS).map(site).collect();
        world.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": sites }).to_string())?;
        for name in [OURS, THEIRS] {
            world.apply(&cluster(world, name, MOST).to_string())?;
        }
        for name in [OURS, THEIRS] {
            clusters::wait_until_ready(world, name).await?;
            let object = format!("selextractcluster/{name}");
            world
                .wait_for_condition(&object, "MonitoringReady", "True", clusters::PATIENCE)
                .await?;
        }
        let tasks = (0..BACKLOG)
            .map(|number| {
                let mut task = documentation::task(&host(world, number % HOSTS))?;
                task["politeness"] = json!({ "minDelay": "0s", "maxConcurrent": 16 });
                Ok(task)
            })
            .collect::<Result<_>>()?;
        Ok(Self { world, tasks })
    }

    /// One worker each, and nothing decided: for ours by its bounds, which takes it back at once.
    pub async fn rest(&self) -> Result<()> {
        self.world.apply(&cluster(self.world, OURS, 1).to_string())?;
        self.world
            .kubectl(&["scale", &format!("deployment/{THEIRS_WORKER}"), "--replicas=1"])?;
        for name in [OURS_WORKER, THEIRS_WORKER] {
            wait_for_one(self.world, name).await?;
        }
        self.world.apply(&cluster(self.world, OURS, MOST).to_string())
    }

    /// The backlog, to both at once; it is in both ledgers then.
    pub async fn post(&self) -> Result<()> {
        // A token does not last for all rounds.
        let apis = [self.world.sign_in(OURS).await?, self.world.sign_in(THEIRS).await?];
        let posts = apis.iter().map(|api| api.create_tasks(&self.tasks));
        futures::future::try_join_all(posts).await.map(drop)
    }

    /// Takes what is left of it back.
    pub async fn cancel(&self) -> Result<()> {
        for name in [OURS, THEIRS] {
            let api = &self.world.sign_in(name).await?;
            let sql = "SELECT id FROM tasks WHERE status IN ('pending', 'running')";
            let left = self.world.sql(&format!("{name}-postgres-0"), sql)?;
            stream::iter(left.lines().map(|id| format!("tasks/{id}/cancel")).collect::<Vec<_>>())
                .map(|path| async move {
                    // One that has ended meanwhile says so; that is what is wanted.
                    api.send(Method::POST, &path, None).await.map(drop)
                })
                .buffer_unordered(8)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }
}

/// A small platform of workers with little CPU, which a backlog therefore fills.
fn cluster(world: &World, name: &str, most: u32) -> Value {
    let worker = if name == OURS {
        json!({ "minReplicas": 1, "maxReplicas": most, "cooldown": "5s", "triggers": { "queueLength": QUEUE } })
    } else {
        json!({ "mode": "External" })
    };
    let allowed: Vec<_> = (0..HOSTS)
        .map(|number| json!({ "host": host(world, number) }))
        .collect();
    let little = json!({ "cpu": "300m" });
    json!({
        "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
        "metadata": { "name": name, "namespace": world.namespace },
        "spec": {
            "profile": "Small",
            "worker": { "lease": "5s", "pod": { "resources": { "requests": little, "limits": little } } },
            "egress": { "allow": allowed },
            "scaling": { "worker": worker },
        },
    })
}

fn site(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("site-{number}"), "namespace": "NAMESPACE" },
        "spec": { "selector": { "app.kubernetes.io/name": "sites" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

fn host(world: &World, number: usize) -> String {
    format!("site-{number}.{}.svc.cluster.local", world.namespace)
}

/// Waits until a Deployment has one pod and no other.
pub async fn wait_for_one(world: &World, deployment: &str) -> Result<()> {
    let began = tokio::time::Instant::now();
    while pods(world, deployment).await?.len() != 1 {
        ensure!(began.elapsed() < PATIENCE, "{deployment} does not come down to one pod");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// The names of a Deployment's pods, also of those that end.
pub async fn pods(world: &World, deployment: &str) -> Result<Vec<String>> {
    let prefix = format!("{deployment}-");
    let list = Objects::<Pod>::namespaced(world.client.clone(), &world.namespace)
        .list(&ListParams::default().match_any())
        .await?;
    Ok(list
        .iter()
        .map(ResourceExt::name_any)
        .filter(|name| name.starts_with(&prefix))
        .collect())
}
