//! `selextract-bench compare`: our programs and their peers on this machine, in turn, by CPU for a unit of work.
//!
//! No Kubernetes: the services come out of the product's data image, the programs are processes on loopback. CPU is counted over every
//! process that takes part; wall time says little on a machine that does other things too.

mod account;
mod api;
mod browser;
mod cast;
mod duel;
mod http;
mod load;
mod peers;
mod play;
mod queue;
mod site;
mod stage;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use self::duel::Duel;
pub use self::{load::percentile, play::Part};
use super::report;

/// What is compared.
#[derive(Args)]
pub struct Options {
    /// Which scenarios; all when none is named.
    scenarios: Vec<Scenario>,
    /// Rounds that count; one more goes before them to warm up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Besides, so many pages by ours alone: whether the first cost what the last cost, and what memory the worker holds.
    #[arg(long, default_value_t = 0)]
    pages: usize,
    /// A folder with the product's programs, instead of building them for release. For figures it holds release programs.
    #[arg(long)]
    programs: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Empty tasks through the ledger, beside Celery.
    Queue,
    /// The API, beside `FastAPI` with `SQLAlchemy`.
    Api,
    /// Pages by HTTP, beside aiohttp with selectolax and Scrapy.
    Http,
    /// Pages in Chromium, beside Playwright.
    Browser,
}

/// What a scenario found.
struct Outcome {
    duels: Vec<Duel>,
    /// What has no peer.
    notes: Vec<String>,
}

/// Compares, and prints the table.
pub async fn run(options: Options) -> Result<()> {
    let wanted = if options.scenarios.is_empty() {
        Scenario::value_variants().to_vec()
    } else {
        options.scenarios
    };
    let mut all = Outcome {
        duels: Vec::new(),
        notes: Vec::new(),
    };
    for scenario in wanted {
        let found = match scenario {
            Scenario::Queue => queue::compare(options.rounds, options.programs.as_deref()).await?,
            Scenario::Http => http::compare(options.rounds, options.pages, options.programs.as_deref()).await?,
            Scenario::Browser => browser::compare(options.rounds, options.programs.as_deref()).await?,
            Scenario::Api => api::compare(options.rounds, options.programs.as_deref()).await?,
        };
        all.duels.extend(found.duels);
        all.notes.extend(found.notes);
    }
    println!("\n{}\n", report::caption(&format!("{} rounds", options.rounds))?);
    println!("{}", duel::table(&all.duels));
    for note in all.notes {
        println!("- {note}");
    }
    Ok(())
}
