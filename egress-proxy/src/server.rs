//! Accepts connections, as many as allowed, until it is told to stop; then lets what runs finish.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    answer::BUSY,
    guard::Client,
    kept::Kept,
    metrics::{Metrics, Outcome},
    proxy::Proxy,
};

const MAX_HEADERS: usize = 128;
/// The longest head of a request. hyper's smallest is 8 KiB.
const MAX_HEAD: usize = 64 * 1024;
/// After a failed accept (no file descriptors left) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For telling a client that the proxy is full.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How the server treats its clients.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Client connections at a time, tunnels too.
    pub max_connections: usize,
    /// For a request's head, and between two requests.
    pub idle: Duration,
    /// After the stop, new connections are still served for this long: clients hear of it later than the server.
    pub settle: Duration,
    /// For what runs after that.
    pub drain: Duration,
}

/// Everything that serves.
pub struct Server {
    /// Serves each request.
    pub proxy: Arc<Proxy>,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
    /// Tracks connections and tunnels.
    pub tasks: TaskTracker,
    /// Bounds.
    pub limits: ServerLimits,
}

impl Server {
    /// Serves until `stop` and a while longer, then drains.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.limits.max_connections));
        let closing = CancellationToken::new();
        let settled = async {
            stop.cancelled().await;
            sleep(self.limits.settle).await;
        };
        tokio::pin!(settled);
        loop {
            let accepted = tokio::select! {
                () = settled.as_mut() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, &slots, &closing),
                Err(error) => {
                    warn!(%error, "A connection could not be accepted.");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        closing.cancel();
        self.tasks.close();
        if timeout(self.limits.drain, self.tasks.wait()).await.is_err() {
            warn!(open = self.tasks.len(), "Connections that did not end in time are cut.");
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, slots: &Arc<Semaphore>, closing: &CancellationToken) {
        let Ok(permit) = slots.clone().try_acquire_owned() else {
            self.metrics.ended(Outcome::Busy);
            self.tasks.spawn(turn_away(stream));
            return;
        };
        let slot = Slot::new(permit, peer, self.metrics.clone());
        let served = serve(stream, self.proxy.clone(), slot, self.limits.idle, closing.clone());
        self.tasks.spawn(async move {
            if let Err(error) = served.await {
                debug!(%peer, %error, "The client's connection broke.");
            }
        });
    }
}

/// A client's place among the connections that are allowed, and its count. What a connection becomes holds it on.
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    peer: SocketAddr,
    metrics: Arc<Metrics>,
    /// Its connection to an origin between two requests.
    pub(crate) kept: Kept,
}

impl Slot {
    fn new(permit: OwnedSemaphorePermit, peer: SocketAddr, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.connections.inc();
        Arc::new(Self {
            _permit: permit,
            peer,
            metrics,
            kept: Kept::default(),
        })
    }

    /// Where the client is.
    pub fn client(&self) -> IpAddr {
        self.peer.ip()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

async fn turn_away(mut stream: TcpStream) {
    // The client may be gone already, and nobody is waiting for how this went.
    let _ = timeout(BUSY_TIMEOUT, async {
        stream.write_all(BUSY).await?;
        stream.shutdown().await
    })
    .await;
}

async fn serve(
    stream: TcpStream,
    proxy: Arc<Proxy>,
    slot: Arc<Slot>,
    idle: Duration,
    closing: CancellationToken,
) -> hyper::Result<()> {
    // Small answers are not to wait for each other; a stream that refuses this still works.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (proxy, slot) = (proxy.clone(), slot.clone());
        async move { Ok::<_, Infallible>(proxy.handle(request, slot).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Client::new(stream, idle)), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
