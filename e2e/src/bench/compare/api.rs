//! The API, beside the guide's stack: listing, creating, the dashboard, logging in; and what load on one of them does to the others.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use selextract_api_server::auth::password::{Passwords, hash_once};
use selextract_platform::ledger::UserId;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Outcome,
    cast::{Cast, Played, Sample},
    duel::{Duel, Spread},
    load::{self, Client, percentile, request},
    peers::Peers,
    stage::{self, PASSWORD, Program, Stage},
};
use crate::tools;

const CONNECTIONS: usize = 16;
/// Logins under way at a time: fewer than our queue holds on one core.
const LOGINS: usize = 8;
/// As many tasks as the user of the dashboard has.
const TASKS: usize = 50_000;
const WRITERS: usize = 64;
/// How soon a client that was refused tries again; `Retry-After` says a second.
const COME_BACK: Duration = Duration::from_millis(100);
/// Users whose dashboard is asked for the first time, in each round.
const FRESH: usize = 1_000;
/// Processes that serve a request, without the database and the caches.
const SERVER: &[&str] = &["api"];

/// Our API, the keeper beside it, and the peer.
struct Room {
    stage: Stage,
    api: Program,
    keeper: Program,
    peer: Peer,
    users: Vec<UserId>,
    tokens: Vec<String>,
}

struct Peer {
    played: Played,
    address: SocketAddr,
    database: String,
    secret: String,
}

/// Runs the whole scenario.
pub async fn compare(rounds: usize, programs: Option<&Path>) -> Result<Outcome> {
    let room = Room::start(programs, (rounds + 1) * FRESH).await?;
    let mut duels = Vec::new();
    duels.extend(room.list(rounds).await?);
    duels.extend(room.dashboard(rounds).await?);
    duels.extend(room.login(rounds).await?);
    duels.extend(room.create(rounds).await?);
    let notes = vec![room.hashing().await?, room.storm().await?, room.writers(rounds).await?];
    Ok(Outcome { duels, notes })
}

impl Room {
    async fn start(programs: Option<&Path>, users: usize) -> Result<Self> {
        let stage = Stage::start(programs).await?;
        let users = stage.users(users).await?;
        let tokens = users
            .iter()
            .map(|user| Stage::token(*user))
            .collect::<Result<Vec<_>>>()?;
        let peer = Peer::start(&stage, users[0]).await?;
        stage.fill_ended(users[0], TASKS)?;
        let (api, keeper) = (stage.api().await?, stage.keeper().await?);
        Ok(Self {
            stage,
            api,
            keeper,
            peer,
            users,
            tokens,
        })
    }

    fn ours(&self) -> Cast {
        self.stage
            .cast()
            .with("api", self.api.id())
            .with("keeper", self.keeper.id())
    }

    fn theirs(&self) -> Cast {
        self.stage.cast().with("peer", self.peer.played.id())
    }

    /// One round of one contestant, by so many requests.
    async fn measure(
        &self,
        ours: bool,
        requests: usize,
        status: u16,
        make: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Sample> {
        let (cast, address) = if ours {
            (self.ours(), self.api.address)
        } else {
            (self.theirs(), self.peer.address)
        };
        let watch = cast.watch();
        load::run(address, CONNECTIONS, requests, status, make).await?;
        Ok(watch.end(u32::try_from(requests)?))
    }

    /// Logins of a hundred users; the peer has one.
    async fn logins(&self, ours: bool, number: usize) -> Result<Sample> {
        let (cast, address, users) = if ours {
            (self.ours(), self.api.address, 100)
        } else {
            (self.theirs(), self.peer.address, 1)
        };
        let watch = cast.watch();
        load::run(address, LOGINS, number, 200, |number| login(number % users)).await?;
        Ok(watch.end(u32::try_from(number)?))
    }

    async fn list(&self, rounds: usize) -> Result<[Duel; 2]> {
        let mut duels = both("task list of 20", "request", 15.0);
        let ours = request("GET", "/api/v1/tasks", Some(&self.tokens[0]), "");
        let theirs = request("GET", "/api/v1/tasks", Some(&self.peer.token(self.users[0])?), "");
        for (address, request) in [(self.api.address, &ours), (self.peer.address, &theirs)] {
            let answer: Value = serde_json::from_slice(&Client::connect(address).await?.send(request).await?.body)?;
            let rows = answer["tasks"].as_array().or(answer.as_array()).map_or(0, Vec::len);
            ensure!(rows == 20, "a list has {rows} rows: {answer}");
        }
        for round in 0..=rounds {
            let sample = self.measure(true, 8_000, 200, |_| ours.clone()).await?;
            let peer = self.measure(false, 800, 200, |_| theirs.clone()).await?;
            take(&mut duels, round, &sample, &peer);
        }
        Ok(duels)
    }

    /// Each of our requests is of another user, so that none is answered out of a cache.
    async fn dashboard(&self, rounds: usize) -> Result<[Duel; 1]> {
        let mut duel = Duel::new(format!("dashboard at {TASKS} tasks, computed"), "request", 100.0);
        let token = self.peer.token(self.users[0])?;
        for round in 0..=rounds {
            let tokens = &self.tokens[round * FRESH..][..FRESH];
            let of = |number: usize| request("GET", "/api/v1/dashboard/stats", Some(&tokens[number]), "");
            let sample = self.measure(true, FRESH, 200, of).await?;
            let theirs = |_| request("GET", "/api/v1/dashboard/stats", Some(&token), "");
            let peer = self.measure(false, 100, 200, theirs).await?;
            duel.take(round, sample, peer);
        }
        Ok([duel])
    }

    async fn login(&self, rounds: usize) -> Result<[Duel; 1]> {
        let mut duel = Duel::new("login", "request", 1.0);
        for round in 0..=rounds {
            let (sample, peer) = (self.logins(true, 200).await?, self.logins(false, 100).await?);
            duel.take(round, sample, peer);
        }
        Ok([duel])
    }

    async fn create(&self, rounds: usize) -> Result<[Duel; 2]> {
        let mut duels = both("create a task", "request", 15.0);
        let theirs = request("POST", "/api/v1/tasks", Some(&self.peer.token(self.users[0])?), &spec());
        let ours = request("POST", "/api/v1/tasks", Some(&self.tokens[0]), &spec());
        let count = "SELECT count(*) FROM tasks";
        for round in 0..=rounds {
            let mut samples = Vec::with_capacity(2);
            for (is_ours, database, request, number) in [
                (true, &self.stage.database.name, &ours, 4_000),
                (false, &self.peer.database, &theirs, 500),
            ] {
                let before = self.stage.number(database, count)?;
                samples.push(self.measure(is_ours, number, 201, |_| request.clone()).await?);
                let made = self.stage.number(database, count)? - before;
                ensure!(made == number as u64, "{made} rows for {number} answers of 201");
            }
            take(&mut duels, round, &samples[0], &samples[1]);
        }
        Ok(duels)
    }

    /// The part of the CPU of logins that is the hash itself.
    async fn hashing(&self) -> Result<String> {
        const ROUND: usize = 200;
        let (passwords, hash) = (Passwords::new(1)?, hash_once(PASSWORD)?);
        let cast = Cast::default().with("own", std::process::id());
        let mut shares = Vec::new();
        for _ in 0..5 {
            let watch = cast.watch();
            for _ in 0..ROUND {
                let fits = passwords.verify(passwords.admit()?, PASSWORD.to_owned(), Some(hash.clone()));
                ensure!(fits.await?, "the password does not fit");
            }
            let alone = watch.end(u32::try_from(ROUND)?).micros(&[]);
            let sample = self.logins(true, ROUND).await?;
            shares.push(alone / sample.micros(&[]) * 100.0);
        }
        let share = Spread::of(shares);
        Ok(format!(
            "login: {:.0} % ({:.0}–{:.0}) of the CPU of all processes is the hash itself (floor 90 %)",
            share.median, share.least, share.most
        ))
    }

    /// The list while a hundred clients log in without a pause, and what becomes of the logins that the queue does not hold.
    async fn storm(&self) -> Result<String> {
        let list = request("GET", "/api/v1/tasks", Some(&self.tokens[0]), "");
        let quiet = load::run(self.api.address, 2, 2_000, 200, |_| list.clone()).await?;
        let until = Instant::now() + Duration::from_secs(8);
        let storm = tokio::spawn(storm_logins(self.api.address, 100, until));
        let loud = load::run(self.api.address, 2, 2_000, 200, |_| list.clone()).await?;
        let (logins, refused) = storm.await??;
        ensure!(
            !refused.is_empty() && logins > 0,
            "{logins} logins and {} refusals",
            refused.len()
        );
        let (quiet, loud) = (percentile(&quiet, 95), percentile(&loud, 95));
        Ok(format!(
            "login storm of 100 clients: the list's P95 {loud:.1} ms against {quiet:.1} ms when quiet ({:.1} ×, at most 2 ×); {logins} logins, \
             {} refused with 503, P95 of a refusal {:.1} ms (at most 50 ms)",
            loud / quiet,
            refused.len(),
            percentile(&refused, 95)
        ))
    }

    /// 64 writers of one owner beside 64 owners with one writer each.
    async fn writers(&self, rounds: usize) -> Result<String> {
        const REQUESTS: usize = 4_000;
        let run = async |owners: usize| {
            let watch_cast = self.ours();
            let watch = watch_cast.watch();
            let of = |number: usize| {
                request(
                    "POST",
                    "/api/v1/tasks",
                    Some(&self.tokens[1 + number % owners]),
                    &spec(),
                )
            };
            load::run(self.api.address, WRITERS, REQUESTS, 201, of).await?;
            anyhow::Ok(watch.end(u32::try_from(REQUESTS)?))
        };
        let (mut cpu, mut wall) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let (one, many) = (run(1).await?, run(WRITERS).await?);
            if round > 0 {
                cpu.push(one.micros(&[]) / many.micros(&[]));
                wall.push(one.rate() / many.rate());
            }
        }
        let (cpu, wall) = (Spread::of(cpu), Spread::of(wall));
        Ok(format!(
            "64 writers of one owner against 64 owners: {:.2} × ({:.2}–{:.2}) the CPU, {:.2} × ({:.2}–{:.2}) the rate (within 10 %)",
            cpu.median, cpu.least, cpu.most, wall.median, wall.least, wall.most
        ))
    }
}

/// Logins without a pause; how many were let in, and how long each refusal took, sorted.
async fn storm_logins(address: SocketAddr, clients: usize, until: Instant) -> Result<(usize, Vec<Duration>)> {
    let client = async |number: usize| {
        let mut client = Client::connect(address).await?;
        let (mut logins, mut refused, mut statuses) = (0, Vec::new(), BTreeSet::new());
        while Instant::now() < until {
            let answer = client.send(&login(number)).await?;
            match answer.status {
                200 => logins += 1,
                503 => {
                    refused.push(answer.took);
                    sleep(COME_BACK).await;
                }
                other => drop(statuses.insert(other)),
            }
        }
        ensure!(statuses.is_empty(), "logins were answered by {statuses:?}");
        anyhow::Ok((logins, refused))
    };
    let all = futures::future::try_join_all((0..clients).map(client)).await?;
    let mut refused: Vec<_> = all.iter().flat_map(|(_, refused)| refused.clone()).collect();
    refused.sort();
    Ok((all.iter().map(|(logins, _)| logins).sum(), refused))
}

impl Peer {
    async fn start(stage: &Stage, user: UserId) -> Result<Self> {
        let peers = Peers::provide()?;
        let database = stage.database_for_peer()?;
        let schema = fs::read_to_string(tools::repository()?.join("e2e/peers/peer_api.sql"))?;
        stage.sql(&database.name, &schema)?;
        let (hash, spec) = (hash_once(PASSWORD)?, spec());
        stage.sql(
            &database.name,
            &format!(
                "INSERT INTO users VALUES ('{user}', 'user-0', '{hash}');
                 INSERT INTO tasks SELECT gen_random_uuid(), '{user}', 'a benchmark', 'succeeded', 5, '{spec}'::json,
                     now() - make_interval(secs => n), 20, 1, 1 FROM generate_series(1, {TASKS}) n;
                 ANALYZE"
            ),
        )?;
        let (address, secret) = (
            stage::free_address()?,
            "a secret of a benchmark with more than 32 bytes".to_owned(),
        );
        let mut command = peers.command("uvicorn");
        command
            .args([
                "peer_api:app",
                "--host=127.0.0.1",
                "--loop=uvloop",
                "--http=httptools",
                "--log-level=warning",
                "--no-access-log",
            ])
            .arg(format!("--port={}", address.port()))
            .env("PEER_SECRET", &secret)
            .env("PEER_REDIS_URL", stage.redis_for_peer()?)
            .env("PEER_DATABASE_URL", Stage::url_for_peer(&database)?);
        let played = stage.peer("peer", &command)?;
        stage::wait_for(address, &played)
            .await
            .map_err(|error| error.context(stage.output("peer")))?;
        Ok(Self {
            played,
            address,
            database: database.name,
            secret,
        })
    }

    fn token(&self, user: UserId) -> Result<String> {
        Stage::token_of_peer(user, &self.secret)
    }
}

fn both(what: &str, unit: &'static str, floor: f64) -> [Duel; 2] {
    [
        Duel::new(format!("{what}, all processes"), unit, floor),
        Duel::new(format!("{what}, the API's process alone"), unit, floor).only(SERVER, &["peer"]),
    ]
}

fn take(duels: &mut [Duel], round: usize, ours: &Sample, peer: &Sample) {
    for duel in duels {
        duel.take(round, ours.clone(), peer.clone());
    }
}

fn login(number: usize) -> Vec<u8> {
    let body = json!({ "username": format!("user-{number}"), "password": PASSWORD });
    request("POST", "/api/v1/auth/login", None, &body.to_string())
}

/// A spec that both take.
fn spec() -> String {
    json!({
        "name": "a benchmark", "url": "http://site.test/list?category=all&sort=price", "items": "ul.results > li.item",
        "fields": [
            { "name": "title", "selector": "h2 a" },
            { "name": "price", "selector": ".price" },
            { "name": "text", "selector": ".text" },
        ],
    })
    .to_string()
}
