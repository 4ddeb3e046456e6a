//! The operator itself: of its replicas one works, another takes over when that one dies, and what was missed meanwhile is made good.

use std::time::Duration;

use anyhow::{Context, Result};
use selextract_e2e::world::World;
use serde_json::json;

use crate::platform::shared;

const MINUTE: Duration = Duration::from_mins(1);
/// Stops the operator's process in its container without a chance to give its lease back.
const FREEZE: &str = "for p in /proc/[0-9]*; do [[ $(readlink \"$p/exe\") != */selextract-operator ]] || kill -STOP \"${p#/proc/}\"; done";

#[tokio::test]
async fn of_two_operators_one_works_and_when_it_dies_another_takes_over() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    world.set_operator(&["replicas=2"])?;
    let dying = holder(world)?;
    let other = pods(world)?
        .into_iter()
        .find(|pod| *pod != dying)
        .context("there is one operator only")?;

    delete_a_child_and_see_it_back(world, || Ok(())).await?;
    assert!(metrics(world, &dying).await?.contains("selextract_operator_leader 1"));
    let idle = metrics(world, &other).await?;
    assert!(idle.contains("selextract_operator_leader 0"), "{idle}");
    let acts = [
        "selextract_reconcile_duration_seconds_count",
        "selextract_api_server_writes_total{",
    ];
    assert!(
        !acts.iter().any(|series| idle.contains(series)),
        "the other acts too: {idle}"
    );

    delete_a_child_and_see_it_back(world, || {
        world.kubectl_of_operator(&["exec", &dying, "--", "bash", "-c", FREEZE])?;
        let delete = ["delete", "pod", &dying, "--force", "--grace-period=0", "--wait=false"];
        world.kubectl_of_operator(&delete).map(drop)
    })
    .await?;
    // The other, or the one that the Deployment started in the dead one's place.
    assert_ne!(holder(world)?, dying);

    world.set_operator(&["replicas=1"])?;
    world
        .wait_until("the operator that stays holds the lease", MINUTE, || {
            Ok((pods(world)? == [holder(world)?]).then_some(()))
        })
        .await?;
    platform.wait_until_ready().await?;
    Ok(())
}

#[tokio::test]
async fn a_scrape_task_that_is_deleted_while_no_operator_runs_is_ended_when_one_is_back() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    let mut task = platform.parameters_task()?;
    // Far more time than this journey takes.
    task["politeness"] = json!({ "minDelay": "30s" });
    world.apply(&format!(
        "{{apiVersion: selextract.io/v1alpha1, kind: ScrapeTask, metadata: {{name: forgotten, namespace: NAMESPACE}}, \
         spec: {{clusterRef: {{name: shop}}, task: {task}}}}}"
    ))?;
    let run = world
        .wait_until("the run is accepted", MINUTE, || {
            let task = world.get("scrapetask/forgotten")?;
            Ok(task["status"]["runId"].as_str().map(str::to_owned))
        })
        .await?;

    let scale = |replicas: &str| world.kubectl_of_operator(&["scale", "deployment/selextract-operator", replicas]);
    scale("--replicas=0")?;
    world
        .wait_until("the operator is gone", MINUTE, || {
            Ok(pods(world)?.is_empty().then_some(()))
        })
        .await?;
    world.kubectl(&["delete", "scrapetask/forgotten", "--timeout=20s"])?;
    scale("--replicas=1")?;
    let api = platform.api().await?;
    let ended = api.wait_for_end(&run, MINUTE).await?;
    assert_eq!(ended["status"], "canceled", "{ended}");
    platform.wait_until_ready().await?;
    Ok(())
}

/// A child that is deleted by hand, after `before`, comes back.
async fn delete_a_child_and_see_it_back(world: &World, before: impl FnOnce() -> Result<()>) -> Result<()> {
    const CHILD: &str = "configmap/shop-egress";
    let uid = || Ok::<_, anyhow::Error>(world.get(CHILD)?["metadata"]["uid"].clone());
    let old = uid()?;
    before()?;
    world.kubectl(&["delete", CHILD])?;
    // A lease runs out after 30 s at most.
    let back = || Ok(uid().ok().filter(|new| *new != old));
    world.wait_until("the deleted child is back", MINUTE, back).await?;
    Ok(())
}

fn holder(world: &World) -> Result<String> {
    let path = "jsonpath={.spec.holderIdentity}";
    world.kubectl_of_operator(&["get", "lease/selextract-operator", "-o", path])
}

/// The names of the operator's pods that are not going.
fn pods(world: &World) -> Result<Vec<String>> {
    let pods = world.operator_pods()?;
    Ok(pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
        .collect())
}

async fn metrics(world: &World, pod: &str) -> Result<String> {
    let address = world.kubectl_of_operator(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])?;
    let answer = reqwest::get(format!("http://{address}:9090/metrics")).await?;
    Ok(answer.error_for_status()?.text().await?)
}
