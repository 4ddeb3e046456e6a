//! The proxy asks itself for what it must refuse before it says that it is ready: a build or a setting that opens loopback or the
//! cloud's metadata does not serve.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use snafu::{ResultExt, Snafu, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{answer::Failure, policy::Policy, target::Target};

const TIMEOUT: Duration = Duration::from_secs(5);
/// More than the head of an answer of ours.
const ANSWER: u64 = 2048;
/// What no default opens: loopback, the metadata service of clouds, and loopback inside IPv6.
const FORBIDDEN: [&str; 5] = [
    "127.0.0.1",
    "169.254.169.254",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
];

/// Why the proxy must not serve.
#[derive(Debug, Snafu)]
pub enum SelfTestError {
    /// It could not be asked.
    #[snafu(display("asking the proxy at {proxy} for {request:?} failed: {source}"))]
    Ask {
        /// Where it listens.
        proxy: SocketAddr,
        /// What it was asked for.
        request: String,
        /// Why.
        source: std::io::Error,
    },
    /// It answered something else than that it refuses.
    #[snafu(display("the proxy answered {answer:?} to {request:?}, which it must refuse"))]
    Opened {
        /// What it was asked for.
        request: String,
        /// The first line of its answer.
        answer: String,
    },
}

/// Asks the proxy that listens here for every address that it must refuse, by both methods. What the allow list opens on purpose is
/// left out.
pub async fn run(listens: SocketAddr, policy: &Policy) -> Result<(), SelfTestError> {
    let proxy = reachable(listens);
    for host in FORBIDDEN {
        for (request, port) in [
            (format!("CONNECT {host}:443 HTTP/1.1\r\nhost: {host}:443\r\n\r\n"), 443),
            (
                format!("GET http://{host}/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
                80,
            ),
        ] {
            if is_opened_on_purpose(policy, host, port) {
                tracing::warn!(host, port, "The allow list opens an address that no site should have.");
                continue;
            }
            let line = request.lines().next().unwrap_or_default().to_owned();
            let answer = ask(proxy, &request).await.context(AskSnafu {
                proxy,
                request: line.as_str(),
            })?;
            let refused = answer.starts_with("HTTP/1.1 403 ") && answer.contains(Failure::Refused.word());
            ensure!(
                refused,
                OpenedSnafu {
                    request: line,
                    answer: answer.lines().next().unwrap_or_default(),
                }
            );
        }
    }
    Ok(())
}

/// Where to connect to what listens everywhere.
fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

fn is_opened_on_purpose(policy: &Policy, host: &str, port: u16) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    match (host.parse(), address) {
        (Ok(host), Ok(address)) => policy.admits(&Target { host, port }, address),
        _ => false,
    }
}

async fn ask(proxy: SocketAddr, request: &str) -> std::io::Result<String> {
    timeout(TIMEOUT, async {
        let mut stream = TcpStream::connect(proxy).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let mut bounded = stream.take(ANSWER);
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            if bounded.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
    .await
    .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}
