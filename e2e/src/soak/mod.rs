//! `selextract-bench soak`: tasks without a pause while a part is killed every minute, or while workers come and go; afterwards every accepted
//! task has ended, and every record is there exactly once.

mod client;
mod killer;
mod scaler;
mod sites;
mod tally;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::Args;

use self::{client::Client, killer::Killer, sites::Sites, tally::Tally};
use crate::{
    bench::{self, Report, Subject},
    world::World,
};

/// What the soak is told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    subject: Subject,
    /// How long tasks are posted.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How many paginated tasks are under way at once.
    #[arg(long, default_value_t = 4)]
    paginated: usize,
    /// How many browser tasks are under way at once.
    #[arg(long, default_value_t = 2)]
    browser: usize,
    /// So many times three workers become one, instead of anything being killed; then no page may be fetched twice either.
    #[arg(long, default_value_t = 0)]
    scale_downs: usize,
}

impl Options {
    fn duration(&self) -> Duration {
        if self.subject.smoke {
            Duration::from_secs(30)
        } else {
            Duration::from_mins(self.minutes)
        }
    }

    /// The time between two kills; in the smoke test there is one, of a worker.
    fn pause(&self) -> Duration {
        if self.subject.smoke {
            Duration::from_secs(15)
        } else {
            Duration::from_mins(1)
        }
    }
}

/// Runs the soak.
pub async fn run(options: &Options) -> Result<()> {
    let mut report = Report::about(bench::prepare(options.subject)?);
    let world = World::enter("bench-soak").await?;
    world.serve_sites()?;
    bench::start_whole(&world).await?;
    let sites = Arc::new(Sites::read(&world).await?);
    let client = Client::login(&world).await?;
    // One of each before anything is killed: the browser is warm, and the first memory is that of a worker that works.
    let mut tally = Tally::default();
    for kind in sites::KINDS {
        tally.add(&client.run_one(&sites, kind, &format!("first-{kind:?}")).await?);
    }
    let begin = worker_memory(&world)?;
    let (soaked, kills) = soak(options, &world, &client, &sites).await?;
    tally.join(soaked);
    let end = worker_memory(&world)?;
    let fetched = (options.scale_downs > 0)
        .then(|| count_fetches(&world, &mut report))
        .transpose()?;
    if fetched.is_none() {
        report.add("tasks posted for", format!("{} s", options.duration().as_secs()), "");
    }
    let what = if fetched.is_some() { "taken away" } else { "killed" };
    report.add(what, kills.join(", "), "");
    tally.tell(&mut report);
    let memory = format!("{} MiB → {} MiB", begin / 1024, end / 1024);
    report.add("memory of workers with their browsers, shared pages once", memory, "");
    println!("\n{}", report.markdown()?);
    tally.ensure_sound()?;
    if let Some((visits, pages)) = fetched {
        ensure!(visits == pages, "{visits} pages were fetched for {pages} in the ledger");
    }
    world.kubectl(&["delete", "namespace", &world.namespace, "--wait=true"])?;
    Ok(())
}

async fn soak(options: &Options, world: &World, client: &Client, sites: &Arc<Sites>) -> Result<(Tally, Vec<String>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let kinds = std::iter::repeat_n(sites::Kind::Paginated, options.paginated)
        .chain(std::iter::repeat_n(sites::Kind::Browser, options.browser));
    let posters: Vec<_> = kinds
        .enumerate()
        .map(|(number, kind)| {
            let (client, sites, stop) = (client.clone(), sites.clone(), stop.clone());
            tokio::spawn(async move { post(&client, &sites, kind, number, &stop).await })
        })
        .collect();
    let killed = if options.scale_downs > 0 {
        scaler::work(world, options.scale_downs).await
    } else {
        Killer::new(world, options.pause()).work(options.duration()).await
    };
    stop.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    for poster in posters {
        tally.join(poster.await??);
    }
    let killed = killed?;
    ensure!(!killed.is_empty(), "nothing was killed");
    Ok((tally, killed))
}

/// One task after the other until it is time to stop; the last one is followed to its end.
async fn post(client: &Client, sites: &Sites, kind: sites::Kind, number: usize, stop: &AtomicBool) -> Result<Tally> {
    let mut tally = Tally::default();
    for round in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tally.add(&client.run_one(sites, kind, &format!("soak-{number}-{round}")).await?);
    }
    Ok(tally)
}

/// What the site served, and what the ledger has of it.
fn count_fetches(world: &World, report: &mut Report) -> Result<(usize, usize)> {
    let (visits, pages) = (scaler::visits(world)?, scaler::pages(world)?);
    report.add(
        "pages fetched, and pages in the ledger",
        format!("{visits}, {pages}"),
        "the same",
    );
    Ok((visits, pages))
}

/// The memory of all workers with their browsers, in KiB.
fn worker_memory(world: &World) -> Result<u64> {
    let mut sum = 0;
    for pod in killer::pods(world, "worker")? {
        sum += bench::proportional_memory(&pod, "worker")?;
    }
    Ok(sum)
}
