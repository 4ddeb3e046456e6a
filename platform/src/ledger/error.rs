//! What can go wrong in the ledger.

use snafu::Snafu;

use crate::objects::ObjectError;

/// Why the ledger did not do what was asked.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum LedgerError {
    /// The database's URL is none.
    #[snafu(display("the database URL cannot be read"))]
    Url {
        /// What sqlx says; it does not hold the password.
        source: sqlx::Error,
    },
    /// The database did not do it.
    #[snafu(display("{doing}: {source}"))]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database could not be reached.
    #[snafu(display("the database at {address} cannot be reached: {source}"))]
    Unreachable {
        /// Host and port.
        address: String,
        /// What happened.
        source: sqlx::Error,
    },
    /// The migrations were not applied.
    #[snafu(display("applying the migrations: {source}"))]
    Migrate {
        /// What sqlx says.
        source: sqlx::migrate::MigrateError,
    },
    /// What is stored cannot be read.
    #[snafu(display("{what} is stored in a form that this version cannot read: {message}"))]
    Stored {
        /// What it is.
        what: &'static str,
        /// Why.
        message: String,
    },
    /// The object store did not do it.
    #[snafu(display("{source}"))]
    Object {
        /// What happened.
        source: ObjectError,
    },
    /// The same `Idempotency-Key` came with another body.
    #[snafu(display("the Idempotency-Key was used with another body"))]
    IdempotencyConflict,
    /// A unique name is taken.
    #[snafu(display("the name {name:?} is taken"))]
    NameTaken {
        /// The name.
        name: String,
    },
}

impl LedgerError {
    /// Whether no connection came free in time.
    pub fn is_pool_timeout(&self) -> bool {
        matches!(
            self,
            Self::Database {
                source: sqlx::Error::PoolTimedOut,
                ..
            }
        )
    }

    /// Whether trying again later may help: the database could not be reached, or ended the connection.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Database { source, .. } => is_unavailable(source),
            Self::Object { source } => !source.is_missing(),
            _ => false,
        }
    }
}

pub(super) fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::Tls(_) => true,
        // Classes 08 (connection), 53 (resources) and 57 (operator intervention) of the PostgreSQL manual's appendix A.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class))),
        _ => false,
    }
}
