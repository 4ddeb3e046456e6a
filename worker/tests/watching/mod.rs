//! Tasks that run again: pages that are as they were, what changed, and sites that changed under their selectors.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use selextract_platform::ledger::{TaskId, schedules::RunNow, scrape_tasks::CheckedUpsert, watching::Report};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Bench, pace};

/// A shop of two pages whose state tests set: which version it is, and how often a page was sent whole.
#[derive(Clone, Default)]
pub struct Shop {
    version: Arc<AtomicU32>,
    sent: Arc<AtomicU32>,
}

pub fn routes(shop: Shop) -> Router {
    Router::new()
        .route("/shop/{page}", get(page))
        .route("/aisle/{page}", get(aisle))
        .with_state(shop)
}

async fn page(State(shop): State<Shop>, Path(page): Path<u32>, headers: HeaderMap) -> Response {
    let version = shop.version.load(Ordering::Relaxed);
    // The second page changes with the version, the first does not.
    let etag = format!("\"{page}.{}\"", if page == 2 { version } else { 0 });
    if headers.get("if-none-match").is_some_and(|asked| asked == etag.as_str()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    shop.sent.fetch_add(1, Ordering::Relaxed);
    let price = |id: u32| {
        let price = id * 100 + if page == 2 { version } else { 0 };
        // A new design: the price has another class.
        if version == 9 {
            format!("<i class=cost>{price}</i>")
        } else {
            format!("<i class=price>{price}</i>")
        }
    };
    let items: Vec<String> = (page * 10..page * 10 + 10)
        .map(|id| format!("<li><b>{id}</b>{}", price(id)))
        .collect();
    let next = if page == 1 {
        "<a rel=next href=/shop/2>next</a>"
    } else {
        ""
    };
    ([("etag", etag)], Html(format!("<ul>{}</ul>{next}", items.concat()))).into_response()
}

/// Aisle 1 leads to 2 to 5, and 5 to 6. The second changes with the version, and in version 7 the fifth fails.
async fn aisle(State(shop): State<Shop>, Path(page): Path<u32>, headers: HeaderMap) -> Response {
    let version = shop.version.load(Ordering::Relaxed);
    if (version, page) == (7, 5) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let price = page * 100 + if page == 2 { version } else { 0 };
    let etag = format!("\"{page}.{price}\"");
    if headers.get("if-none-match").is_some_and(|asked| asked == etag.as_str()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    shop.sent.fetch_add(1, Ordering::Relaxed);
    let leads_to = match page {
        1 => 2..6,
        5 => 6..7,
        _ => 0..0,
    };
    let links: Vec<String> = leads_to.map(|to| format!("<a href=/aisle/{to}>{to}</a>")).collect();
    let html = format!("<li><b>{page}</b><i class=price>{price}</i></li>{}", links.concat());
    ([("etag", etag)], Html(html)).into_response()
}

impl Bench {
    /// Writes a `ScrapeTask` of the shop.
    async fn shop_task(&self, more: Value) {
        let mut task = json!({
            "url": "http://site.test/shop/1", "items": "li", "retryDelay": "100ms", "politeness": { "minDelay": "0s" },
            "fields": [{ "name": "id", "selector": "b" }, { "name": "price", "selector": ".price" }],
            "pagination": { "nextSelector": "a[rel=next]" },
        });
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let item = json!({
            "uid": "shop", "namespace": "blue", "name": "shop", "specHash": "h", "priority": 5, "suspend": true, "onChange": "Replace",
            "task": task,
        });
        let item = CheckedUpsert {
            item: serde_json::from_value(item).unwrap(),
            host: "site.test".to_owned(),
            no_room: None,
        };
        let blue = self.ledger.namespace_owner("blue").await.unwrap();
        self.ledger
            .upsert_scrape_task(&item, blue, jiff::Timestamp::now())
            .await
            .unwrap();
    }

    /// Runs it to its end: status, error class and report.
    async fn run_shop(&self) -> (TaskId, String, Option<String>, Report) {
        let RunNow::Started(entry) = self.ledger.run_now(None, "shop").await.unwrap() else {
            panic!("nothing else runs");
        };
        let task = self
            .until(entry.id, "the run ends", |task| task.finished_at.is_some())
            .await;
        let report = self.ledger.run_report(entry.id).await.unwrap().unwrap();
        (entry.id, task.status, task.error_class, report)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_as_it_was_is_not_sent_again_and_the_results_are_whole() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    bench.shop_task(json!({ "watch": { "key": ["id"] } })).await;
    let sent = || bench.shop.sent.swap(0, Ordering::Relaxed);
    let (_, status, _, report) = bench.run_shop().await;
    assert_eq!((status.as_str(), sent(), report.counts.new), ("succeeded", 2, 20));
    let (second, _, _, report) = bench.run_shop().await;
    assert_eq!((sent(), report.counts.same), (0, 20), "both pages are as they were");
    let pages = bench.ledger.pages(second, 0, 10).await.unwrap();
    assert!(pages.iter().all(|page| page.not_modified && page.records.len() == 10));
    assert_eq!(report.fill.0[1].found, 20);
    bench.shop.version.store(5, Ordering::Relaxed);
    let (third, _, _, report) = bench.run_shop().await;
    assert_eq!((sent(), report.counts.changed, report.counts.same), (1, 10, 10));
    let pages = bench.ledger.pages(third, 0, 10).await.unwrap();
    assert_eq!(
        pages.iter().map(|page| page.not_modified).collect::<Vec<_>>(),
        [true, false]
    );
    // The runs that have the pages are gone: there is nothing to take their records from.
    bench.sql("DELETE FROM pages");
    bench.run_shop().await;
    assert_eq!(sent(), 2);
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crawl_asks_what_has_changed_and_goes_on_along_the_links_of_pages_that_are_as_they_were() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let workers = [bench.worker("w1", pace(), &stop), bench.worker("w2", pace(), &stop)];
    bench
        .shop_task(json!({
            "url": "http://site.test/aisle/1", "pagination": null, "crawl": {}, "maxRetries": 0, "watch": { "key": ["id"] },
        }))
        .await;
    let sent = || bench.shop.sent.swap(0, Ordering::Relaxed);
    let counts = |report: &Report| {
        let counts = report.counts;
        [counts.new, counts.changed, counts.gone, counts.same, counts.unseen]
    };
    let (_, status, _, report) = bench.run_shop().await;
    assert_eq!(
        (status.as_str(), sent(), counts(&report)),
        ("succeeded", 6, [6, 0, 0, 0, 0])
    );
    let (second, status, _, report) = bench.run_shop().await;
    assert_eq!(
        (status.as_str(), sent(), counts(&report)),
        ("succeeded", 0, [0, 0, 0, 6, 0])
    );
    let pages = bench.ledger.pages(second, 0, 10).await.unwrap();
    assert_eq!(pages.len(), 6, "the links of what was not sent were followed");
    assert!(pages.iter().all(|page| page.not_modified && page.records.len() == 1));
    assert_eq!(report.fill.0[1].found, 6);
    bench.shop.version.store(5, Ordering::Relaxed);
    let (_, _, _, report) = bench.run_shop().await;
    assert_eq!((sent(), counts(&report)), (1, [0, 1, 0, 5, 0]));
    bench.shop.version.store(7, Ordering::Relaxed);
    let (_, status, _, report) = bench.run_shop().await;
    assert_eq!(
        (status.as_str(), sent(), counts(&report)),
        ("succeeded", 1, [0, 1, 0, 3, 2]),
        "what stands on the page that failed, and behind it, is not gone"
    );
    bench.shop.version.store(0, Ordering::Relaxed);
    let (_, _, _, report) = bench.run_shop().await;
    assert_eq!(
        (sent(), counts(&report)),
        (1, [0, 1, 0, 5, 0]),
        "and it is asked for as it was seen last"
    );
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_changed_under_its_selectors_is_told_and_fails_the_run_where_that_is_asked() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let plain = json!({ "conditional": false });
    bench.shop_task(plain).await;
    for _ in 0..3 {
        let (_, _, _, report) = bench.run_shop().await;
        assert!(report.drift.is_none());
    }
    bench.shop.version.store(9, Ordering::Relaxed);
    let (_, status, _, report) = bench.run_shop().await;
    let drift = report.drift.unwrap().0;
    assert_eq!(
        (status.as_str(), drift[0].field.as_deref(), drift[0].usual),
        ("succeeded", Some("price"), 100)
    );
    bench
        .shop_task(json!({ "conditional": false, "watch": { "key": ["id"], "onDrift": "Fail" } }))
        .await;
    let (_, status, class, report) = bench.run_shop().await;
    assert_eq!((status.as_str(), class.as_deref()), ("failed", Some("SchemaDrift")));
    assert_eq!((report.counts.gone, report.watched), (0, false));
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_a_series_asks_for_no_states_unless_it_says_so() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    for (more, sent) in [(json!({}), [2, 2]), (json!({ "conditional": true }), [2, 0])] {
        let mut whole = json!({ "url": "http://site.test/shop/1", "fields": [{ "name": "t" }] });
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        for sent in sent {
            let id = bench.accept(whole.clone()).await;
            bench.until(id, "the run ends", |task| task.status == "succeeded").await;
            assert_eq!(bench.shop.sent.swap(0, Ordering::Relaxed), sent, "{more}");
        }
    }
    stop.cancel();
    worker.await.unwrap();
}
