//! Each trigger of the workers alone, what bounds the API, and what an outage does to a decision. The windows are short, as in `scaling.rs`;
//! the API's own triggers are there and in `measured_elsewhere.rs`.

use anyhow::Result;
use selextract_e2e::{api::Api, world::World};
use serde_json::json;

use crate::{
    load::{Load, list},
    platform::{Platform, READY},
    scaling::{CALM, SOON, changes, scale},
};

/// Any answer is too slow for this API. Two pods of ten connections each are what 45 clients of the pooler leave beside three workers.
const CLUSTER: &str = "
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: {name: shop, namespace: NAMESPACE}
spec:
  profile: Small
  api: {pool: {size: 5, overflow: 5}, pod: {resources: {limits: {cpu: '1'}}}}
  worker: {lease: 5s, pod: {resources: {limits: {cpu: '1'}}}}
  keeper: {refillInterval: 1s, sweepInterval: 1s}
  pgbouncer: {maxClientConn: 45}
  egress:
    allow: [{host: sites.NAMESPACE.svc.cluster.local}]
  scaling:
    api:
      minReplicas: 1
      maxReplicas: 3
      stabilizationWindow: 20s
      cooldown: 5s
      triggers: {latencyP95: 1ms, cpuPercent: 100, cpuFor: 1h, errorPercent: 100}
    worker: {minReplicas: 1, maxReplicas: 3, stabilizationWindow: 20s, cooldown: 5s, triggers: {TRIGGERS}}
";
/// One trigger of the workers each; the others are never met.
const QUEUE: &str = "queueLength: 5, wait: 1h, cpuPercent: 100";
const WAIT: &str = "queueLength: 1000000, wait: 2s, cpuPercent: 100";
const CPU: &str = "queueLength: 1000000, wait: 1h, cpuPercent: 10";

fn manifest(triggers: &str) -> String {
    CLUSTER.replace("TRIGGERS", triggers)
}

/// So many tasks that may all run.
async fn backlog(platform: &Platform, api: &Api, tasks: usize) -> Result<()> {
    let mut task = platform.parameters_task()?;
    task["politeness"] = json!({ "minDelay": "0s", "maxConcurrent": 16 });
    api.create_tasks(&vec![task; tasks]).await
}

async fn grows(platform: &Platform, target: &str, reason: &str) -> Result<()> {
    let what = format!("{target} grows for {reason}");
    let grown = scale(platform, target, &what, SOON * 3, |found| {
        found["desired"].as_i64() >= Some(2)
    });
    let grown = grown.await?;
    let newest = changes(&grown).into_iter().next();
    assert!(
        newest.is_some_and(|(from, to, why)| to > from && why == reason),
        "{grown}"
    );
    Ok(())
}

/// The backlog is worked off, and calm takes away what it had brought.
async fn calms(platform: &Platform, target: &str) -> Result<()> {
    platform.wait_until_done().await?;
    let what = format!("one pod again of {target}");
    let calm = scale(platform, target, &what, CALM, |found| found["desired"] == 1).await?;
    let newest = changes(&calm).into_iter().next();
    assert!(
        newest.is_some_and(|(from, to, why)| to < from && ["Calm", "Idle"].contains(&why.as_str())),
        "{calm}"
    );
    Ok(())
}

// The load goes on while this waits for kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_trigger_of_the_workers_counts_alone_and_neither_budget_nor_outage_lets_the_api_grow() -> Result<()> {
    let world = World::enter("journey-triggers").await?;
    world.serve_sites()?;
    world.apply(&manifest(QUEUE))?;
    let platform = Platform { world };
    platform.wait_until_ready().await?;
    platform
        .world
        .wait_for_condition("selextractcluster/shop", "MonitoringReady", "True", READY)
        .await?;
    scale(&platform, "api", "one API pod at rest", CALM, |api| api["desired"] == 1).await?;

    let reading = Load::start(&platform, 1, list).await?;
    backlog(&platform, &platform.api().await?, 100).await?;
    grows(&platform, "worker", "QueueLong").await?;
    grows(&platform, "api", "LatencyHigh").await?;
    let because = |reason: &'static str| move |api: &serde_json::Value| api["decision"]["reason"] == reason;
    let bound = scale(
        &platform,
        "api",
        "the pooler's clients bound the API",
        SOON * 2,
        because("ConnectionBudget"),
    );
    let bound = bound.await?;
    assert_eq!(bound["desired"], 2, "{bound}");

    // A queue that answers nobody: whatever is slow for it, more pods do not help.
    let silent = "exec valkey-cli --no-auth-warning CLIENT PAUSE 40000 ALL";
    let exec = ["exec", "statefulset/shop-redis-queue", "--", "bash", "-c", silent];
    platform.world.kubectl(&exec)?;
    let held = scale(
        &platform,
        "api",
        "an outage holds the API",
        SOON * 2,
        because("DependencyUnhealthy"),
    );
    let held = held.await?;
    assert_eq!(held["desired"], 2, "{held}");
    reading.end().await;
    calms(&platform, "worker").await?;
    calms(&platform, "api").await?;

    for (triggers, reason) in [(WAIT, "WaitLong"), (CPU, "CpuHigh")] {
        platform.world.apply(&manifest(triggers))?;
        backlog(&platform, &platform.api().await?, 100).await?;
        grows(&platform, "worker", reason).await?;
        calms(&platform, "worker").await?;
    }
    platform.world.leave()
}
