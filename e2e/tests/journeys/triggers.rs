//! Each trigger alone, on the real cluster: the right target grows for the right reason, and calm takes it back. What bounds the API, and
//! what an outage does to decisions, is seen beside it. The windows are short, as in `scaling.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use reqwest::Method;
use selextract_e2e::{api::Api, world::World};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    platform::{DONE, Platform, READY},
    scaling::{CALM, SOON, changes, scale},
};

/// Two API pods of ten connections each are what 45 clients of the pooler leave beside three workers and the rest.
const CLUSTER: &str = "
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: {name: shop, namespace: NAMESPACE}
spec:
  profile: Small
  api: {pool: {size: 5, overflow: 5}, pod: {resources: {limits: {cpu: '1'}}}}
  keeper: {refillInterval: 1s, sweepInterval: 1s}
  pgbouncer: {maxClientConn: 45}
  egress:
    allow: [{host: sites.NAMESPACE.svc.cluster.local}]
";
/// Thresholds that nothing meets.
const NO_API: &str = "cpuPercent: 100, cpuFor: 1h, latencyP95: 10m, errorPercent: 100";
const NO_WORKER: &str = "queueLength: 1000000, wait: 1h, cpuPercent: 100";
const LIMITS: &str = "minReplicas: 1, maxReplicas: 3, stabilizationWindow: 20s, cooldown: 5s";

/// The cluster with these triggers of each target; without the workers' it has none.
fn manifest(api: &str, worker: Option<&str>) -> String {
    let cpu = "lease: 5s, pod: {resources: {limits: {cpu: '1'}}}";
    let api = format!("    api: {{{LIMITS}, triggers: {{{api}}}}}");
    let workers = match worker {
        Some(triggers) => format!("    worker: {{{LIMITS}, triggers: {{{triggers}}}}}\n  worker: {{{cpu}}}"),
        None => format!("  worker: {{replicas: 0, {cpu}}}"),
    };
    format!("{CLUSTER}  scaling:\n{api}\n{workers}\n")
}

/// `of` with one of its settings replaced.
fn with(of: &str, setting: &str) -> String {
    let key = setting.split(':').next().unwrap_or_default();
    let others = of.split(", ").filter(|one| !one.starts_with(key));
    others.chain([setting]).collect::<Vec<_>>().join(", ")
}

/// Somebody who asks for something again and again, whatever the answer.
struct Load {
    stop: Arc<AtomicBool>,
    working: JoinHandle<()>,
}

impl Load {
    fn start<F: Future<Output = ()> + Send>(ask: impl Fn() -> F + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let working = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                ask().await;
            }
        });
        Self { stop, working }
    }

    async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.working.await?)
    }
}

/// A target grows for this reason alone.
async fn grows(platform: &Platform, target: &str, reason: &str) -> Result<()> {
    let what = format!("{target} grows for {reason}");
    let grown = scale(platform, target, &what, SOON * 3, |found| {
        let newest = changes(found).into_iter().next();
        found["desired"].as_i64() >= Some(2) && newest.is_some_and(|(from, to, why)| to > from && why == reason)
    });
    grown.await.map(drop)
}

/// A target is at its minimum again, and for calm.
async fn calms(platform: &Platform, target: &str) -> Result<()> {
    let what = format!("one pod again of {target}");
    let calm = scale(platform, target, &what, CALM, |found| found["desired"] == 1).await?;
    let newest = changes(&calm).into_iter().next();
    assert!(
        newest.is_some_and(|(from, to, why)| to < from && ["Calm", "Idle"].contains(&why.as_str())),
        "{calm}"
    );
    Ok(())
}

/// So many tasks at once, which all may run.
async fn backlog(platform: &Platform, api: &Api, tasks: usize) -> Result<()> {
    let mut task = platform.parameters_task()?;
    task["politeness"] = serde_json::json!({ "minDelay": "0s", "maxConcurrent": 16 });
    api.create_tasks(&vec![task; tasks]).await
}

async fn is_done(platform: &Platform) -> Result<()> {
    let ended = || {
        Ok((platform.sql("SELECT count(*) FROM tasks WHERE status IN ('pending', 'running')")? == "0").then_some(()))
    };
    platform.world.wait_until("the end of every task", DONE * 3, ended).await
}

#[tokio::test]
async fn each_trigger_alone_adds_pods_for_its_own_reason_and_an_outage_adds_none() -> Result<()> {
    let world = World::enter("journey-triggers").await?;
    world.serve_sites()?;
    world.apply(&manifest(NO_API, Some(NO_WORKER)))?;
    let platform = Platform { world };
    platform.wait_until_ready().await?;
    platform
        .world
        .wait_for_condition("selextractcluster/shop", "MonitoringReady", "True", READY)
        .await?;
    let api = platform.api().await?;
    scale(&platform, "api", "one API pod at rest", CALM, |api| api["desired"] == 1).await?;

    // CPU of the API, by sign-ins, which cost some on purpose; and the length of the queue.
    let busy = (with(NO_API, "cpuPercent: 10"), with(NO_WORKER, "queueLength: 5"));
    platform.world.apply(&manifest(&with(&busy.0, "cpuFor: 10s"), Some(&busy.1)))?;
    let (address, password) = (
        platform.world.service_address("shop-api")?,
        platform.world.secret("shop-api", "admin-password")?,
    );
    let sign_ins = Load::start(move || {
        let (address, password) = (address.clone(), password.clone());
        async move { drop(Api::login(&address, "admin", &password).await) }
    });
    backlog(&platform, &api, 100).await?;
    grows(&platform, "api", "CpuHigh").await?;
    grows(&platform, "worker", "QueueLong").await?;
    let bound = scale(&platform, "api", "the pooler's clients bound the API", SOON * 2, |api| {
        api["decision"]["reason"] == "ConnectionBudget"
    });
    let bound = bound.await?;
    assert_eq!(bound["desired"], 2, "{bound}");
    sign_ins.end().await?;
    is_done(&platform).await?;
    calms(&platform, "api").await?;
    calms(&platform, "worker").await?;

    // How long tasks wait.
    platform.world.apply(&manifest(NO_API, Some(&with(NO_WORKER, "wait: 2s"))))?;
    backlog(&platform, &api, 100).await?;
    grows(&platform, "worker", "WaitLong").await?;
    is_done(&platform).await?;
    calms(&platform, "worker").await?;

    // CPU of the workers.
    platform.world.apply(&manifest(NO_API, Some(&with(NO_WORKER, "cpuPercent: 10"))))?;
    backlog(&platform, &api, 100).await?;
    grows(&platform, "worker", "CpuHigh").await?;
    is_done(&platform).await?;
    calms(&platform, "worker").await?;

    // Errors of the API: no worker takes previews. At first the queue is to blame, which more pods would not help.
    platform
        .world
        .apply(&manifest(&with(NO_API, "errorPercent: 1"), None))?;
    let api = platform.api().await?;
    let task = platform.parameters_task()?;
    let previews = Load::start(move || {
        let (api, task) = (api.clone(), task.clone());
        async move { drop(api.send(Method::POST, "tasks:preview", Some(&task)).await) }
    });
    let silent = "exec valkey-cli --no-auth-warning CLIENT PAUSE 60000 ALL";
    platform
        .world
        .kubectl(&["exec", "statefulset/shop-redis-queue", "--", "bash", "-c", silent])?;
    let held = scale(&platform, "api", "an outage holds the API", SOON * 2, |api| {
        api["decision"]["reason"] == "DependencyUnhealthy"
    });
    let held: Value = held.await?;
    assert_eq!(held["desired"], 1, "{held}");
    grows(&platform, "api", "ErrorsHigh").await?;
    previews.end().await?;
    calms(&platform, "api").await
}
