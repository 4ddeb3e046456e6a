//! Listening: plain and TLS, and an end that loses no request.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing};
use selextract_api_server::{internal::tls::Certificate, server::Server};
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const SLOW: Duration = Duration::from_millis(500);

async fn slow() -> &'static str {
    tokio::time::sleep(SLOW).await;
    "done"
}

async fn serve(tls: Option<TlsAcceptor>, drain: Duration) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/", routing::get(|| async { "here" }))
        .route("/slow", routing::get(slow));
    let end = CancellationToken::new();
    let server = Server {
        name: "test",
        listener,
        tls,
        router,
        drain,
    };
    (address, end.clone(), tokio::spawn(server.run(end)))
}

fn client(roots: Vec<reqwest::Certificate>) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
    builder.tls_certs_only(roots).build().unwrap()
}

#[tokio::test]
async fn an_open_request_is_answered_after_the_end_was_asked_for() {
    let (address, end, server) = serve(None, Duration::from_secs(5)).await;
    let request = tokio::spawn(client(Vec::new()).get(format!("http://{address}/slow")).send());
    tokio::time::sleep(SLOW / 2).await;
    end.cancel();
    let answer = request.await.unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "done");
    server.await.unwrap();
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "nothing is accepted any more"
    );
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let (address, end, server) = serve(None, Duration::from_millis(50)).await;
    let _request = tokio::spawn(client(Vec::new()).get(format!("http://{address}/slow")).send());
    tokio::time::sleep(SLOW / 2).await;
    end.cancel();
    tokio::time::timeout(SLOW / 2, server)
        .await
        .expect("the drain goes on")
        .unwrap();
}

#[tokio::test]
async fn the_internal_listener_speaks_tls_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let certificate = Certificate::read(folder.path().join("tls.crt"), folder.path().join("tls.key")).unwrap();
    let (address, _end, _server) = serve(Some(certificate.acceptor().unwrap()), SLOW).await;
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let url = format!("https://localhost:{}/", address.port());
    let answer = client(vec![root]).get(&url).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert_eq!(answer.text().await.unwrap(), "here");
    assert!(
        client(Vec::new()).get(&url).send().await.is_err(),
        "an unknown authority"
    );
    assert!(
        client(Vec::new())
            .get(format!("http://{address}/"))
            .send()
            .await
            .is_err(),
        "plain HTTP"
    );
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let (address, end, server) = serve(None, Duration::from_secs(30)).await;
    let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    end.cancel();
    tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .expect("an idle connection holds the end")
        .unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
