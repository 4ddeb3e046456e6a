//! What the migration job does: roles, database, schema, the first administrator. Safe to run again.

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;
use snafu::ResultExt;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};

use crate::ledger::{Ledger, LedgerError, PoolSettings, Secret, UserId, error};

/// The role that owns the schema.
pub const OWNER: &str = "selextract_owner";
/// The role of API, workers and keeper.
pub const APP: &str = "selextract_app";
/// The role of read replicas.
pub const REPLICATION: &str = "selextract_replication";
const PREPARING: error::DatabaseSnafu<&str> = error::DatabaseSnafu {
    doing: "preparing the database server",
};
/// How long reaching the database may take.
const CONNECT: Duration = Duration::from_secs(10);

/// The passwords that roles are created with, or get.
#[derive(Clone, Debug)]
pub struct RolePasswords {
    /// Of [`OWNER`].
    pub owner: Secret,
    /// Of [`APP`].
    pub app: Secret,
    /// Of [`REPLICATION`].
    pub replication: Secret,
}

/// Creates or updates the roles and creates the database, as a superuser.
///
/// `superuser` names any database of the server; `database` is the one to make.
pub async fn prepare_server(superuser: &Secret, database: &str, passwords: &RolePasswords) -> Result<(), LedgerError> {
    let doing = PREPARING;
    let options = PgConnectOptions::from_str(&superuser.0).context(error::UrlSnafu)?;
    let mut connection = connect(&options).await?;
    // One preparation at a time; the lock ends with the session.
    connection
        .execute("SELECT pg_advisory_lock(hashtextextended('selextract bootstrap', 0))")
        .await
        .context(doing)?;
    // Passwords stand in the statements below: they go into no log and no statistics.
    for sql in [
        "SET log_statement = 'none'",
        "SET log_min_duration_statement = -1",
        "SET log_min_error_statement = 'panic'",
        "SET pg_stat_statements.track = 'none'",
    ] {
        connection.execute(sql).await.context(doing)?;
    }
    for (role, password, attributes) in [
        (OWNER, &passwords.owner, "LOGIN"),
        (APP, &passwords.app, "LOGIN"),
        (REPLICATION, &passwords.replication, "LOGIN REPLICATION"),
    ] {
        let there = exists(
            &mut connection,
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)",
            role,
        )
        .await?;
        let verb = if there { "ALTER" } else { "CREATE" };
        let statement = format!("{verb} ROLE {role} {attributes} PASSWORD %L");
        run_formatted(&mut connection, &statement, &password.0).await?;
    }
    // The keeper tells how far replicas lag and how large the log is.
    connection
        .execute("GRANT pg_monitor TO selextract_owner")
        .await
        .context(doing)?;
    for (setting, owner, app) in [
        // Every statement of API and workers finds few rows by an index, whatever the values. To plan each execution anew would cost several
        // times what it saves, the more the more months there are; so plans are made once for a connection. That may be while a month is
        // still empty, where reading all of it looks cheapest, and it will not be empty for long: ways that read whole tables are off.
        ("plan_cache_mode", "auto", "force_generic_plan"),
        ("enable_seqscan", "on", "off"),
        ("enable_hashjoin", "on", "off"),
        ("enable_mergejoin", "on", "off"),
        ("statement_timeout", "0", "30s"),
        ("idle_in_transaction_session_timeout", "60s", "30s"),
        ("lock_timeout", "10s", "5s"),
    ] {
        for (role, value) in [(OWNER, owner), (APP, app)] {
            run_formatted(&mut connection, &format!("ALTER ROLE {role} SET {setting} = %L"), value).await?;
        }
    }
    let there = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    if !exists(&mut connection, there, database).await? {
        run_formatted(&mut connection, &format!("CREATE DATABASE %I OWNER {OWNER}"), database).await?;
    }
    connection.close().await.context(doing)?;
    let mut inside = connect(&options.database(database)).await?;
    inside
        .execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        .await
        .context(doing)?;
    inside.close().await.context(doing)
}

/// Applies the migrations, makes the partitions of this month and the next ones, and lets [`APP`] use the tables where that role exists.
pub async fn migrate(owner: &Secret, now: Timestamp) -> Result<(), LedgerError> {
    let doing = error::DatabaseSnafu { doing: "migrating" };
    let options = PgConnectOptions::from_str(&owner.0).context(error::UrlSnafu)?;
    let mut connection = connect(&options).await?;
    let mut migrations = sqlx::migrate!("../migrations");
    // A newer version's migrations only ever expand, so that the way back from an upgrade is open.
    migrations.set_ignore_missing(true);
    migrations.run(&mut connection).await.context(error::MigrateSnafu)?;
    let app: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolname <> current_user)")
            .bind(APP)
            .fetch_one(&mut connection)
            .await
            .context(doing)?;
    if app {
        for sql in [
            "GRANT USAGE ON SCHEMA public TO selextract_app",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO selextract_app",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO selextract_app",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO selextract_app",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO selextract_app",
            "REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations FROM selextract_app",
        ] {
            connection.execute(sql).await.context(doing)?;
        }
    }
    connection.close().await.context(doing)?;
    let ledger = Ledger::connect_lazy(&PoolSettings {
        url: owner.clone(),
        max_connections: 1,
        min_connections: 0,
        acquire_timeout: CONNECT,
        max_lifetime: Duration::from_mins(10),
        application_name: "selextract-migrate",
    })?;
    ledger.make_partitions(now, 1).await?;
    ledger.close().await;
    Ok(())
}

/// Makes the administrator `admin` when there is none. An existing one keeps its password.
pub async fn ensure_admin(owner: &Secret, password_hash: &str) -> Result<(), LedgerError> {
    let doing = error::DatabaseSnafu {
        doing: "making the administrator",
    };
    let mut connection = connect(&PgConnectOptions::from_str(&owner.0).context(error::UrlSnafu)?).await?;
    sqlx::query(
        "INSERT INTO users (id, name, kind, role, password_hash) VALUES ($1, 'admin', 'person', 'admin', $2) ON CONFLICT (name) DO NOTHING",
    )
    .bind(UserId::new())
    .bind(password_hash)
    .execute(&mut connection)
    .await
    .context(doing)?;
    connection.close().await.context(doing)
}

/// The server's version, as it says itself, such as `17.6 (Debian 17.6-1)`.
pub async fn server_version(owner: &Secret) -> Result<String, LedgerError> {
    let doing = error::DatabaseSnafu {
        doing: "reading the server's version",
    };
    let mut connection = connect(&PgConnectOptions::from_str(&owner.0).context(error::UrlSnafu)?).await?;
    let version = sqlx::query_scalar("SELECT current_setting('server_version')")
        .fetch_one(&mut connection)
        .await
        .context(doing)?;
    connection.close().await.context(doing)?;
    Ok(version)
}

/// The database that a URL names.
pub fn database_of(url: &Secret) -> Result<String, LedgerError> {
    let options = PgConnectOptions::from_str(&url.0).context(error::UrlSnafu)?;
    Ok(options.get_database().unwrap_or("selextract").to_owned())
}

async fn exists(connection: &mut PgConnection, question: &'static str, name: &str) -> Result<bool, LedgerError> {
    sqlx::query_scalar(question)
        .bind(name)
        .fetch_one(connection)
        .await
        .context(PREPARING)
}

/// Runs a statement that takes no parameters, with `argument` where it has `%L` or `%I`: the server quotes it.
async fn run_formatted(connection: &mut PgConnection, statement: &str, argument: &str) -> Result<(), LedgerError> {
    let sql: String = sqlx::query_scalar("SELECT format($1, $2)")
        .bind(statement)
        .bind(argument)
        .fetch_one(&mut *connection)
        .await
        .context(PREPARING)?;
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
        .await
        .context(PREPARING)?;
    Ok(())
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, LedgerError> {
    let address = format!("{}:{}", options.get_host(), options.get_port());
    match tokio::time::timeout(CONNECT, PgConnection::connect_with(options)).await {
        Ok(connection) => connection.context(error::UnreachableSnafu { address }),
        Err(_) => Err(sqlx::Error::PoolTimedOut).context(error::UnreachableSnafu { address }),
    }
}
