//! One log line for each connection to an origin and for each one that was refused: who, where to, how much, how long. Never a path, a
//! query, a header or a body.

use std::net::IpAddr;

use tokio::time::Instant;
use tracing::info;

use crate::{answer::Failure, target::Target};

/// An open connection to an origin; its line is written when it is dropped.
#[derive(Debug)]
pub struct Entry {
    client: IpAddr,
    destination: String,
    address: IpAddr,
    started: Instant,
    /// The pool and the upstream proxy that it goes through.
    via: Option<String>,
    /// Bytes to the origin.
    pub sent: u64,
    /// Bytes from the origin.
    pub received: u64,
}

impl Entry {
    /// For a connection that was made just now.
    pub fn new(client: IpAddr, target: &Target, address: IpAddr) -> Self {
        Self {
            client,
            destination: target.to_string(),
            address,
            started: Instant::now(),
            via: None,
            sent: 0,
            received: 0,
        }
    }

    /// The same, through a proxy of a pool.
    #[must_use]
    pub fn via(mut self, via: Option<String>) -> Self {
        self.via = via;
        self
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        info!(
            target: "audit",
            result = "connected",
            client = %self.client,
            destination = self.destination,
            address = %self.address,
            via = self.via,
            sent = self.sent,
            received = self.received,
            milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        );
    }
}

/// A connection that was not made.
pub fn refused(client: IpAddr, target: &Target, address: Option<IpAddr>, failure: Failure) {
    let address = address.map(|address| address.to_string());
    info!(target: "audit", result = failure.label(), %client, destination = %target, address);
}
