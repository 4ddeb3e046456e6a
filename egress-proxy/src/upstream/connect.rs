//! Asking one upstream for a connection: CONNECT over plain TCP or TLS, or SOCKS5 (RFC 1928, RFC 1929).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};
use tokio_util::either::Either;
use url::Url;

use super::config::{Login, Upstream};
use crate::{
    answer::Failure,
    dial::Wire,
    target::{Host, Target},
};

/// The longest head of an upstream's answer.
const MAX_HEAD: usize = 8 << 10;

/// Why an upstream made no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The upstream itself is at fault.
    Upstream(&'static str),
    /// The target is, as the upstream says.
    Target(Failure),
}

/// TLS to upstreams, by the public authorities that Mozilla trusts.
pub(super) fn tls() -> TlsConnector {
    trusting(&webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
}

fn trusting(roots: &RootCertStore) -> TlsConnector {
    let versions =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = versions.map_or_else(
        |_| {
            ClientConfig::builder()
                .with_root_certificates(roots.clone())
                .with_no_client_auth()
        },
        |builder| builder.with_root_certificates(roots.clone()).with_no_client_auth(),
    );
    TlsConnector::from(Arc::new(config))
}

/// Connects to the target through the upstream at the first of its addresses that answers. The caller bounds the time.
pub(super) async fn connect(
    upstream: &Upstream,
    addresses: &[SocketAddr],
    login: Option<&Login>,
    target: &Target,
    tls: &TlsConnector,
) -> Result<Wire, Refusal> {
    let mut stream = dial(addresses).await?;
    match upstream.url.scheme() {
        "socks5" => {
            socks(&mut stream, login, target).await?;
            Ok(Either::Left(stream))
        }
        "https" => {
            let name = server_name(&upstream.url).ok_or(Refusal::Upstream("its name cannot be checked by TLS"))?;
            let mut stream = tls
                .connect(name, stream)
                .await
                .map_err(|_| Refusal::Upstream("TLS with it failed"))?;
            ask(&mut stream, login, target).await?;
            Ok(Either::Right(Box::new(stream)))
        }
        _ => {
            ask(&mut stream, login, target).await?;
            Ok(Either::Left(stream))
        }
    }
}

/// What its certificate must be for.
fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        url::Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        url::Host::Ipv4(address) => Some(IpAddr::V4(address).into()),
        url::Host::Ipv6(address) => Some(IpAddr::V6(address).into()),
    }
}

async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, Refusal> {
    for address in addresses {
        if let Ok(stream) = TcpStream::connect(address).await {
            let _ = stream.set_nodelay(true);
            return Ok(stream);
        }
    }
    Err(Refusal::Upstream("it cannot be connected to"))
}

fn broken(_: std::io::Error) -> Refusal {
    Refusal::Upstream("the connection to it broke")
}

async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    login: Option<&Login>,
    target: &Target,
) -> Result<(), Refusal> {
    let shown = login.map_or_else(String::new, |login| {
        let pair = BASE64_STANDARD.encode(format!("{}:{}", login.username, login.password));
        format!("Proxy-Authorization: Basic {pair}\r\n")
    });
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{shown}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    match status(&read_head(stream).await?) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(Refusal::Upstream("it does not take its credentials")),
        Some(429) => Err(Refusal::Upstream("it wants fewer connections")),
        Some(503) => Err(Refusal::Upstream("it is not available")),
        Some(504) => Err(Refusal::Target(Failure::TimedOut)),
        Some(400..=599) => Err(Refusal::Target(Failure::Unreachable)),
        _ => Err(Refusal::Upstream("it does not speak HTTP")),
    }
}

/// Byte by byte: what follows the head is the target's.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Refusal> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(Refusal::Upstream("its answer has no end"));
        }
        head.push(stream.read_u8().await.map_err(broken)?);
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    rest.get(2..5)?.parse().ok()
}

async fn socks(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    login: Option<&Login>,
    target: &Target,
) -> Result<(), Refusal> {
    let method = if login.is_some() { 2 } else { 0 };
    stream.write_all(&[5, 1, method]).await.map_err(broken)?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await.map_err(broken)?;
    if chosen != [5, method] {
        return Err(Refusal::Upstream("it does not take its credentials"));
    }
    if let Some(login) = login {
        authenticate(stream, login).await?;
    }
    let mut request = vec![5, 1, 0];
    match &target.host {
        Host::Address(IpAddr::V4(address)) => request.extend([&[1][..], &address.octets()].concat()),
        Host::Address(IpAddr::V6(address)) => request.extend([&[4][..], &address.octets()].concat()),
        Host::Name(name) => request.extend(counted(&[3], name)?),
    }
    request.extend(target.port.to_be_bytes());
    stream.write_all(&request).await.map_err(broken)?;
    read_reply(stream).await
}

async fn authenticate(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), login: &Login) -> Result<(), Refusal> {
    let mut words = counted(&[1], &login.username)?;
    words.extend(counted(&[], &login.password)?);
    stream.write_all(&words).await.map_err(broken)?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.map_err(broken)?;
    match answer[1] {
        0 => Ok(()),
        _ => Err(Refusal::Upstream("it does not take its credentials")),
    }
}

fn counted(before: &[u8], text: &str) -> Result<Vec<u8>, Refusal> {
    let length =
        u8::try_from(text.len()).map_err(|_| Refusal::Upstream("a name or its credentials are too long for SOCKS5"))?;
    Ok([before, &[length], text.as_bytes()].concat())
}

async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Refusal> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(broken)?;
    match (head[0], head[1]) {
        (5, 0) => {}
        (5, 2..=5) => return Err(Refusal::Target(Failure::Unreachable)),
        (5, 6) => return Err(Refusal::Target(Failure::TimedOut)),
        _ => return Err(Refusal::Upstream("it does not make the connection")),
    }
    let length = match head[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await.map_err(broken)?),
        _ => return Err(Refusal::Upstream("it does not speak SOCKS5")),
    };
    // The address that it dialled from, and its port.
    let mut rest = vec![0; length + 2];
    stream.read_exact(&mut rest).await.map_err(broken)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static [u8]) -> (Result<(), Refusal>, String) {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        let target = Target {
            host: "93.184.216.34".parse().unwrap(),
            port: 443,
        };
        let login = Login {
            username: "ann".into(),
            password: "pass".into(),
        };
        let upstream = tokio::spawn(async move {
            let head = read_head(&mut theirs).await.unwrap();
            theirs.write_all(answer).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let asked = ask(&mut ours, Some(&login), &target).await;
        (asked, upstream.await.unwrap())
    }

    #[tokio::test]
    async fn an_upstream_is_asked_for_the_address_and_its_own_failures_are_told_from_the_targets() {
        let (connected, request) = answered(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n").await;
        assert_eq!(connected, Ok(()));
        assert_eq!(
            request,
            "CONNECT 93.184.216.34:443 HTTP/1.1\r\nHost: 93.184.216.34:443\r\nProxy-Authorization: Basic YW5uOnBhc3M=\r\n\r\n"
        );
        let target = |failure| Err(Refusal::Target(failure));
        assert_eq!(
            answered(b"HTTP/1.1 502 Bad\r\n\r\n").await.0,
            target(Failure::Unreachable)
        );
        assert_eq!(
            answered(b"HTTP/1.0 504 Late\r\n\r\n").await.0,
            target(Failure::TimedOut)
        );
        for ill in [
            &b"HTTP/1.1 407 Who\r\n\r\n"[..],
            b"HTTP/1.1 503 No\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.1 ",
        ] {
            assert!(matches!(answered(ill).await.0, Err(Refusal::Upstream(_))));
        }
    }

    #[tokio::test]
    async fn socks_logs_in_and_asks_for_the_name_or_the_address() {
        for (host, asked) in [
            ("shop.example", &b"\x05\x01\x00\x03\x0cshop.example\x01\xbb"[..]),
            ("10.1.2.3", b"\x05\x01\x00\x01\x0a\x01\x02\x03\x01\xbb"),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(4096);
            let target = Target {
                host: host.parse().unwrap(),
                port: 443,
            };
            let login = Login {
                username: "ann".into(),
                password: "pass".into(),
            };
            let upstream = async {
                let mut greeting = [0; 3];
                theirs.read_exact(&mut greeting).await.unwrap();
                assert_eq!(greeting, [5, 1, 2]);
                theirs.write_all(&[5, 2]).await.unwrap();
                let mut words = [0; 10];
                theirs.read_exact(&mut words).await.unwrap();
                assert_eq!(&words, b"\x01\x03ann\x04pass");
                theirs.write_all(&[1, 0]).await.unwrap();
                let mut request = vec![0; asked.len()];
                theirs.read_exact(&mut request).await.unwrap();
                assert_eq!(request, asked);
                theirs.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            };
            let (done, ()) = tokio::join!(socks(&mut ours, Some(&login), &target), upstream);
            assert_eq!(done, Ok(()));
        }
    }

    /// An upstream of ours behind TLS on loopback, which answers one CONNECT and sends back what comes then.
    async fn behind_tls(
        certified: &rcgen::CertifiedKey<rcgen::KeyPair>,
        address: &str,
    ) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let key =
            tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let bound = listener.local_addr().unwrap();
        let heard = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let accepted = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await;
            let Ok(mut stream) = accepted else { return String::new() };
            let head = read_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.unwrap();
            stream.write_all(&said).await.unwrap();
            stream.flush().await.unwrap();
            String::from_utf8(head).unwrap()
        });
        (bound, heard)
    }

    fn upstream(url: &str) -> Upstream {
        let pools = serde_json::json!([{ "name": "eu", "proxies": [{ "url": url }] }]);
        let mut pools = super::super::config::compile(serde_json::from_value(pools).unwrap()).unwrap();
        pools.remove(0).upstreams.remove(0)
    }

    #[tokio::test]
    async fn an_upstream_behind_tls_is_asked_in_secret_by_its_name_or_its_address() {
        let names = ["proxy.test", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let certified = rcgen::generate_simple_self_signed(names).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        let target: Target = Target {
            host: "93.184.216.34".parse().unwrap(),
            port: 443,
        };
        let login = Login {
            username: "ann".into(),
            password: "pass".into(),
        };
        for (address, host) in [
            ("127.0.0.1", "proxy.test"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
        ] {
            let (bound, heard) = behind_tls(&certified, address).await;
            let upstream = upstream(&format!("https://{host}:{}", bound.port()));
            let mut wire = connect(&upstream, &[bound], Some(&login), &target, &trusting(&roots))
                .await
                .unwrap();
            wire.write_all(b"hello").await.unwrap();
            wire.flush().await.unwrap();
            let mut back = [0; 5];
            wire.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"hello", "{host}");
            let asked = heard.await.unwrap();
            assert!(
                asked.starts_with("CONNECT 93.184.216.34:443 HTTP/1.1\r\n") && asked.contains("Basic YW5uOnBhc3M=")
            );
        }
        // One that somebody else vouches for, or nobody, and one that is another's.
        for (url, tls) in [("https://proxy.test", tls()), ("https://other.test", trusting(&roots))] {
            let (bound, heard) = behind_tls(&certified, "127.0.0.1").await;
            let upstream = upstream(&format!("{url}:{}", bound.port()));
            let refused = connect(&upstream, &[bound], Some(&login), &target, &tls).await;
            assert_eq!(refused.err(), Some(Refusal::Upstream("TLS with it failed")));
            assert_eq!(heard.await.unwrap(), "", "its credentials were not shown");
        }
    }
}
