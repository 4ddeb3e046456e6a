//! Takes workers away while they work, and counts at the site what was fetched for it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::killer::pods;
use crate::{bench::WHOLE, world::World};

/// Workers before and after.
const MANY: usize = 3;
const FEW: usize = 1;
/// What a new worker works before it may be taken.
const WORK: Duration = Duration::from_secs(4);
/// For a worker to come, or to end its pages and go.
const PATIENCE: Duration = Duration::from_mins(2);

/// Goes from three workers to one, so many times; what it did.
pub async fn work(world: &World, times: usize) -> Result<Vec<String>> {
    for round in 1..=times {
        scale(world, MANY).await?;
        tokio::time::sleep(WORK).await;
        scale(world, FEW).await?;
        println!("      {round} of {times} times from {MANY} workers to {FEW}");
    }
    Ok(vec![format!("{times} times from {MANY} workers to {FEW}")])
}

async fn scale(world: &World, replicas: usize) -> Result<()> {
    let object = format!("selextractcluster/{WHOLE}");
    let patch = format!(r#"{{"spec":{{"worker":{{"replicas":{replicas}}}}}}}"#);
    world.kubectl(&["patch", &object, "--type=merge", "-p", &patch])?;
    let selector = format!("app.kubernetes.io/instance={WHOLE},app.kubernetes.io/component=worker");
    let settled = || {
        // Whoever is going still works.
        let names = world.kubectl(&["get", "pods", "-l", &selector, "-o", "name"])?;
        let ready = pods(world, "worker")?.iter().filter(|pod| is_ready(pod)).count();
        Ok((names.lines().count() == replicas && ready == replicas).then_some(()))
    };
    world
        .wait_until(&format!("{replicas} workers"), PATIENCE, settled)
        .await
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// How often the documentation was fetched by the platform, as the site counted.
pub fn visits(world: &World) -> Result<usize> {
    let log = world.kubectl(&["logs", "deployment/sites", "--tail=-1"])?;
    let is_ours = |line: &&str| line.contains(" /docs/") && line.contains("Selextract");
    Ok(log.lines().filter(is_ours).count())
}

/// How many pages of it the ledger has.
pub fn pages(world: &World) -> Result<usize> {
    let sql = "SELECT count(*) FROM pages WHERE url LIKE '%/docs/%'";
    let told = world.sql(&format!("{WHOLE}-postgres-0"), sql)?;
    told.parse().with_context(|| format!("the ledger said {told:?}"))
}
