//! A whole worker whose browser is killed in the middle of a run.

use super::*;

/// Kills every Chromium of this bench: the main processes are the only ones with its proxy on their command line and no type.
pub fn kill_browsers(proxy: &str) -> usize {
    let flag = format!("--proxy-server={}", proxy.trim_end_matches('/'));
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains(&flag) && !line.contains("--type=") {
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(id).unwrap(),
                rustix::process::Signal::KILL,
            )
            .unwrap();
            killed += 1;
        }
    }
    killed
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
