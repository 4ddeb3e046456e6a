//! A stream that is cut when it carries too much or when nothing moves for too long. Both directions count together.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    audit::Entry,
    metrics::{Cut, Metrics},
};

/// A stream to an origin under limits: bytes are capped and counted, waiting in either direction is bounded.
#[derive(Debug)]
pub struct Origin<S> {
    inner: S,
    idle: Idle,
    bytes_left: u64,
    metrics: Arc<Metrics>,
    audit: Entry,
}

/// A stream to a client, of which only waiting to write is bounded: how long it may wait for the origin is the origin's guard's to
/// say, and how long for the next request hyper's.
#[derive(Debug)]
pub struct Client<S> {
    inner: S,
    idle: Idle,
}

/// Since when nothing has moved, and the alarm for it. The alarm is put off only when it rings, so traffic does not pay for it.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    last: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        let last = Instant::now();
        Self {
            limit,
            last,
            alarm: Box::pin(sleep_until(last + limit)),
        }
    }

    fn moved(&mut self) {
        self.last = Instant::now();
    }

    /// Ready when nothing has moved for the limit.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            let due = self.last + self.limit;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(due);
        }
    }
}

impl<S> Origin<S> {
    /// Guards a stream that was just connected.
    pub fn new(inner: S, idle: Duration, max_bytes: u64, metrics: Arc<Metrics>, audit: Entry) -> Self {
        Self {
            inner,
            idle: Idle::new(idle),
            bytes_left: max_bytes,
            metrics,
            audit,
        }
    }

    fn spend(&mut self, bytes: usize) {
        if bytes > 0 {
            self.idle.moved();
            self.bytes_left = self.bytes_left.saturating_sub(bytes as u64);
        }
    }

    fn check_bytes(&self) -> io::Result<()> {
        if self.bytes_left > 0 {
            return Ok(());
        }
        self.metrics.cut(Cut::Bytes);
        Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            "the connection carried more bytes than allowed",
        ))
    }

    fn pending<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.idle.poll_expired(cx));
        self.metrics.cut(Cut::Idle);
        Poll::Ready(Err(timed_out()))
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "nothing moved for too long")
}

impl<S: AsyncRead + Unpin> AsyncRead for Origin<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_bytes()?;
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let bytes = buf.filled().len() - before;
                self.spend(bytes);
                self.audit.received += bytes as u64;
                self.metrics.bytes_received.inc_by(bytes as u64);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.pending(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Origin<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_bytes()?;
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Ready(Ok(bytes)) => {
                self.spend(bytes);
                self.audit.sent += bytes as u64;
                self.metrics.bytes_sent.inc_by(bytes as u64);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.pending(cx),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S> Client<S> {
    /// Guards a stream that was just accepted.
    pub fn new(inner: S, idle: Duration) -> Self {
        Self {
            inner,
            idle: Idle::new(idle),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Client<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        self.idle.moved();
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Client<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.inner).poll_write(cx, buf) {
            self.idle.moved();
            return Poll::Ready(written);
        }
        ready!(self.idle.poll_expired(cx));
        Poll::Ready(Err(timed_out()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::target::Target;

    fn metrics() -> Arc<Metrics> {
        Arc::new(Metrics::new().unwrap())
    }

    fn audit() -> Entry {
        let target = Target::of_absolute(&"http://site.test/".parse().unwrap()).unwrap();
        Entry::new([10, 0, 0, 1].into(), &target, [192, 0, 2, 1].into())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_cut_and_traffic_puts_the_cut_off() {
        let (near, mut far) = duplex(64);
        let mut origin = Origin::new(near, Duration::from_secs(10), 1000, metrics(), audit());
        let mut buffer = [0; 8];
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(8)).await;
            far.write_all(b"x").await.unwrap();
            assert_eq!(origin.read(&mut buffer).await.unwrap(), 1);
        }
        let error = origin.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn both_directions_spend_the_same_allowance() {
        let (near, mut far) = duplex(64);
        let mut origin = Origin::new(near, Duration::from_secs(10), 10, metrics(), audit());
        origin.write_all(b"12345").await.unwrap();
        far.write_all(b"67890").await.unwrap();
        let mut buffer = [0; 5];
        origin.read_exact(&mut buffer).await.unwrap();
        let error = origin.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_is_cut_and_one_that_waits_is_not() {
        let (near, _far) = duplex(4);
        let mut client = Client::new(near, Duration::from_secs(10));
        let mut buffer = [0; 4];
        assert!(
            tokio::time::timeout(Duration::from_mins(1), client.read(&mut buffer))
                .await
                .is_err()
        );
        let error = client.write_all(b"more than fits").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
