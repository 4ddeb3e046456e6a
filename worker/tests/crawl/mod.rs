//! Whole workers that crawl a site together: nothing lost, nothing doubled, nothing asked for that the site or the spec keeps out.

use std::{collections::BTreeMap, io::Write};

use axum::{extract::Query, response::Redirect};
use flate2::{Compression, write::GzEncoder};
use selextract_platform::ledger::{
    crawl::{CrawlCursor, CrawlPageRow, CrawlProgress, PageStatus},
    run_control::Changed,
};
use tokio::runtime::Runtime;

use super::*;

/// Pages of the shop.
const SHOP: u32 = 300;

/// More pages of the host at a time than one worker reads, so that there is something for a second one.
fn wide() -> Value {
    json!({ "politeness": { "minDelay": "0s", "maxConcurrent": 16 } })
}

/// What the keeper does for crawls.
pub(super) async fn keep(ledger: &Ledger, frontier: &Frontier) {
    ledger.sweep_crawls().await.unwrap();
    let mut from = CrawlCursor::default();
    loop {
        let (entries, next) = ledger.refill_crawls(from).await.unwrap();
        frontier.offer(&entries).await.unwrap();
        match next {
            Some(next) => from = next,
            None => return,
        }
    }
}

/// Product n of the shop links to 2n and 2n + 1, to where it came from, to itself in other spellings, and out of the shop.
async fn product(Path(n): Path<u32>) -> Response {
    sleep(Duration::from_millis(20)).await;
    if n == 0 || n > SHOP {
        return StatusCode::NOT_FOUND.into_response();
    }
    let children = [2 * n, 2 * n + 1]
        .iter()
        .filter(|child| **child <= SHOP)
        .map(|child| format!("<a href='/wares/{child}?utm_source=page{n}'>{child}</a>"))
        .collect::<Vec<_>>()
        .concat();
    Html(format!(
        "<li>{n}</li>{children}<a href='/wares/{}#top'>up</a><a href='?gclid=1'>me</a><a href='http://elsewhere.test/'>far</a>\
         <a rel=nofollow href=/hidden>hidden</a><a href='mailto:a@b.test'>mail</a>",
        (n / 2).max(1)
    ))
    .into_response()
}

/// A calendar that never ends, with a filter that makes every page many.
async fn calendar(Path(day): Path<u64>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let filters = (0..5)
        .map(|n| format!("<a href='?a={}&b={n}'>f</a>", query.len()))
        .collect::<Vec<_>>()
        .concat();
    Html(format!(
        "<li>day {day}</li><a href=/calendar/{}>next</a>{filters}",
        day + 1
    ))
    .into_response()
}

/// A small site with everything that a crawl may stumble over.
async fn odd(Path(page): Path<String>) -> Response {
    let html = |html: &str| Html(html.to_owned()).into_response();
    match page.as_str() {
        "start" => html(
            "<li>start</li><a href=moved>1</a><a href=gone>2</a><a href=file.pdf>3</a><a href=far>4</a><a href=private>5</a><a href=target>6</a>\
             <a href=quiet>7</a><a href=flaky>8</a>",
        ),
        "by-logout" => Redirect::temporary("/odd/logout").into_response(),
        "logout" => Redirect::temporary("/odd/target").into_response(),
        "moved" => Redirect::permanent("/odd/target").into_response(),
        "target" => html("<li>target</li><a href=start>back</a>"),
        "far" => Redirect::temporary("http://elsewhere.test/odd/start").into_response(),
        "file.pdf" => ([("content-type", "application/pdf")], "%PDF").into_response(),
        "quiet" => html("<meta name=robots content=nofollow><li>quiet</li><a href=unheard>x</a>"),
        _ => StatusCode::GONE.into_response(),
    }
}

fn sitemap(number: u32) -> Vec<u8> {
    let urls = (0..40)
        .map(|n| format!("<url><loc>http://site.test/listed/{}</loc></url>", number * 40 + n))
        .collect::<Vec<_>>()
        .concat();
    let text = format!("<urlset>{urls}<url><loc>http://elsewhere.test/listed/1</loc></url></urlset>");
    if number == 0 {
        return text.into_bytes();
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

pub(super) fn routes() -> Router {
    Router::new()
        .route("/wares/{n}", get(product))
        .route("/calendar/{day}", get(calendar))
        .route("/odd/{page}", get(odd))
        .route("/listed/{n}", get(async |Path(n): Path<u32>| Html(format!("<li>{n}</li><a href=/listed/{}>x</a>", n + 1))))
        .route("/maps/0.xml", get(async || sitemap(0)))
        .route(
            "/maps/slow.xml",
            get(async || {
                sleep(Duration::from_secs(4)).await;
                sitemap(0)
            }),
        )
        .route("/maps/1.xml.gz", get(async || sitemap(1)))
        .route(
            "/maps/index.xml",
            get(async || {
                "<sitemapindex><sitemap><loc>/maps/1.xml.gz</loc></sitemap><sitemap><loc>http://site.test/maps/none.xml</loc></sitemap>\
                 <sitemap><loc>http://elsewhere.test/maps/0.xml</loc></sitemap></sitemapindex>"
            }),
        )
}

impl Bench {
    async fn crawl(&self, url: &str, crawl: Value, more: Value) -> TaskId {
        let mut spec = json!({ "url": url, "pagination": null, "crawl": crawl });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.accept(spec).await
    }

    async fn progress(&self, id: TaskId) -> CrawlProgress {
        self.ledger.crawl_progress(id).await.unwrap().unwrap()
    }

    async fn ended(&self, id: TaskId) -> TaskDetail {
        let started = Instant::now();
        loop {
            let task = self.task(id).await;
            if task.finished_at.is_some() {
                return task;
            }
            assert!(
                started.elapsed() < Duration::from_secs(90),
                "it ends: {task:?} {:?}",
                self.ledger.crawl_progress(id).await
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn crawled(&self, id: TaskId, status: PageStatus) -> Vec<CrawlPageRow> {
        let mut pages = self.ledger.crawl_pages(id, None, Some(status), 1_000).await.unwrap();
        pages.sort_by(|a, b| a.url.cmp(&b.url));
        pages
    }

    async fn record_texts(&self, id: TaskId) -> Vec<String> {
        let pages = self.ledger.pages(id, 0, 1_000).await.unwrap();
        let mut texts: Vec<String> = pages
            .into_iter()
            .flat_map(|page| page.records)
            .map(|record| record["t"].as_str().unwrap().to_owned())
            .collect();
        texts.sort_unstable();
        texts
    }

    fn ask(&self, sql: &str) -> String {
        let answer = selextract_test_services::start().sql(&self.database, sql).unwrap();
        answer.trim().to_owned()
    }
}

fn classes(pages: &[CrawlPageRow]) -> Vec<(&str, &str)> {
    pages
        .iter()
        .map(|page| (page.url.as_str(), page.error_class.as_deref().unwrap_or_default()))
        .collect()
}

fn whole_shop() -> Vec<String> {
    let mut all: Vec<String> = (1..=SHOP).map(|n| n.to_string()).collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_crawl_and_read_each_page_once() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let workers = [bench.worker("w1", pace(), &stop), bench.worker("w2", pace(), &stop)];
    let id = bench
        .crawl("http://site.test/wares/1", json!({ "maxDepth": 20 }), wide())
        .await;
    let task = bench.ended(id).await;
    assert_eq!(
        (task.status.as_str(), task.pages, task.records),
        ("succeeded", 300, 300)
    );
    assert_eq!(bench.record_texts(id).await, whole_shop(), "0 lost, 0 doubled");
    assert_eq!(
        bench.asked("site.test/wares/").len(),
        300,
        "no page was asked for twice"
    );
    assert!(bench.asked("elsewhere.test").is_empty() && bench.asked("site.test/hidden").is_empty());
    let both = bench.ask(&format!("SELECT count(*) FROM (SELECT worker FROM crawl_pages WHERE task_id = '{id}' GROUP BY worker HAVING count(*) > 30) w"));
    assert_eq!(both, "2", "both had a good part of it");
    let units = task.compute_units_used;
    assert!(units < 100, "what a page costs is not rounded up to a unit: {units}");
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_in_the_middle_of_a_crawl_loses_nothing_and_doubles_nothing() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let survivor = bench.worker("w1", pace(), &stop);
    // All that it does ends with its runtime: its pages, and the renewing of their leases.
    let doomed = Runtime::new().unwrap();
    let claims = Claims::new(
        ledger(&bench.ledger_url),
        bench.frontier.clone(),
        "doomed".into(),
        pace().lease,
    );
    doomed.spawn(run::run(
        bench.engines(),
        Arc::new(claims),
        pace(),
        CancellationToken::new(),
    ));
    let id = bench
        .crawl("http://site.test/wares/1", json!({ "maxDepth": 20 }), wide())
        .await;
    bench.until(id, "it is under way", |task| task.pages >= 100).await;
    let held =
        format!("SELECT count(*) FROM crawl_pages WHERE status = 'running' AND worker = 'doomed' AND task_id = '{id}'");
    let started = Instant::now();
    while bench.ask(&held) == "0" {
        assert!(started.elapsed() < Duration::from_secs(10), "it never holds a page");
    }
    doomed.shutdown_background();
    let task = bench.ended(id).await;
    assert_eq!(
        (task.status.as_str(), task.pages, task.records),
        ("succeeded", 300, 300)
    );
    assert_eq!(bench.record_texts(id).await, whole_shop(), "0 lost, 0 doubled");
    assert_eq!(
        bench.progress(id).await,
        CrawlProgress {
            found: 300,
            done: 300,
            ..CrawlProgress::default()
        }
    );
    stop.cancel();
    survivor.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_without_an_end_are_left_at_the_depth_and_at_the_most_pages() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let deep = json!({ "maxDepth": 4, "exclude": ["[?]"] });
    let deep = bench.crawl("http://site.test/calendar/1", deep, json!({})).await;
    let wide = json!({ "maxDepth": 100, "maxPages": 60 });
    let wide = bench.crawl("http://other.test/calendar/1", wide, json!({})).await;
    assert_eq!(bench.ended(deep).await.pages, 5);
    assert_eq!(bench.ended(wide).await.pages, 60);
    assert_eq!(
        bench.progress(wide).await,
        CrawlProgress {
            found: 60,
            done: 60,
            ..CrawlProgress::default()
        }
    );
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_page_of_the_crawl_is_skipped_and_what_failed_runs_again_alone() {
    let bench = Bench::new().await;
    bench.robots(StatusCode::OK, "User-agent: *\nDisallow: /odd/private\n");
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let id = bench
        .crawl("http://site.test/odd/start", json!({}), json!({ "maxRetries": 1 }))
        .await;
    let task = bench.ended(id).await;
    assert_eq!((task.status.as_str(), task.pages), ("succeeded", 3));
    assert_eq!(bench.record_texts(id).await, ["quiet", "start", "target"]);
    let skipped = bench.crawled(id, PageStatus::Skipped).await;
    let odd = |page: &str| format!("http://site.test/odd/{page}");
    let (far, file, moved, private) = (odd("far"), odd("file.pdf"), odd("moved"), odd("private"));
    let classes_of_moved = ["Duplicate", "Redirected"];
    let found = classes(&skipped);
    assert_eq!(found.len(), 4, "{found:?}");
    for expected in [
        (&far, "OutOfScope"),
        (&file, "UnsupportedContent"),
        (&private, "RobotsDisallowed"),
    ] {
        assert!(
            found.contains(&(expected.0.as_str(), expected.1)),
            "{expected:?} in {found:?}"
        );
    }
    assert!(
        found
            .iter()
            .any(|(url, class)| *url == moved && classes_of_moved.contains(class)),
        "{found:?}"
    );
    assert!(bench.asked("elsewhere.test").is_empty() && bench.asked("site.test/odd/private").is_empty());
    assert!(
        bench.asked("site.test/odd/unheard").is_empty(),
        "a page that wants no links followed has none"
    );
    let failed = bench.crawled(id, PageStatus::Failed).await;
    assert_eq!(
        classes(&failed),
        [
            (odd("flaky").as_str(), "HttpStatus"),
            (odd("gone").as_str(), "HttpStatus")
        ]
    );
    let before = bench.asked("site.test/odd/").len();
    assert_eq!(
        bench.ledger.retry_failed_pages(None, id).await.unwrap(),
        Changed::Done(None)
    );
    let again = bench.ended(id).await;
    assert_eq!((again.status.as_str(), again.pages, again.replays), ("succeeded", 3, 1));
    assert_eq!(
        bench.asked("site.test/odd/").len(),
        before + 2,
        "only what had failed was asked for again"
    );
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sitemaps_of_the_spec_and_of_robots_txt_give_pages_and_further_sitemaps() {
    let bench = Bench::new().await;
    bench.robots(
        StatusCode::OK,
        "User-agent: *\nSitemap: http://site.test/maps/index.xml\n",
    );
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let crawl = json!({
        "sitemaps": ["http://site.test/maps/0.xml"], "fromRobotsSitemaps": true, "maxDepth": 0, "extract": ["/listed/"],
    });
    let id = bench
        .crawl("http://site.test/odd/start", crawl, json!({ "maxRetries": 0 }))
        .await;
    let task = bench.ended(id).await;
    assert_eq!((task.status.as_str(), task.pages, task.records), ("succeeded", 81, 80));
    let expected: std::collections::BTreeSet<String> = (0..80).map(|n| n.to_string()).collect();
    assert_eq!(
        bench
            .record_texts(id)
            .await
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>(),
        expected
    );
    let failed = bench.crawled(id, PageStatus::Failed).await;
    assert_eq!(classes(&failed), [("http://site.test/maps/none.xml", "HttpStatus")]);
    assert!(bench.asked("elsewhere.test").is_empty());
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sites_slow_sitemap_does_not_make_anothers_late() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let of = |map: &str| json!({ "sitemaps": [map], "maxDepth": 0, "maxPages": 2 });
    let slow = of("http://slow.test/maps/slow.xml");
    let slow = bench.crawl("http://slow.test/odd/target", slow, json!({})).await;
    let started = Instant::now();
    while bench.asked("slow.test/maps/").is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "the slow one is asked for");
        sleep(Duration::from_millis(20)).await;
    }
    let quick = of("http://site.test/maps/0.xml");
    let quick = json!({ "crawl": quick, "timeout": "1s", "maxRetries": 0 });
    let id = bench.crawl("http://site.test/odd/target", json!({}), quick).await;
    assert_eq!(bench.ended(id).await.status, "succeeded");
    assert_eq!(classes(&bench.crawled(id, PageStatus::Failed).await), []);
    assert_eq!(bench.ended(slow).await.status, "succeeded");
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_by_a_page_that_the_crawl_excludes_is_not_followed() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let crawl = json!({ "seeds": ["http://site.test/odd/by-logout"], "exclude": ["/logout$"], "maxDepth": 0 });
    let id = bench.crawl("http://site.test/odd/quiet", crawl, json!({})).await;
    assert_eq!(bench.ended(id).await.status, "succeeded");
    let skipped = bench.crawled(id, PageStatus::Skipped).await;
    assert_eq!(classes(&skipped), [("http://site.test/odd/by-logout", "OutOfScope")]);
    assert!(bench.asked("site.test/odd/logout").is_empty());
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crawl_that_takes_too_long_fails_and_keeps_what_was_read() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let slow = json!({ "maxDuration": "2s", "politeness": { "minDelay": "300ms" } });
    let id = bench
        .crawl("http://site.test/wares/1", json!({ "maxDepth": 20 }), slow)
        .await;
    let task = bench.ended(id).await;
    assert_eq!(
        (task.status.as_str(), task.error_class.as_deref()),
        ("failed", Some("MaxDuration"))
    );
    assert!(task.pages > 0 && task.pages < 20, "{}", task.pages);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_worker_hands_its_pages_back_without_an_attempt() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let first = bench.worker("w1", pace(), &stop);
    let id = bench
        .crawl("http://site.test/wares/1", json!({ "maxDepth": 20 }), json!({}))
        .await;
    bench.until(id, "it is under way", |task| task.pages >= 50).await;
    stop.cancel();
    assert_eq!(first.await.unwrap(), Ended::Stopped);
    let left = bench.progress(id).await;
    assert_eq!(left.running, 0);
    assert!(left.pending > 0);
    assert_eq!(
        bench.ask("SELECT count(*) FROM crawl_pages WHERE status = 'pending' AND attempts > 0"),
        "0"
    );
    let stop = CancellationToken::new();
    let second = bench.worker("w2", pace(), &stop);
    assert_eq!(bench.ended(id).await.pages, 300);
    assert_eq!(bench.asked("site.test/wares/").len(), 300);
    stop.cancel();
    second.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontier_that_is_wiped_in_the_middle_of_a_crawl_costs_no_page_and_reads_none_twice() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let workers = [bench.worker("w1", pace(), &stop), bench.worker("w2", pace(), &stop)];
    let id = bench
        .crawl("http://site.test/wares/1", json!({ "maxDepth": 20 }), json!({}))
        .await;
    let client = redis::Client::open(bench.redis.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for pages in [50, 150] {
        bench.until(id, "it is under way", |task| task.pages >= pages).await;
        redis::cmd("FLUSHDB").exec_async(&mut connection).await.unwrap();
    }
    let task = bench.ended(id).await;
    assert_eq!((task.status.as_str(), task.pages), ("succeeded", 300));
    assert_eq!(bench.record_texts(id).await, whole_shop());
    assert_eq!(bench.asked("site.test/wares/").len(), 300);
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crawl_in_the_browser_follows_what_it_shows() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let workers = [bench.worker("w1", pace(), &stop), bench.worker("w2", pace(), &stop)];
    let id = bench
        .crawl(
            "http://site.test/wares/1",
            json!({ "maxDepth": 2 }),
            json!({ "render": "Browser" }),
        )
        .await;
    let task = bench.ended(id).await;
    assert_eq!((task.status.as_str(), task.pages), ("succeeded", 7));
    assert_eq!(bench.record_texts(id).await, ["1", "2", "3", "4", "5", "6", "7"]);
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}
