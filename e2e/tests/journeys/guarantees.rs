//! The promise of the ledger, with everything broken that can break: 0 lost, 0 doubled, and no site visited faster than its politeness allows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selextract_e2e::api::Api;
use serde_json::{Value, json};

use crate::platform::{self, DONE, Platform};

const MINUTE: Duration = Duration::from_mins(1);
/// All tasks read the same site, so together they visit it this far apart.
const DELAY_MILLISECONDS: u64 = 150;
const TASKS: usize = 12;
/// Longer than the platform's lease of 5 s, shorter than what its liveness probe bears.
const FROZEN: Duration = Duration::from_secs(9);
/// How far pages may come closer together on their way through proxies on two busy cores than they were started, over a whole stretch.
const SLACK: f64 = 0.4;
/// Pages of a stretch.
const STRETCH: usize = 10;

/// Sends a signal to the worker's process in its container.
const SIGNAL: &str = "for p in /proc/[0-9]*; do [[ $(readlink \"$p/exe\") != */selextract-worker ]] || kill \"-$0\" \"${p#/proc/}\"; done";

// Runs in the middle go on while this waits for kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_in_the_middle_nothing_is_lost_or_doubled_and_the_site_is_not_hit_faster() -> Result<()> {
    let platform = two_workers().await?;
    let api = platform.api().await?;
    let mut ids = Vec::new();
    for _ in 0..TASKS {
        let mut task = platform.parameters_task()?;
        task["politeness"] = json!({ "minDelay": format!("{DELAY_MILLISECONDS}ms") });
        // A restart of the database may cost an attempt of every run that is under way.
        task["maxRetries"] = 10.into();
        ids.push(api.create_task(&task).await?);
    }

    committed(&platform, TASKS).await?;
    let workers = platform.pods("worker")?;
    let [frozen, killed] = workers.as_slice() else {
        anyhow::bail!("there are two workers: {workers:?}");
    };
    signal(&platform, frozen, "STOP")?;
    tokio::time::sleep(FROZEN).await;
    let taken_over = platform.sql(&format!(
        "SELECT count(*) FROM tasks WHERE status = 'running' AND worker = '{frozen}' AND lease_until > now()"
    ))?;
    assert_eq!(taken_over, "0", "a frozen worker's leases end");
    signal(&platform, frozen, "CONT")?;

    progressed(&platform).await?;
    signal(&platform, killed, "KILL")?;
    progressed(&platform).await?;
    wipe_the_queue(&platform)?;
    progressed(&platform).await?;
    let delete = [
        "delete",
        "pod",
        "shop-postgres-0",
        "--grace-period=0",
        "--force",
        "--wait=false",
    ];
    platform.world.kubectl(&delete)?;

    let expected = platform.expected_parameters().await?;
    for id in &ids {
        let ended = wait_through_outages(&api, id).await?;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        let records = api.records(id).await?;
        assert_eq!(expected.compare(&records)?, (0, 0), "a record is lost or doubled");
    }
    let ledger = platform.sql(
        "SELECT (SELECT count(*) FROM tasks WHERE status = 'succeeded') || ' ' || (SELECT sum(pages) FROM tasks) || ' ' ||
                (SELECT count(DISTINCT (task_id, url)) FROM pages)",
    )?;
    let counts: Vec<usize> = ledger.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert!(
        counts[0] == TASKS && counts[1] == counts[2],
        "the ledger counts (succeeded, pages, different pages) {counts:?}"
    );
    spared(&visits(&platform)?, counts[2])?;
    platform.world.leave()
}

async fn two_workers() -> Result<Platform> {
    let platform = platform::start("guarantees").await?;
    let patch = r#"{"spec":{"worker":{"replicas":2}}}"#;
    platform
        .world
        .kubectl(&["patch", "sxc/shop", "--type=merge", "-p", patch])?;
    platform
        .world
        .wait_until("two workers are there", 2 * MINUTE, || {
            Ok((platform.number("deployment/shop-worker", "/status/readyReplicas")? == Some(2)).then_some(()))
        })
        .await?;
    platform.wait_until_ready().await?;
    Ok(platform)
}

/// Until that many pages are in the ledger.
async fn committed(platform: &Platform, most: usize) -> Result<()> {
    let enough = || {
        // While PostgreSQL restarts it does not answer.
        let pages = platform.sql("SELECT coalesce(sum(pages), 0) FROM tasks");
        let pages: usize = pages.unwrap_or_default().parse().unwrap_or(0);
        Ok((pages >= most).then_some(()))
    };
    platform.world.wait_until("pages are committed", MINUTE, enough).await
}

/// Until more pages are in the ledger than now.
async fn progressed(platform: &Platform) -> Result<()> {
    let now: usize = platform.sql("SELECT sum(pages) FROM tasks")?.parse()?;
    committed(platform, now + 8).await
}

fn signal(platform: &Platform, pod: &str, signal: &str) -> Result<()> {
    platform
        .world
        .kubectl(&["exec", pod, "--", "bash", "-c", SIGNAL, signal])
        .map(drop)
}

fn wipe_the_queue(platform: &Platform) -> Result<()> {
    let answer = platform.world.kubectl(&[
        "exec",
        "shop-redis-queue-0",
        "--",
        "/usr/bin/valkey-cli",
        "-e",
        "FLUSHALL",
    ])?;
    ensure!(answer.contains("OK"), "FLUSHALL: {answer}");
    Ok(())
}

/// The API answers 503 while the database restarts; the task goes on afterwards.
async fn wait_through_outages(api: &Api, id: &str) -> Result<Value> {
    let started = std::time::Instant::now();
    loop {
        match api.wait_for_end(id, DONE).await {
            Err(error) if started.elapsed() > 2 * DONE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            ended => return ended,
        }
    }
}

/// When the site served its pages to workers, in seconds, in order.
fn visits(platform: &Platform) -> Result<Vec<f64>> {
    let log = platform.world.kubectl(&["logs", "deployment/sites", "--tail=-1"])?;
    let moment = |line: &str| {
        let (moment, rest) = line.split_once(' ')?;
        // The journey itself reads the pages too, to know what must come of them.
        let ours = rest.contains(" /docs/") && rest.contains("Selextract/");
        ours.then(|| moment.parse::<f64>().ok())?
    };
    let mut visits: Vec<f64> = log.lines().filter_map(moment).collect();
    visits.sort_by(f64::total_cmp);
    Ok(visits)
}

/// Over every stretch of pages the site was visited no faster than its delay.
fn spared(visits: &[f64], pages: usize) -> Result<()> {
    ensure!(
        visits.len() >= pages,
        "the site's log has {} of {pages} pages",
        visits.len()
    );
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let least = (STRETCH as u64 * DELAY_MILLISECONDS) as f64 / 1000.0 - SLACK;
    let shortest = visits
        .windows(STRETCH + 1)
        .filter_map(|stretch| Some(stretch.last()? - stretch.first()?))
        .min_by(f64::total_cmp)
        .context("the site was hardly visited")?;
    ensure!(
        shortest >= least,
        "{STRETCH} rests of {DELAY_MILLISECONDS} ms took {shortest:.3} s, less than {least:.3} s"
    );
    Ok(())
}
