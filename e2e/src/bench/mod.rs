//! `selextract-bench`: the figures of the guide that need the whole platform, as tables; by hand on release images, in CI for seconds and
//! only for what must be true on any machine.

mod clusters;
mod compare;
mod extract;
mod fleet;
mod played;
pub mod processes;
mod reaction;
mod report;
mod rest;
mod tasks;
mod writes;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use self::played::PlayedNode;
pub use self::{
    clusters::{PATIENCE, WHOLE},
    report::Report,
};
use crate::{alerts, ground, images::Profile, soak, world::World};

/// Measures the platform on the local cluster.
#[derive(Parser)]
#[command(name = "selextract-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What the operator costs, and how fast a cluster is Ready.
    Bench(Options),
    /// Extraction alone, beside selectolax and lxml.
    Extract(extract::Options),
    /// Load for minutes while parts are killed in turn; nothing may be lost or doubled.
    Soak(soak::Options),
    /// Each alert, fired by what it is about.
    Alerts(alerts::Options),
    /// From a backlog to the new pod, beside the `HorizontalPodAutoscaler`.
    Reaction(reaction::Options),
    /// What the operator costs while it sizes many clusters.
    Fleet(fleet::Options),
    /// Our programs beside their peers on this machine, without a cluster.
    Compare(compare::Options),
    /// A part in a comparison, played in a process of its own.
    #[command(hide = true)]
    Part {
        #[command(subcommand)]
        part: compare::Part,
    },
}

/// On which images.
#[derive(Args, Clone, Copy)]
pub struct Subject {
    /// Some seconds and small numbers on the tests' images: for correctness, not for figures.
    #[arg(long)]
    pub smoke: bool,
    /// Take the operator and the images that are installed instead of building release images.
    #[arg(long)]
    pub installed: bool,
}

#[derive(Args)]
struct Options {
    #[command(flatten)]
    subject: Subject,
    /// Others use the operator too: its own counts are then theirs as well, and only the objects of this measurement tell.
    #[arg(long)]
    shared: bool,
    /// What is measured; everything when nothing is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// How long the writes at rest are counted.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How many clusters there are then; all but one are on a played node.
    #[arg(long, default_value_t = 10)]
    clusters: usize,
    /// How many `ScrapeTasks` the operator holds for its memory.
    #[arg(long, default_value_t = 10_000)]
    tasks: usize,
    /// Over how many runs the status writes are counted.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// How many times a cluster is started.
    #[arg(long, default_value_t = 3)]
    starts: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From apply to Ready.
    Start,
    /// Status writes of a run.
    Runs,
    /// Writes at rest, and memory with the clusters.
    Rest,
    /// Memory with thousands of tasks.
    Tasks,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("selextract-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        match command {
            Command::Bench(options) => measure(&options.sized()).await,
            Command::Extract(options) => extract::run(&options),
            Command::Soak(options) => soak::run(&options).await,
            Command::Alerts(options) => alerts::run(&options).await,
            Command::Reaction(options) => reaction::run(&options).await,
            Command::Fleet(options) => fleet::run(&options).await,
            Command::Compare(options) => compare::run(options).await,
            Command::Part { part } => part.play().await,
        }
    })
}

/// Puts the images in place; what they are, in words.
pub fn prepare(subject: Subject) -> Result<String> {
    if subject.installed {
        return Ok(format!("installed images {}", ground::prepare_installed()?));
    }
    let (profile, words) = if subject.smoke {
        (Profile::Development, "development")
    } else {
        (Profile::Release, "release")
    };
    Ok(format!("{words} images {}", ground::prepare_with(profile)?))
}

/// Starts the whole cluster and waits until it is Ready.
pub async fn start_whole(world: &World) -> Result<()> {
    clusters::apply_whole(world)?;
    clusters::wait_until_ready(world, WHOLE).await
}

/// The memory of a pod's container in KiB, in which shared pages count once.
pub fn proportional_memory(pod: &serde_json::Value, container: &str) -> Result<u64> {
    Ok(processes::proportional(&processes::of_container(pod, container)?))
}

impl Options {
    /// The smoke test's numbers, whatever was asked for.
    fn sized(self) -> Self {
        if !self.subject.smoke {
            return self;
        }
        Self {
            clusters: 2,
            tasks: 40,
            runs: 3,
            starts: 0,
            ..self
        }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn at_rest(&self) -> Duration {
        if self.subject.smoke {
            Duration::from_secs(20)
        } else {
            Duration::from_mins(self.minutes)
        }
    }
}

async fn measure(options: &Options) -> Result<()> {
    let mut report = Report::about(prepare(options.subject)?);
    if options.wants(Part::Start) && options.starts > 0 {
        measure_starts(options, &mut report).await?;
    }
    if [Part::Runs, Part::Rest, Part::Tasks]
        .iter()
        .any(|part| options.wants(*part))
    {
        measure_platform(options, &mut report).await?;
    }
    println!("\n{}", report.markdown()?);
    Ok(())
}

async fn measure_starts(options: &Options, report: &mut Report) -> Result<()> {
    let seconds = clusters::measure_starts(options.starts).await?;
    let median = seconds[seconds.len() / 2];
    let all: Vec<_> = seconds.iter().map(|s| format!("{s:.1}")).collect();
    let what = "from apply to Ready, images loaded";
    report.add(
        what,
        format!("{median:.1} s (median of {})", all.join(", ")),
        "under 45 s",
    );
    Ok(())
}

async fn measure_platform(options: &Options, report: &mut Report) -> Result<()> {
    let world = World::enter("bench").await?;
    world.serve_sites()?;
    start_whole(&world).await?;
    if options.wants(Part::Runs) {
        measure_runs(&world, options, report).await?;
    }
    if options.wants(Part::Rest) {
        let node = PlayedNode::start(world.client.clone()).await?;
        measure_rest(&world, options, report).await?;
        for index in 1..options.clusters {
            world.kubectl(&["delete", "selextractcluster", &format!("played-{index}")])?;
        }
        wait_until_unplayed(&world).await?;
        node.end().await?;
    }
    if options.wants(Part::Tasks) {
        let (applied, accepted) = tasks::fill(&world, options.tasks).await?;
        let what = format!("{} ScrapeTasks applied, and accepted by their cluster", options.tasks);
        report.add(what, format!("{applied:.0} s, {accepted:.0} s"), "");
        report_memory(&world, &format!("with {} ScrapeTasks", options.tasks), report)?;
    }
    tasks::remove_all(&world).await?;
    world.kubectl(&["delete", "namespace", &world.namespace, "--wait=true"])?;
    Ok(())
}

async fn measure_runs(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let writes = tasks::count_status_writes(world, options.runs).await?;
    let most = writes.iter().max().copied().unwrap_or_default();
    let sum: usize = writes.iter().sum();
    let told = format!("at most {most}, {sum} in {} runs", writes.len());
    report.add("status writes of a ScrapeTask's run", told, "at most 3");
    ensure!(
        writes.len() == options.runs,
        "{} of {} runs were seen",
        writes.len(),
        options.runs
    );
    ensure!(most <= 3, "a run wrote its status {most} times");
    Ok(())
}

async fn measure_rest(world: &World, options: &Options, report: &mut Report) -> Result<()> {
    let names = clusters::apply_played(world, options.clusters - 1)?;
    for name in &names {
        clusters::wait_until_ready(world, name).await?;
    }
    let rest = rest::measure(world, options.at_rest(), options.shared).await?;
    let what = |who: &str| {
        let (clusters, seconds) = (options.clusters, options.at_rest().as_secs());
        format!("writes {who} at rest in {seconds} s, {clusters} clusters (1 whole, the others played)")
    };
    let (changed, objects) = &rest.changed;
    let changed = format!("{} of {objects}", writes::told(changed));
    report.add(
        "objects of these clusters that the operator changed meanwhile",
        changed,
        "none",
    );
    report.add(what("by the operator, its own count"), told(&rest.operator), "none");
    if let Some(audited) = &rest.audited {
        report.add(what("by the operator, audit log"), told(audited), "none but leases");
    }
    report.add(what("by everybody, API server's count"), told(&rest.everybody), "");
    report_memory(world, &format!("with {} clusters", options.clusters), report)?;
    if options.subject.smoke {
        let (.., others) = writes::split(&rest.operator);
        ensure!(
            others.is_empty(),
            "the operator wrote at rest: {}",
            writes::told(&others)
        );
    }
    Ok(())
}

fn told(writes: &BTreeMap<String, u64>) -> String {
    let (leases, events, questions, others) = writes::split(writes);
    format!(
        "{}; apart: {leases} leases, {events} events, {questions} tokens and reviews",
        writes::told(&others)
    )
}

fn report_memory(world: &World, when: &str, report: &mut Report) -> Result<()> {
    let processes = processes::of_container(&writes::operator_pod(world)?, "operator")?;
    let (now, highest) = processes::resident(&processes);
    let told = format!("{} MiB, highest {} MiB", now / 1024, highest / 1024);
    report.add(format!("the operator's resident memory {when}"), told, "at most 64 MiB");
    Ok(())
}

/// Played pods go only while the node is played.
async fn wait_until_unplayed(world: &World) -> Result<()> {
    let ask = || {
        let selector = "app.kubernetes.io/part-of=selextract";
        let pods = world.kubectl(&[
            "get",
            "pods",
            "-l",
            selector,
            "-o",
            "jsonpath={.items[*].spec.nodeName}",
        ])?;
        Ok((!pods.contains("played")).then_some(()))
    };
    world
        .wait_until("the played clusters are gone", clusters::PATIENCE, ask)
        .await
}
