//! Pages that attack the worker by HTTP: each fails within its time, by its name, and its neighbours do not notice.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures::stream;

use super::*;

const HTML: [(&str, &str); 1] = [("content-type", "text/html")];

/// Never ends: a chunk each so often.
fn endless(every: Duration) -> Response {
    let chunks = stream::unfold((), move |()| async move {
        sleep(every).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 << 10])), ()))
    });
    (HTML, Body::from_stream(chunks)).into_response()
}

fn bomb() -> Response {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &vec![b' '; 256 << 20]).unwrap();
    let gzip = [("content-type", "text/html"), ("content-encoding", "gzip")];
    (gzip, encoder.finish().unwrap()).into_response()
}

pub fn routes() -> Router {
    Router::new()
        .route("/slow-stream", get(async || endless(Duration::from_millis(200))))
        .route("/fast-stream", get(async || endless(Duration::ZERO)))
        .route("/bomb", get(async || bomb()))
        .route("/deep", get(async || Html("<div>".repeat(200_000))))
        .route("/deep-table", get(async || Html("<table><td>".repeat(200_000))))
        .route("/wide", get(async || Html("<i>".repeat(3_000_000))))
        .route(
            "/headers-only",
            get(async || {
                sleep(Duration::from_mins(2)).await;
                "never"
            }),
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_pages_fail_in_their_time_and_a_neighbour_in_the_same_worker_goes_on() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let crowded = Pace {
        concurrency: 8,
        lease: Duration::from_secs(5),
        ..pace()
    };
    let worker = bench.worker("w1", crowded, &stop);
    let mut hostile = Vec::new();
    for (path, class) in [
        ("slow-stream", "Timeout"),
        ("headers-only", "Timeout"),
        ("fast-stream", "TooLarge"),
        ("bomb", "TooLarge"),
        ("deep", "TooLarge"),
        ("deep-table", "TooLarge"),
        ("wide", "TooLarge"),
    ] {
        let task = json!({
            "url": format!("http://{path}.test/{path}"), "pagination": null, "items": null, "maxRetries": 0, "timeout": "8s",
        });
        hostile.push((path, class, bench.accept(task).await));
    }
    let neighbour = bench.accept(json!({})).await;
    let task = bench
        .until(neighbour, "the neighbour ends", |task| task.status == "succeeded")
        .await;
    assert_eq!((task.pages, task.attempts), (PAGES, 1));
    assert_eq!(bench.texts(neighbour).await, every_record());
    for (path, class, id) in hostile {
        let task = bench.until(id, path, |task| task.status == "failed").await;
        assert_eq!(task.error_class.as_deref(), Some(class), "{path}: {task:?}");
        assert_eq!(task.attempts, 1, "{path} is no loss of the lease");
        let message = task.error_message.unwrap();
        assert!(
            !message.contains("127.0.0.1"),
            "{path} tells about the network: {message}"
        );
    }
    stop.cancel();
    worker.await.unwrap();
}
