//! A web site and a forward proxy on loopback, for one test each.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, extract::Request, http::Uri, response::Response};
use reqwest::Client;
use tokio::net::TcpListener;
use url::Url;

/// Serves a router; it ends with the test's runtime.
pub async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A plain forward proxy that sends every host name to one site, and remembers what it was asked for.
#[derive(Clone)]
pub struct ForwardProxy {
    pub url: Url,
    /// The URLs in the order of their requests.
    seen: Arc<Mutex<Vec<String>>>,
}

impl ForwardProxy {
    pub async fn start(site: SocketAddr) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .no_gzip()
            .no_brotli()
            .build()
            .unwrap();
        let router = Router::new().fallback({
            let seen = Arc::clone(&seen);
            move |request: Request| forward(request, site, client.clone(), seen.clone())
        });
        let address = serve(router).await;
        let url = format!("http://{address}").parse().unwrap();
        Self { url, seen }
    }

    /// What the proxy was asked for.
    #[allow(dead_code, reason = "not every test program asks")]
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn forward(request: Request, site: SocketAddr, client: Client, seen: Arc<Mutex<Vec<String>>>) -> Response {
    let asked: &Uri = request.uri();
    let asked_for = asked.to_string();
    seen.lock().unwrap().push(asked_for.clone());
    let path = asked.path_and_query().map_or("/", |path| path.as_str());
    let mut forwarded = client.request(request.method().clone(), format!("http://{site}{path}"));
    for (name, value) in request.headers() {
        if name != "host" && name != "proxy-connection" && name != "connection" && name != "content-length" {
            forwarded = forwarded.header(name, value);
        }
    }
    let host = asked.host().unwrap_or_default().to_owned();
    if let Ok(body) = axum::body::to_bytes(request.into_body(), 1 << 20).await
        && !body.is_empty()
    {
        forwarded = forwarded.body(body);
    }
    let Ok(answer) = forwarded.header("x-asked-host", host).send().await else {
        return Response::builder().status(502).body(Body::empty()).unwrap();
    };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != "transfer-encoding" && name != "connection" {
            response = response.header(name, value);
        }
    }
    response.body(Body::from_stream(answer.bytes_stream())).unwrap()
}
