//! HTTP clients that cost little: one connection each, kept open, one request at a time.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const TIMEOUT: Duration = Duration::from_mins(1);

/// A connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// From the request to the last byte.
    pub took: Duration,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends a request and reads its answer.
    pub async fn send(&mut self, request: &[u8]) -> Result<Answer> {
        timeout(TIMEOUT, self.exchange(request))
            .await
            .context("no answer in time")?
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        let started = Instant::now();
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await?;
        };
        let (status, length) = read_head(&self.buffer[..head])?;
        while self.buffer.len() < head + length {
            self.read().await?;
        }
        Ok(Answer {
            status,
            body: self.buffer[head..].to_vec(),
            took: started.elapsed(),
        })
    }

    async fn read(&mut self) -> Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}

fn read_head(head: &[u8]) -> Result<(u16, usize)> {
    let text = std::str::from_utf8(head).context("the answer's head is no text")?;
    let status = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    Ok((status.context("no status")?, length.context("no length")?))
}

/// A request with a bearer token, and a JSON body where there is one.
pub fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let token = token
        .map(|token| format!("authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    let kind = if body.is_empty() {
        ""
    } else {
        "content-type: application/json\r\n"
    };
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{token}{kind}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Sends so many requests over so many connections; `make` gives the request of a number. Every answer must have this status. Returns how
/// long each took, sorted.
pub async fn run(
    address: SocketAddr,
    connections: usize,
    requests: usize,
    status: u16,
    make: impl Fn(usize) -> Vec<u8>,
) -> Result<Vec<Duration>> {
    let next = AtomicUsize::new(0);
    let client = async || {
        let mut client = Client::connect(address).await?;
        let mut took = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= requests {
                return anyhow::Ok(took);
            }
            let answer = client.send(&make(number)).await?;
            let body = String::from_utf8_lossy(&answer.body);
            ensure!(answer.status == status, "{} instead of {status}: {body}", answer.status);
            took.push(answer.took);
        }
    };
    let mut all: Vec<_> = try_join_all((0..connections).map(|_| client())).await?.concat();
    all.sort();
    Ok(all)
}

/// The figure that so many of a hundred are at most, in milliseconds.
pub fn percentile(sorted: &[Duration], of_a_hundred: usize) -> f64 {
    let index = (sorted.len() * of_a_hundred / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_length_of_a_head_are_read_whatever_the_case() {
        let head = b"HTTP/1.1 201 Created\r\nContent-Length: 17\r\nx: y\r\n\r\n";
        assert_eq!(read_head(head).unwrap(), (201, 17));
        assert!(read_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn percentiles_are_of_the_sorted_list() {
        let all: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!((percentile(&all, 50), percentile(&all, 99)), (51.0, 100.0));
    }
}
