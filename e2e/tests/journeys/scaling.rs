//! The loop on the real cluster: what Prometheus measures sizes API and workers, and the status says why. The windows are short here; the
//! guide's own lengths are proven by the stepped clock (`operator/src/scaling/days.rs`).

use std::{convert::Infallible, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::platform::{Platform, READY, SHOP};
use selextract_e2e::{api::Api, world::World};

/// CPU is measured against a limit here: against the profile's small request anything is much.
const SCALED: &str = "
  api: {pod: {resources: {limits: {cpu: '1'}}}}
  scaling:
    api:
      {minReplicas: 1, maxReplicas: 3, stabilizationWindow: 20s, cooldown: 5s, triggers: {latencyP95: 20ms}}
    worker:
      {minReplicas: 1, maxReplicas: 3, stabilizationWindow: 20s, cooldown: 5s, triggers: {queueLength: 5, wait: 5s}}
";
/// From a cause to its effect: scrape, look, reconcile, on two busy cores.
pub const SOON: Duration = Duration::from_mins(1);
/// From the last task's end to the minimum: the rates' window, the stabilisation window, two steps.
pub const CALM: Duration = Duration::from_mins(4);

fn manifest() -> String {
    let limited = "worker: {lease: 5s, pod: {resources: {limits: {cpu: '1'}}}}";
    format!("{}{SCALED}", SHOP.trim_end().replace("worker: {lease: 5s}", limited))
}

async fn scaled() -> Result<Platform> {
    let world = World::enter("journey-scaling").await?;
    world.serve_sites()?;
    world.apply(&manifest())?;
    let platform = Platform { world };
    platform.wait_until_ready().await?;
    platform
        .world
        .wait_for_condition("selextractcluster/shop", "MonitoringReady", "True", READY)
        .await?;
    Ok(platform)
}

/// The whole of `status.scaling` of a target, once it is as wanted.
pub async fn scale(
    platform: &Platform,
    target: &str,
    what: &str,
    timeout: Duration,
    holds: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let pointer = format!("/status/scaling/{target}");
    let asked = || {
        let cluster = platform.world.get("selextractcluster/shop")?;
        let found = cluster.pointer(&pointer).cloned().unwrap_or_default();
        Ok(if holds(&found) {
            Some(found)
        } else {
            anyhow::bail!("status.scaling.{target} is {found}")
        })
    };
    platform.world.wait_until(what, timeout, asked).await
}

pub fn changes(scale: &Value) -> Vec<(i64, i64, String)> {
    let history = scale["history"].as_array().cloned().unwrap_or_default();
    let change = |change: &Value| {
        let reason = change["reason"].as_str().unwrap_or_default().to_owned();
        (
            change["from"].as_i64().unwrap_or(-1),
            change["to"].as_i64().unwrap_or(-1),
            reason,
        )
    };
    history.iter().map(change).collect()
}

fn politely(platform: &Platform, min_delay: &str) -> Result<Value> {
    let mut task = platform.parameters_task()?;
    task["politeness"] = json!({ "minDelay": min_delay, "maxConcurrent": 16 });
    Ok(task)
}

/// Has these tasks wait, again and again, for as long as it is polled: how fast they are done depends on the machine.
async fn keep_waiting(platform: &Platform, api: &Api, tasks: &[Value]) -> Result<Infallible> {
    loop {
        let waiting: usize = platform
            .sql("SELECT count(*) FROM tasks WHERE status = 'pending'")?
            .parse()?;
        if waiting < tasks.len() {
            api.create_tasks(tasks).await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_backlog_adds_workers_a_slow_site_does_not_and_calm_takes_them_away() -> Result<()> {
    let platform = scaled().await?;
    let api = platform.api().await?;

    let tasks: Vec<Value> = (0..150).map(|_| politely(&platform, "0s")).collect::<Result<_>>()?;
    let wanted = scale(
        &platform,
        "worker",
        "three workers for the backlog",
        SOON * 2,
        |worker| worker["desired"] == 3,
    );
    let worker = tokio::select! {
        worker = wanted => worker?,
        ended = keep_waiting(&platform, &api, &tasks) => match ended? {},
    };
    assert!(
        changes(&worker)
            .iter()
            .any(|(from, to, why)| to > from && ["QueueLong", "WaitLong"].contains(&why.as_str())),
        "{worker}"
    );
    // In the middle of it Prometheus dies: nothing is taken away for that.
    platform
        .world
        .kubectl(&["delete", "pod", "shop-prometheus-0", "--grace-period=0", "--force"])?;
    let events = platform.world.kubectl(&[
        "get",
        "events",
        "--field-selector=involvedObject.name=shop",
        "-o",
        "json",
    ])?;
    assert!(events.contains("ScaledOut"), "an event tells of it");

    let description = platform.world.kubectl(&["describe", "sxc", "shop"])?;
    for said in ["queue", "Threshold", "Queue"] {
        assert!(description.contains(said), "{said} in {description}");
    }
    platform.wait_until_done().await?;
    let failed = platform.sql("SELECT count(*) FROM tasks WHERE status <> 'succeeded'")?;
    assert_eq!(failed, "0", "no task fell between the workers that came and went");
    let worker = scale(&platform, "worker", "one worker again", CALM, |worker| {
        worker["desired"] == 1
    })
    .await?;
    assert!(
        changes(&worker)
            .iter()
            .all(|(from, to, why)| to > from || ["Calm", "Idle"].contains(&why.as_str())),
        "nothing went but for calm: {worker}"
    );

    // Before some went, each was told what it is worth by its tasks.
    let workers = platform
        .world
        .kubectl(&["get", "pods", "-l", "app.kubernetes.io/component=worker", "-o", "json"])?;
    assert!(
        workers.contains("controller.kubernetes.io/pod-deletion-cost"),
        "{workers}"
    );

    let slow: Vec<Value> = (0..60).map(|_| politely(&platform, "20s")).collect::<Result<_>>()?;
    api.create_tasks(&slow).await?;
    let limited = |worker: &Value| worker["decision"]["reason"] == "DomainLimited";
    let worker = scale(
        &platform,
        "worker",
        "a backlog that waits for its site",
        SOON * 2,
        limited,
    )
    .await?;
    assert_eq!(worker["desired"], 1, "{worker}");

    // The accounts are looked at once a minute.
    let kept = || {
        let cluster = platform.world.get("selextractcluster/shop")?;
        let objectives = cluster.pointer("/status/slo/objectives").and_then(Value::as_array);
        let monthly = cluster.pointer("/status/cost/monthly").and_then(Value::as_str);
        let all = objectives.map(Vec::len) == Some(15) && monthly.is_some_and(|monthly| monthly != "0");
        Ok(all.then_some(()))
    };
    platform
        .world
        .wait_until("promises and costs in the status", CALM, kept)
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_api_grows_one_by_one_and_a_re_applied_manifest_takes_nothing_back() -> Result<()> {
    let platform = scaled().await?;
    // The profile begins with two pods; at rest the spec's one is enough.
    scale(&platform, "api", "one API pod at rest", CALM, |api| api["desired"] == 1).await?;
    let password = platform.world.secret("shop-api", "admin-password")?;
    let address = platform.world.service_address("shop-api")?;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let halted = stop.clone();
    // A login takes longer than the 20 ms that this cluster allows.
    let load = tokio::spawn(async move {
        while !halted.load(std::sync::atomic::Ordering::Relaxed) {
            drop(selextract_e2e::api::Api::login(&address, "admin", &password).await);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let grown = scale(&platform, "api", "a second API pod", SOON * 2, |api| {
        api["desired"].as_i64() >= Some(2)
    })
    .await?;
    let change = changes(&grown).into_iter().next().context("a change")?;
    assert_eq!(change.2, "LatencyHigh", "{grown}");
    // As a GitOps tool does, all the time.
    platform.world.apply(&manifest())?;
    let after = scale(&platform, "api", "three API pods", SOON * 2, |api| api["desired"] == 3).await?;
    let steps = changes(&after);
    assert!(
        steps.iter().take(2).all(|(from, to, _)| to - from == 1),
        "one at a time, and none back: {steps:?}"
    );
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    load.await?;
    let calm = scale(&platform, "api", "one API pod again", CALM, |api| api["desired"] == 1).await?;
    assert!(
        changes(&calm)
            .iter()
            .all(|(from, to, why)| to > from || ["Calm", "Idle"].contains(&why.as_str())),
        "{calm}"
    );

    // Workers may sleep, and the first task wakes one.
    let sleeping = manifest().replace(
        "{minReplicas: 1, maxReplicas: 3, stabilizationWindow: 20s, cooldown: 5s, triggers: {queue",
        "{minReplicas: 0, maxReplicas: 3, stabilizationWindow: 20s, cooldown: 5s, triggers: {queue",
    );
    assert_ne!(sleeping, manifest());
    platform.world.apply(&sleeping)?;
    scale(&platform, "worker", "no worker", CALM, |worker| worker["desired"] == 0).await?;
    let api = platform.api().await?;
    let id = api.create_task(&platform.parameters_task()?).await?;
    let task = api.wait_for_end(&id, SOON * 2).await?;
    assert_eq!(task["status"], "succeeded", "{task}");
    Ok(())
}
