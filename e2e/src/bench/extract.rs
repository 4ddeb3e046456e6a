//! `selextract-bench extract`: extraction alone, beside selectolax and lxml: the same plan over the same pages, in turn (ours, theirs, ours, …),
//! the same records required of all. CPU for a page comes first; the first round warms up and is left out.
//!
//! For figures this program is built for release; a debug build says only whether the records are equal.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use selextract_task::{Plan, TaskSpec};
use selextract_worker::{
    content::Content,
    extract::{Document, ExtractError, Extracted, extract, extract_by_tree},
};
use serde_json::{Value, json};

use super::Report;
use crate::{program::Program, tools};

/// More than any page takes.
const PATIENCE: Duration = Duration::from_mins(1);
const INSTALL_TIMEOUT: Duration = Duration::from_mins(5);
/// About this much is read in one turn, so that a small page is not lost in the clock's grain.
const BYTES_A_TURN: usize = 8 << 20;
const PEERS: [&str; 2] = ["selectolax", "lxml"];

/// How a page is read.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    read: fn(&Plan, Document<'_>, Instant) -> Result<Extracted, ExtractError>,
    /// The part of each peer's speed that is to be reached.
    aims: [&'static str; 2],
}

const STREAM: Way = Way {
    name: "streaming",
    read: extract,
    aims: ["≥ 2", "≥ 3"],
};
const TREE: Way = Way {
    name: "by tree",
    read: extract_by_tree,
    aims: ["≥ 0.8", "≥ 3"],
};

/// What is measured.
#[derive(Args)]
pub struct Options {
    /// The folder of PostgreSQL's documentation, as `postgresql-doc-17` installs it.
    #[arg(long, env = "SELEXTRACT_TEST_DOCS")]
    docs: PathBuf,
    /// Rounds that count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Another interpreter than the cache's, with selectolax and lxml.
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Compares, and prints the table.
pub fn run(options: &Options) -> Result<()> {
    let built = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut report = Report::about(format!("extraction alone, {built} build, {} rounds", options.rounds));
    let python = options.python.clone().map_or_else(python, Ok)?;
    let mut peer = Peer::start(&python)?;
    let plan = links()?;
    let folder = tempfile::tempdir()?;
    let pages = corpus(&options.docs, folder.path())?;
    for page in &pages {
        let ways: &[Way] = if streams(page, &plan)? {
            &[STREAM, TREE]
        } else {
            &[TREE]
        };
        for way in ways {
            for (library, aim) in PEERS.into_iter().zip(way.aims) {
                let measured = compare(options.rounds, page, library, *way, &plan, &mut peer)?;
                report.add(format!("{} {}, beside {library}", page.name, way.name), measured, aim);
            }
        }
    }
    let (streaming, all) = share(&options.docs, &plan)?;
    report.add(
        "pages of the whole documentation that stream",
        format!("{streaming} of {all}"),
        "",
    );
    println!("\n{}", report.markdown()?);
    Ok(())
}

fn compare(rounds: usize, page: &Page, library: &str, way: Way, plan: &Plan, peer: &mut Peer) -> Result<String> {
    let turns = turns(rounds, page, library, way, plan, peer)?;
    let ours = median(turns.iter().map(|turn| turn.ours).collect());
    let theirs = median(turns.iter().map(|turn| turn.theirs).collect());
    let ratio = median(turns.iter().map(|turn| turn.theirs / turn.ours).collect());
    Ok(format!(
        "{:.0} µs, {library} {:.0} µs of CPU a page; {:.0} and {:.0} MB/s; ratio {ratio:.2}",
        ours * 1e6,
        theirs * 1e6,
        page.speed(ours),
        page.speed(theirs),
    ))
}

fn streams(page: &Page, plan: &Plan) -> Result<bool> {
    Ok(extract(plan, page.document(plan), Instant::now() + PATIENCE)?.streamed)
}

/// How many of all pages stream; each of those gives what its tree gives.
fn share(docs: &Path, plan: &Plan) -> Result<(usize, usize)> {
    let (mut streaming, mut all) = (0, 0);
    for entry in fs::read_dir(docs)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "html") {
            continue;
        }
        let page = Page {
            name: "",
            text: String::from_utf8_lossy(&fs::read(&path)?).into_owned(),
            file: path,
            malformed: false,
        };
        let found = extract(plan, page.document(plan), Instant::now() + PATIENCE)?;
        if found.streamed {
            let tree = extract_by_tree(plan, page.document(plan), Instant::now() + PATIENCE)?;
            ensure!(
                found.records == tree.records,
                "{}: two ways, two results",
                page.file.display()
            );
            streaming += 1;
        }
        all += 1;
    }
    Ok((streaming, all))
}

/// The text and two attributes of every link.
fn links() -> Result<Plan> {
    let spec: TaskSpec = serde_json::from_value(json!({
        "url": "http://docs.test/page.html",
        "items": "a[href]",
        "fields": [
            { "name": "text" },
            { "name": "href", "type": "Attribute", "attribute": "href" },
            { "name": "title", "type": "Attribute", "attribute": "title" },
        ],
    }))?;
    spec.compile().map_err(anyhow::Error::new)
}

struct Page {
    name: &'static str,
    file: PathBuf,
    text: String,
    /// libxml2 mends mistakes in a way of its own; its records are then not compared.
    malformed: bool,
}

impl Page {
    fn document<'d>(&'d self, plan: &'d Plan) -> Document<'d> {
        Document {
            url: &plan.url,
            content: Content::Html,
            text: &self.text,
        }
    }

    fn speed(&self, seconds: f64) -> f64 {
        bytes(self.text.len()) / seconds / 1e6
    }
}

fn bytes(length: usize) -> f64 {
    f64::from(u32::try_from(length).unwrap_or(u32::MAX))
}

/// Real pages, one that is several in one, and one with the mistakes of real pages.
fn corpus(docs: &Path, folder: &Path) -> Result<Vec<Page>> {
    let read =
        |name: &str| fs::read_to_string(docs.join(name)).with_context(|| format!("the documentation has no {name}"));
    let middle = read("app-pgdump.html")?;
    let large = read("bookindex.html")? + &read("monitoring-stats.html")? + &middle;
    let malformed = middle
        .replace("</p>", "")
        .replace("</dd>", "")
        .replace("</span>", "</b>")
        .replace("<code class=\"literal\"", "<table><code class=literal\"");
    let pages = [
        ("7 KB", read("datatype-boolean.html")?, false),
        ("79 KB", middle, false),
        ("810 KB", large, true),
        ("79 KB malformed", malformed, true),
    ];
    pages
        .into_iter()
        .enumerate()
        .map(|(number, (name, text, malformed))| {
            let file = folder.join(format!("{number}.html"));
            fs::write(&file, &text)?;
            Ok(Page {
                name,
                file,
                text,
                malformed,
            })
        })
        .collect()
}

/// CPU seconds for a page.
struct Turn {
    ours: f64,
    theirs: f64,
}

fn turns(rounds: usize, page: &Page, library: &str, way: Way, plan: &Plan, peer: &mut Peer) -> Result<Vec<Turn>> {
    let times = (BYTES_A_TURN / page.text.len()).max(1);
    let mut turns = Vec::with_capacity(rounds);
    for round in 0..=rounds {
        let (ours, records) = ours(page, way, plan, times)?;
        let (theirs, expected) = peer.extract(library, page, times)?;
        if !(library == "lxml" && page.malformed) {
            ensure!(
                records == expected,
                "{}: {library} reads other records than we do",
                page.name
            );
        }
        if round > 0 {
            turns.push(Turn { ours, theirs });
        }
    }
    Ok(turns)
}

/// CPU seconds for a page, and its records.
fn ours(page: &Page, way: Way, plan: &Plan, times: usize) -> Result<(f64, Value)> {
    let before = cpu()?;
    let mut records = Vec::new();
    for _ in 0..times {
        records = (way.read)(plan, page.document(plan), Instant::now() + PATIENCE)?.records;
    }
    let spent = cpu()? - before;
    Ok((spent / bytes(times), serde_json::to_value(records)?))
}

/// CPU seconds of this thread.
fn cpu() -> Result<f64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").context("the kernel keeps no scheduler statistics")?;
    let nanoseconds = stat.split_whitespace().next().context("schedstat is empty")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The interpreter of an environment with the peers' pinned packages, outside the repository.
fn python() -> Result<PathBuf> {
    let requirements = tools::repository()?.join("e2e/peers/extract-requirements.txt");
    let sum = tools::sha256(&[&requirements])?;
    let environment = tools::cache()?.join(format!("peers-extract-{}", sum.get(..12).unwrap_or(&sum)));
    let finished = environment.join("finished");
    if !finished.exists() {
        println!("      selectolax and lxml are installed into {}", environment.display());
        Program::new("python3", ["-m".as_ref(), "venv".as_ref(), environment.as_os_str()]).run()?;
        Program::new(environment.join("bin/pip"), ["install", "--quiet", "--requirement"])
            .and([&requirements])
            .timeout(INSTALL_TIMEOUT)
            .run()
            .context("selectolax and lxml cannot be installed")?;
        fs::write(&finished, "")?;
    }
    Ok(environment.join("bin/python"))
}

/// The peers' process.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Path) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(tools::repository()?.join("e2e/peers/peer_extract.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", python.display()))?;
        let input = child.stdin.take().context("the peer has no input")?;
        let output = child.stdout.take().context("the peer has no output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// CPU seconds for a page, and its records.
    fn extract(&mut self, library: &str, page: &Page, times: usize) -> Result<(f64, Value)> {
        let asked = json!({ "library": library, "page": page.file, "times": times });
        writeln!(self.input, "{asked}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line).context("the peer ended")?;
        let spent = answer["cpu"].as_f64().context("the peer did not count")?;
        Ok((spent / bytes(times), answer["records"].take()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_figure_counts_and_not_the_outliers() {
        assert!((median(vec![9.0, 1.0, 2.0, 3.0, 1.5]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_same_plan_reads_links_with_their_text_and_attributes() {
        let page = Page {
            name: "",
            file: PathBuf::new(),
            text: "<a href=x title=t>a <b>b</b></a><a name=y>no</a>".to_owned(),
            malformed: false,
        };
        for way in [STREAM, TREE] {
            let (_, records) = ours(&page, way, &links().unwrap(), 1).unwrap();
            assert_eq!(records, json!([{ "text": "a b", "href": "x", "title": "t" }]));
        }
    }
}
