//! What the operator writes when nothing happens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::writes::{self, Counted};
use crate::world::World;

/// How long the operator must have written nothing before the measurement begins, and how long that is waited for.
const CALM: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_mins(4);

/// Everything that the operator keeps in a namespace.
const KINDS: &str = "selextractclusters,scrapetasks,deployments,statefulsets,jobs,services,secrets,configmaps,serviceaccounts,\
    networkpolicies,poddisruptionbudgets";
/// The operator's names as a writer; its writes of status go without a name.
const MANAGERS: [&str; 3] = ["selextract-operator", "selextract-scaler", "unknown"];

/// Writes to the API server while nothing happened.
pub struct Rest {
    /// Objects of this namespace alone that the operator changed, out of how many.
    pub changed: (BTreeMap<String, u64>, usize),
    /// The operator's by its own count.
    pub operator: BTreeMap<String, u64>,
    /// The operator's by the audit log, where there is one.
    pub audited: Option<BTreeMap<String, u64>>,
    /// Everybody's, by the API server's counters.
    pub everybody: BTreeMap<String, u64>,
}

/// Waits until the operator rests, or, where others use it too, for as long as that usually takes; then counts for this long.
pub async fn measure(world: &World, duration: Duration, shared: bool) -> Result<Rest> {
    wait_for_accounts(world).await?;
    if shared {
        tokio::time::sleep(2 * CALM).await;
    } else {
        wait_until_calm(world).await?;
    }
    let (began, before) = (Timestamp::now(), writes::count(world).await?);
    tokio::time::sleep(duration).await;
    let after = writes::count(world).await?;
    compare(&before, &after, changed_since(world, began)?)
}

/// The objects of the namespace in which the operator changed something since, by the time of each writer's last change; an entry without one is
/// older than this world (the scale subresource keeps none).
fn changed_since(world: &World, began: Timestamp) -> Result<(BTreeMap<String, u64>, usize)> {
    let list: Value = serde_json::from_str(&world.kubectl(&["get", KINDS, "--show-managed-fields", "-o", "json"])?)?;
    let objects = list["items"].as_array().cloned().unwrap_or_default();
    let mut changed = BTreeMap::new();
    for object in &objects {
        let entries = object["metadata"]["managedFields"].as_array();
        let ours = entries
            .into_iter()
            .flatten()
            .filter(|entry| MANAGERS.iter().any(|name| entry["manager"] == *name));
        let newer = |entry: &Value| {
            let time = entry["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            time.is_some_and(|time| time > began)
        };
        if ours.into_iter().any(newer) {
            let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let what = format!("{}/{}", name(&object["kind"]), name(&object["metadata"]["name"]));
            *changed.entry(what).or_default() += 1;
        }
    }
    Ok((changed, objects.len()))
}

fn compare(before: &Counted, after: &Counted, changed: (BTreeMap<String, u64>, usize)) -> Result<Rest> {
    Ok(Rest {
        changed,
        operator: writes::added(&before.operator, &after.operator)?,
        audited: writes::audited(before, after)?,
        everybody: writes::added(&before.everybody, &after.everybody)?,
    })
}

/// A new cluster's promises and costs are told for the first time a minute or two after it was made, and once an hour then.
async fn wait_for_accounts(world: &World) -> Result<()> {
    let told = || {
        let list: Value = serde_json::from_str(&world.kubectl(&["get", "selextractclusters", "-o", "json"])?)?;
        let mut clusters = list["items"].as_array().into_iter().flatten();
        let all = clusters.all(|cluster| cluster["status"]["slo"].is_object() && cluster["status"]["cost"].is_object());
        Ok(all.then_some(()))
    };
    world
        .wait_until("every cluster's promises and costs are told", PATIENCE, told)
        .await
}

async fn wait_until_calm(world: &World) -> Result<()> {
    let started = Instant::now();
    loop {
        let before = writes::count(world).await?;
        tokio::time::sleep(CALM).await;
        let written = writes::added(&before.operator, &writes::count(world).await?.operator)?;
        if written.is_empty() {
            return Ok(());
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "the operator does not come to rest; it wrote {}",
            writes::told(&written)
        );
    }
}
