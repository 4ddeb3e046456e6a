//! What the handlers share.

use std::{num::NonZero, ops::Deref, sync::Arc, time::Duration};

use anyhow::Context;
use selextract_platform::{
    cache::Cache,
    frontier::{Entry, Frontier},
    ledger::{Ledger, LedgerError, PoolSettings, Secret},
    previews::Previews,
    timings::Timings,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::limiter::Limiter,
    auth::{lockouts::Lockouts, logins::Logins, password::Passwords, standing::Standings, tokens::TokenKeys},
    layered::Layered,
    offers::Offers,
    pools::Pools,
    presence::Presence,
    quotas::Quotas,
    sealed::Seal,
    settings::{Limits, Secrets, Settings},
};

/// The guide's cache of user statistics ("API Response Caching"): 1,000 entries, five minutes.
const STATS_ENTRIES: u64 = 1000;
const STATS_LIFETIME: Duration = Duration::from_mins(5);
/// The guide's cache of analytics ("Database Query Caching"): an hour. One entry for each period.
const ANALYTICS_ENTRIES: u64 = 8;
const ANALYTICS_LIFETIME: Duration = Duration::from_hours(1);

/// Previews at a time.
const PREVIEWS: usize = 32;
/// Batches that are read and accepted at a time.
const BATCHES: usize = 4;
/// How long queue and cache are probed. Shorter than what readiness is patient for: they may be away, and the API still answers.
const PROBE: Duration = Duration::from_secs(1);
/// Event streams at a time; each reads its task once a second.
const STREAMS: usize = 256;

/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

/// The parts of [`AppState`].
pub struct Shared {
    /// The primary.
    pub ledger: Ledger,
    /// The replicas, for dashboards and analytics.
    pub replica: Ledger,
    /// Where accepted tasks are offered.
    pub frontier: Frontier,
    cache: Cache,
    offers: Offers,
    /// Whether an owner may have more tasks.
    pub quotas: Quotas,
    /// The way to a worker that reads previews.
    pub previews: Previews,
    /// Counts the previews of each user.
    pub previews_by_user: Limiter,
    /// Turns of previews; each holds a connection to the queue.
    pub preview_turns: Semaphore,
    /// Turns of batches.
    pub batches: Semaphore,
    /// Places of open event streams.
    pub streams: Arc<Semaphore>,
    /// Whether a worker is there.
    pub presence: Presence,
    /// Checks passwords.
    pub passwords: Passwords,
    /// Signs and verifies access tokens.
    pub tokens: TokenKeys,
    /// Seals users' secrets; not there while the cluster has no key for them.
    pub seal: Option<Seal>,
    /// Who is locked out.
    pub lockouts: Lockouts,
    /// How sign-ins end.
    pub logins: Logins,
    /// Whose access tokens are still good.
    pub standings: Standings,
    /// Counts the requests of each user.
    pub by_user: Limiter,
    /// Counts the requests of each address that has no valid credentials.
    pub by_address: Limiter,
    /// How many proxies stand in front that write the client's address into `X-Forwarded-For`.
    pub trusted_proxies: u8,
    /// The pools of upstream proxies that tasks may name.
    pub pools: Pools,
    /// Kept statistics of users.
    pub stats: Layered,
    /// Kept analytics.
    pub analytics: Layered,
    /// The program ends: held calls answer now.
    pub ending: CancellationToken,
}

/// What the state is made of.
pub struct Connections {
    /// The primary.
    pub ledger: Ledger,
    /// The replicas.
    pub replica: Ledger,
    /// The frontier.
    pub frontier: Frontier,
    /// The way to a worker that reads previews.
    pub previews: Previews,
    /// The cache that all replicas of the API share.
    pub cache: Cache,
}

impl AppState {
    /// Offers accepted tasks to the frontier, without waiting for it.
    pub fn offer(&self, entries: Vec<Entry>) {
        self.offers.put(entries);
    }

    /// The state over these connections.
    pub fn new(
        connections: Connections,
        (tokens, seal): (TokenKeys, Option<Seal>),
        limits: &Limits,
        ending: CancellationToken,
    ) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let Connections {
            ledger,
            replica,
            frontier,
            previews,
            cache,
        } = connections;
        Ok(Self(Arc::new(Shared {
            standings: Standings::new(ledger.clone()),
            by_user: Limiter::new("user", limits.rate, cache.clone()),
            by_address: Limiter::new("address", limits.login_rate, cache.clone()),
            trusted_proxies: limits.trusted_proxies,
            pools: Pools::declared(limits.proxy_pools.as_deref()),
            previews,
            previews_by_user: Limiter::new("preview", limits.preview_rate, cache.clone()),
            preview_turns: Semaphore::new(PREVIEWS),
            quotas: Quotas::new(ledger.clone()),
            batches: Semaphore::new(BATCHES),
            streams: Arc::new(Semaphore::new(STREAMS)),
            presence: Presence::new(frontier.clone()),
            ledger,
            replica,
            offers: Offers::new(frontier.clone()),
            frontier,
            passwords: Passwords::new(cores)?,
            tokens,
            seal,
            lockouts: Lockouts::new(cache.clone()),
            logins: Logins::new()?,
            stats: Layered::new(cache.clone(), STATS_ENTRIES, STATS_LIFETIME),
            analytics: Layered::new(cache.clone(), ANALYTICS_ENTRIES, ANALYTICS_LIFETIME),
            cache,
            ending,
        })))
    }

    /// Whether the database answers, without which nothing works. Queue and cache are asked beside it for the time that it takes.
    pub async fn ping(&self) -> Result<(), LedgerError> {
        let (database, _, _) = tokio::join!(
            self.ledger.ping(),
            timeout(PROBE, self.frontier.ping()),
            timeout(PROBE, self.cache.ping()),
        );
        database
    }

    /// Connects as the settings say. Nothing is waited for: what does not answer yet is not ready yet.
    pub fn connect(
        settings: &Settings,
        secrets: &Secrets,
        timings: &Timings,
        ending: CancellationToken,
    ) -> anyhow::Result<Self> {
        let tokens = TokenKeys::parse(&secrets.token_keys)?;
        let seal = secrets.data_key.as_deref().map(Seal::parse).transpose()?;
        Self::new(
            Connections::open(settings, secrets, timings)?,
            (tokens, seal),
            &settings.limits,
            ending,
        )
    }
}

impl Connections {
    fn open(settings: &Settings, secrets: &Secrets, timings: &Timings) -> anyhow::Result<Self> {
        let pool = |url: &str| PoolSettings {
            url: Secret(url.to_owned()),
            max_connections: settings.pool_size + settings.pool_overflow,
            min_connections: 0,
            acquire_timeout: settings.pool_acquire_timeout.get(),
            max_lifetime: settings.pool_max_lifetime.get(),
            application_name: "selextract-api",
        };
        let primary = Ledger::connect_lazy(&pool(&secrets.database_url))?.with_artifacts(settings.artifacts.home()?);
        let queue = Secret(secrets.redis_queue_url.clone());
        let cache = Cache::connect_lazy(&Secret(secrets.redis_cache_url.clone())).context("the cache's URL")?;
        Ok(Self {
            ledger: primary.timed(timings, "primary"),
            replica: Ledger::connect_lazy(&pool(&secrets.database_read_url))?.timed(timings, "replica"),
            frontier: Frontier::connect_lazy(&queue)?.timed(timings),
            previews: Previews::connect_lazy(&queue)?.timed(timings),
            cache: cache.timed(timings),
        })
    }
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
