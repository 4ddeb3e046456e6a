//! A browser context's way to a pool of upstream proxies: a context can be told a proxy's address and nothing that names the pool, so its
//! proxy is a listener of ours on loopback that adds the name to each request and hands it to the egress proxy.
//!
//! It decides nothing and opens nothing: what may be reached is the egress proxy's to say.

use std::{io, net::Ipv4Addr, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use url::Url;

use super::{BrowserSnafu, FetchError};

/// More connections than Chromium opens to one proxy.
const MOST: usize = 64;
/// The longest head of a request, as the egress proxy takes it.
const MAX_HEAD: usize = 64 << 10;
/// For a request's head, and for reaching the egress proxy.
const TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// The listener; it ends, with all of its connections, when it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    url: Url,
    serving: JoinHandle<()>,
}

impl Relay {
    /// Starts one to the egress proxy's listener at this URL, whose user and password name the pool and the session.
    pub(super) async fn start(route: &Url) -> Result<Self, FetchError> {
        let failed = |_| {
            BrowserSnafu {
                message: "the way to the pool of proxies cannot be opened",
            }
            .build()
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let mut url = route.clone();
        let port = listener.local_addr().map_err(failed)?.port();
        let set = url.set_host(Some("127.0.0.1")).is_ok() && url.set_port(Some(port)).is_ok();
        debug_assert!(set, "an http URL takes both");
        Ok(Self {
            url,
            serving: tokio::spawn(serve(listener, route.clone())),
        })
    }

    /// What the context's proxy is.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, route: Url) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST => match accepted {
                Ok((stream, _)) => drop(connections.spawn(carry(stream, route.clone()))),
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

/// One request, or one tunnel. The browser opens another connection for the next.
async fn carry(mut browser: TcpStream, route: Url) -> io::Result<()> {
    let (head, rest) = timeout(TIMEOUT, read_head(&mut browser)).await??;
    let address = (
        route.host_str().unwrap_or_default(),
        route.port_or_known_default().unwrap_or_default(),
    );
    let mut egress = timeout(TIMEOUT, TcpStream::connect(address)).await??;
    egress.write_all(named(&head, &route).as_bytes()).await?;
    egress.write_all(&rest).await?;
    copy_bidirectional(&mut browser, &mut egress).await.map(drop)
}

/// A request's head, and what came behind it.
async fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).map_err(io::Error::other)?;
            return Ok((head, rest));
        }
        if bytes.len() > MAX_HEAD || stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// The head with the pool's name in it, of a request that is its connection's only one.
fn named(head: &str, route: &Url) -> String {
    let is_ours = |line: &str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        ["connection", "proxy-connection", "proxy-authorization"]
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours))
    };
    let name = format!("{}:{}", route.username(), route.password().unwrap_or_default());
    let name = format!("Proxy-Authorization: Basic {}", BASE64_STANDARD.encode(name));
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().unwrap_or_default();
    let last = if first.starts_with("CONNECT ") {
        ""
    } else {
        "Connection: close\r\n"
    };
    let kept: String = lines
        .filter(|line| !is_ours(line))
        .flat_map(|line| [line, "\r\n"])
        .collect();
    format!("{first}\r\n{kept}{name}\r\n{last}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_named_in_every_request_and_a_connection_carries_one() {
        let route: Url = "http://eu:run-1@egress:3129".parse().unwrap();
        let plain = "GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\nProxy-Connection: keep-alive\r\nAccept: */*\r\n\r\n";
        assert_eq!(
            named(plain, &route),
            "GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\n\
             Proxy-Authorization: Basic ZXU6cnVuLTE=\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            named(
                "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n",
                &route
            ),
            "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\nProxy-Authorization: Basic ZXU6cnVuLTE=\r\n\r\n"
        );
    }
}
