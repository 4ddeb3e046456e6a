//! A whole worker whose browser is killed in the middle of a run.

use std::{collections::HashMap, fs};

use super::*;

pub fn routes() -> Router {
    Router::new().route("/spins", get(async || Html("<p>here<script>for (;;) {}</script>")))
}

/// The processes whose command line holds all of these and none of those.
fn processes(with: &[&str], without: &str) -> Vec<i32> {
    let ids = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    ids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            with.iter().all(|part| line.contains(part)) && (without.is_empty() || !line.contains(without))
        })
        .collect()
}

/// The main processes of this bench's browsers: the only ones with its proxy on their command line and no type.
fn browsers(proxy: &str) -> Vec<i32> {
    let flag = format!("--proxy-server={}", proxy.trim_end_matches('/'));
    processes(&[&flag], "--type=")
}

fn kill(id: i32) {
    let id = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
}

/// Kills every Chromium of this bench.
pub fn kill_browsers(proxy: &str) -> usize {
    let all = browsers(proxy);
    all.iter().copied().for_each(kill);
    all.len()
}

/// A process's group and its CPU ticks.
fn stat(id: i32) -> Option<(i32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some((fields.get(2)?.parse().ok()?, fields.get(11)?.parse().ok()?))
}

/// The renderer of this bench's browsers that does nothing but compute.
async fn spinning_renderer(proxy: &str) -> i32 {
    let ticks = || -> HashMap<i32, u64> {
        let groups = browsers(proxy);
        let renderers = processes(&["--type=renderer"], "").into_iter();
        renderers
            .filter_map(|id| Some((id, stat(id)?)))
            .filter(|(_, (group, _))| groups.contains(group))
            .map(|(id, (_, ticks))| (id, ticks))
            .collect()
    };
    let started = Instant::now();
    loop {
        let before = ticks();
        sleep(Duration::from_secs(1)).await;
        let after = ticks().into_iter();
        let mut busy: Vec<_> = after
            .filter_map(|(id, ticks)| Some((ticks.checked_sub(*before.get(&id)?)?, id)))
            .collect();
        busy.sort_unstable();
        // How much it gets depends on who else computes on the machine.
        if let [others @ .., (most @ 5.., id)] = busy.as_slice()
            && others.iter().all(|(ticks, _)| ticks * 3 < *most)
        {
            return *id;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "nothing spins: {busy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_browser_is_killed_is_tried_again_and_loses_no_page() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let pages = json!({ "render": "Browser", "pagination": { "nextSelector": "a", "maxPages": 8 }, "politeness": { "minDelay": "200ms" } });
    let run = bench.accept(pages).await;
    bench.until(run, "some pages are read", |task| task.pages >= 2).await;
    assert!(kill_browsers(bench.proxy.url.as_str()) > 0);
    let task = bench
        .until(run, "the run ends", |task| task.status == "succeeded")
        .await;
    assert_eq!(task.pages, 8);
    assert_eq!(bench.texts(run).await, every_record()[..24]);
    stop.cancel();
    assert_eq!(worker.await.unwrap(), Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renderer_that_crashes_takes_its_own_page_along_and_no_neighbour() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let hostile = json!({
        "url": "http://hostile.test/spins", "pagination": null, "render": "Browser", "maxRetries": 0, "timeout": "60s",
    });
    let hostile = bench.accept(hostile).await;
    // It stays on its one page until after the crash.
    let neighbour = json!({
        "url": "http://site.test/list/1", "pagination": null, "render": "Browser", "maxRetries": 0, "timeout": "60s",
        "browser": { "steps": [{ "type": "Wait", "duration": "8s" }] },
    });
    let neighbour = bench.accept(neighbour).await;
    let proxy = bench.proxy.url.as_str();
    let spinning = spinning_renderer(proxy).await;
    assert_eq!(bench.asked("site.test/list/1").len(), 1, "the neighbour is on its page");
    let before = browsers(proxy);
    kill(spinning);
    let crashed = bench
        .until(hostile, "the crash is noticed", |task| task.status == "failed")
        .await;
    assert_eq!(crashed.error_class.as_deref(), Some("Browser"), "{crashed:?}");
    assert_eq!(browsers(proxy), before, "the neighbour's browser stays");
    let task = bench
        .until(neighbour, "the neighbour ends", |task| task.finished_at.is_some())
        .await;
    assert_eq!((task.status.as_str(), task.attempts), ("succeeded", 1), "{task:?}");
    assert_eq!(bench.asked("site.test/list/1").len(), 1);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_browser_is_gone_costs_no_attempt_the_first_time_and_fails_the_second() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let run = json!({
        "url": "http://site.test/headers-only", "pagination": null, "render": "Browser", "maxRetries": 0, "timeout": "60s",
    });
    let run = bench.accept(run).await;
    for visit in 1..=2 {
        bench
            .until(run, "the page is asked for", |_| {
                bench.asked("site.test/headers-only").len() == visit
            })
            .await;
        assert!(kill_browsers(bench.proxy.url.as_str()) > 0);
        if visit == 1 {
            let task = bench
                .until(run, "the run goes back", |task| task.status == "pending")
                .await;
            assert_eq!(task.error_class.as_deref(), Some("BrowserGone"), "{task:?}");
            assert_eq!(task.attempts, 0, "whose page it was nobody knows");
        }
    }
    let task = bench.until(run, "the run fails", |task| task.status == "failed").await;
    assert_eq!(
        (task.error_class.as_deref(), task.attempts),
        (Some("BrowserGone"), 1),
        "{task:?}"
    );
    stop.cancel();
    worker.await.unwrap();
}
