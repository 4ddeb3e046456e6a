//! Whole workers against real PostgreSQL, PgBouncer and Valkey, and a paginated site on loopback: nothing is lost, nothing doubled.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test's helper cannot do fails the test"
)]

mod access;
#[path = "hostile/crash.rs"]
mod crash;
mod crawl;
#[path = "hostile/http.rs"]
mod hostile;
mod paging;
mod places;
mod politeness;
mod rendering;
mod site;
mod watching;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Path,
    http::StatusCode,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use selextract_platform::{
    bootstrap,
    frontier::{Frontier, hosts::HostState},
    ledger::{
        Ledger, PoolSettings, Secret, TaskId, UserId,
        claims::{Ending, Fenced, NewPage},
        tasks::{NewTask, TaskDetail},
    },
    previews::{Answer, Asked, Previews, Request},
};
use selextract_task::TaskSpec;
use selextract_worker::{
    access::Vault,
    browser::{BrowserSettings, Browsers},
    claims::Claims,
    contact::Contact,
    cpu::Meter,
    fetch::http::Http,
    preview,
    robots::Robots,
    run::{self, Ended, Pace},
    task_run::Engines,
    telemetry::Metrics,
};
use serde_json::{Value, json};
use site::{ForwardProxy, serve};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

const PAGES: i32 = 12;

/// Page n of the list: three records and a link to the next; the last links back to the first.
async fn page(number: i32, hits: Arc<[AtomicU32]>) -> Response {
    sleep(Duration::from_millis(40)).await;
    if let Some(hits) = usize::try_from(number).ok().and_then(|n| hits.get(n)) {
        hits.fetch_add(1, Ordering::Relaxed);
    }
    let items = [0, 1, 2].map(|k| format!("<li>{number}.{k}")).concat();
    let next = if number < PAGES { number + 1 } else { 1 };
    Html(format!("<ul>{items}</ul><a rel=next href=/list/{next}>next</a>")).into_response()
}

/// Everything that a worker needs, of one test's own.
struct Bench {
    ledger: Ledger,
    frontier: Frontier,
    previews: Previews,
    proxy: ForwardProxy,
    owner: UserId,
    shop: watching::Shop,
    hits: Arc<[AtomicU32]>,
    /// When each path was asked for.
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    /// What the site's robots.txt says.
    robots: Arc<Mutex<(StatusCode, String)>>,
    redis: String,
    database: String,
    ledger_url: String,
    keeper: JoinHandle<()>,
}

impl Bench {
    async fn new() -> Self {
        let services = selextract_test_services::start();
        let database = services.database().unwrap();
        let now = jiff::Timestamp::now();
        bootstrap::migrate(&Secret(database.direct_url.clone()), now)
            .await
            .unwrap();
        let ledger = ledger(&database.url);
        let redis = Secret(services.redis_url().unwrap());
        let frontier = Frontier::connect_lazy(&redis).unwrap();
        let hits: Arc<[AtomicU32]> = (0..=PAGES).map(|_| AtomicU32::new(0)).collect();
        let counted = Arc::clone(&hits);
        let asked: Arc<Mutex<Vec<(String, Instant)>>> = Arc::default();
        let robots = Arc::new(Mutex::new((StatusCode::NOT_FOUND, String::new())));
        let shop = watching::Shop::default();
        let (log, says) = (Arc::clone(&asked), Arc::clone(&robots));
        let router = Router::new()
            .route(
                "/list/{number}",
                get(move |Path(number): Path<i32>| page(number, counted.clone())),
            )
            .route("/gone", get(async || StatusCode::GONE))
            .route("/broken", get(async || StatusCode::BAD_GATEWAY))
            .route(
                "/busy",
                get(async || (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3")])),
            )
            .route(
                "/elsewhere",
                get(async || axum::response::Redirect::temporary("http://other.test/list/1")),
            )
            .route(
                "/third",
                get(async || axum::response::Redirect::temporary("http://third.test/list/1")),
            )
            .merge(hostile::routes())
            .merge(crash::routes())
            .merge(politeness::routes())
            .merge(paging::routes())
            .merge(watching::routes(shop.clone()))
            .merge(access::routes())
            .merge(crawl::routes())
            .merge(rendering::routes())
            .route("/robots.txt", get(async move || says.lock().unwrap().clone()))
            .layer(axum::middleware::map_request(move |request: axum::extract::Request| {
                let host = request.headers().get("x-asked-host").unwrap().to_str().unwrap();
                let asked_for = format!("{host}{}", request.uri().path());
                log.lock().unwrap().push((asked_for, Instant::now()));
                async { request }
            }));
        let proxy = ForwardProxy::start(serve(router).await).await;
        let owner = ledger.namespace_owner("blue").await.unwrap();
        let keeper = tokio::spawn(keep(ledger.clone(), frontier.clone()));
        Self {
            ledger,
            frontier,
            previews: Previews::connect_lazy(&redis).unwrap(),
            proxy,
            owner,
            shop,
            hits,
            asked,
            robots,
            redis: redis.0,
            database: database.name,
            ledger_url: database.url,
            keeper,
        }
    }

    async fn accept(&self, more: Value) -> TaskId {
        let mut spec = json!({
            "url": "http://site.test/list/1", "items": "li", "fields": [{ "name": "t" }], "retryDelay": "100ms",
            "pagination": { "nextSelector": "a[rel=next]" }, "politeness": { "minDelay": "0s" },
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        let task = NewTask {
            host: spec.compile().unwrap().url.host_str().unwrap().into(),
            spec,
            priority: 5,
            ttl: None,
        };
        self.ledger.accept(self.owner, &task, None).await.unwrap().id
    }

    fn worker(&self, name: &str, pace: Pace, stop: &CancellationToken) -> JoinHandle<Ended> {
        let engines = self.engines();
        let claims = Claims::new(self.ledger.clone(), self.frontier.clone(), name.into(), pace.lease);
        let (claims, stop) = (Arc::new(claims), stop.clone());
        tokio::spawn(async move {
            // As the program does: it hears when there is something for it.
            let listening = tokio::spawn({
                let claims = Arc::clone(&claims);
                async move { claims.listen().await }
            });
            let ended = run::run(engines, claims, pace, stop).await;
            listening.abort();
            ended
        })
    }

    fn engines(&self) -> Engines {
        let metrics = Metrics::new(&prometheus::Registry::new(), 4).unwrap();
        let browser = BrowserSettings {
            // Only tests with render Browser need it; Chromium refuses its sandbox to root.
            program: std::env::var_os("SELEXTRACT_TEST_CHROMIUM").unwrap_or_default().into(),
            sandbox: !rustix::process::getuid().is_root(),
            proxy: self.proxy.url.clone(),
            contact: Contact::default(),
            max_pages: 100,
            max_age: Duration::from_mins(1),
            max_memory: 1 << 30,
            max_idle: Duration::from_mins(1),
        };
        let http = Http::new(&self.proxy.url).unwrap();
        Engines {
            vault: Vault::new(self.ledger.clone(), self.frontier.clone(), Some(access::seal())),
            robots: Robots::new(http.clone(), self.frontier.clone()),
            http,
            browsers: Arc::new(Browsers::new(browser, metrics.clone())),
            cpu: Meter::of_this_process(),
            metrics,
        }
    }

    async fn task(&self, id: TaskId) -> TaskDetail {
        self.ledger.task(None, id).await.unwrap().unwrap()
    }

    async fn until(&self, id: TaskId, what: &str, holds: impl Fn(&TaskDetail) -> bool) -> TaskDetail {
        let started = Instant::now();
        loop {
            let task = self.task(id).await;
            if holds(&task) {
                return task;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{what}: {task:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn texts(&self, id: TaskId) -> Vec<String> {
        let pages = self.ledger.pages(id, 0, 100).await.unwrap();
        pages
            .into_iter()
            .flat_map(|page| page.records)
            .map(|record| record["t"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The moments at which the site was asked for paths that begin so.
    fn asked(&self, prefix: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(path, _)| path.starts_with(prefix))
            .map(|(_, at)| *at)
            .collect()
    }

    fn robots(&self, status: StatusCode, text: &str) {
        *self.robots.lock().unwrap() = (status, text.to_owned());
    }

    async fn preview(&self, spec: Value) -> Answer {
        let request = Request {
            id: uuid::Uuid::now_v7(),
            deadline_milliseconds: jiff::Timestamp::now().as_millisecond() + 10_000,
            owner: Some(self.owner),
            spec: serde_json::from_value(spec).unwrap(),
        };
        match self.previews.ask(&request, Duration::from_secs(11)).await.unwrap() {
            Asked::Answered(answer) => *answer,
            other => panic!("{other:?}"),
        }
    }

    fn hits(&self) -> Vec<u32> {
        self.hits
            .iter()
            .skip(1)
            .map(|hits| hits.load(Ordering::Relaxed))
            .collect()
    }

    fn sql(&self, sql: &str) {
        selextract_test_services::start().sql(&self.database, sql).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn ledger(url: &str) -> Ledger {
    Ledger::connect_lazy(&PoolSettings {
        url: Secret(url.into()),
        max_connections: 4,
        min_connections: 0,
        acquire_timeout: Duration::from_secs(5),
        max_lifetime: Duration::from_mins(10),
        application_name: "test",
    })
    .unwrap()
}

/// What the keeper does for workers: expired leases back, due tasks into the frontier.
async fn keep(ledger: Ledger, frontier: Frontier) {
    loop {
        ledger.sweep().await.unwrap();
        let (entries, _) = ledger.refill(None).await.unwrap();
        frontier.offer(&entries).await.unwrap();
        crawl::keep(&ledger, &frontier).await;
        sleep(Duration::from_millis(100)).await;
    }
}

fn pace() -> Pace {
    Pace {
        concurrency: 4,
        lease: Duration::from_secs(2),
        max_tasks: 1000,
        drain_timeout: Duration::from_secs(10),
    }
}

fn every_record() -> Vec<String> {
    (1..=PAGES)
        .flat_map(|page| (0..3).map(move |k| format!("{page}.{k}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paginated_run_ends_with_every_record_once_and_stops_at_the_loop() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let id = bench.accept(json!({})).await;
    let task = bench.until(id, "the run ends", |task| task.status == "succeeded").await;
    assert_eq!(bench.texts(id).await, every_record());
    assert_eq!(bench.hits(), vec![1; 12]);
    assert!(task.compute_units_used >= 1);
    stop.cancel();
    assert_eq!(worker.await.unwrap(), Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_end_at_the_most_that_are_allowed() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let id = bench
        .accept(json!({ "pagination": { "nextSelector": "a", "maxPages": 3 } }))
        .await;
    bench.until(id, "the run ends", |task| task.status == "succeeded").await;
    assert_eq!(bench.texts(id).await, every_record()[..9]);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_hands_back_and_another_goes_on_without_losing_or_doubling_a_page() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let first = bench.worker("w1", pace(), &stop);
    let id = bench.accept(json!({})).await;
    bench.until(id, "some pages are read", |task| task.pages >= 3).await;
    stop.cancel();
    assert_eq!(first.await.unwrap(), Ended::Stopped);
    let handed_back = bench.task(id).await;
    assert_eq!((handed_back.status.as_str(), handed_back.attempts), ("pending", 0));
    assert!(handed_back.pages < PAGES);

    let stop = CancellationToken::new();
    let second = bench.worker("w2", pace(), &stop);
    bench.until(id, "the run ends", |task| task.status == "succeeded").await;
    assert_eq!(bench.texts(id).await, every_record());
    assert_eq!(bench.hits(), vec![1; 12], "no page was fetched twice");
    stop.cancel();
    second.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_back_and_what_waits_for_a_retry_is_in_the_frontier_without_the_keeper() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let first = bench.worker("w1", pace(), &stop);
    let id = bench.accept(json!({})).await;
    bench.until(id, "some pages are read", |task| task.pages >= 2).await;
    bench.keeper.abort();
    stop.cancel();
    assert_eq!(first.await.unwrap(), Ended::Stopped);
    // Its host may still rest from the last page.
    let taken = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let taken = bench.frontier.take(1).await.unwrap();
            match (taken.ids.as_slice(), taken.next) {
                ([], Some(rest)) => tokio::time::sleep(rest).await,
                _ => break taken.ids,
            }
        }
    });
    assert_eq!(taken.await.unwrap(), [id]);

    let broken = bench
        .accept(json!({ "url": "http://site.test/broken", "retryDelay": "10m" }))
        .await;
    let task = bench.task(broken).await;
    let entry = bench.ledger.refill(None).await.unwrap().0;
    let entry: Vec<_> = entry.into_iter().filter(|entry| entry.id == broken).collect();
    bench.frontier.offer(&entry).await.unwrap();
    let stop = CancellationToken::new();
    let second = bench.worker("w2", pace(), &stop);
    bench
        .until(broken, "it waits for its retry", |task| task.error_class.is_some())
        .await;
    stop.cancel();
    second.await.unwrap();
    assert_eq!(task.status, "pending");
    assert_eq!(bench.frontier.size().await.unwrap().later, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_loses_nothing_and_its_late_writes_change_nothing() {
    let bench = Bench::new().await;
    let id = bench.accept(json!({})).await;
    // A worker that claims, commits a page, and then freezes.
    let claim = loop {
        let claims = bench
            .ledger
            .claim(&[id], "frozen", Duration::from_millis(500))
            .await
            .unwrap();
        if let Some(claim) = claims.into_iter().next() {
            break claim;
        }
    };
    let late = |number| NewPage {
        number,
        url: format!("http://site.test/list/{number}"),
        next_url: Some(format!("http://site.test/list/{}", number + 1)),
        records: (0..3)
            .map(|k| json!({ "t": format!("{number}.{k}") }).as_object().unwrap().clone())
            .collect(),
        ..NewPage::default()
    };
    let lease = Duration::from_millis(500);
    bench
        .ledger
        .commit_page(claim.lease(), &late(1), lease)
        .await
        .unwrap()
        .unwrap();

    let stop = CancellationToken::new();
    let worker = bench.worker("w2", pace(), &stop);
    bench.until(id, "the run goes on", |task| task.pages >= 3).await;
    assert_eq!(
        bench.ledger.commit_page(claim.lease(), &late(2), lease).await.unwrap(),
        Err(Fenced)
    );
    assert_eq!(
        bench.ledger.finish(claim.lease(), &Ending::Succeeded, 9).await.unwrap(),
        Err(Fenced)
    );
    bench.until(id, "the run ends", |task| task.status == "succeeded").await;
    assert_eq!(bench.texts(id).await, every_record());
    assert_eq!(bench.hits()[1..], vec![1; 11]);
    assert_eq!(bench.hits()[0], 0, "the committed page is not fetched again");
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_worker_drops_its_run_and_changes_nothing() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let id = bench.accept(json!({})).await;
    bench.until(id, "some pages are read", |task| task.pages >= 2).await;
    // Another one has it, for ever.
    bench.sql("UPDATE tasks SET lease_token = gen_random_uuid(), lease_until = now() + interval '1 day'");
    let before = bench.task(id).await;
    sleep(Duration::from_secs(1)).await;
    let after = bench.task(id).await;
    assert_eq!(
        (after.pages, after.records, after.status),
        (before.pages, before.records, before.status)
    );
    stop.cancel();
    assert_eq!(worker.await.unwrap(), Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_run_ends_at_a_page_boundary() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let id = bench.accept(json!({})).await;
    bench.until(id, "some pages are read", |task| task.pages >= 2).await;
    bench.ledger.cancel(None, id).await.unwrap();
    let task = bench.until(id, "the run ends", |task| task.status == "canceled").await;
    assert!(task.pages < PAGES);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_reads_one_page_at_once_and_stores_nothing() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(preview::serve(bench.engines(), bench.previews.clone(), stop.clone()));
    let spec = |url: &str| {
        json!({
            "url": url, "items": "li", "fields": [{ "name": "t" }], "pagination": { "nextSelector": "a[rel=next]" },
        })
    };
    let answer = bench.preview(spec("http://site.test/list/1")).await;
    assert_eq!((answer.found, answer.records.len(), &answer.error), (3, 3, &None));
    assert_eq!(answer.records[0]["t"], "1.0");
    assert_eq!(answer.next_url.as_deref(), Some("http://site.test/list/2"));
    let broken = bench.preview(spec("http://site.test/broken")).await;
    assert_eq!(broken.error.unwrap().class, "HttpStatus", "it is not tried again");
    assert_eq!(bench.hits()[..2], [1, 0], "one page");
    let tasks = selextract_test_services::start().sql(&bench.database, "SELECT count(*) FROM tasks");
    assert_eq!(tasks.unwrap(), "0");
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_stops_at_a_page_boundary_and_goes_on_from_there() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let id = bench.accept(json!({})).await;
    bench.until(id, "some pages are read", |task| task.pages >= 2).await;
    bench.ledger.pause(None, id).await.unwrap();
    let paused = bench
        .until(id, "the run is let go", |task| task.status == "pending")
        .await;
    assert!(paused.pages < PAGES && paused.paused);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(bench.task(id).await.pages, paused.pages, "nobody goes on with it");
    bench.ledger.resume(None, id).await.unwrap();
    bench.until(id, "the run ends", |task| task.status == "succeeded").await;
    assert_eq!(bench.texts(id).await, every_record());
    assert_eq!(bench.hits(), vec![1; 12], "no page was fetched twice");
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_too_long_or_costs_too_much_fails_with_its_own_class_and_keeps_what_it_read() {
    let bench = Bench::new().await;
    // Earlier claims of it used more than it may.
    let dear = bench.accept(json!({ "maxComputeUnits": 1 })).await;
    bench.sql(&format!("UPDATE tasks SET compute_units_used = 5 WHERE id = '{dear}'"));
    let long = bench.accept(json!({ "maxDuration": "30s" })).await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    bench.until(long, "some pages are read", |task| task.pages >= 2).await;
    bench.sql(&format!(
        "UPDATE tasks SET started_at = now() - interval '10 minutes' WHERE id = '{long}'"
    ));
    bench.ledger.pause(None, long).await.unwrap();
    bench
        .until(long, "it is let go or over", |task| task.status != "running")
        .await;
    bench.ledger.resume(None, long).await.unwrap();
    for (id, class) in [(long, "MaxDuration"), (dear, "MaxComputeUnits")] {
        let task = bench.until(id, class, |task| task.status == "failed").await;
        assert_eq!(task.error_class.as_deref(), Some(class), "{task:?}");
    }
    assert!(bench.task(long).await.pages >= 2);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_fails_at_once_and_what_may_pass_is_tried_again() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let gone = bench.accept(json!({ "url": "http://site.test/gone" })).await;
    let broken = bench
        .accept(json!({ "url": "http://site.test/broken", "maxRetries": 2 }))
        .await;
    let empty = bench.accept(json!({ "items": "li.none", "pagination": null })).await;
    for (id, class, attempts) in [
        (gone, "HttpStatus", 1),
        (broken, "HttpStatus", 3),
        (empty, "NoRecords", 1),
    ] {
        let task = bench.until(id, class, |task| task.status == "failed").await;
        assert_eq!(
            (task.error_class.as_deref(), task.attempts),
            (Some(class), attempts),
            "{task:?}"
        );
    }
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_recycles_after_its_number_of_runs_and_loses_none() {
    let bench = Bench::new().await;
    for _ in 0..7 {
        bench.accept(json!({ "pagination": null })).await;
    }
    let recycling = Pace { max_tasks: 3, ..pace() };
    let worker = bench.worker("w1", recycling, &CancellationToken::new());
    assert_eq!(worker.await.unwrap(), Ended::Recycled);
    let stop = CancellationToken::new();
    let second = bench.worker("w2", pace(), &stop);
    let started = Instant::now();
    loop {
        let done = selextract_test_services::start()
            .sql(
                &bench.database,
                "SELECT count(*), sum(pages) FROM tasks WHERE status = 'succeeded'",
            )
            .unwrap();
        if done == "7|7" {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{done}");
        sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    second.await.unwrap();
}
