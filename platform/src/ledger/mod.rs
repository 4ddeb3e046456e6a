//! The ledger: every task, page and user, in PostgreSQL. The only place with SQL. Does I/O; decides nothing about scheduling.
//!
//! Statements go through `PgBouncer` in transaction mode: they are named (sqlx's default), one statement or one transaction each, and
//! set no session state. A [`Ledger`] on a direct connection is needed for [`maintenance`] and partitions alone.

mod accepting;
pub mod artifacts;
pub mod batch;
pub mod changes;
mod claiming;
pub mod claims;
mod comparing;
pub mod conditional;
pub mod crawl;
pub mod credentials;
pub(crate) mod error;
mod expiry;
mod figures;
mod id;
pub mod idempotency;
mod leased;
pub mod maintenance;
pub mod own_schedules;
pub mod pages;
mod partitions;
pub mod quotas;
pub mod record_changes;
pub mod refill;
mod report_purge;
pub mod run_control;
pub mod schedules;
pub mod scrape_tasks;
pub mod stats;
pub mod tasks;
pub mod ticks;
mod together;
mod transaction;
pub mod users;
mod waiting;
pub mod waits;
pub mod watching;
pub mod webhooks;

use std::{str::FromStr, sync::Arc, time::Duration};

use log::LevelFilter;
use prometheus::Histogram;
use snafu::ResultExt;
use sqlx::{
    Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use accepting::Accepts;
use crawl::CrawlEnds;
pub use error::LedgerError;
use error::{DatabaseSnafu, UrlSnafu};
pub use id::{TaskId, UserId};
use leased::Writes;

use crate::{
    artifacts::ArtifactHome,
    timings::{Timings, timed},
};

/// How to reach a database, and with how many connections.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// `postgres://role:password@host:port/database?sslmode=…`. Never printed.
    pub url: Secret,
    /// The most connections (the guide's `pool_size` and `max_overflow` together).
    pub max_connections: u32,
    /// How many stay open while there is nothing to do (the guide's `pool_size` bounds it).
    pub min_connections: u32,
    /// How long a caller waits for a connection.
    pub acquire_timeout: Duration,
    /// After which age a connection is replaced (the guide's `pool_recycle`).
    pub max_lifetime: Duration,
    /// Shown in `pg_stat_activity`.
    pub application_name: &'static str,
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Secret(pub String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The ledger, on a pool of connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(crate) pool: PgPool,
    accepts: Accepts,
    writes: Writes,
    pub(crate) artifacts: Arc<ArtifactHome>,
    crawl_ends: CrawlEnds,
    /// Where the time of a ping is told.
    round_trip: Option<Histogram>,
}

impl Ledger {
    /// A ledger whose connections are made when they are needed. Fails only on a URL that is none.
    pub fn connect_lazy(settings: &PoolSettings) -> Result<Self, LedgerError> {
        let options = PgConnectOptions::from_str(&settings.url.0)
            .context(UrlSnafu)?
            .application_name(settings.application_name);
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .min_connections(settings.min_connections)
            .acquire_timeout(settings.acquire_timeout)
            .max_lifetime(settings.max_lifetime)
            .idle_timeout(Duration::from_mins(1))
            // A pre-ping costs 30 % of a small query's CPU: ADR 10.
            .test_before_acquire(false)
            // Told at the level of statements, and heard by the same layer: ADR 34.
            .acquire_time_level(LevelFilter::Debug)
            .connect_lazy_with(options);
        Ok(Self {
            accepts: accepting::gather(pool.clone()),
            writes: leased::gather(pool.clone()),
            artifacts: Arc::default(),
            crawl_ends: crawl::gather(pool.clone()),
            pool,
            round_trip: None,
        })
    }

    /// The same ledger, its pool shown under this name and its pings timed.
    #[must_use]
    pub fn timed(self, timings: &Timings, pool: &'static str) -> Self {
        Self {
            round_trip: Some(timings.pool(pool, &self.pool)),
            ..self
        }
    }

    /// The same ledger with another home for artifacts than its own database.
    #[must_use]
    pub fn with_artifacts(self, home: ArtifactHome) -> Self {
        Self {
            artifacts: Arc::new(home),
            ..self
        }
    }

    /// Whether the database answers. Its time is the way's alone: the wait for a connection is told on its own.
    pub async fn ping(&self) -> Result<(), LedgerError> {
        let doing = "reaching the database";
        let mut connection = self.pool.acquire().await.context(DatabaseSnafu { doing })?;
        let answer = timed(self.round_trip.clone(), |_| false, connection.ping()).await;
        answer.context(DatabaseSnafu { doing })
    }

    /// Closes every connection once it is returned.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
