//! Pages in Chromium, the same program for both: ours from acceptance to the stored record, beside Playwright, which stores nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use selextract_worker::{
    browser::{BrowserSettings, Browsers},
    contact::Contact,
    fetch::browser::{Errand, Opening, Session},
    telemetry::Metrics,
};
use serde_json::{Value, json};
use tokio::time::sleep;
use url::Url;

use super::{
    Outcome,
    cast::Sample,
    duel::Duel,
    load::{self, request},
    peers::Peers,
    site::{RECORDS, Site},
    stage::{Program, Stage, wait_until},
};
use crate::bench::processes;

/// Debian's, as in the image.
pub const CHROMIUM: &str = "/usr/bin/chromium-headless-shell";
/// Pages that a contestant loads at a time.
const CONCURRENCY: usize = 4;
/// Contexts of which the memory is measured.
const TABS: usize = 8;
const MEBIBYTE: f64 = 1024.0;

/// What is scraped in a round.
#[derive(Clone, Copy)]
struct Load {
    tasks: usize,
    /// Of a task, one after another.
    pages: usize,
    render: &'static str,
    /// Of so many tasks one is of pages that a script fills; 0 for none.
    scripted: usize,
}

const MANY: Load = Load {
    tasks: 8,
    pages: 15,
    render: "Browser",
    scripted: 0,
};
const ONE: Load = Load {
    tasks: 60,
    pages: 1,
    render: "Browser",
    scripted: 0,
};
const MIX: Load = Load {
    tasks: 40,
    pages: 5,
    render: "Auto",
    scripted: 5,
};

impl Load {
    fn total(self) -> usize {
        self.tasks * self.pages
    }

    /// The URL of a task's pages, whose host is an address of loopback for each task.
    fn template(self, number: usize, port: u16) -> String {
        let kind = if self.scripted > 0 && number.is_multiple_of(self.scripted) {
            "d"
        } else {
            "p"
        };
        format!("http://127.0.0.{}:{port}/{kind}/{{}}", 2 + number)
    }

    fn task(self, number: usize, port: u16) -> Value {
        let mut task = json!({
            "name": "a benchmark", "url": self.template(number, port).replace("{}", "1"), "items": "li.item", "render": self.render,
            "fields": [
                { "name": "title", "selector": "h2 a" },
                { "name": "price", "selector": ".price" },
                { "name": "text", "selector": ".text" },
                { "name": "link", "type": "Link", "selector": "h2 a" },
            ],
            "waitConditions": [{ "selector": "li.item" }],
            "politeness": { "minDelay": "0s" },
        });
        if self.pages > 1 {
            task["pagination"] = json!({ "nextSelector": "a[rel=next]", "maxPages": self.pages });
        }
        task
    }
}

/// Our processes, the site and the peer.
struct Room {
    stage: Stage,
    site: Site,
    api: Program,
    keeper: Program,
    egress: Program,
    worker: Program,
    token: String,
    peers: Peers,
}

/// Runs the whole scenario.
pub async fn compare(rounds: usize, programs: Option<&Path>) -> Result<Outcome> {
    ensure!(
        fs::exists(CHROMIUM)?,
        "{CHROMIUM} is not there; install Debian's chromium-headless-shell"
    );
    let room = Room::start(programs).await?;
    let idle = room.play(Load { tasks: 0, ..ONE }).await?;
    let idle = idle.cpu.get("peer").copied().unwrap_or_default();
    let (ours, theirs): (&[&str], &[&str]) = (&["worker", "egress"], &["peer"]);
    let duel = |what: &str, floor| Duel::new(what, "page", floor).only(ours, theirs);
    let mut duels = [
        (
            MANY,
            duel("browser pages, 15 of a task, worker and proxy, beside Playwright", 3.0),
        ),
        (
            ONE,
            duel("browser pages, one of a task, worker and proxy, beside Playwright", 1.5),
        ),
        (
            MIX,
            duel(
                "render Auto, four of five tasks static, worker and proxy, beside Playwright",
                5.0,
            ),
        ),
    ];
    for round in 0..=rounds {
        for (load, duel) in &mut duels {
            let sample = room.scrape(*load).await?;
            let peer = room.play(*load).await?.without("peer", idle);
            duel.take(round, sample, peer);
        }
    }
    Ok(Outcome {
        duels: duels.into_iter().map(|(_, duel)| duel).collect(),
        notes: vec![
            format!(
                "{CONCURRENCY} pages at a time; the start of Playwright's processes is not counted, that of our browsers is"
            ),
            room.memory().await?,
        ],
    })
}

impl Room {
    async fn start(programs: Option<&Path>) -> Result<Self> {
        let (stage, site) = (Stage::start(programs).await?, Site::start().await?);
        let owner = stage.users(1).await?[0];
        let egress = stage.egress(site.port).await?;
        Ok(Self {
            api: stage.api().await?,
            keeper: stage.keeper().await?,
            worker: stage.worker("worker", &egress, CONCURRENCY).await?,
            egress,
            token: Stage::token(owner)?,
            peers: Peers::provide_of("browser-requirements.txt")?,
            stage,
            site,
        })
    }

    /// The tasks through the API, until all have ended.
    async fn scrape(&self, load: Load) -> Result<Sample> {
        let stored = "SELECT coalesce(sum(record_count), 0) FROM pages";
        let before = self.stage.number(&self.stage.database.name, stored)?;
        let cast = self
            .stage
            .cast()
            .with("api", self.api.id())
            .with("keeper", self.keeper.id())
            .with("egress", self.egress.id())
            .with("worker", self.worker.id());
        let watch = cast.watch();
        let port = self.site.port;
        let make = |number: usize| {
            let task = load.task(number, port).to_string();
            request("POST", "/api/v1/tasks", Some(&self.token), &task)
        };
        load::run(self.api.address, 8, load.tasks, 201, make).await?;
        wait_until("our tasks have ended", async || {
            sleep(Duration::from_millis(50)).await;
            let backlog = self.stage.keeper_ledger.backlog().await?;
            Ok(backlog.pending + backlog.running == 0)
        })
        .await
        .with_context(|| self.stage.output("worker"))?;
        let sample = watch.end(u32::try_from(load.total())?);
        let records = self.stage.number(&self.stage.database.name, stored)? - before;
        let expected = (load.total() * RECORDS) as u64;
        ensure!(
            records == expected,
            "{records} records instead of {expected}: {}",
            self.stage.output("worker")
        );
        Ok(sample)
    }

    async fn play(&self, load: Load) -> Result<Sample> {
        let mut command = self.peers.command("python");
        command
            .args([
                "peer_browser.py",
                &load.tasks.to_string(),
                &load.pages.to_string(),
                &CONCURRENCY.to_string(),
            ])
            .args((0..load.tasks.max(1)).map(|number| load.template(number, self.site.port)))
            .env("CHROMIUM", CHROMIUM);
        let played = self.stage.peer("peer", &command)?;
        let cast = self.stage.cast().with("peer", played.id());
        let watch = cast.watch_started(&["peer"]);
        wait_until("the peer has ended", async || Ok(played.has_ended())).await?;
        let sample = watch.end(u32::try_from(load.total())?);
        let (told, expected) = (
            self.stage.output("peer"),
            format!("{} {}", load.total(), load.total() * RECORDS),
        );
        ensure!(told.trim() == expected, "{told:?} instead of {expected:?}");
        Ok(sample)
    }

    /// What a context with a page costs beyond the first one, which is there with the browser.
    async fn memory(&self) -> Result<String> {
        let (base, many) = (self.memory_of(1).await?, self.memory_of(1 + TABS).await?);
        #[expect(clippy::cast_precision_loss, reason = "kibibytes of a process")]
        let (base, each) = (
            base as f64 / MEBIBYTE,
            many.saturating_sub(base) as f64 / MEBIBYTE / TABS as f64,
        );
        Ok(format!(
            "memory of Chromium, shared pages once: {base:.0} MiB with one context, and {each:.1} MiB for each of {TABS} more (aim: at most 25)"
        ))
    }

    async fn memory_of(&self, tabs: usize) -> Result<u64> {
        let (tabs, url) = (tabs.to_string(), format!("http://127.0.0.2:{}/p/1", self.site.port));
        let proxy = format!("http://{}", self.egress.address);
        let part = self
            .stage
            .part("tabs", &["tabs", "--tabs", &tabs, "--url", &url, "--proxy", &proxy])?;
        wait_until("the tabs are open", async || {
            ensure!(
                !part.has_ended(),
                "the tabs' process has ended: {}",
                self.stage.output("tabs")
            );
            Ok(self.stage.output("tabs").contains("open"))
        })
        .await?;
        let mut tree = Command::new("ps");
        tree.args(["-e", "-o", "pid=,pgid=,args="]);
        let listed = String::from_utf8(tree.output()?.stdout)?;
        Ok(processes::proportional(&chromiums(&listed, &proxy)))
    }
}

/// The processes of the browser whose main process has this way out: they are one group.
fn chromiums(listed: &str, proxy: &str) -> Vec<PathBuf> {
    let rows = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?, line))
    });
    let flag = format!("--proxy-server={proxy}");
    let profile = "selextract-browser-";
    let group = rows
        .clone()
        .filter(|(.., line)| line.contains(&flag) && line.contains(profile) && !line.contains("--type="))
        .max_by_key(|(id, ..)| id.parse::<u32>().unwrap_or_default())
        .map(|(_, group, _)| group);
    rows.filter(|(_, of, _)| Some(*of) == group)
        .map(|(id, ..)| Path::new("/proc").join(id))
        .collect()
}

/// Opens pages in a lean browser and keeps them; says so when they are there.
pub async fn keep_open(tabs: usize, url: &Url, proxy: Url) -> Result<()> {
    let settings = BrowserSettings {
        program: CHROMIUM.into(),
        sandbox: !rustix::process::getuid().is_root(),
        proxy,
        contact: Contact::default(),
        max_pages: 1000,
        max_age: Duration::from_hours(1),
        max_memory: 8 << 30,
        max_idle: Duration::from_hours(1),
    };
    let browsers = Arc::new(Browsers::new(settings, Metrics::new(&prometheus::Registry::new(), 1)?));
    let mut open = Vec::with_capacity(tabs);
    for _ in 0..tabs {
        let mut session = Session::open(&browsers, Opening::lean(url)).await?;
        session.fetch(url, &Errand::default(), Duration::from_secs(30)).await?;
        open.push(session);
    }
    sleep(Duration::from_secs(2)).await;
    println!("open");
    std::future::pending::<()>().await;
    drop(open);
    Ok(())
}
