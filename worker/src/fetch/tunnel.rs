//! Why the egress proxy did not open a tunnel.
//!
//! Neither engine tells what a proxy answered to CONNECT, only that it was no success. So after such a failure the proxy is asked once
//! more, by hand, and its own word is read.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;

use super::{EGRESS_HEADER, EgressSnafu, FetchError, check_egress};

/// The proxy dials within its own connect time-out; a refusal comes at once.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More than the proxy's whole answer.
const ANSWER: usize = 4096;

/// What the proxy has against a tunnel to this URL's host; `None` when it has nothing, or does not say.
pub(super) async fn objection(proxy: &Url, target: &Url) -> Option<FetchError> {
    let stream = match connect(proxy).await {
        Ok(stream) => stream,
        Err(absent) => return Some(absent),
    };
    let answer = timeout(TIMEOUT, ask(stream, proxy, target)).await.ok()??;
    let word = answer.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(EGRESS_HEADER).then(|| value.trim())
    });
    check_egress(word).err()
}

/// That the proxy itself does not answer, if it does not.
pub(super) async fn absence(proxy: &Url) -> Option<FetchError> {
    connect(proxy).await.err()
}

async fn connect(proxy: &Url) -> Result<TcpStream, FetchError> {
    let host = proxy.host_str().unwrap_or_default();
    let port = proxy.port_or_known_default().unwrap_or_default();
    match timeout(TIMEOUT, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(_)) | Err(_) => EgressSnafu {
            message: "the egress proxy does not answer",
        }
        .fail(),
    }
}

/// The header that names the pool, where the proxy's URL does.
fn pool(proxy: &Url) -> String {
    if proxy.username().is_empty() {
        return String::new();
    }
    let named = format!("{}:{}", proxy.username(), proxy.password().unwrap_or_default());
    format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(named))
}

async fn ask(mut stream: TcpStream, proxy: &Url, target: &Url) -> Option<String> {
    let (host, port) = (target.host_str()?, target.port_or_known_default()?);
    let request = format!(
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{}\r\n",
        pool(proxy)
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while answer.len() < ANSWER && !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).await.ok()?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(answer).ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn proxy_that_says(answer: &'static str) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"CONNECT shop.test:443 HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        format!("http://{address}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_refused_tunnel_is_told_apart_from_one_that_failed() {
        let target: Url = "https://shop.test/list".parse().unwrap();
        let refuses = proxy_that_says("HTTP/1.1 403 Forbidden\r\nX-Selextract-Egress: EgressRefused\r\n\r\n").await;
        assert!(matches!(objection(&refuses, &target).await, Some(FetchError::Refused)));
        let fails = proxy_that_says("HTTP/1.1 502 Bad Gateway\r\nx-selextract-egress: EgressUnreachable\r\n\r\n").await;
        assert!(matches!(
            objection(&fails, &target).await,
            Some(FetchError::Connection { .. })
        ));
        let opens = proxy_that_says("HTTP/1.1 200 OK\r\n\r\n").await;
        assert!(objection(&opens, &target).await.is_none());
    }
}
