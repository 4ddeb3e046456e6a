//! Crawls in the API: how far one is, its pages, and running those again that failed.

use std::time::Duration;

use http::StatusCode;
use selextract_platform::ledger::{
    TaskId,
    crawl::{CrawlEnd, CrawlKind, CrawlStart, FoundPage, ReadPage},
};
use selextract_task::feed::RunError;
use serde_json::{Value, json};

use crate::support::{self, Api};

const LEASE: Duration = Duration::from_secs(30);

impl Api {
    /// Lets a crawl begin as a worker does, at so many pages.
    async fn begin_crawl(&self, id: &str, pages: usize) {
        let ledger = &self.state.ledger;
        let claim = ledger
            .claim(&[id.parse().unwrap()], "a-worker", LEASE)
            .await
            .unwrap()
            .pop()
            .unwrap();
        let found = (0..pages).map(|n| FoundPage {
            kind: CrawlKind::Page,
            url: format!("https://example.com/{n}"),
            host: "example.com".to_owned(),
            depth: 0,
        });
        let start = CrawlStart {
            found: found.collect(),
            max_pages: 10,
            ..CrawlStart::default()
        };
        ledger.begin_crawl(claim.lease(), &start).await.unwrap().unwrap();
    }

    /// Claims and ends the waiting pages, each second of them with a failure.
    async fn crawl_pages(&self, id: &str) {
        let (ledger, task) = (&self.state.ledger, id.parse::<TaskId>().unwrap());
        let waiting = ledger.crawl_pages(task, None, None, 100).await.unwrap();
        let ids: Vec<TaskId> = waiting.into_iter().map(|page| page.id).collect();
        let claims = ledger.claim_crawl_pages(&ids, "a-worker", LEASE).await.unwrap();
        for (n, claim) in claims.iter().enumerate() {
            let end = if n % 2 == 1 {
                CrawlEnd::Failed(RunError {
                    class: "HttpStatus".to_owned(),
                    message: "the server answered 410".to_owned(),
                })
            } else {
                CrawlEnd::Done(ReadPage {
                    url: claim.page.as_ref().unwrap().url.clone(),
                    records: vec![json!({ "title": "x" }).as_object().unwrap().clone()],
                    ..ReadPage::default()
                })
            };
            ledger
                .end_crawl_page(claim.lease(), task, end, 1, 10)
                .await
                .unwrap()
                .unwrap();
        }
    }
}

fn spec() -> Value {
    json!({ "url": "https://example.com/0", "fields": [{ "name": "title" }], "crawl": { "maxPages": 10 } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crawl_tells_how_far_it_is_lists_its_pages_and_runs_the_failed_ones_again() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let created = api.post("/api/v1/tasks", Some(&ann), &spec()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let created = created.json();
    assert_eq!(created.get("crawl"), None, "it has not begun");
    let id = created["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/tasks/{id}");
    let retry = format!("{path}/retry-failed-pages");
    assert_eq!(
        api.post(&retry, Some(&ann), &json!({})).await.status,
        StatusCode::CONFLICT
    );
    api.begin_crawl(&id, 4).await;
    let task = api.get(&path, Some(&ann)).await.json();
    let progress = |found, pending, done, failed| json!({ "found": found, "pending": pending, "running": 0, "done": done, "failed": failed, "skipped": 0 });
    assert_eq!(
        (&task["status"], &task["crawl"]),
        (&json!("running"), &progress(4, 4, 0, 0))
    );

    let first = api
        .get(&format!("{path}/pages?limit=3&status=pending"), Some(&ann))
        .await
        .json();
    assert_eq!(first["pages"].as_array().unwrap().len(), 3, "{first}");
    let next = first["next"].as_str().unwrap();
    let rest = api
        .get(&format!("{path}/pages?limit=3&cursor={next}"), Some(&ann))
        .await
        .json();
    assert_eq!((rest["pages"].as_array().unwrap().len(), rest.get("next")), (1, None));
    for (query, status) in [
        ("limit=0", 400),
        ("limit=1001", 400),
        ("status=lost", 400),
        ("cursor=x", 400),
        ("what=1", 400),
    ] {
        let answer = api.get(&format!("{path}/pages?{query}"), Some(&ann)).await;
        assert_eq!(answer.status.as_u16(), status, "{query}: {}", answer.text);
    }

    api.crawl_pages(&id).await;
    let task = api.get(&path, Some(&ann)).await.json();
    assert_eq!(
        (&task["status"], &task["crawl"]),
        (&json!("succeeded"), &progress(4, 0, 2, 2))
    );
    let failed = api.get(&format!("{path}/pages?status=failed"), Some(&ann)).await.json();
    let failed = failed["pages"].as_array().unwrap().clone();
    assert_eq!(failed.len(), 2);
    assert_eq!(
        (&failed[0]["kind"], &failed[0]["attempts"], &failed[0]["error"]["class"]),
        (&json!("page"), &json!(1), &json!("HttpStatus"))
    );
    assert!(failed[0]["url"].as_str().unwrap().starts_with("https://example.com/"));

    let ben = api.user(&admin, "ben").await;
    assert_eq!(
        api.get(&format!("{path}/pages"), Some(&ben)).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        api.post(&retry, Some(&ben), &json!({})).await.status,
        StatusCode::NOT_FOUND
    );
    let again = api.post(&retry, Some(&ann), &json!({})).await.json();
    assert_eq!(
        (&again["status"], &again["crawl"]),
        (&json!("running"), &progress(4, 2, 2, 0))
    );
    api.crawl_pages(&id).await;
    api.post(&format!("{path}/cancel"), Some(&ann), &json!({})).await;
    let results = api.get(&format!("{path}/results"), Some(&ann)).await.json();
    assert_eq!(results["records"].as_array().unwrap().len(), 3, "{results}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_crawl_is_told_and_a_task_that_is_none_has_no_pages() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let mut wrong = spec();
    wrong["crawl"] = json!({ "include": ["("], "maxPages": 0, "depth": 3 });
    wrong["pagination"] = json!({ "nextSelector": "a" });
    let refused = api.post("/api/v1/tasks", Some(&admin), &wrong).await;
    assert_eq!(refused.status.as_u16(), 422);
    for field in ["crawl.include[0]", "crawl.maxPages", "crawl.depth", "pagination"] {
        assert!(refused.text.contains(field), "{field}: {}", refused.text);
    }
    let plain = api
        .post("/api/v1/tasks", Some(&admin), &support::spec("https://example.com/a"))
        .await
        .json();
    let path = format!("/api/v1/tasks/{}", plain["id"].as_str().unwrap());
    let pages = api.get(&format!("{path}/pages"), Some(&admin)).await.json();
    assert_eq!(pages, json!({ "pages": [] }));
    let retry = api
        .post(&format!("{path}/retry-failed-pages"), Some(&admin), &json!({}))
        .await;
    assert_eq!(retry.status, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begun_crawl_of_which_no_page_is_read_says_why() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let created = api.post("/api/v1/tasks", Some(&ann), &spec()).await.json();
    let id = created["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/tasks/{id}");
    api.begin_crawl(&id, 2).await;
    let task = api.get(&path, Some(&ann)).await.json();
    assert_eq!(
        (&task["status"], &task["waiting"]),
        (&json!("running"), &json!({ "reason": "NoWorker" }))
    );
    let paused = api.post(&format!("{path}/pause"), Some(&ann), &json!({})).await.json();
    assert_eq!(paused["waiting"], json!({ "reason": "Paused" }), "{paused}");
    api.post(&format!("{path}/resume"), Some(&ann), &json!({})).await;
    let (ledger, task) = (&api.state.ledger, id.parse::<TaskId>().unwrap());
    let page = ledger.crawl_pages(task, None, None, 1).await.unwrap().remove(0).id;
    ledger.claim_crawl_pages(&[page], "a-worker", LEASE).await.unwrap();
    let task = api.get(&path, Some(&ann)).await.json();
    assert_eq!(task.get("waiting"), None, "a worker reads one: {task}");
}
