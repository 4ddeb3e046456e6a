//! A connection to an origin that is kept for the next request of the same client connection.
//!
//! One client connection keeps one, and nobody else ever gets it: what an origin answers reaches only who asked it. It is used again only
//! for the same host and port, only while the policy still admits the address that it was dialled to, and only for requests without a
//! body. It is given up early, so that its limits, which count from its start, are never a page's problem.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use tokio::time::Instant;

use crate::target::Target;

/// Requests on one connection. A page has at most 10 MiB (`worker/src/fetch.rs`), and a connection carries 256 MiB.
const REQUESTS: u32 = 20;
/// Age at which it is not used again; a connection may last 15 minutes.
const AGE: Duration = Duration::from_mins(1);

/// A request's body: as it came, or none.
pub(crate) type Outgoing = Either<Incoming, Empty<Bytes>>;

/// A connection on which a request can be sent.
pub(crate) struct Carrier {
    pub(crate) sender: SendRequest<Outgoing>,
    /// Where it was dialled to.
    pub(crate) address: IpAddr,
    opened: Instant,
    requests: u32,
}

impl Carrier {
    /// One that was just opened.
    pub(crate) fn new(sender: SendRequest<Outgoing>, address: IpAddr) -> Self {
        Self {
            sender,
            address,
            opened: Instant::now(),
            requests: 0,
        }
    }

    fn may_go_on(&self) -> bool {
        self.requests < REQUESTS && self.opened.elapsed() < AGE && !self.sender.is_closed()
    }
}

/// The place for it.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Option<(Target, Carrier)>>);

impl Kept {
    /// Takes the connection to a target out, if there is one that can go on.
    pub(crate) fn take(&self, target: &Target) -> Option<Carrier> {
        let (of, carrier) = self.place().take()?;
        (of == *target && carrier.may_go_on()).then_some(carrier)
    }

    /// Keeps a connection on which a request was sent.
    pub(crate) fn put(&self, target: Target, mut carrier: Carrier) {
        carrier.requests += 1;
        if carrier.may_go_on() {
            *self.place() = Some((target, carrier));
        }
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<(Target, Carrier)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
