//! Listening: accepts connections, plain or TLS, serves a router on each, and drains them at the end.
//!
//! Knows nothing of routes. Every wait has a bound: the TLS handshake, the request's head, the drain.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    http::{HeaderValue, Version, header},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Connections at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head: otherwise slow clients hold connections for nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The wait after a failed accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One listening socket and what it serves.
pub struct Server {
    /// For the log.
    pub name: &'static str,
    /// Where connections come from.
    pub listener: TcpListener,
    /// Without one the listener is plain.
    pub tls: Option<TlsAcceptor>,
    /// What is served.
    pub router: Router,
    /// How long open requests may go on after the end was asked for.
    pub drain: Duration,
}

/// How a server ends, in two steps some seconds apart.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Still everything is accepted and served, and each HTTP/1 answer closes its connection. A connection that is closed between two requests may
    /// swallow the second (RFC 9112, section 9.5); one that an answer has closed cannot.
    pub leaving: CancellationToken,
    /// Nothing is accepted any more.
    pub end: CancellationToken,
}

impl Server {
    /// Serves until the end, then lets open requests finish within the drain time.
    pub async fn run(self, Ending { leaving, end }: Ending) {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Some((stream, peer, slot)) = self.accept(&slots, &end).await {
            let connection = Connection {
                tls: self.tls.clone(),
                router: self.router.clone(),
                peer,
                leaving: leaving.clone(),
                watcher: graceful.watcher(),
            };
            tokio::spawn(async move {
                connection.serve(stream).await;
                drop(slot);
            });
        }
        drop(self.listener);
        let open = graceful.count();
        tokio::select! {
            () = graceful.shutdown() => tracing::info!(listener = self.name, open, "The listener has drained."),
            () = tokio::time::sleep(self.drain) => {
                tracing::warn!(listener = self.name, open, "Requests were still open at the end of the drain time.");
            }
        }
    }

    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
        end: &CancellationToken,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        loop {
            let accepted = tokio::select! {
                () = end.cancelled() => return None,
                accepted = async {
                    let slot = slots.clone().acquire_owned().await.ok();
                    (self.listener.accept().await, slot)
                } => accepted,
            };
            match accepted {
                (Ok((stream, peer)), Some(slot)) => return Some((stream, peer, slot)),
                (Ok(_), None) => return None,
                (Err(error), _) => {
                    tracing::warn!(listener = self.name, %error, "Accepting a connection failed; trying again.");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    router: Router,
    peer: SocketAddr,
    leaving: CancellationToken,
    watcher: hyper_util::server::graceful::Watcher,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set.");
        }
        match self.tls.clone() {
            None => self.http(stream).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.http(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "A TLS handshake failed."),
                Err(_) => tracing::debug!("A TLS handshake took too long."),
            },
        }
    }

    async fn http(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        let (router, peer, leaving) = (self.router, self.peer, self.leaving);
        let service = hyper::service::service_fn(move |request| {
            let mut request = Request::map(request, axum::body::Body::new);
            let kept_alive = request.version() <= Version::HTTP_11;
            request.extensions_mut().insert(ConnectInfo(peer));
            let (answer, leaving) = (router.clone().oneshot(request), leaving.clone());
            async move {
                let mut answer = answer.await?;
                if kept_alive && leaving.is_cancelled() {
                    answer
                        .headers_mut()
                        .insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        if let Err(error) = self.watcher.watch(connection.into_owned()).await {
            tracing::debug!(error, "A connection ended early.");
        }
    }
}
