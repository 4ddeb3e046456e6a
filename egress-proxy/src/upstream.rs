//! Pools of upstream proxies: a task names a pool, and the connection to its target goes through a proxy of it.
//!
//! The target is resolved and checked as ever; then an upstream is asked for the checked address, or, where the pool says so, for the
//! name: there the pin ends. The upstreams' own addresses are the administrator's and are dialled as they are.

pub mod config;
mod connect;
mod health;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{HeaderMap, header};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use crate::{answer::Failure, dial::Wire, metrics::Metrics, resolve::Resolver, target::Target};
use config::{Pool, Resolves, Stickiness, Upstream};
use connect::Refusal;
use health::Health;

/// How many proxies of a pool are tried for one connection.
const TRIES: usize = 3;

/// Which way a request takes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// From here to its target.
    Direct,
    /// Through a proxy of a pool.
    Pool {
        /// The pool.
        pool: String,
        /// What requests that belong together have in common, for stickiness Run.
        session: String,
    },
}

impl Route {
    /// The route that a request at the pools' listener asks for: `Proxy-Authorization: Basic pool:session`. `None` when it does not say.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::PROXY_AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = value.split_once(' ')?;
        let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (pool, session) = text.split_once(':')?;
        let fits = scheme.eq_ignore_ascii_case("basic") && !pool.is_empty() && text.len() <= 256;
        fits.then(|| Self::Pool {
            pool: pool.to_owned(),
            session: session.to_owned(),
        })
    }
}

/// The pools' state, which outlives changes of the configuration.
pub struct Pools {
    health: Mutex<HashMap<(String, String), Health>>,
    turn: AtomicUsize,
    tls: TlsConnector,
    metrics: Arc<Metrics>,
}

/// A stream through an upstream, and which one it was.
pub struct Through {
    /// Connected to the target.
    pub wire: Wire,
    /// The pool and the upstream, for the audit.
    pub via: String,
}

impl Pools {
    /// Nobody is known to be ill.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            health: Mutex::default(),
            turn: AtomicUsize::new(0),
            tls: connect::tls(),
            metrics,
        }
    }

    /// Connects to a target, which was checked, through a proxy of the pool.
    pub async fn connect(
        &self,
        (pool, session): (&Pool, &str),
        (target, address): (&Target, IpAddr),
        resolver: &Resolver,
        deadline: Instant,
    ) -> Result<Through, Failure> {
        let asked = match pool.resolves {
            Resolves::Here => Target {
                host: crate::target::Host::Address(address),
                port: target.port,
            },
            Resolves::Upstream => target.clone(),
        };
        for upstream in self.order(pool, target, session).into_iter().take(TRIES) {
            let tried = self.try_one(upstream, &asked, resolver, deadline).await;
            self.note(pool, upstream, &tried);
            match tried {
                Ok(wire) => {
                    return Ok(Through {
                        wire,
                        via: format!("{}/{}", pool.name, upstream.authority()),
                    });
                }
                Err(Refusal::Target(failure)) => return Err(failure),
                Err(Refusal::Upstream(_)) if Instant::now() >= deadline => break,
                Err(Refusal::Upstream(_)) => {}
            }
        }
        self.metrics.through(&pool.name, "exhausted");
        Err(Failure::NoUpstream)
    }

    async fn try_one(
        &self,
        upstream: &Upstream,
        target: &Target,
        resolver: &Resolver,
        deadline: Instant,
    ) -> Result<Wire, Refusal> {
        // A share of the time, so that a dead one leaves time for the next.
        let share = deadline.saturating_duration_since(Instant::now()) / 2;
        let until = Instant::now() + share;
        let work = async {
            let login = upstream.login().await.map_err(Refusal::Upstream)?;
            let addresses = addresses(upstream, resolver).await?;
            connect::connect(upstream, &addresses, login.as_ref(), target, &self.tls).await
        };
        match timeout_at(until, work).await {
            Ok(done) => done,
            Err(_) => Err(Refusal::Upstream("it does not answer in time")),
        }
    }

    /// The upstreams that are not at rest, the one to try first at the beginning.
    fn order<'p>(&self, pool: &'p Pool, target: &Target, session: &str) -> Vec<&'p Upstream> {
        let now = Instant::now();
        let mut awake: Vec<&Upstream> = {
            let health = self.health();
            let rests = |upstream: &Upstream| health.get(&key(pool, upstream)).is_some_and(|health| health.rests(now));
            pool.upstreams.iter().filter(|upstream| !rests(upstream)).collect()
        };
        self.metrics.resting(&pool.name, pool.upstreams.len() - awake.len());
        let sticks_to = match pool.stickiness {
            Stickiness::None => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                if !awake.is_empty() {
                    let first = turn % awake.len();
                    awake.rotate_left(first);
                }
                return awake;
            }
            Stickiness::Host => target.host.to_string(),
            Stickiness::Run => session.to_owned(),
        };
        // The highest hash wins: every replica of this proxy chooses the same, and who falls out moves nobody else.
        awake.sort_by_cached_key(|upstream| std::cmp::Reverse(weight(&sticks_to, upstream)));
        awake
    }

    fn note(&self, pool: &Pool, upstream: &Upstream, tried: &Result<Wire, Refusal>) {
        let why = match tried {
            Ok(_) => {
                self.metrics.through(&pool.name, "connected");
                None
            }
            Err(Refusal::Target(_)) => {
                self.metrics.through(&pool.name, "target_failed");
                None
            }
            Err(Refusal::Upstream(why)) => {
                self.metrics.through(&pool.name, "upstream_failed");
                Some(*why)
            }
        };
        let mut all = self.health();
        let health = all.entry(key(pool, upstream)).or_default();
        let (pool_name, upstream) = (&pool.name, upstream.authority());
        match why {
            None if health.well() => info!(pool = pool_name, upstream, "An upstream proxy works again."),
            None => {}
            Some(why) => {
                if let Some(rest) = health.failed(pool.health, Instant::now()) {
                    warn!(
                        pool = pool_name,
                        upstream,
                        why,
                        ?rest,
                        "An upstream proxy failed too often and rests."
                    );
                }
            }
        }
    }

    fn health(&self) -> MutexGuard<'_, HashMap<(String, String), Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(pool: &Pool, upstream: &Upstream) -> (String, String) {
    (pool.name.clone(), upstream.url.to_string())
}

fn weight(key: &str, upstream: &Upstream) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, upstream.url.as_str()).hash(&mut hasher);
    hasher.finish()
}

async fn addresses(upstream: &Upstream, resolver: &Resolver) -> Result<Vec<SocketAddr>, Refusal> {
    let port = upstream.port();
    let found = match upstream.url.host() {
        Some(url::Host::Ipv4(address)) => vec![address.into()],
        Some(url::Host::Ipv6(address)) => vec![address.into()],
        Some(url::Host::Domain(name)) => resolver
            .lookup(name)
            .await
            .map_err(|_| Refusal::Upstream("its name does not resolve"))?,
        None => Vec::new(),
    };
    Ok(found
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(stickiness: &str) -> Pool {
        let file = serde_json::json!([{
            "name": "eu", "stickiness": stickiness, "healthCheck": { "failures": 1, "cooldown": "1h" },
            "proxies": [{ "url": "http://a.example:3128" }, { "url": "http://b.example:3128" }, { "url": "http://c.example:3128" }],
        }]);
        config::compile(serde_json::from_value(file).unwrap())
            .unwrap()
            .remove(0)
    }

    fn first(pools: &Pools, pool: &Pool, host: &str, session: &str) -> String {
        let target = Target {
            host: host.parse().unwrap(),
            port: 443,
        };
        pools.order(pool, &target, session)[0].authority()
    }

    fn pools() -> Pools {
        Pools::new(Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn the_header_names_pool_and_session() {
        let route = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::PROXY_AUTHORIZATION, text.parse().unwrap());
            Route::of(&headers)
        };
        let encoded = BASE64_STANDARD.encode("eu:run-1");
        let expected = Route::Pool {
            pool: "eu".into(),
            session: "run-1".into(),
        };
        assert_eq!(route(&format!("Basic {encoded}")), Some(expected));
        for wrong in [
            "",
            "Bearer x",
            "Basic ",
            "Basic !!",
            "Basic ZXU=",
            &format!("Basic {}", BASE64_STANDARD.encode(":x")),
        ] {
            assert_eq!(route(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn without_stickiness_the_proxies_take_turns() {
        let (pools, pool) = (pools(), pool("None"));
        let chosen: Vec<String> = (0..6).map(|_| first(&pools, &pool, "shop.example", "r")).collect();
        assert_eq!(chosen[..3], chosen[3..]);
        assert!(chosen[0] != chosen[1] && chosen[1] != chosen[2]);
    }

    #[test]
    fn a_host_or_a_run_keeps_its_proxy_and_moves_only_when_that_rests() {
        let (pools, by_host, by_run) = (pools(), pool("Host"), pool("Run"));
        for number in 0..40 {
            let (host, run) = (format!("h{number}.example"), format!("r{number}"));
            assert_eq!(
                first(&pools, &by_host, &host, "x"),
                first(&self::pools(), &by_host, &host, "y")
            );
            assert_eq!(
                first(&pools, &by_run, "x.example", &run),
                first(&self::pools(), &by_run, "y.example", &run)
            );
        }
        let all: std::collections::HashSet<_> = (0..40)
            .map(|n| first(&pools, &by_host, &format!("h{n}.example"), ""))
            .collect();
        assert_eq!(all.len(), 3, "all of them are used");
        let before: Vec<_> = (0..40)
            .map(|n| first(&pools, &by_host, &format!("h{n}.example"), ""))
            .collect();
        let ill = by_host
            .upstreams
            .iter()
            .find(|upstream| upstream.authority() == before[0])
            .unwrap();
        pools.note(&by_host, ill, &Err(Refusal::Upstream("it is dead")));
        for (number, before) in before.iter().enumerate() {
            let now = first(&pools, &by_host, &format!("h{number}.example"), "");
            assert!(now != ill.authority() && (*before == now || *before == ill.authority()));
        }
    }

    #[test]
    fn a_proxy_that_is_at_rest_is_left_out_until_none_is_left() {
        let (pools, pool) = (pools(), pool("None"));
        for upstream in &pool.upstreams {
            pools.note(&pool, upstream, &Err(Refusal::Upstream("it is dead")));
        }
        let target = Target {
            host: "shop.example".parse().unwrap(),
            port: 443,
        };
        assert!(pools.order(&pool, &target, "").is_empty());
    }
}
