//! Whole workers are polite: what a site sees of them, while they die, forget and are refused.

use axum::response::Redirect;

use super::*;

/// Pages that lead on: by redirects on the same host and to another port, and in every way that a browser follows.
pub fn routes() -> Router {
    let leads = |html: &'static str| get(async move || Html(html));
    let moves = |to: &'static str| get(async move || Redirect::temporary(to));
    Router::new()
        .route("/moved", moves("/hop"))
        .route("/hop", moves("/list/1"))
        .route("/port", moves("http://site.test:8080/list/1"))
        .route("/redirects-on", moves("/secret"))
        .route("/scripts-on", leads("<li>here<script>location = '/secret'</script>"))
        .route(
            "/refreshes-on",
            leads("<meta http-equiv=refresh content='0;url=/secret'><li>here"),
        )
        .route(
            "/clicks-on",
            leads("<li>here<button onclick=\"location = '/secret'\">on</button>"),
        )
        .route("/secret", leads("<li>secret"))
}

/// A worker of the usual pace, stopped at the test's end.
async fn with_worker<T>(bench: &Bench, pace: Pace, body: impl Future<Output = T>) -> T {
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace, &stop);
    let result = body.await;
    stop.cancel();
    worker.await.unwrap();
    result
}

pub fn shortest_gap(mut moments: Vec<Instant>) -> Duration {
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_host_is_visited_faster_than_its_delay_by_all_workers_together_also_after_a_wipe() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let workers = [bench.worker("w1", pace(), &stop), bench.worker("w2", pace(), &stop)];
    let polite = json!({ "politeness": { "minDelay": "200ms" }, "pagination": { "nextSelector": "a", "maxPages": 4 } });
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(bench.accept(polite.clone()).await);
    }
    bench
        .until(runs[0], "the first run is under way", |task| task.pages >= 2)
        .await;
    let client = redis::Client::open(bench.redis.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
    for run in runs {
        let task = bench.until(run, "a run ends", |task| task.status == "succeeded").await;
        assert_eq!(task.pages, 4);
    }
    let asked = bench.asked("site.test/");
    assert!(asked.len() >= 17, "sixteen pages and robots.txt: {}", asked.len());
    // The moments are the site's; what the way there takes differs a little.
    let gap = shortest_gap(asked);
    assert!(gap >= Duration::from_millis(140), "{gap:?}");
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_robots_txt_disallows_is_not_asked_for_and_the_rule_is_named() {
    let bench = Bench::new().await;
    bench.robots(StatusCode::OK, "User-agent: *\nDisallow: /list\nAllow: /list/3\n");
    with_worker(&bench, pace(), async {
        let refused = bench.accept(json!({})).await;
        let task = bench.until(refused, "it fails", |task| task.status == "failed").await;
        assert_eq!(task.error_class.as_deref(), Some("RobotsDisallowed"));
        assert!(task.error_message.unwrap().contains("Disallow: /list"));
        assert_eq!(task.attempts, 1, "it is not tried again");
        assert!(bench.asked("site.test/list").is_empty());
        let one = json!({ "url": "http://site.test/list/3", "pagination": null });
        let allowed = bench.accept(one).await;
        bench.until(allowed, "it ends", |task| task.status == "succeeded").await;
        let ours = json!({ "pagination": null, "robots": { "policy": "Ignore", "reason": "the site is ours" } });
        let ignoring = bench.accept(ours).await;
        bench
            .until(ignoring, "it ends", |task| task.status == "succeeded")
            .await;
        assert_eq!(
            bench.asked("site.test/robots.txt").len(),
            1,
            "asked once and remembered"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crawl_delay_is_obeyed_and_holds_no_slot_of_the_worker_and_no_attempt() {
    let bench = Bench::new().await;
    bench.robots(StatusCode::OK, "User-agent: selextract\nCrawl-delay: 3\n");
    let alone = Pace {
        concurrency: 1,
        ..pace()
    };
    with_worker(&bench, alone, async {
        let pages = json!({ "pagination": { "nextSelector": "a", "maxPages": 3 }, "maxRetries": 0 });
        let slow = bench.accept(pages).await;
        bench.until(slow, "its first page is read", |task| task.pages == 1).await;
        let elsewhere = json!({ "url": "http://other.test/list/1", "pagination": null, "robots": { "policy": "Ignore", "reason": "a test" } });
        let other = bench.accept(elsewhere).await;
        bench.until(other, "it runs meanwhile", |task| task.status == "succeeded").await;
        assert!(bench.task(slow).await.pages < 3);
        let task = bench.until(slow, "it ends", |task| task.status == "succeeded").await;
        assert_eq!((task.pages, task.error_class), (3, None));
    })
    .await;
    let gap = shortest_gap(bench.asked("site.test/list"));
    assert!(gap >= Duration::from_millis(2900), "{gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_site_cannot_say_what_it_allows_nothing_of_it_is_fetched() {
    let bench = Bench::new().await;
    bench.robots(StatusCode::BAD_GATEWAY, "");
    with_worker(&bench, pace(), async {
        let one = bench.accept(json!({ "pagination": null, "maxRetries": 0 })).await;
        let task = bench.until(one, "it fails", |task| task.status == "failed").await;
        assert_eq!(task.error_class.as_deref(), Some("RobotsUnavailable"));
        // Another one asks nothing, so it loses nothing.
        let two = bench.accept(json!({ "pagination": null, "maxRetries": 0 })).await;
        let task = bench
            .until(two, "it waits", |task| {
                task.status == "pending" && task.error_class.is_some()
            })
            .await;
        assert_eq!(
            (task.error_class.as_deref(), task.attempts),
            (Some("RobotsUnavailable"), 0)
        );
        assert!(bench.asked("site.test/list").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_answers_429_is_left_in_peace_by_every_run() {
    let bench = Bench::new().await;
    with_worker(&bench, pace(), async {
        let busy = json!({ "url": "http://site.test/busy", "pagination": null, "maxRetries": 1 });
        let hasty = bench.accept(busy).await;
        bench
            .until(hasty, "it is refused", |task| {
                task.error_class.as_deref() == Some("TooManyRequests")
            })
            .await;
        let refused = bench.asked("site.test/busy")[0];
        let other = bench.accept(json!({ "pagination": null, "maxRetries": 0 })).await;
        let task = bench.until(other, "it ends", |task| task.status == "succeeded").await;
        assert_eq!(task.attempts, 1);
        let waited = bench.asked("site.test/list")[0] - refused;
        assert!(waited >= Duration::from_millis(2900), "{waited:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_hosts_breaker_is_open_its_runs_wait_and_do_not_fail() {
    let bench = Bench::new().await;
    with_worker(&bench, pace(), async {
        let broken = json!({ "url": "http://site.test/broken", "pagination": null, "maxRetries": 0 });
        for _ in 0..5 {
            let id = bench.accept(broken.clone()).await;
            bench.until(id, "it fails", |task| task.status == "failed").await;
        }
        let states = bench.frontier.host_states(&["site.test", "other.test"]).await.unwrap();
        assert!(
            matches!(states[..], [HostState::Unavailable(_), HostState::Ready]),
            "{states:?}"
        );
        let asked = bench.asked("site.test/").len();
        let waiting = bench.accept(json!({ "pagination": null, "maxRetries": 0 })).await;
        let elsewhere = bench
            .accept(json!({ "url": "http://other.test/list/1", "pagination": null }))
            .await;
        bench
            .until(elsewhere, "other hosts go on", |task| task.status == "succeeded")
            .await;
        let task = bench.task(waiting).await;
        assert_eq!((task.status.as_str(), task.attempts), ("pending", 0));
        assert_eq!(bench.asked("site.test/").len(), asked);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_task_of_one_owner_does_not_wait_for_the_end_of_anothers_long_runs() {
    let bench = Bench::new().await;
    let small = bench.ledger.namespace_owner("green").await.unwrap();
    let alone = Pace {
        concurrency: 1,
        ..pace()
    };
    with_worker(&bench, alone, async {
        let paced = json!({ "politeness": { "minDelay": "100ms" } });
        let long: Vec<TaskId> = [bench.accept(paced.clone()).await, bench.accept(paced.clone()).await].into();
        bench.until(long[0], "the long run is under way", |task| task.pages >= 2).await;
        let spec = json!({ "url": "http://site.test/list/1", "items": "li", "fields": [{ "name": "t" }], "politeness": { "minDelay": "100ms" } });
        let task = NewTask {
            spec: serde_json::from_value(spec).unwrap(),
            host: "site.test".into(),
            priority: 5,
            ttl: None,
        };
        let id = bench.ledger.accept(small, &task, None).await.unwrap().id;
        bench.until(id, "the small one ends", |task| task.status == "succeeded").await;
        assert_ne!(bench.task(long[0]).await.status, "succeeded", "it did not wait for the long run's end");
        for id in long {
            bench.until(id, "the long ones end too", |task| task.status == "succeeded").await;
            assert_eq!(bench.texts(id).await, every_record());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_host_obeys_that_hosts_robots_txt() {
    let bench = Bench::new().await;
    with_worker(&bench, pace(), async {
        let task = json!({ "url": "http://site.test/elsewhere", "pagination": null, "maxRetries": 0 });
        let id = bench.accept(task).await;
        bench.until(id, "it ends", |task| task.status == "succeeded").await;
        assert_eq!(
            bench.asked("other.test/robots.txt").len(),
            1,
            "the other host was asked first"
        );
        assert_eq!(bench.texts(id).await, every_record()[..3]);
        bench.robots(StatusCode::OK, "User-agent: *\nDisallow: /\n");
        let third = json!({ "url": "http://site.test/third", "pagination": null, "maxRetries": 0 });
        let id = bench.accept(third).await;
        let task = bench.until(id, "it fails", |task| task.status == "failed").await;
        assert_eq!(task.error_class.as_deref(), Some("RobotsDisallowed"));
        assert!(bench.asked("third.test/list").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_on_the_same_host_obeys_robots_txt_and_belongs_to_the_pages_turn() {
    let bench = Bench::new().await;
    bench.robots(StatusCode::OK, "User-agent: *\nDisallow: /list/\n");
    with_worker(&bench, pace(), async {
        let moved = json!({
            "url": "http://site.test/moved", "pagination": null, "maxRetries": 0, "politeness": { "minDelay": "1s" },
        });
        let id = bench.accept(moved.clone()).await;
        let task = bench.until(id, "it fails", |task| task.status == "failed").await;
        assert_eq!(task.error_class.as_deref(), Some("RobotsDisallowed"));
        assert!(task.error_message.unwrap().contains("/list/1"));
        assert!(bench.asked("site.test/list/").is_empty());
        assert_eq!(bench.asked("site.test/hop").len(), 1, "the hop before it was allowed");
        let mut ours = moved;
        ours["robots"] = json!({ "policy": "Ignore", "reason": "the site is ours" });
        let id = bench.accept(ours).await;
        bench.until(id, "it ends", |task| task.status == "succeeded").await;
        let took = bench.asked("site.test/list/")[0] - bench.asked("site.test/moved")[1];
        assert!(
            took < Duration::from_millis(900),
            "a redirect waits for no turn of its own: {took:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_another_port_obeys_the_robots_txt_of_that_origin() {
    let bench = Bench::new().await;
    with_worker(&bench, pace(), async {
        let known = bench.accept(json!({ "pagination": null })).await;
        bench.until(known, "it ends", |task| task.status == "succeeded").await;
        let lists = bench.asked("site.test/list/").len();
        let port = json!({ "url": "http://site.test/port", "pagination": null, "maxRetries": 0 });
        let id = bench.accept(port.clone()).await;
        bench.until(id, "it ends", |task| task.status == "succeeded").await;
        assert_eq!(bench.asked("site.test/robots.txt").len(), 2, "each origin was asked");
        assert_eq!(bench.asked("site.test/list/").len(), lists + 1);
    })
    .await;
    let bench = Bench::new().await;
    with_worker(&bench, pace(), async {
        let known = bench.accept(json!({ "pagination": null })).await;
        bench.until(known, "it ends", |task| task.status == "succeeded").await;
        bench.robots(StatusCode::OK, "User-agent: *\nDisallow: /\n");
        let port = json!({ "url": "http://site.test/port", "pagination": null, "maxRetries": 0 });
        let id = bench.accept(port).await;
        let task = bench.until(id, "it fails", |task| task.status == "failed").await;
        assert_eq!(
            task.error_class.as_deref(),
            Some("RobotsDisallowed"),
            "the first origin's rules are not the second's"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_robots_txt_disallows_is_not_asked_for_by_a_browser_that_is_led_there() {
    let bench = Bench::new().await;
    bench.robots(StatusCode::OK, "User-agent: *\nDisallow: /secret\n");
    with_worker(&bench, pace(), async {
        let click = json!([{ "type": "Click", "selector": "button" }]);
        let stay = json!([{ "type": "Wait", "duration": "2s" }]);
        for (path, steps) in [
            ("redirects-on", &stay),
            ("scripts-on", &stay),
            ("refreshes-on", &stay),
            ("clicks-on", &click),
        ] {
            let run = json!({
                "url": format!("http://site.test/{path}"), "pagination": null, "render": "Browser", "maxRetries": 0,
                "browser": { "steps": steps },
            });
            let run = bench.accept(run).await;
            let task = bench.until(run, path, |task| task.finished_at.is_some()).await;
            assert_eq!(
                task.error_class.as_deref(),
                Some("RobotsDisallowed"),
                "{path}: {task:?}"
            );
            assert_eq!(bench.asked(&format!("site.test/{path}")).len(), 1, "{path}");
        }
        assert!(bench.asked("site.test/secret").is_empty());
    })
    .await;
    let request = Request {
        id: uuid::Uuid::now_v7(),
        owner: None,
        deadline_milliseconds: 0,
        spec: serde_json::from_value(json!({
            "url": "http://site.test/redirects-on", "render": "Browser", "items": "li", "fields": [{ "name": "t" }],
        }))
        .unwrap(),
    };
    let answer = preview::read(&bench.engines(), &request, Duration::from_secs(10)).await;
    assert_eq!(answer.error.unwrap().class, "RobotsDisallowed");
    assert!(bench.asked("site.test/secret").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_a_browser_is_led_to_is_visited_in_turn_and_asked_for_its_rules() {
    let bench = Bench::new().await;
    with_worker(&bench, pace(), async {
        let mut runs = Vec::new();
        for host in ["a", "b", "c"] {
            let led = json!({
                "url": format!("http://{host}.test/elsewhere"), "pagination": null, "render": "Browser",
                "politeness": { "minDelay": "1s" },
            });
            runs.push(bench.accept(led).await);
        }
        for run in runs {
            let task = bench.until(run, "it ends", |task| task.finished_at.is_some()).await;
            assert_eq!(task.status, "succeeded", "{task:?}");
        }
    })
    .await;
    assert_eq!(bench.asked("other.test/robots.txt").len(), 1);
    let visits = bench.asked("other.test/list/1");
    assert_eq!(visits.len(), 3);
    let gap = shortest_gap(visits);
    assert!(gap >= Duration::from_millis(900), "{gap:?}");
}
