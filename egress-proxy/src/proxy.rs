//! One request: CONNECT becomes a tunnel, an absolute-form request is sent on. Everything else is refused.

use std::{error::Error, io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Either, Empty};
use hyper::{
    HeaderMap, Method, Request, Response, Uri, Version,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderValue},
    http::{request::Parts, uri::PathAndQuery},
};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::{
    answer::{Body, Failure, established, which_pool},
    dial::{Dialler, Wire},
    guard::Origin,
    headers,
    kept::{Carrier, Outgoing},
    metrics::{Cut, Metrics, Outcome},
    server::Slot,
    target::Target,
    upstream::Route,
};

/// The longest head of a response that is taken from an origin.
const MAX_HEAD: usize = 64 * 1024;
/// For a kept connection to be ready: the answer before has been read by then.
const READY: Duration = Duration::from_millis(100);

/// What all requests share.
pub struct Proxy {
    dialler: Arc<Dialler>,
    /// Whether every request names a pool.
    of_pools: bool,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

impl Proxy {
    /// A proxy whose tunnels are tracked by `tasks`.
    pub fn new(dialler: Dialler, metrics: Arc<Metrics>, tasks: TaskTracker) -> Self {
        Self {
            dialler: Arc::new(dialler),
            of_pools: false,
            metrics,
            tasks,
        }
    }

    /// The same for the pools' listener: every request names a pool.
    #[must_use]
    pub fn for_pools(&self) -> Self {
        Self {
            dialler: self.dialler.clone(),
            of_pools: true,
            metrics: self.metrics.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// Serves one request. The slot of its connection is held by its tunnel, if it becomes one.
    pub async fn handle(&self, request: Request<Incoming>, slot: Arc<Slot>) -> Response<Body> {
        let route = if self.of_pools {
            let Some(route) = Route::of(request.headers()) else {
                return which_pool();
            };
            route
        } else {
            Route::Direct
        };
        let served = if request.method() == Method::CONNECT {
            self.tunnel(request, slot, &route)
                .await
                .map(|response| (response, Outcome::Tunnelled))
        } else {
            self.forward(request, &slot, &route)
                .await
                .map(|response| (response, Outcome::Forwarded))
        };
        let (response, outcome) = served.unwrap_or_else(|failure| (failure.response(), Outcome::Failed(failure)));
        self.metrics.ended(outcome);
        response
    }

    async fn tunnel(
        &self,
        request: Request<Incoming>,
        slot: Arc<Slot>,
        route: &Route,
    ) -> Result<Response<Body>, Failure> {
        // A tunnel has no body: what would be one is read by some as the first bytes inside it.
        if has_body_framing(request.headers()) {
            return Err(Failure::Malformed);
        }
        let target = Target::of_connect(request.uri()).map_err(|error| malformed(&error))?;
        let (mut origin, _) = self.dialler.open(&target, slot.client(), route).await?;
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

    async fn forward(&self, request: Request<Incoming>, slot: &Slot, route: &Route) -> Result<Response<Body>, Failure> {
        if request.method() == Method::TRACE {
            return Err(Failure::Malformed);
        }
        let target = Target::of_absolute(request.uri()).map_err(|error| malformed(&error))?;
        // A connection is used again only behind requests that may be sent twice and have no body: what an origin takes for the next
        // request is never what somebody meant as this one's body.
        // What came through a pool is kept by nobody: the next request may name another one.
        let last = !matches!(*request.method(), Method::GET | Method::HEAD)
            || has_body_framing(request.headers())
            || *route != Route::Direct;
        let (parts, body) = rewrite(request, &target, last)?.into_parts();
        let (response, carrier) = if last {
            let request = Request::from_parts(parts, Either::Left(body));
            self.send_anew(request, &target, slot, route).await?
        } else {
            self.send_again(parts, &target, slot).await?
        };
        if response.status().is_informational() {
            return Err(Failure::Unreachable);
        }
        if !last {
            slot.kept.put(target, carrier);
        }
        Ok(for_client(response))
    }

    /// Sends a request on the connection that was kept, or on a new one where there is none or it ends before it answers.
    async fn send_again(
        &self,
        parts: Parts,
        target: &Target,
        slot: &Slot,
    ) -> Result<(Response<Incoming>, Carrier), Failure> {
        let request = |parts| Request::from_parts(parts, Either::Right(Empty::new()));
        let kept = slot.kept.take(target);
        if let Some(mut carrier) = kept.filter(|carrier| self.dialler.still_admits(target, carrier.address))
            && timeout(READY, carrier.sender.ready())
                .await
                .is_ok_and(|ready| ready.is_ok())
        {
            match carrier.sender.send_request(request(parts.clone())).await {
                Ok(response) => return Ok((response, carrier)),
                // An origin may end a connection at any time between two requests (RFC 9110, 9.2.2; RFC 9112, 9.3.1).
                Err(error) if failure_of(&error) == Failure::Unreachable => {}
                Err(error) => return Err(failure_of(&error)),
            }
        }
        self.send_anew(request(parts), target, slot, &Route::Direct).await
    }

    async fn send_anew(
        &self,
        request: Request<Outgoing>,
        target: &Target,
        slot: &Slot,
        route: &Route,
    ) -> Result<(Response<Incoming>, Carrier), Failure> {
        let (origin, address) = self.dialler.open(target, slot.client(), route).await?;
        let mut carrier = Carrier::new(self.handshake(origin).await?, address);
        let response = carrier.sender.send_request(request).await;
        Ok((response.map_err(|error| failure_of(&error))?, carrier))
    }

    /// Starts HTTP/1.1 on the stream; what carries it ends with it, or at the total time-out.
    async fn handshake(&self, origin: Origin<Wire>) -> Result<http1::SendRequest<Outgoing>, Failure> {
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
fn rewrite(mut request: Request<Incoming>, target: &Target, last: bool) -> Result<Request<Incoming>, Failure> {
    let host = HeaderValue::try_from(target.host_header()).map_err(|error| malformed(&error))?;
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    headers::for_origin(request.headers_mut(), host, last);
    Ok(request)
}

/// The response as the client gets it.
fn for_client(mut response: Response<Incoming>) -> Response<Body> {
    headers::for_client(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    response.map(BodyExt::boxed)
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
