//! What is measured, on this machine without Kubernetes: the services out of the product's data image, and the product's programs.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use selextract_api_server::auth::{Role, password::hash_once, tokens::TokenKeys};
use selextract_platform::{
    bootstrap,
    frontier::Frontier,
    ledger::{Ledger, PoolSettings, Secret, UserId},
};
use selextract_test_services::{Database, Services, Valkey, free_port};
use serde_json::json;

use super::cast::{Cast, Played};
use crate::images;

/// How long a program may take to listen, and work to drain.
pub const PATIENCE: Duration = Duration::from_mins(4);
/// The password of every user of a measurement.
pub const PASSWORD: &str = "a-password-of-a-benchmark";
const TOKEN_KEYS: &str = r#"{"current":"a","keys":{"a":"bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE="}}"#;

/// PostgreSQL, PgBouncer and Valkey, with a migrated ledger.
pub struct Stage {
    services: Services,
    /// Valkey without a log, for caches.
    cache: Valkey,
    programs: PathBuf,
    folder: tempfile::TempDir,
    /// The ledger's database.
    pub database: Database,
    /// The ledger as the keeper has it.
    pub keeper_ledger: Ledger,
    frontier_url: String,
}

/// A program of ours that listens.
pub struct Program {
    played: Played,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Program {
    /// Its number.
    pub fn id(&self) -> u32 {
        self.played.id()
    }
}

impl Stage {
    /// Starts the services and migrates the ledger. The programs come out of `programs`, or are built for release.
    pub async fn start(programs: Option<&Path>) -> Result<Self> {
        let programs = programs.map_or_else(images::release_programs, |folder| Ok(folder.to_owned()))?;
        let services = Services::for_measurement()?;
        let database = services.database()?;
        bootstrap::migrate(&Secret(database.direct_url.clone()), jiff::Timestamp::now()).await?;
        Ok(Self {
            keeper_ledger: ledger(&database.direct_url)?,
            frontier_url: services.redis_url()?,
            cache: services.valkey()?,
            folder: tempfile::tempdir()?,
            services,
            programs,
            database,
        })
    }

    /// The services, to be counted.
    pub fn cast(&self) -> Cast {
        let [postgres, pooler, valkey] = self.services.processes().map(selextract_test_services::Process::id);
        Cast::default()
            .with("postgres", postgres)
            .with("pgbouncer", pooler)
            .with("redis", valkey)
            .with("redis", self.cache.process().id())
    }

    /// An empty database for a peer.
    pub fn database_for_peer(&self) -> Result<Database> {
        self.services.database()
    }

    /// A Redis database for a peer, in the same server as our frontier.
    pub fn redis_for_peer(&self) -> Result<String> {
        self.services.redis_url()
    }

    /// What a query of one number says.
    pub fn number(&self, database: &str, sql: &str) -> Result<u64> {
        let text = self.services.sql(database, sql)?;
        text.trim().parse().with_context(|| format!("{sql} said {text:?}"))
    }

    /// Runs SQL as the superuser.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        self.services.sql(database, sql)
    }

    /// A connection to the ledger as an API has it.
    pub fn ledger(&self) -> Result<Ledger> {
        ledger(&self.database.url)
    }

    /// A connection to the frontier.
    pub fn frontier(&self) -> Result<Frontier> {
        Ok(Frontier::connect_lazy(&Secret(self.frontier_url.clone()))?)
    }

    /// Bytes that the server with the frontier uses.
    pub async fn frontier_memory(&self) -> Result<u64> {
        let mut connection = redis::Client::open(self.frontier_url.as_str())?
            .get_multiplexed_async_connection()
            .await?;
        let told: redis::InfoDict = redis::cmd("INFO").arg("memory").query_async(&mut connection).await?;
        told.get("used_memory").context("Valkey does not tell its memory")
    }

    /// Tasks of an owner that wait, spread over hosts, written straight into the ledger and offered as the keeper's refill does.
    pub async fn fill(&self, owner: UserId, tasks: usize, hosts: usize) -> Result<()> {
        self.sql(
            &self.database.name,
            &format!(
                "INSERT INTO tasks (id, user_id, created_at, due_at, spec, spec_version, host, max_attempts)
                 SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 19))::uuid,
                     '{owner}', now(), now(), spec, 1, 'host-' || n % {hosts} || '.test', 4
                 FROM generate_series(1, {tasks}) n, (SELECT spec FROM tasks LIMIT 1) t;
                 INSERT INTO owner_counter_deltas (user_id, total) VALUES ('{owner}', {tasks})"
            ),
        )?;
        let (frontier, mut after) = (self.frontier()?, None);
        loop {
            let (entries, next) = self.keeper_ledger.refill(after).await?;
            frontier.offer(&entries).await?;
            match next {
                Some(id) => after = Some(id),
                None => return Ok(()),
            }
        }
    }

    /// Tasks of an owner that have ended, written straight into the ledger.
    pub fn fill_ended(&self, owner: UserId, tasks: usize) -> Result<()> {
        self.sql(
            &self.database.name,
            &format!(
                "INSERT INTO tasks (id, user_id, name, status, created_at, due_at, started_at, finished_at, spec, spec_version, host,
                     max_attempts, attempts, pages, records, compute_units_used)
                 SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 19))::uuid,
                     '{owner}', 'a benchmark', 'succeeded', at, at, at, at, '{{\"url\":\"http://site.test/\",\"fields\":[{{\"name\":\"title\"}}]}}',
                     1, 'site.test', 4, 1, 1, 20, 1
                 FROM (SELECT n, date_trunc('second', now()) - make_interval(secs => n) AS at FROM generate_series(1, {tasks}) n) t
                 WHERE at >= date_trunc('month', now());
                 INSERT INTO owner_counter_deltas (user_id, total, succeeded, pages, records, compute_units)
                 VALUES ('{owner}', {tasks}, {tasks}, {tasks}, {tasks} * 20, {tasks});
                 ANALYZE tasks"
            ),
        )
        .map(drop)
    }

    /// A peer's database, straight to PostgreSQL, as `SQLAlchemy` writes it.
    pub fn url_for_peer(database: &Database) -> Result<String> {
        let plain = database.superuser_url.split('?').next().unwrap_or_default();
        let rest = plain
            .strip_prefix("postgres://")
            .context("the database's URL has another form")?;
        Ok(format!("postgresql+asyncpg://{rest}"))
    }

    /// A token for the peer's API.
    pub fn token_of_peer(user: UserId, secret: &str) -> Result<String> {
        let claims = json!({ "sub": user.to_string(), "exp": jiff::Timestamp::now().as_second() + 86_400 });
        Ok(jsonwebtoken::encode(
            &jsonwebtoken::Header::default(),
            &claims,
            &jsonwebtoken::EncodingKey::from_secret(secret.as_bytes()),
        )?)
    }

    /// Makes so many users with the password [`PASSWORD`]; they are named `user-0` and so on.
    pub async fn users(&self, number: usize) -> Result<Vec<UserId>> {
        let (ledger, hash) = (self.ledger()?, hash_once(PASSWORD)?);
        let mut users = Vec::with_capacity(number);
        for index in 0..number {
            let name = format!("user-{index}");
            users.push(
                ledger
                    .create_user(&name, selextract_platform::ledger::users::Role::Member, &hash)
                    .await?,
            );
        }
        Ok(users)
    }

    /// An access token, as a login would give it.
    pub fn token(user: UserId) -> Result<String> {
        let now = u64::try_from(jiff::Timestamp::now().as_second())?;
        // An hour in the future is as good to the verifier, and a measurement may take longer than a token lives.
        Ok(TokenKeys::parse(TOKEN_KEYS)?.sign(user.0, "somebody", Role::Member, now + 3600)?)
    }

    /// The API.
    pub async fn api(&self) -> Result<Program> {
        let (address, telemetry) = (free_address()?, free_address()?);
        let mut command = self.program("selextract-api");
        command
            .env("SELEXTRACT_PUBLIC_ADDR", address.to_string())
            .env("SELEXTRACT_INTERNAL_ADDR", free_address()?.to_string())
            .env("SELEXTRACT_TELEMETRY_ADDR", telemetry.to_string())
            .env("SELEXTRACT_REDIS_CACHE_URL", self.cache.url(0))
            .env("SELEXTRACT_TOKEN_KEYS", TOKEN_KEYS)
            // They are counted, and hold nobody back: each contestant is one user at one address.
            .env("SELEXTRACT_RATE_LIMIT", "1000000/1s")
            .env("SELEXTRACT_LOGIN_RATE_LIMIT", "1000000/1s");
        self.play("api", &command, address).await
    }

    /// The keeper.
    pub async fn keeper(&self) -> Result<Program> {
        let address = free_address()?;
        let mut command = self.program("selextract-keeper");
        command
            .env("SELEXTRACT_DATABASE_DIRECT_URL", &self.database.direct_url)
            .env("SELEXTRACT_TELEMETRY_ADDR", address.to_string());
        self.play("keeper", &command, address).await
    }

    /// The egress proxy, which lets one port of loopback be reached.
    pub async fn egress(&self, port: u16) -> Result<Program> {
        let (address, telemetry) = (free_address()?, free_address()?);
        let config = self.folder.path().join("egress.json");
        let allowed = json!({ "allow": [{ "cidr": "127.0.0.0/8", "ports": [port] }] });
        std::fs::write(&config, allowed.to_string())?;
        let mut command = self.program("selextract-egress-proxy");
        command
            .env("SELEXTRACT_LISTEN", address.to_string())
            .env("SELEXTRACT_TELEMETRY_ADDR", telemetry.to_string())
            .env("SELEXTRACT_EGRESS_CONFIG", config);
        self.play("egress", &command, address).await
    }

    /// A worker of this name behind that proxy.
    pub async fn worker(&self, name: &str, egress: &Program, concurrency: usize) -> Result<Program> {
        let address = free_address()?;
        let mut command = self.program("selextract-worker");
        command
            .env("SELEXTRACT_EGRESS_PROXY", format!("http://{}", egress.address))
            .env("SELEXTRACT_WORKER_NAME", name)
            .env("SELEXTRACT_CONCURRENCY", concurrency.to_string())
            .env("SELEXTRACT_MAX_TASKS", "100000000")
            .env("SELEXTRACT_BROWSER", super::browser::CHROMIUM)
            .env(
                "SELEXTRACT_BROWSER_SANDBOX",
                if rustix::process::getuid().is_root() {
                    "off"
                } else {
                    "on"
                },
            )
            .env("SELEXTRACT_TELEMETRY_ADDR", address.to_string());
        self.play(name, &command, address).await
    }

    /// This program in another role, with the URLs of ledger and frontier in its environment.
    pub fn part(&self, name: &str, arguments: &[&str]) -> Result<Played> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("part").args(arguments);
        self.connect(&mut command);
        Played::start(&command, &self.folder.path().join(format!("{name}.log")))
    }

    /// A peer's program.
    pub fn peer(&self, name: &str, command: &Command) -> Result<Played> {
        Played::start(command, &self.log(name))
    }

    /// What a program wrote.
    pub fn output(&self, name: &str) -> String {
        std::fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        self.connect(&mut command);
        // As in the product; the lines go to a file.
        command.env("SELEXTRACT_LOG", "info");
        command
    }

    fn connect(&self, command: &mut Command) {
        command
            .env("SELEXTRACT_DATABASE_URL", &self.database.url)
            .env("SELEXTRACT_REDIS_QUEUE_URL", &self.frontier_url);
    }

    async fn play(&self, name: &str, command: &Command, address: SocketAddr) -> Result<Program> {
        let played = Played::start(command, &self.log(name))?;
        wait_for(address, &played)
            .await
            .with_context(|| format!("{name}: {}", self.output(name)))?;
        Ok(Program { played, address })
    }
}

/// The ledger through the pooler, with the connections that an API keeps.
pub fn ledger(url: &str) -> Result<Ledger> {
    Ok(Ledger::connect_lazy(&PoolSettings {
        url: Secret(url.to_owned()),
        max_connections: 20,
        min_connections: 0,
        acquire_timeout: Duration::from_secs(10),
        max_lifetime: Duration::from_hours(1),
        application_name: "selextract-bench",
    })?)
}

/// A port of loopback that is free just now.
pub fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// Waits until a program listens.
pub async fn wait_for(address: SocketAddr, played: &Played) -> Result<()> {
    let started = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
        ensure!(!played.has_ended(), "it has ended");
        ensure!(started.elapsed() < PATIENCE, "nobody listens on {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Asks again and again until the answer is yes.
pub async fn wait_until(what: &str, mut ask: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !ask().await? {
        if started.elapsed() > PATIENCE {
            bail!("not within {} s: {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
