//! The real services for integration tests: PostgreSQL, PgBouncer, Valkey and Prometheus out of the product's own data image.
//!
//! They run from the image's root file system by `chroot`, as the image's user, on loopback, and end with the test program. One set
//! serves a whole test program; each test takes a [`Database`] and a [`Services::redis_url`] of its own. Needs root, and
//! `SELEXTRACT_DATA_ROOT` or a root made by `images/build --root data`.

mod objects;
mod process;
mod prometheus;
mod root;

use std::{
    fs,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
pub use objects::ObjectStore;
pub use process::{Process, free_port};
pub use prometheus::{Prometheus, promtool};
use root::Root;

/// The password of every role and of Valkey. The services listen on loopback, for the life of a test.
pub const PASSWORD: &str = "only-for-tests";

/// How many databases one Valkey offers.
const REDIS_DATABASES: u32 = 512;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running PostgreSQL, a PgBouncer in front of it, and a Valkey.
#[derive(Debug)]
pub struct Services {
    root: Root,
    postgres: Postgres,
    pooler: Pooler,
    valkey: Valkey,
    databases: AtomicU32,
    redis: AtomicU32,
}

/// What the services are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Tests: fast, and nothing survives the machine.
    Tests,
    /// Measurements: what is acknowledged is on the disk, as in the product.
    Measurement,
}

/// A PostgreSQL server with the product's roles (`selextract_owner`, `selextract_app`) and no database of ours.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    process: Process,
}

/// A PgBouncer in transaction mode in front of the shared PostgreSQL.
#[derive(Debug)]
pub struct Pooler {
    port: u16,
    process: Process,
}

/// A Valkey without persistence and without eviction.
#[derive(Debug)]
pub struct Valkey {
    port: u16,
    process: Process,
}

/// What matters about a PgBouncer in a test.
#[derive(Clone, Copy, Debug)]
pub struct PoolerOptions {
    /// Server connections for each pair of role and database.
    pub default_pool_size: u16,
    /// Named statements that it tracks on each server connection; 0 turns tracking off.
    pub max_prepared_statements: u16,
}

impl Default for PoolerOptions {
    fn default() -> Self {
        Self {
            default_pool_size: 20,
            max_prepared_statements: 200,
        }
    }
}

/// An empty database of one test's own.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Straight to PostgreSQL, role `selextract_owner`, which owns the database.
    pub direct_url: String,
    /// Through PgBouncer, role `selextract_app`.
    pub url: String,
    /// Straight to PostgreSQL, role `postgres`.
    pub superuser_url: String,
}

/// The services of this test program, started by the first caller.
///
/// # Panics
/// When they cannot be started; the message says what is missing.
#[expect(clippy::panic, reason = "a test without its services has failed")]
pub fn start() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(|| {
        Services::start(Purpose::Tests).unwrap_or_else(|error| panic!("starting the services failed: {error:#}"))
    })
}

impl Services {
    /// Services of one's own for a measurement: PostgreSQL makes every commit durable and Valkey keeps its log, as in the product.
    pub fn for_measurement() -> Result<Self> {
        Self::start(Purpose::Measurement)
    }

    fn start(purpose: Purpose) -> Result<Self> {
        let root = Root::open()?;
        let postgres = Postgres::start(&root, purpose)?;
        let pooler = Pooler::start(&root, postgres.port, PoolerOptions::default(), None)?;
        let valkey = Valkey::start(&root, purpose)?;
        Ok(Self {
            root,
            postgres,
            pooler,
            valkey,
            databases: AtomicU32::new(0),
            redis: AtomicU32::new(0),
        })
    }

    /// A new database, owned by `selextract_owner`.
    pub fn database(&self) -> Result<Database> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.postgres.sql(
            &self.root,
            "postgres",
            &format!("CREATE DATABASE {name} OWNER selextract_owner"),
        )?;
        self.postgres
            .sql(&self.root, &name, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")?;
        Ok(Database {
            direct_url: self.postgres.url("selextract_owner", &name),
            superuser_url: self.postgres.url("postgres", &name),
            url: self.pooler.url("selextract_app", &name),
            name,
        })
    }

    /// A Valkey database that no other test uses. `FLUSHDB` is safe, `FLUSHALL` is not: see [`Services::valkey`].
    ///
    /// # Errors
    /// When all of them are taken.
    pub fn redis_url(&self) -> Result<String> {
        let number = self.redis.fetch_add(1, Ordering::Relaxed);
        ensure!(
            number < REDIS_DATABASES,
            "all {REDIS_DATABASES} Valkey databases are taken"
        );
        Ok(self.valkey.url(number))
    }

    /// A PgBouncer of one test's own, in front of the shared PostgreSQL.
    pub fn pooler(&self, options: PoolerOptions) -> Result<Pooler> {
        Pooler::start(&self.root, self.postgres.port, options, None)
    }

    /// The same for clients that speak TLS alone, with this certificate and key (PEM).
    pub fn pooler_with_tls(&self, options: PoolerOptions, identity: (&str, &str)) -> Result<Pooler> {
        Pooler::start(&self.root, self.postgres.port, options, Some(identity))
    }

    /// A Valkey of one test's own, to flush, freeze or stop.
    pub fn valkey(&self) -> Result<Valkey> {
        Valkey::start(&self.root, Purpose::Tests)
    }

    /// A PostgreSQL of one test's own, to restart or to bootstrap.
    pub fn postgres(&self) -> Result<Postgres> {
        Postgres::start(&self.root, Purpose::Tests)
    }

    /// The processes of PostgreSQL, PgBouncer and Valkey, in this order.
    pub fn processes(&self) -> [&Process; 3] {
        [&self.postgres.process, &self.pooler.process, &self.valkey.process]
    }

    /// Runs SQL as the superuser by `psql` in a database of the shared server and returns its unaligned output.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        self.postgres.sql(&self.root, database, sql)
    }
}

impl Postgres {
    fn start(root: &Root, purpose: Purpose) -> Result<Self> {
        let folder = root.folder("postgres")?;
        let inside = root.inside(&folder);
        let port = process::free_port()?;
        fs::write(folder.join("password"), PASSWORD)?;
        let bin = "/usr/lib/postgresql/17/bin";
        let data = format!("{inside}/data");
        root.run(&[
            &format!("{bin}/initdb"),
            &format!("--pgdata={data}"),
            "--username=postgres",
            &format!("--pwfile={inside}/password"),
            "--auth=scram-sha-256",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ])
        .context("initdb")?;
        // A measurement has what the operator gives a cluster of the profile Small (operator/src/build/postgres_config.rs).
        let durability = match purpose {
            Purpose::Tests => "fsync = off",
            Purpose::Measurement => {
                "fsync = on\nsynchronous_commit = on\nshared_buffers = 256MB\nwork_mem = 4MB\nmax_wal_size = 1GB\n\
                 wal_compression = on\ntrack_io_timing = on\njit = off\nautovacuum_vacuum_scale_factor = 0.05\n\
                 autovacuum_analyze_scale_factor = 0.05"
            }
        };
        fs::write(
            folder.join("data/postgresql.auto.conf"),
            format!(
                "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 400\n{durability}\n\
                 dynamic_shared_memory_type = mmap\nshared_preload_libraries = 'pg_stat_statements'\nwal_level = replica\n\
                 log_min_messages = warning\n"
            ),
        )?;
        let process = root.spawn(&[&format!("{bin}/postgres"), "-D", &data], &folder.join("log"))?;
        let postgres = Self { port, process };
        process::wait_until(START_TIMEOUT, "PostgreSQL", &folder.join("log"), || {
            postgres.sql(root, "postgres", "SELECT 1").is_ok()
        })?;
        // As platform/src/bootstrap.rs makes them.
        postgres.sql(
            root,
            "postgres",
            &format!(
                "CREATE ROLE selextract_owner LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE selextract_app LOGIN PASSWORD '{PASSWORD}'; \
                 ALTER ROLE selextract_app SET plan_cache_mode = 'force_generic_plan'; \
                 ALTER ROLE selextract_app SET enable_seqscan = off; \
                 ALTER ROLE selextract_app SET enable_hashjoin = off; \
                 ALTER ROLE selextract_app SET enable_mergejoin = off"
            ),
        )?;
        Ok(postgres)
    }

    /// The URL of a database for a role; every role has the password [`PASSWORD`].
    pub fn url(&self, role: &str, database: &str) -> String {
        format!(
            "postgres://{role}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    /// The server's process, to freeze, thaw or kill.
    pub fn process(&self) -> &Process {
        &self.process
    }

    fn sql(&self, root: &Root, database: &str, sql: &str) -> Result<String> {
        let url = self.url("postgres", database);
        root.run(&[
            "/usr/lib/postgresql/17/bin/psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &url,
            "-c",
            sql,
        ])
    }
}

impl Pooler {
    fn start(root: &Root, postgres_port: u16, options: PoolerOptions, identity: Option<(&str, &str)>) -> Result<Self> {
        let folder = root.folder("pgbouncer")?;
        let inside = root.inside(&folder);
        let port = process::free_port()?;
        fs::write(
            folder.join("userlist.txt"),
            ["postgres", "selextract_owner", "selextract_app"]
                .map(|role| format!("\"{role}\" \"{PASSWORD}\"\n"))
                .concat(),
        )?;
        let mut tls = String::new();
        if let Some((certificate, key)) = identity {
            fs::write(folder.join("tls.crt"), certificate)?;
            fs::write(folder.join("tls.key"), key)?;
            tls = format!(
                "client_tls_sslmode = require\nclient_tls_cert_file = {inside}/tls.crt\nclient_tls_key_file = {inside}/tls.key\n"
            );
        }
        fs::write(
            folder.join("pgbouncer.ini"),
            format!(
                "[databases]\n* = host=127.0.0.1 port={postgres_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {inside}/userlist.txt\npool_mode = transaction\n\
                 max_client_conn = 1000\nserver_idle_timeout = 15\ndefault_pool_size = {}\nmax_prepared_statements = {}\n\
                 ignore_startup_parameters = extra_float_digits\nadmin_users = postgres\nstats_users = selextract_app\n{tls}",
                options.default_pool_size, options.max_prepared_statements
            ),
        )?;
        let log = folder.join("log");
        let process = root.spawn(&["/usr/sbin/pgbouncer", &format!("{inside}/pgbouncer.ini")], &log)?;
        process::wait_for_port(START_TIMEOUT, "PgBouncer", port, &log)?;
        Ok(Self { port, process })
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, to freeze, thaw or kill.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The URL of a database for a role, through this pooler.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!(
            "postgres://{role}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }
}

impl Valkey {
    fn start(root: &Root, purpose: Purpose) -> Result<Self> {
        let folder = root.folder("valkey")?;
        let inside = root.inside(&folder);
        let port = process::free_port()?;
        let log = match purpose {
            Purpose::Tests => "appendonly no",
            Purpose::Measurement => "appendonly yes\nappendfsync everysec",
        };
        fs::write(
            folder.join("valkey.conf"),
            format!(
                "bind 127.0.0.1\nport {port}\nrequirepass {PASSWORD}\ndatabases {REDIS_DATABASES}\nsave \"\"\n{log}\n\
                 maxmemory-policy noeviction\ndir {inside}\n"
            ),
        )?;
        let log = folder.join("log");
        let process = root.spawn(&["/usr/bin/valkey-server", &format!("{inside}/valkey.conf")], &log)?;
        process::wait_for_port(START_TIMEOUT, "Valkey", port, &log)?;
        Ok(Self { port, process })
    }

    /// The URL of its database with this number.
    pub fn url(&self, number: u32) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/{number}", self.port)
    }

    /// The server's process, to freeze, thaw or kill.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The root file system of the image of this name, made by `images/build --root NAME`: `SELEXTRACT_<NAME>_ROOT`, else the newest
/// in the cache.
pub fn image_root(name: &str) -> Result<PathBuf> {
    root::find(name)
}
