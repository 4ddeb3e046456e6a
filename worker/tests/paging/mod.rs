//! Runs that count their pages, and what ends them.

use axum::{
    Router,
    extract::Path,
    http::StatusCode,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use selextract_platform::ledger::TaskId;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Bench, pace};

/// Lists of four pages with two records each, which end in different ways.
pub fn routes() -> Router {
    Router::new().route(
        "/count/{ends}/{number}",
        get(async |Path((ends, number)): Path<(String, u32)>| page(&ends, number)),
    )
}

fn page(ends: &str, number: u32) -> Response {
    let items =
        |number: u32| Html(format!("<ul><li>{number}.0<li>{number}.1</ul><p class=p{number}>x")).into_response();
    match (number, ends) {
        (..=4, _) => items(number),
        (_, "missing") => StatusCode::NOT_FOUND.into_response(),
        (_, "empty") => Html("<ul></ul>").into_response(),
        (_, "repeats") => items(4),
        (_, "begins-again") => items(number % 4),
        _ => items(number),
    }
}

impl Bench {
    async fn count(&self, ends: &str, pagination: Value) -> TaskId {
        let mut whole = json!({ "urlTemplate": format!("http://site.test/count/{ends}/{{page}}") });
        whole
            .as_object_mut()
            .unwrap()
            .extend(pagination.as_object().unwrap().clone());
        self.accept(json!({ "url": format!("http://site.test/count/{ends}/1"), "pagination": whole }))
            .await
    }
}

fn texts(pages: u32) -> Vec<String> {
    (1..=pages)
        .flat_map(|n| (0..2).map(move |k| format!("{n}.{k}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_counts_its_pages_ends_where_they_end() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    for (ends, pagination, pages) in [
        ("missing", json!({}), 4),
        ("empty", json!({}), 4),
        ("repeats", json!({}), 4),
        ("begins-again", json!({ "start": 1 }), 4),
        ("never", json!({ "maxPages": 6 }), 6),
        ("never", json!({ "stopCondition": { "selector": ".p3" } }), 3),
        (
            "missing",
            json!({ "stopCondition": { "missingSelector": ".p1, .p2" } }),
            3,
        ),
    ] {
        let id = bench.count(ends, pagination.clone()).await;
        let task = bench.until(id, ends, |task| task.finished_at.is_some()).await;
        assert_eq!(task.status, "succeeded", "{ends} {pagination}: {task:?}");
        assert_eq!(bench.texts(id).await, texts(pages), "{ends} {pagination}");
    }
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_taken_up_again_counts_on_and_knows_what_it_has() {
    let bench = Bench::new().await;
    let id = bench.count("repeats", json!({})).await;
    let worker = |name: &str| bench.worker(name, pace(), &CancellationToken::new());
    let first = worker("w1");
    bench.until(id, "a page", |task| task.pages >= 4).await;
    first.abort();
    // Whoever had it is gone: what the ledger has is all that the next one knows.
    bench.sql(&format!(
        "UPDATE tasks SET status = 'running', finished_at = NULL, lease_token = gen_random_uuid(), lease_until = now() - interval '1 s'
         WHERE id = '{id}'"
    ));
    bench.sql(&format!(
        "UPDATE pages SET next_url = 'http://site.test/count/repeats/5' WHERE task_id = '{id}' AND number = 4"
    ));
    let second = worker("w2");
    bench.until(id, "the run ends", |task| task.finished_at.is_some()).await;
    assert_eq!(bench.texts(id).await, texts(4));
    second.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_page_that_is_not_there_is_a_failure_and_not_an_end() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    let pagination = json!({ "urlTemplate": "http://site.test/count/missing/{page}" });
    let id = bench
        .accept(json!({ "url": "http://site.test/count/missing/9", "pagination": pagination }))
        .await;
    let task = bench.until(id, "the run ends", |task| task.finished_at.is_some()).await;
    assert_eq!(task.error_class.as_deref(), Some("HttpStatus"));
    stop.cancel();
    worker.await.unwrap();
}
