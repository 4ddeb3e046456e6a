//! Pages by HTTP, from acceptance to the stored record, beside aiohttp with selectolax (which stores nothing) and Scrapy with PostgreSQL.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::sleep;

use super::{
    super::processes,
    Outcome,
    cast::{Cast, Sample},
    duel::Duel,
    load::{self, request},
    peers::Peers,
    site::{RECORDS, Site},
    stage::{Program, Stage, wait_until},
};

/// Each is an address of loopback, and so a host of its own.
const HOSTS: usize = WORKERS.len() * SLOTS;
/// In how many parts a long run is looked at.
const PARTS: usize = 10;
const PAGES_OF_A_HOST: usize = 15;
const PAGES: usize = HOSTS * PAGES_OF_A_HOST;
/// Pages that a peer fetches at a time.
const CONCURRENCY: usize = 32;
/// Ours wait a quarter of a second between two pages of a host, so all hosts are worked on at a time to keep the machine as busy.
const WORKERS: [&str; 3] = ["worker-1", "worker-2", "worker-3"];
/// The most that a worker takes.
const SLOTS: usize = 64;

/// Our processes, the site and the peers.
struct Room {
    stage: Stage,
    site: Site,
    api: Program,
    keeper: Program,
    egress: Program,
    workers: Vec<Program>,
    token: String,
    peers: Peers,
    peer_database: String,
    peer_url: String,
}

/// Runs the whole scenario.
pub async fn compare(rounds: usize, pages: usize, programs: Option<&Path>) -> Result<Outcome> {
    let room = Room::start(programs).await?;
    let (reader, spider) = (
        room.idle_cost("peer_http.py").await?,
        room.idle_cost("peer_scrapy.py").await?,
    );
    let (ours, theirs): (&[&str], &[&str]) = (&["worker", "egress"], &["peer"]);
    let mut duels = [
        Duel::new(
            "HTTP pages, worker and proxy, beside aiohttp and selectolax",
            "page",
            2.0,
        )
        .only(ours, theirs),
        Duel::new("HTTP pages, whole platform, beside aiohttp and selectolax", "page", 0.7),
        Duel::new("HTTP pages, worker and proxy, beside Scrapy's process", "page", 25.0).only(ours, theirs),
        Duel::new("HTTP pages, whole platform, beside Scrapy and PostgreSQL", "page", 15.0),
    ];
    for round in 0..=rounds {
        let sample = room.scrape().await?;
        let read = room.read().await?.without("peer", reader);
        let crawled = room.crawl().await?.without("peer", spider);
        let [first, second, third, fourth] = &mut duels;
        for duel in [first, second] {
            duel.take(round, sample.clone(), read.clone());
        }
        for duel in [third, fourth] {
            duel.take(round, sample.clone(), crawled.clone());
        }
    }
    let mut notes = vec![format!(
        "{PAGES} pages a round on {HOSTS} hosts; the start of the peers' processes is not counted"
    )];
    if pages > 0 {
        notes.push(room.endure(pages).await?);
    }
    Ok(Outcome {
        duels: duels.into(),
        notes,
    })
}

impl Room {
    async fn start(programs: Option<&Path>) -> Result<Self> {
        let (stage, site) = (Stage::start(programs).await?, Site::start().await?);
        let owner = stage.users(1).await?[0];
        let egress = stage.egress(site.port).await?;
        let mut workers = Vec::new();
        for name in WORKERS {
            workers.push(stage.worker(name, &egress, SLOTS).await?);
        }
        let peer = stage.database_for_peer()?;
        stage.sql(
            &peer.name,
            "CREATE TABLE records (url text NOT NULL, title text, price text, text text, link text)",
        )?;
        Ok(Self {
            api: stage.api().await?,
            keeper: stage.keeper().await?,
            workers,
            egress,
            token: Stage::token(owner)?,
            peers: Peers::provide()?,
            peer_database: peer.name,
            peer_url: peer.superuser_url,
            stage,
            site,
        })
    }

    /// One task for each host, through the API, until all have ended.
    async fn scrape(&self) -> Result<Sample> {
        let (database, stored) = (
            &self.stage.database.name,
            "SELECT coalesce(sum(record_count), 0) FROM pages",
        );
        let before = self.stage.number(database, stored)?;
        let cast = self.cast();
        let watch = cast.watch();
        self.accept(PAGES_OF_A_HOST).await?;
        wait_until("our tasks have ended", async || {
            sleep(Duration::from_millis(100)).await;
            let backlog = self.stage.keeper_ledger.backlog().await?;
            Ok(backlog.pending + backlog.running == 0)
        })
        .await
        .with_context(|| self.told())?;
        let sample = watch.end(u32::try_from(PAGES)?);
        let records = self.stage.number(database, stored)? - before;
        ensure!(
            records == (PAGES * RECORDS) as u64,
            "{records} records of {PAGES} pages"
        );
        Ok(sample)
    }

    fn cast(&self) -> Cast {
        let cast = self
            .stage
            .cast()
            .with("api", self.api.id())
            .with("keeper", self.keeper.id())
            .with("egress", self.egress.id());
        let workers = self.workers.iter();
        workers.fold(cast, |cast, worker| cast.with("worker", worker.id()))
    }

    /// What the workers wrote.
    fn told(&self) -> String {
        WORKERS.map(|name| self.stage.output(name)).concat()
    }

    async fn accept(&self, pages_of_a_host: usize) -> Result<()> {
        let make = |number: usize| {
            let task = self.task(number, pages_of_a_host);
            request("POST", "/api/v1/tasks", Some(&self.token), &task)
        };
        load::run(self.api.address, 8, HOSTS, 201, make).await.map(drop)
    }

    /// Many pages by ours alone, looked at in ten parts.
    async fn endure(&self, pages: usize) -> Result<String> {
        let (database, read) = (&self.stage.database.name, "SELECT coalesce(sum(pages), 0) FROM tasks");
        let (cast, before) = (self.cast(), self.stage.number(database, read)?);
        let workers: Vec<PathBuf> = self
            .workers
            .iter()
            .map(|worker| format!("/proc/{}", worker.id()).into())
            .collect();
        let all = pages / HOSTS * HOSTS;
        self.accept(pages / HOSTS).await?;
        let (mut parts, mut done) = (Vec::new(), 0);
        while done < all {
            let (watch, started) = (cast.watch(), done);
            let next = (all * (parts.len() + 1) / PARTS).min(all);
            wait_until("a part of the pages is read", async || {
                sleep(Duration::from_secs(1)).await;
                done = usize::try_from(self.stage.number(database, read)? - before)?;
                Ok(done >= next)
            })
            .await
            .with_context(|| self.told())?;
            let sample = watch.end(u32::try_from(done - started)?);
            let (resident, _) = processes::resident(&workers);
            println!(
                "      {done} pages: {:.0} µs CPU each, {:.0}/s, the workers hold {} MiB",
                sample.micros(&[]),
                sample.rate(),
                resident / 1024
            );
            parts.push((sample, resident));
        }
        let told = |part: Option<&(Sample, u64)>| {
            part.map_or(String::new(), |(sample, resident)| {
                format!("{:.0} µs and {} MiB", sample.micros(&[]), resident / 1024)
            })
        };
        Ok(format!(
            "{all} pages by ours alone, whole platform: CPU a page and the workers' memory in the first tenth {}, in the last {}",
            told(parts.first()),
            told(parts.last())
        ))
    }

    fn task(&self, number: usize, pages: usize) -> String {
        json!({
            "name": "a benchmark", "url": format!("http://{}/p/1", self.host(number)), "items": "li.item",
            "fields": [
                { "name": "title", "selector": "h2 a" },
                { "name": "price", "selector": ".price" },
                { "name": "text", "selector": ".text" },
                { "name": "link", "type": "Link", "selector": "h2 a" },
            ],
            "pagination": { "nextSelector": "a[rel=next]", "maxPages": pages },
        })
        .to_string()
    }

    fn host(&self, number: usize) -> String {
        format!("127.0.0.{}:{}", 2 + number, self.site.port)
    }

    fn script(&self, script: &str, pages: usize) -> Command {
        let mut command = self.peers.command("python");
        command
            .args([script, &pages.to_string(), &CONCURRENCY.to_string()])
            .args((0..HOSTS).map(|number| format!("http://{}/p/{{}}", self.host(number))))
            .env("PEER_DATABASE_URL", &self.peer_url);
        command
    }

    /// What a peer's process costs that fetches nothing.
    async fn idle_cost(&self, script: &str) -> Result<Duration> {
        let sample = self.play(script, 0).await?;
        Ok(sample.cpu.get("peer").copied().unwrap_or_default())
    }

    async fn play(&self, script: &str, pages: usize) -> Result<Sample> {
        let played = self.stage.peer("peer", &self.script(script, pages))?;
        let cast = self.stage.cast().with("peer", played.id());
        let watch = cast.watch_started(&["peer"]);
        wait_until("the peer has ended", async || Ok(played.has_ended())).await?;
        Ok(watch.end(u32::try_from(pages)?))
    }

    async fn read(&self) -> Result<Sample> {
        let sample = self.play("peer_http.py", PAGES).await?;
        let (told, expected) = (self.stage.output("peer"), format!("{PAGES} {}", PAGES * RECORDS));
        ensure!(told.trim() == expected, "{told:?} instead of {expected:?}");
        Ok(sample)
    }

    async fn crawl(&self) -> Result<Sample> {
        let count = "SELECT count(*) FROM records";
        let before = self.stage.number(&self.peer_database, count)?;
        let sample = self.play("peer_scrapy.py", PAGES).await?;
        let records = self.stage.number(&self.peer_database, count)? - before;
        let expected = (PAGES * RECORDS) as u64;
        ensure!(
            records == expected,
            "Scrapy stored {records} of {expected}: {}",
            self.stage.output("peer")
        );
        Ok(sample)
    }
}
