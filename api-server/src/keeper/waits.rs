//! Why runs of `ScrapeTask`s wait: looked at now and then, so that their statuses can tell what lasts.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use selextract_platform::{
    frontier::{Frontier, hosts::HostState},
    ledger::{
        Ledger, TaskId,
        waits::{Wait, WaitingRun},
    },
    waiting::{self, Facts},
};

/// How often it is looked at: a reason is told when it has lasted for a minute.
pub(super) const ROUND: Duration = Duration::from_secs(15);
/// Stretches of one round; a longer backlog is gone through in some rounds.
const STRETCHES: usize = 5;

/// Goes on from where the last round ended, and returns where the next one begins.
pub(super) async fn round(ledger: &Ledger, frontier: &Frontier, mut from: Option<TaskId>) -> Result<Option<TaskId>> {
    let worker = frontier.workers().await.ok().map(|workers| workers > 0);
    for _ in 0..STRETCHES {
        let (runs, next) = ledger.waiting_runs(from).await?;
        let hosts = host_states(frontier, &runs).await?;
        ledger
            .note_waits(&waits(&runs, &hosts, worker, Timestamp::now()))
            .await?;
        from = next;
        if next.is_none() {
            break;
        }
    }
    ledger.tell_waits().await?;
    Ok(from)
}

async fn host_states<'r>(frontier: &Frontier, runs: &'r [WaitingRun]) -> Result<HashMap<&'r str, HostState>> {
    let hosts: HashSet<&str> = runs.iter().map(|run| run.host.as_str()).collect();
    let hosts: Vec<&str> = hosts.into_iter().collect();
    let states = frontier
        .host_states(&hosts)
        .await
        .context("asking the frontier about hosts")?;
    Ok(hosts.into_iter().zip(states).collect())
}

fn waits(runs: &[WaitingRun], hosts: &HashMap<&str, HostState>, worker: Option<bool>, now: Timestamp) -> Vec<Wait> {
    let explain = |run: &WaitingRun| {
        let facts = Facts {
            paused: run.paused,
            due: Timestamp::from_millisecond(run.due_milliseconds).unwrap_or(now),
            begun: run.begun,
            attempts: run.attempts,
            error_class: run.error_class.as_deref(),
            quota: run.held.then_some(None),
            worker,
            host: hosts.get(run.host.as_str()).copied().unwrap_or(HostState::Ready),
        };
        run.wait(waiting::explain(&facts, now).reason)
    };
    runs.iter().map(explain).collect()
}
