//! The ledger of tasks in PostgreSQL: what was accepted, who holds it, what came out. One room per file.
//!
//! Statements are named and cached (PgBouncer tracks them), columns are named, and every write of a worker carries its lease's token.

mod changes;
mod claims;
mod maintenance;
mod pages;
mod scrape_tasks;
mod stats;
mod tasks;
mod users;

use std::{str::FromStr, time::Duration};

pub use claims::{Claimed, Finish, PageCommit, Written};
pub use maintenance::{Gauges, KeeperLease};
pub use pages::Page;
pub use scrape_tasks::check_schedule;
use snafu::{ResultExt, Snafu};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
pub use tasks::{Accepted, NewTask, Summary, Task};
pub use users::{ApiKey, User};

/// A connection of the overflow that was not needed for this long is closed.
const OVERFLOW_IDLE: Duration = Duration::from_secs(60);

/// Tasks, users and everything that must not be lost. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(crate) pool: PgPool,
}

/// How connections are kept (guide: "Connection Pool Settings"; without its pre-ping, which costs 30 % CPU on a small query).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections that are kept.
    pub size: u32,
    /// Further ones when all are taken.
    pub overflow: u32,
    /// How long a statement waits for a connection.
    pub acquire_timeout: Duration,
    /// How long a connection lives.
    pub max_lifetime: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            size: 20,
            overflow: 30,
            acquire_timeout: Duration::from_secs(2),
            max_lifetime: Duration::from_hours(1),
        }
    }
}

/// Why the ledger could not do what was asked.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum LedgerError {
    /// The URL of the database does not parse. It is not repeated: it holds a password.
    #[snafu(display("the database's URL cannot be read"))]
    Url,
    /// Every connection was taken for the whole acquire time-out.
    #[snafu(display("no database connection became free in time while {doing}"))]
    PoolTimeout {
        /// What was being done.
        doing: &'static str,
    },
    /// The database refused or did not answer.
    #[snafu(display("{doing} failed in the database: {source}"))]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The driver's error.
        source: sqlx::Error,
    },
    /// A row cannot be read or a value cannot be written.
    #[snafu(display("{doing} met content that cannot be read: {source}"))]
    Content {
        /// What was being done.
        doing: &'static str,
        /// What is wrong with it.
        source: anyhow::Error,
    },
}

/// The result of the ledger's calls.
pub type Result<T, E = LedgerError> = std::result::Result<T, E>;

pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T> {
        match self {
            Err(sqlx::Error::PoolTimedOut) => PoolTimeoutSnafu { doing }.fail(),
            other => other.context(DatabaseSnafu { doing }),
        }
    }
}

impl<T> Doing<T> for Result<T, serde_json::Error> {
    fn doing(self, doing: &'static str) -> Result<T> {
        self.map_err(anyhow::Error::from).context(ContentSnafu { doing })
    }
}

impl LedgerError {
    /// Whether it may pass by itself: the database is away or busy.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::PoolTimeout { .. } => true,
            Self::Database { source, .. } => {
                matches!(
                    source,
                    sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed
                ) || source
                    .as_database_error()
                    .and_then(|e| e.code().map(|c| is_passing(&c)))
                    .unwrap_or(false)
            }
            Self::Url | Self::Content { .. } => false,
        }
    }
}

/// SQLSTATE classes 08 (connection), 53 (resources), 57P (operator intervention), and read-only after a switch-over (25006).
fn is_passing(code: &str) -> bool {
    code.starts_with("08") || code.starts_with("53") || code.starts_with("57P") || code == "25006"
}

impl Ledger {
    /// A ledger over a pool that connects when it is first used: what does not answer yet is not ready yet.
    pub fn connect(url: &str, settings: PoolSettings) -> Result<Self> {
        let options = PgConnectOptions::from_str(url).map_err(|_| LedgerError::Url)?;
        let pool = PgPoolOptions::new()
            .max_connections(settings.size + settings.overflow)
            .min_connections(0)
            .acquire_timeout(settings.acquire_timeout)
            .max_lifetime(settings.max_lifetime)
            .idle_timeout(OVERFLOW_IDLE)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1")
            .execute(&self.pool)
            .await
            .doing("asking whether the database answers")
            .map(drop)
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
