//! Listening: plain and TLS, and an end that loses no request.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing};
use selextract_api_server::{
    internal::tls::Certificate,
    server::{Ending, Server},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

const SLOW: Duration = Duration::from_millis(500);

async fn slow() -> &'static str {
    tokio::time::sleep(SLOW).await;
    "done"
}

async fn serve(tls: Option<TlsAcceptor>, drain: Duration) -> (SocketAddr, Ending, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/", routing::get(|| async { "here" }))
        .route("/slow", routing::get(slow));
    let ending = Ending::default();
    let server = Server {
        name: "test",
        listener,
        tls,
        router,
        drain,
    };
    (address, ending.clone(), tokio::spawn(server.run(ending)))
}

fn client(roots: Vec<reqwest::Certificate>) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
    builder.tls_certs_only(roots).build().unwrap()
}

#[tokio::test]
async fn an_open_request_is_answered_after_the_end_was_asked_for() {
    let (address, ending, server) = serve(None, Duration::from_secs(5)).await;
    let request = tokio::spawn(client(Vec::new()).get(format!("http://{address}/slow")).send());
    tokio::time::sleep(SLOW / 2).await;
    ending.end.cancel();
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
    let (address, ending, server) = serve(None, Duration::from_millis(50)).await;
    let _request = tokio::spawn(client(Vec::new()).get(format!("http://{address}/slow")).send());
    tokio::time::sleep(SLOW / 2).await;
    ending.end.cancel();
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
    let (address, _ending, _server) = serve(Some(certificate.acceptor().unwrap()), SLOW).await;
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
    let (address, ending, server) = serve(None, Duration::from_secs(30)).await;
    let mut idle = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    ending.end.cancel();
    tokio::time::timeout(Duration::from_secs(5), server)
        .await
        .expect("an idle connection holds the end")
        .unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_connection_that_was_kept_alive_is_closed_by_an_answer_before_the_end() {
    let (address, ending, server) = serve(None, Duration::from_secs(5)).await;
    let ask = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut kept = tokio::net::TcpStream::connect(address).await.unwrap();
    kept.write_all(ask).await.unwrap();
    let mut answer = [0; 1024];
    let length = kept.read(&mut answer).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer[..length]).contains("close"));
    ending.leaving.cancel();
    let mut newcomer = tokio::net::TcpStream::connect(address).await.unwrap();
    for connection in [&mut kept, &mut newcomer] {
        connection.write_all(ask).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(SLOW, connection.read_to_string(&mut answer))
            .await
            .expect("the answer closes the connection")
            .unwrap();
        assert!(
            answer.contains("connection: close\r\n") && answer.ends_with("here"),
            "{answer}"
        );
    }
    ending.end.cancel();
    server.await.unwrap();
}
