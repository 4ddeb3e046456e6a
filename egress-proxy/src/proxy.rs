//! One request: CONNECT becomes a tunnel, an absolute-form request is sent on. Everything else is refused.

use std::{error::Error, io, sync::Arc};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, Uri, Version,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderValue},
    http::uri::PathAndQuery,
};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, net::TcpStream, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::{
    answer::{Body, Failure, established},
    dial::Dialler,
    guard::Origin,
    headers,
    metrics::{Cut, Metrics, Outcome},
    server::Slot,
    target::Target,
};

/// The longest head of a response that is taken from an origin.
const MAX_HEAD: usize = 64 * 1024;

/// What all requests share.
pub struct Proxy {
    dialler: Dialler,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

impl Proxy {
    /// A proxy whose tunnels are tracked by `tasks`.
    pub fn new(dialler: Dialler, metrics: Arc<Metrics>, tasks: TaskTracker) -> Self {
        Self {
            dialler,
            metrics,
            tasks,
        }
    }

    /// Serves one request. The slot of its connection is held by its tunnel, if it becomes one.
    pub async fn handle(&self, request: Request<Incoming>, slot: Arc<Slot>) -> Response<Body> {
        let served = if request.method() == Method::CONNECT {
            self.tunnel(request, slot)
                .await
                .map(|response| (response, Outcome::Tunnelled))
        } else {
            self.forward(request, &slot)
                .await
                .map(|response| (response, Outcome::Forwarded))
        };
        let (response, outcome) = served.unwrap_or_else(|failure| (failure.response(), Outcome::Failed(failure)));
        self.metrics.ended(outcome);
        response
    }

    async fn tunnel(&self, request: Request<Incoming>, slot: Arc<Slot>) -> Result<Response<Body>, Failure> {
        // A tunnel has no body: what would be one is read by some as the first bytes inside it.
        if has_body_framing(request.headers()) {
            return Err(Failure::Malformed);
        }
        let target = Target::of_connect(request.uri()).map_err(|error| malformed(&error))?;
        let mut origin = self.dialler.open(&target, slot.client()).await?;
        let limits = self.dialler.limits();
        let metrics = self.metrics.clone();
        self.tasks.spawn(async move {
            let _slot = slot;
            let carry = async {
                let mut client = TokioIo::new(hyper::upgrade::on(request).await.map_err(io::Error::other)?);
                copy_bidirectional(&mut client, &mut origin).await
            };
            match timeout(limits.total, carry).await {
                Ok(Ok((sent, received))) => debug!(destination = %target, sent, received, "The tunnel ended."),
                Ok(Err(error)) => debug!(destination = %target, %error, "The tunnel broke."),
                Err(_) => metrics.cut(Cut::Total),
            }
        });
        Ok(established())
    }

    async fn forward(&self, request: Request<Incoming>, slot: &Slot) -> Result<Response<Body>, Failure> {
        if request.method() == Method::TRACE {
            return Err(Failure::Malformed);
        }
        let target = Target::of_absolute(request.uri()).map_err(|error| malformed(&error))?;
        let request = rewrite(request, &target)?;
        let origin = self.dialler.open(&target, slot.client()).await?;
        let mut sender = self.handshake(origin).await?;
        let mut response = sender.send_request(request).await.map_err(|error| failure_of(&error))?;
        if response.status().is_informational() {
            return Err(Failure::Unreachable);
        }
        headers::for_client(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(BodyExt::boxed))
    }

    /// Starts HTTP/1.1 on the stream; what carries it ends with it, or at the total time-out.
    async fn handshake(&self, origin: Origin<TcpStream>) -> Result<http1::SendRequest<Incoming>, Failure> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(origin))
            .await
            .map_err(|error| failure_of(&error))?;
        let total = self.dialler.limits().total;
        let metrics = self.metrics.clone();
        self.tasks.spawn(async move {
            match timeout(total, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "The connection to the origin broke."),
                Err(_) => metrics.cut(Cut::Total),
            }
        });
        Ok(sender)
    }
}

fn malformed(error: &dyn Error) -> Failure {
    debug!(%error, "The request's target is malformed.");
    Failure::Malformed
}

fn has_body_framing(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get_all(header::CONTENT_LENGTH)
            .iter()
            .any(|length| length != "0")
}

/// The request as the origin gets it: origin-form, HTTP/1.1, its own Host.
fn rewrite(mut request: Request<Incoming>, target: &Target) -> Result<Request<Incoming>, Failure> {
    let host = HeaderValue::try_from(target.host_header()).map_err(|error| malformed(&error))?;
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    headers::for_origin(request.headers_mut(), host);
    Ok(request)
}

/// A time-out somewhere in the chain of causes is a time-out, everything else an origin that cannot be talked to.
fn failure_of(error: &hyper::Error) -> Failure {
    debug!(%error, "The origin cannot be talked to.");
    let mut cause = error.source();
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        {
            return Failure::TimedOut;
        }
        cause = error.source();
    }
    Failure::Unreachable
}
