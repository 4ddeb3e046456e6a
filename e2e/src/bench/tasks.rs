//! `ScrapeTasks`: how often a run writes their status, and thousands of them at once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use super::clusters::{WHOLE, objects};
use crate::world::World;

const MANAGER: &str = "selextract-bench";
const AT_ONCE: usize = 8;
const PAGE: u32 = 500;
/// For all runs of a measurement.
const RUNS_PATIENCE: Duration = Duration::from_mins(5);
/// For one answer of the watch while runs go on.
const WATCH_SECONDS: u32 = 290;

/// How often each of so many new tasks' status was written until its run had ended.
pub async fn count_status_writes(world: &World, runs: usize) -> Result<Vec<usize>> {
    let tasks = objects(world, "ScrapeTask");
    // Until the operator has reached a new cluster's API a task says so, which is a write more: of the cluster's start and not of a run.
    apply(&tasks, "first", run_of(world)).await?;
    world
        .wait_for_condition("scrapetask/first", "Succeeded", "True", RUNS_PATIENCE)
        .await?;
    let from = tasks.list_metadata(&ListParams::default().limit(1)).await?;
    let from = from.metadata.resource_version.context("a list without version")?;
    let watch = WatchParams::default().timeout(WATCH_SECONDS);
    let mut events = tasks.watch(&watch, &from).await?.boxed();
    for index in 0..runs {
        apply(&tasks, &format!("run-{index}"), run_of(world)).await?;
    }
    let mut seen = Seen::default();
    let follow = async {
        while seen.ended < runs {
            let event = events.try_next().await?.context("the watch ended before the runs")?;
            if let WatchEvent::Added(task) | WatchEvent::Modified(task) = event {
                seen.note(&task);
            }
        }
        // A write after the last one would be one too many: it has this long to show itself.
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(5), events.try_next())
            .await
            .unwrap_or(Ok(None))
        {
            if let WatchEvent::Modified(task) = event {
                seen.note(&task);
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(RUNS_PATIENCE, follow)
        .await
        .context("the runs did not end")??;
    Ok(seen.writes.into_values().collect())
}

/// The statuses that went by.
#[derive(Default)]
struct Seen {
    last: HashMap<String, Value>,
    writes: HashMap<String, usize>,
    ended: usize,
}

impl Seen {
    fn note(&mut self, task: &DynamicObject) {
        let (name, status) = (task.name_any(), task.data["status"].clone());
        if !name.starts_with("run-") {
            return;
        }
        let last = self.last.insert(name.clone(), status.clone());
        // The first is the definition's default, which nobody wrote.
        let Some(last) = last else { return };
        if last == status {
            return;
        }
        *self.writes.entry(name).or_default() += 1;
        let ended = |status: &Value| matches!(status["state"].as_str(), Some("Succeeded" | "Failed" | "Canceled"));
        if ended(&status) && !ended(&last) {
            self.ended += 1;
        }
    }
}

fn run_of(world: &World) -> Value {
    let url = format!(
        "http://sites.{}.svc.cluster.local/docs/runtime-config-file-locations.html",
        world.namespace
    );
    json!({
        "clusterRef": { "name": WHOLE },
        "task": {
            "url": url, "items": "dt[id^=\"GUC-\"]",
            "fields": [{ "name": "parameter", "selector": ".term > .varname", "required": true }],
            "pagination": { "nextSelector": ".navheader a[accesskey=\"n\"][href^=\"runtime-config\"]", "maxPages": 3 },
        },
    })
}

async fn apply(tasks: &Api<DynamicObject>, name: &str, spec: Value) -> Result<()> {
    let task = json!({ "apiVersion": "selextract.io/v1alpha1", "kind": "ScrapeTask", "metadata": { "name": name }, "spec": spec });
    tasks
        .patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&task))
        .await
        .with_context(|| format!("ScrapeTask {name} cannot be applied"))?;
    Ok(())
}

/// Applies this many tasks that do not run (half are suspended, half wait for a day in the far future) and waits until the operator has
/// looked at each; the seconds that both took.
pub async fn fill(world: &World, number: usize) -> Result<(f64, f64)> {
    let tasks = objects(world, "ScrapeTask");
    let started = Instant::now();
    futures::stream::iter(0..number)
        .map(|index| apply_idle(&tasks, world, index))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let applied = started.elapsed().as_secs_f64();
    let patience = Duration::from_mins(2) + Duration::from_millis(100).saturating_mul(u32::try_from(number)?);
    loop {
        let accepted = count_accepted(&tasks).await?;
        if accepted >= number {
            return Ok((applied, started.elapsed().as_secs_f64()));
        }
        ensure!(
            started.elapsed() < patience,
            "{accepted} of {number} tasks are accepted after {} s",
            started.elapsed().as_secs()
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

async fn apply_idle(tasks: &Api<DynamicObject>, world: &World, index: usize) -> Result<()> {
    let mut spec = run_of(world);
    if index.is_multiple_of(2) {
        spec["suspend"] = json!(true);
    } else {
        // Runs on the last day of February in leap years.
        spec["schedule"] = json!({ "cron": "0 0 29 2 *" });
    }
    apply(tasks, &format!("idle-{index:05}"), spec).await
}

async fn count_accepted(tasks: &Api<DynamicObject>) -> Result<usize> {
    let (mut accepted, mut page) = (0, ListParams::default().limit(PAGE));
    loop {
        let list = tasks.list(&page).await?;
        accepted += list.items.iter().filter(|task| is_accepted_idle(task)).count();
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(accepted),
        }
    }
}

fn is_accepted_idle(task: &DynamicObject) -> bool {
    let conditions = task.data["status"]["conditions"].as_array();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    task.name_any().starts_with("idle-") && conditions.into_iter().flatten().any(ready)
}

/// Takes all tasks away, which the operator tells their cluster.
pub async fn remove_all(world: &World) -> Result<()> {
    let tasks = objects(world, "ScrapeTask");
    // Answers with the list or the status of the deletion; either is told by what is left.
    drop(
        tasks
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?,
    );
    let started = Instant::now();
    loop {
        let left = tasks.list_metadata(&ListParams::default().limit(1)).await?;
        if left.items.is_empty() {
            return Ok(());
        }
        ensure!(
            started.elapsed() < Duration::from_mins(20),
            "the tasks are not gone after 20 minutes"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({ "metadata": { "name": "run-1" }, "status": status })).unwrap()
    }

    #[test]
    fn only_changes_of_the_status_count_and_the_default_is_no_change() {
        let mut seen = Seen::default();
        let states = ["Pending", "Running", "Running", "Succeeded"];
        seen.note(&task(&json!({ "observedGeneration": -1 })));
        for state in states {
            seen.note(&task(&json!({ "state": state })));
        }
        assert_eq!(seen.writes["run-1"], 3);
        assert_eq!(seen.ended, 1);
    }
}
