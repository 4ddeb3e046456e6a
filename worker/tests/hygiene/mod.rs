//! Browsers come and go and leave nothing: crashes, hangs, contexts, profiles, zombies.

use super::*;

/// The profile folder of a browser's main process.
fn profile(id: i32) -> PathBuf {
    command_line(id)
        .iter()
        .find_map(|argument| argument.strip_prefix("--user-data-dir=").map(PathBuf::from))
        .unwrap()
}

/// Whether any process of the group is there, a zombie too.
fn lives(leader: i32) -> bool {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .any(|id| group(id) == Some(leader))
}

/// Fails a page by a signal to the processes that `whom` names, and says how long it took.
async fn strike(bench: &Bench, blow: Signal, whom: impl Fn(&Bench) -> Vec<i32>) -> Duration {
    let mut session = bench.session(&[]).await;
    let started = Instant::now();
    let (page, ()) = tokio::join!(load(&mut session, "/slow", &[]), async {
        sleep(Duration::from_millis(500)).await;
        let struck = whom(bench);
        assert!(!struck.is_empty());
        for id in struck {
            // One of a browser that just ends may be gone by now.
            let _ = kill_process(Pid::from_raw(id).unwrap(), blow);
        }
    });
    assert!(
        matches!(page, Err(FetchError::Browser { .. } | FetchError::BrowserGone)),
        "{page:?}"
    );
    started.elapsed()
}

#[tokio::test]
async fn a_browser_or_renderer_that_segfaults_is_noticed_at_once_and_leaves_no_zombie_and_no_profile() {
    let bench = Bench::new(|_| {}).await;
    let main: fn(&Bench) -> Vec<i32> = |bench| bench.main_process().into_iter().collect();
    for (name, victim) in [("browser", main), ("renderer", Bench::renderers)] {
        bench.fetch("/plain", &[]).await.unwrap();
        let struck = group(bench.main_process().unwrap()).unwrap();
        let folder = profile(struck);
        let took = strike(&bench, Signal::SEGV, victim).await;
        assert!(took < Duration::from_secs(5), "{name}: {took:?}");
        bench.fetch("/plain", &[]).await.unwrap();
        eventually("a process of the crashed browser is still there", || !lives(struck)).await;
        eventually("the profile is still there", || !folder.exists()).await;
    }
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_renderer_that_hangs_fails_its_page_in_time_and_is_gone_with_its_tab() {
    let bench = Bench::new(|_| {}).await;
    bench.fetch("/plain", &[]).await.unwrap();
    let mut session = bench.session(&[]).await;
    load(&mut session, "/plain", &[]).await.unwrap();
    let hung = bench.renderers();
    for renderer in &hung {
        signal(*renderer, Signal::STOP);
    }
    let url: Url = "http://site.test/plain".parse().unwrap();
    // As the run does it: the page's time is over, and the tab with it.
    let page = timeout(
        Duration::from_secs(3),
        session.fetch(&url, &errand(&wait_for("p", 2000)), Duration::from_secs(3)),
    )
    .await;
    assert!(!matches!(page, Ok(Ok(_))), "{page:?}");
    drop(session);
    // Chromium leaves it alone, so the browser is retired for it.
    let started = Instant::now();
    while hung.iter().any(|id| group(*id).is_some()) {
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "the hung renderer is still there"
        );
        bench.fetch("/plain", &[]).await.unwrap();
        sleep(Duration::from_millis(200)).await;
    }
    bench.browsers.close().await;
}

#[tokio::test]
async fn what_one_run_stores_another_does_not_see() {
    let bench = Bench::new(|_| {}).await;
    let store = "/store";
    let first = bench.fetch(store, &wait_for("b", 5000)).await.unwrap();
    assert!(first.text.contains("<b>none|none</b>"), "{}", first.text);
    let mut session = bench.session(&[]).await;
    load(&mut session, store, &wait_for("b", 5000)).await.unwrap();
    let again = load(&mut session, store, &wait_for("b", 5000)).await.unwrap();
    assert!(
        again.text.contains("<b>kept|kept</b>"),
        "within a run it stays: {}",
        again.text
    );
    let other = bench.fetch(store, &wait_for("b", 5000)).await.unwrap();
    assert!(other.text.contains("<b>none|none</b>"), "{}", other.text);
    drop(session);
    bench.browsers.close().await;
}

#[tokio::test]
async fn a_browser_retires_with_its_age_after_its_last_tab() {
    let bench = Bench::new(|settings| settings.max_age = Duration::from_secs(1)).await;
    let mut session = bench.session(&[]).await;
    load(&mut session, "/plain", &[]).await.unwrap();
    let first = group(bench.main_process().unwrap()).unwrap();
    sleep(Duration::from_millis(1100)).await;
    assert!(!session.is_usable());
    assert!(lives(first), "it waits for its tabs");
    drop(session);
    bench.fetch("/plain", &[]).await.unwrap();
    eventually("the old browser is still there", || !lives(first)).await;
    bench.browsers.close().await;
}

#[tokio::test]
async fn fifty_pages_of_which_some_crash_leave_no_process_and_no_profile() {
    let bench = Bench::new(|settings| settings.max_pages = 10).await;
    for number in 0..50 {
        if number % 10 == 5 {
            strike(&bench, Signal::KILL, Bench::renderers).await;
        } else {
            bench.fetch("/plain", &[]).await.unwrap();
        }
    }
    bench.browsers.close().await;
    let flag = format!("selextract-browser-{}-", std::process::id());
    let ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&flag);
    eventually("a process is left", || processes(&bench.proxy.url, |_| true).is_empty()).await;
    // Other tests of this program have browsers of their own at the same time, so only the folders of processes that are gone count.
    let left: Vec<PathBuf> = fs::read_dir(std::env::temp_dir())
        .unwrap()
        .filter_map(Result::ok)
        .filter(ours)
        .map(|entry| entry.path())
        .filter(|path| {
            let held = |line: &[String]| line.iter().any(|argument| argument.ends_with(path.to_str().unwrap()));
            all_processes(held).is_empty()
        })
        .collect();
    sleep(Duration::from_secs(2)).await;
    let left: Vec<&PathBuf> = left.iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Stops the renderers of a session and gives its page two seconds, as a run does it.
async fn hang(bench: &Bench) {
    let mut session = bench.session(&[]).await;
    load(&mut session, "/plain", &[]).await.unwrap();
    for renderer in every_renderer(bench) {
        let _ = kill_process(Pid::from_raw(renderer).unwrap(), Signal::STOP);
    }
    let url: Url = "http://site.test/plain".parse().unwrap();
    let limit = Duration::from_secs(2);
    let page = timeout(limit, session.fetch(&url, &errand(&wait_for("p", 2000)), limit)).await;
    assert!(!matches!(page, Ok(Ok(_))), "{page:?}");
}

/// The renderers of all browsers of a bench: one that is retired may still be there.
fn every_renderer(bench: &Bench) -> Vec<i32> {
    let groups = groups(bench);
    all_processes(|line| line.join(" ").contains("--type=renderer"))
        .into_iter()
        .filter(|id| group(*id).is_some_and(|group| groups.contains(&group)))
        .collect()
}

/// The process groups of a bench's browsers.
pub fn groups(bench: &Bench) -> std::collections::HashSet<i32> {
    let mains = processes(&bench.proxy.url, |line| {
        !line.iter().any(|part| part.starts_with("--type="))
    });
    mains.into_iter().filter_map(group).collect()
}

/// Kilobytes that a process has in memory.
pub fn resident(id: impl std::fmt::Display) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or_default()
}

/// By hand: `cargo test --locked --workspace --test browser -- --ignored --nocapture a_thousand_pages`.
#[tokio::test]
#[ignore = "a soak of about five minutes"]
async fn a_thousand_pages_of_which_fifty_crash_or_hang_leave_memory_flat() {
    let bench = Bench::new(|_| {}).await;
    let mut ours = Vec::new();
    let mut most_browsers = 0;
    for number in 0..1_000 {
        match number % 40 {
            10 => {
                strike(&bench, Signal::KILL, every_renderer).await;
            }
            30 => hang(&bench).await,
            _ => {
                bench.fetch("/plain", &[]).await.unwrap();
            }
        }
        let browsers = groups(&bench).len();
        most_browsers = most_browsers.max(browsers);
        if number % 50 == 49 {
            ours.push(resident("self"));
            let (pages, kilobytes) = (number + 1, resident("self"));
            println!("{pages:4} pages: {kilobytes} kB in the worker, {browsers} browsers");
        }
    }
    bench.browsers.close().await;
    let (early, late) = (ours[4], ours[ours.len() - 1]);
    assert!(late < early + early / 10 + 4_096, "{ours:?}");
    assert!(most_browsers <= 3, "{most_browsers} browsers at a time");
}

fn all_processes(wanted: impl Fn(&[String]) -> bool) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| wanted(&command_line(*id)))
        .collect()
}
