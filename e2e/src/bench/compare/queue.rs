//! The queue: empty tasks from acceptance to their end, through the ledger, beside Celery.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use selextract_platform::ledger::{TaskId, UserId};
use tokio::time::sleep;

use super::{
    Outcome,
    cast::{Played, Sample},
    duel::{Duel, Spread},
    peers::Peers,
    play::{self, Doer},
    stage::{Program, Stage, wait_until},
};

/// Tasks of a round: some seconds of CPU for each contestant.
const PEER_TASKS: usize = 1_000;
const SINGLE_TASKS: usize = 5_000;
const BATCHED_TASKS: usize = 20_000;
const BATCH: usize = 100;
/// Tasks that a worker holds by default: twice its concurrency.
const HELD: usize = 8;
const BACKLOG: usize = 100_000;
const HOSTS: usize = 10_000;
const PROBES: usize = 300;
/// Probes before those that count: who takes them has just started, and connects.
const FIRST_PROBES: usize = 50;

/// Runs the whole scenario.
pub async fn compare(rounds: usize, programs: Option<&Path>) -> Result<Outcome> {
    let stage = Stage::start(programs).await?;
    let owner = stage.users(2).await?;
    let peer = Celery::start(&stage, Peers::provide()?).await?;
    let keeper = stage.keeper().await?;
    let mut duels = vec![
        Duel::new("queue, one acknowledgement each", "task", 5.0),
        Duel::new("queue, batches of 100", "task", 15.0),
    ];
    for (duel, batch) in duels.iter_mut().zip([1, BATCH]) {
        for round in 0..=rounds {
            let ours = drain(&stage, &keeper, owner[0], batch).await?;
            let theirs = peer.drain(&stage).await?;
            duel.take(round, ours, theirs);
        }
    }
    let mut notes = Vec::new();
    for (what, batch) in [("one at a time", 1), ("batches of 100", BATCH)] {
        let mut samples = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            samples.push(drain_frontier(&stage, owner[0], batch).await?);
        }
        let cpu = Spread::of(samples.iter().map(|sample| sample.micros(&[])));
        notes.push(format!(
            "the ceiling, {what}: the frontier alone, in which nothing is durable or fenced: {:.0} µs of CPU a task ({:.0}–{:.0})",
            cpu.median, cpu.least, cpu.most
        ));
    }
    let quiet = wait_to_start(&stage, owner[1]).await?;
    notes.push(format!("from commit to start, nothing else waits: {}", told(&quiet)));
    notes.push(with_backlog(&stage, &owner).await?);
    Ok(Outcome { duels, notes })
}

/// Celery's worker, which stays for all rounds.
struct Celery {
    peers: Peers,
    worker: Played,
    url: String,
}

impl Celery {
    async fn start(stage: &Stage, peers: Peers) -> Result<Self> {
        let url = stage.redis_for_peer()?;
        let mut command = peers.command("celery");
        command.env("PEER_REDIS_URL", &url).args([
            "--app=peer_queue",
            "worker",
            "--concurrency=4",
            "--prefetch-multiplier=2",
            "--loglevel=WARNING",
        ]);
        let worker = stage.peer("celery", &command)?;
        let celery = Self { peers, worker, url };
        wait_until("Celery's worker answers", async || Ok(celery.done().is_ok())).await?;
        Ok(celery)
    }

    fn done(&self) -> Result<u64> {
        let output = self
            .script(&["done"])
            .output()
            .context("Celery does not say what it has done")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().with_context(|| format!("Celery said {text:?}"))
    }

    fn script(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.peers.command("python");
        command
            .env("PEER_REDIS_URL", &self.url)
            .arg("peer_queue.py")
            .args(arguments);
        command
    }

    async fn drain(&self, stage: &Stage) -> Result<Sample> {
        let before = self.done()?;
        let maker = stage.peer("enqueue", &self.script(&["enqueue", &PEER_TASKS.to_string()]))?;
        let cast = stage.cast().with("worker", self.worker.id()).with("maker", maker.id());
        let watch = cast.watch_started(&["maker"]);
        let mut client = redis::Client::open(self.url.as_str())?
            .get_multiplexed_async_connection()
            .await?;
        wait_until("Celery's queue is empty", async || {
            let waiting: (u64, u64) = redis::pipe()
                .llen("celery")
                .hlen("unacked")
                .query_async(&mut client)
                .await?;
            sleep(Duration::from_millis(20)).await;
            Ok(maker.has_ended() && waiting == (0, 0))
        })
        .await?;
        let sample = watch.end(u32::try_from(PEER_TASKS)?);
        let done = self.done()? - before;
        ensure!(done == PEER_TASKS as u64, "Celery did {done} of {PEER_TASKS} tasks");
        Ok(sample)
    }
}

/// Makes and does the tasks of a round, and counts them in the ledger at the end.
async fn drain(stage: &Stage, keeper: &Program, owner: UserId, batch: usize) -> Result<Sample> {
    let together = batch > 1;
    let number = if together { BATCHED_TASKS } else { SINGLE_TASKS };
    let (tasks, size, owner) = (number.to_string(), batch.to_string(), owner.to_string());
    let held = if together { batch } else { HELD }.to_string();
    let worker = stage.part("do", &["do", "--batch", &held])?;
    let done = "SELECT count(*) FROM tasks WHERE status = 'succeeded' AND attempts = 1";
    let before = stage.number(&stage.database.name, done)?;
    let maker = stage.part(
        "make",
        &["make", "--tasks", &tasks, "--batch", &size, "--owner", &owner],
    )?;
    let cast = stage
        .cast()
        .with("worker", worker.id())
        .with("maker", maker.id())
        .with("keeper", keeper.id());
    let watch = cast.watch_started(&["maker"]);
    let frontier = stage.frontier()?;
    wait_until("our queue is empty", async || {
        // Asking costs too.
        sleep(Duration::from_millis(100)).await;
        if !maker.has_ended() {
            return Ok(false);
        }
        let size = frontier.size().await?;
        Ok(size.runnable + size.later == 0 && unfinished(stage).await? == 0)
    })
    .await
    .with_context(|| format!("make: {}, do: {}", stage.output("make"), stage.output("do")))?;
    let sample = watch.end(u32::try_from(number)?);
    let done = stage.number(&stage.database.name, done)? - before;
    ensure!(
        done == number as u64,
        "{done} of {number} tasks were done once: {}",
        stage.output("make")
    );
    Ok(sample)
}

/// The same without the ledger: entries that are offered and taken.
async fn drain_frontier(stage: &Stage, owner: UserId, batch: usize) -> Result<Sample> {
    let number = BATCHED_TASKS;
    let (tasks, size, owner) = (number.to_string(), batch.to_string(), owner.to_string());
    let held = if batch > 1 { batch } else { HELD }.to_string();
    let worker = stage.part("do", &["do", "--without-ledger", "--batch", &held])?;
    let maker = stage.part(
        "make",
        &[
            "make",
            "--without-ledger",
            "--tasks",
            &tasks,
            "--batch",
            &size,
            "--owner",
            &owner,
        ],
    )?;
    let cast = stage.cast().with("worker", worker.id()).with("maker", maker.id());
    let watch = cast.watch_started(&["maker"]);
    let frontier = stage.frontier()?;
    wait_until("the frontier is empty", async || {
        sleep(Duration::from_millis(100)).await;
        if !maker.has_ended() {
            return Ok(false);
        }
        let size = frontier.size().await?;
        Ok(size.runnable + size.limited + size.later == 0)
    })
    .await
    .with_context(|| format!("make: {}, do: {}", stage.output("make"), stage.output("do")))?;
    Ok(watch.end(u32::try_from(number)?))
}

async fn unfinished(stage: &Stage) -> Result<i64> {
    let backlog = stage.keeper_ledger.backlog().await?;
    Ok(backlog.pending + backlog.running)
}

/// The waits of single tasks from their commit to their start, in milliseconds, sorted.
async fn wait_to_start(stage: &Stage, owner: UserId) -> Result<Vec<f64>> {
    let (ledger, frontier) = (stage.ledger()?, stage.frontier()?);
    let begun: Arc<Mutex<HashMap<TaskId, Instant>>> = Arc::default();
    let doer = Doer {
        ledger: Some(ledger.clone()),
        frontier: frontier.clone(),
        batch: HELD,
    };
    let noted = Arc::clone(&begun);
    let doing = tokio::spawn(async move {
        let note = |claims: &[_]| {
            let mut begun = noted.lock().unwrap_or_else(PoisonError::into_inner);
            begun.extend(
                claims
                    .iter()
                    .map(|claim: &selextract_platform::ledger::claims::Claim| (claim.id, Instant::now())),
            );
        };
        doer.run(note).await
    });
    let task = play::empty_task("probe.test")?;
    let mut committed = Vec::with_capacity(PROBES);
    for _ in 0..FIRST_PROBES + PROBES {
        committed.push(play::accept(&ledger, &frontier, owner, &task).await?);
        sleep(Duration::from_millis(10)).await;
    }
    let count = || {
        begun.lock().map_or(0, |begun| {
            committed.iter().filter(|(id, _)| begun.contains_key(id)).count()
        })
    };
    let seen = wait_until("every probe was begun", async || Ok(count() == FIRST_PROBES + PROBES)).await;
    doing.abort();
    seen?;
    let begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
    let mut waits: Vec<_> = committed
        .iter()
        .skip(FIRST_PROBES)
        .filter_map(|(id, at)| Some(begun.get(id)?.saturating_duration_since(*at).as_secs_f64() * 1000.0))
        .collect();
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}

/// The same behind a hundred thousand tasks of somebody else on ten thousand hosts, and what Redis holds then and afterwards.
async fn with_backlog(stage: &Stage, owner: &[UserId]) -> Result<String> {
    let empty = stage.frontier_memory().await?;
    stage.fill(owner[0], BACKLOG, HOSTS).await?;
    let full = stage.frontier_memory().await?;
    let waits = wait_to_start(stage, owner[1]).await?;
    let worker = stage.part("do", &["do", "--batch", "100"])?;
    wait_until("the backlog is done", async || {
        sleep(Duration::from_millis(100)).await;
        Ok(unfinished(stage).await? == 0)
    })
    .await?;
    drop(worker);
    let after = stage.frontier_memory().await?;
    Ok(format!(
        "from commit to start behind {BACKLOG} tasks of another owner on {HOSTS} hosts: {}; Redis: {} bytes for each waiting task, \
         {} KiB more than before once all are done",
        told(&waits),
        full.saturating_sub(empty) / BACKLOG as u64,
        after.saturating_sub(empty) / 1024
    ))
}

fn told(waits: &[f64]) -> String {
    let at = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or(f64::NAN);
    let spread = Spread::of(waits.iter().copied());
    format!(
        "P50 {:.1} ms, P99 {:.1} ms (of {}, at most {:.0} ms)",
        at(50),
        at(99),
        waits.len(),
        spread.most
    )
}
