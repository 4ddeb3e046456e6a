//! From a target to a connected, guarded stream: resolve once, check every answer, dial one that was checked.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::net::NetError;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use crate::{
    address,
    answer::Failure,
    audit,
    guard::Origin,
    metrics::Metrics,
    policy::Policy,
    resolve::Resolver,
    target::{Host, Target},
    upstream::{Pools, Route},
};

/// What carries bytes to an origin: a connection of ours, or one inside TLS to an upstream proxy.
pub type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The limits of one connection to an origin.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For resolving and connecting together.
    pub connect: Duration,
    /// With nothing moving in either direction.
    pub idle: Duration,
    /// From the connection's start to its end.
    pub total: Duration,
    /// Both directions together.
    pub max_bytes: u64,
}

/// Opens connections to origins.
pub struct Dialler {
    resolver: Resolver,
    policy: watch::Receiver<Arc<Policy>>,
    metrics: Arc<Metrics>,
    limits: Limits,
    pools: Pools,
}

impl Dialler {
    /// A dialler that follows the policy as it changes.
    pub fn new(
        resolver: Resolver,
        policy: watch::Receiver<Arc<Policy>>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Self {
        Self {
            resolver,
            policy,
            pools: Pools::new(metrics.clone()),
            metrics,
            limits,
        }
    }

    /// The limits that its streams are under.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether the target may still be reached at an address that it was dialled to before.
    pub fn still_admits(&self, target: &Target, address: IpAddr) -> bool {
        self.policy.borrow().admits(target, address)
    }

    /// Connects a client to the target, or says why not. Either way it is one line of the audit. Tells the address that it dialled.
    pub async fn open(
        &self,
        target: &Target,
        client: IpAddr,
        route: &Route,
    ) -> Result<(Origin<Wire>, IpAddr), Failure> {
        let refused = |address, failure| {
            audit::refused(client, target, address, failure);
            failure
        };
        let started = Instant::now();
        let deadline = started + self.limits.connect;
        let policy = self.policy.borrow().clone();
        if !policy.may_resolve(target) {
            return Err(refused(None, Failure::Refused));
        }
        let pool = match route {
            Route::Direct => None,
            Route::Pool { pool, session } => {
                let known = policy.pool(pool).ok_or_else(|| refused(None, Failure::UnknownPool))?;
                Some((known, session.as_str()))
            }
        };
        let addresses = self
            .resolve(target, deadline)
            .await
            .map_err(|failure| refused(None, failure))?;
        if let Some(address) = addresses.iter().find(|address| !policy.admits(target, **address)) {
            return Err(refused(Some(*address), Failure::Refused));
        }
        let connected = match (pool, addresses.first()) {
            (Some(pool), Some(address)) => {
                let through = self
                    .pools
                    .connect(pool, (target, *address), &self.resolver, deadline)
                    .await;
                through.map(|through| (through.wire, *address, Some(through.via)))
            }
            _ => connect_first(&addresses, target.port, deadline)
                .await
                .map(|(stream, address)| (Either::Left(stream), address, None)),
        };
        let (stream, address, via) = connected.map_err(|failure| refused(None, failure))?;
        self.metrics.connect_seconds.observe(started.elapsed().as_secs_f64());
        let origin = Origin::new(
            stream,
            self.limits.idle,
            self.limits.max_bytes,
            self.metrics.clone(),
            audit::Entry::new(client, target, address).via(via),
        );
        Ok((origin, address))
    }

    async fn resolve(&self, target: &Target, deadline: Instant) -> Result<Vec<IpAddr>, Failure> {
        let name = match &target.host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        match timeout_at(deadline, self.resolver.lookup(name)).await {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(_)) => Err(Failure::Unreachable),
            Ok(Err(NetError::Timeout)) | Err(_) => Err(Failure::TimedOut),
            Ok(Err(error)) => {
                debug!(destination = %target, %error, "The name does not resolve.");
                Err(Failure::Unreachable)
            }
        }
    }
}

/// Tries the addresses in order; each gets an equal share of the time that is left, so that a dead first one leaves time for the next.
async fn connect_first(addresses: &[IpAddr], port: u16, deadline: Instant) -> Result<(TcpStream, IpAddr), Failure> {
    let mut failure = Failure::Unreachable;
    for (index, address) in addresses.iter().enumerate() {
        let waiting = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / waiting;
        let address = SocketAddr::new(address::canonical(*address), port);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small writes of a tunnel are not to wait for each other; a stream that refuses this still works.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address.ip()));
            }
            Ok(Err(error)) => {
                debug!(%address, %error, "The address cannot be connected to.");
                failure = Failure::Unreachable;
            }
            Err(_) => failure = Failure::TimedOut,
        }
    }
    Err(failure)
}
