//! Fetching by HTTP through a proxy, against a site on loopback.
#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

mod site;

use std::{io::Write, time::Duration};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use selextract_worker::fetch::{FetchError, Page, Request, http::Http};
use site::{ForwardProxy, serve};
use url::Url;

async fn redirects(Path(left): Path<u32>) -> Response {
    match left {
        0 => axum::response::Html("<p>arrived").into_response(),
        left => Redirect::temporary(&format!("/redirects/{}", left - 1)).into_response(),
    }
}

/// Which of the task's headers came, and what else matters.
async fn headers(headers: HeaderMap) -> Response {
    let shown = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("-")
            .to_owned()
    };
    let text = format!("{}|{}|{}", shown("x-mine"), shown("user-agent"), shown("x-asked-host"));
    axum::response::Html(text).into_response()
}

fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 64 << 20]).unwrap();
    encoder.finish().unwrap()
}

fn router() -> Router {
    Router::new()
        .route("/redirects/{left}", get(redirects))
        .route("/headers", get(headers))
        .route(
            "/elsewhere",
            get(async || Redirect::temporary("http://other.test/headers")),
        )
        .route(
            "/to-file",
            get(async || (StatusCode::FOUND, [(header::LOCATION, "file:///etc/passwd")])),
        )
        .route(
            "/latin",
            get(async || {
                (
                    [(header::CONTENT_TYPE, "text/html; charset=iso-8859-1")],
                    b"<p>caf\xe9".to_vec(),
                )
            }),
        )
        .route(
            "/pdf",
            get(async || ([(header::CONTENT_TYPE, "application/pdf")], "%PDF")),
        )
        .route(
            "/busy",
            get(async || (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "7")])),
        )
        .route(
            "/refused",
            get(async || (StatusCode::FORBIDDEN, [("x-selextract-egress", "EgressRefused")])),
        )
        .route(
            "/bomb",
            get(async || {
                (
                    [(header::CONTENT_TYPE, "text/html"), (header::CONTENT_ENCODING, "gzip")],
                    bomb(),
                )
            }),
        )
}

struct Bench {
    http: Http,
    proxy: ForwardProxy,
}

impl Bench {
    async fn new() -> Self {
        let proxy = ForwardProxy::start(serve(router()).await).await;
        Self {
            http: Http::new(&proxy.url).unwrap(),
            proxy,
        }
    }

    async fn fetch(&self, path: &str) -> Result<Page, FetchError> {
        let url: Url = format!("http://site.test{path}").parse().unwrap();
        let headers = [("x-mine".to_owned(), "secret".to_owned())];
        let request = Request {
            url: &url,
            home: &url,
            headers: &headers,
        };
        tokio::time::timeout(Duration::from_secs(20), self.http.fetch(request))
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn ten_redirects_are_followed_and_eleven_are_not() {
    let bench = Bench::new().await;
    let page = bench.fetch("/redirects/10").await.unwrap();
    assert_eq!(
        (page.text.as_str(), page.url.as_str()),
        ("<p>arrived", "http://site.test/redirects/0")
    );
    assert!(matches!(
        bench.fetch("/redirects/11").await,
        Err(FetchError::TooManyRedirects { limit: 10 })
    ));
}

#[tokio::test]
async fn a_redirect_to_another_scheme_is_refused() {
    let error = Bench::new().await.fetch("/to-file").await.unwrap_err();
    assert!(matches!(error, FetchError::Scheme { target } if target == "file:///etc/passwd"));
}

#[tokio::test]
async fn the_tasks_headers_go_to_its_own_origin_only() {
    let bench = Bench::new().await;
    let home = bench.fetch("/headers").await.unwrap();
    assert!(
        home.text.starts_with("secret|") && home.text.contains("Selextract/"),
        "{}",
        home.text
    );
    let other = bench.fetch("/elsewhere").await.unwrap();
    assert!(
        other.text.starts_with("-|") && other.text.ends_with("|other.test"),
        "{}",
        other.text
    );
}

#[tokio::test]
async fn every_request_goes_through_the_proxy_also_to_loopback() {
    let bench = Bench::new().await;
    let url: Url = "http://127.0.0.1:9/headers".parse().unwrap();
    let request = Request {
        url: &url,
        home: &url,
        headers: &[],
    };
    let page = bench.http.fetch(request).await.unwrap();
    assert!(page.text.ends_with("|127.0.0.1"));
    assert_eq!(bench.proxy.seen(), ["http://127.0.0.1:9/headers"]);
}

#[tokio::test]
async fn a_page_is_decoded_as_its_content_type_says() {
    assert_eq!(Bench::new().await.fetch("/latin").await.unwrap().text, "<p>café");
}

#[tokio::test]
async fn what_is_not_read_is_refused_by_its_name() {
    let error = Bench::new().await.fetch("/pdf").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the page is \"application/pdf\"; HTML, XML, JSON or CSV is read"
    );
}

#[tokio::test]
async fn an_error_status_tells_what_the_server_asked_for() {
    let error = Bench::new().await.fetch("/busy").await.unwrap_err();
    assert!(matches!(error, FetchError::Status { status: 429, retry_after: Some(wait) } if wait.as_secs() == 7));
}

#[tokio::test]
async fn an_answer_of_the_egress_proxy_is_not_taken_for_the_sites() {
    assert!(matches!(
        Bench::new().await.fetch("/refused").await,
        Err(FetchError::Refused)
    ));
}

#[tokio::test]
async fn a_decompression_bomb_stops_at_the_cap() {
    assert!(matches!(
        Bench::new().await.fetch("/bomb").await,
        Err(FetchError::TooLarge)
    ));
}
