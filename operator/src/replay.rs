//! The program `selextract-scaling`: `record` asks a Prometheus for what decisions were made from, `replay` decides anew on that record.

#![expect(
    clippy::doc_markdown,
    reason = "the docs are what --help prints, where marks are noise"
)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write, stdout},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use selextract_crds::SelextractCluster;
use selextract_task::Duration;
use url::Url;

use crate::{
    monitoring::{
        client::Prometheus,
        queries::{self, SIGNAL, Scope, scaling},
    },
    scaling::{
        Policies,
        replay::{Recorded, Replay, replay},
    },
    validated::{Credentials, Defaults, PrometheusEndpoint, validate},
};

/// The most moments that are asked for in one request: an hour's, at one every five seconds.
const MOMENTS: i64 = 720;

/// Records what sizes were decided from, and replays it under another policy.
#[derive(Debug, Parser)]
#[command(name = "selextract-scaling", version)]
pub struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Prints what a Prometheus measured of a cluster, a line of JSON for each moment.
    Record(Record),
    /// Prints what would have happened with a policy.
    Replay {
        /// A SelextractCluster as YAML, whose spec.scaling is the policy.
        #[arg(long)]
        cluster: PathBuf,
        /// What `record` printed.
        signals: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Record {
    /// The Prometheus, such as http://127.0.0.1:9090 behind `kubectl port-forward`.
    #[arg(long)]
    prometheus: Url,
    /// A bearer token for it.
    #[arg(long, env = "SELEXTRACT_PROMETHEUS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The cluster's namespace.
    #[arg(long)]
    namespace: String,
    /// The cluster's name.
    #[arg(long)]
    name: String,
    /// From how long ago on.
    #[arg(long, default_value = "24h")]
    since: Duration,
    /// How many seconds lie between two moments; more than 30 are a hole, in which nobody knows what was.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=30))]
    step: u32,
}

/// Runs the program.
///
/// # Errors
/// What cannot be read, or asked.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command.what {
        What::Record(record) => {
            let provider = rustls::crypto::ring::default_provider().install_default();
            ensure!(provider.is_ok(), "another cryptography provider is installed already");
            record.run().await
        }
        What::Replay { cluster, signals } => {
            let policies = read_policies(&cluster)?;
            let recorded = read_signals(&signals)?;
            print(&replay(&policies, &recorded), recorded.len())
        }
    }
}

impl Record {
    async fn run(self) -> anyhow::Result<()> {
        let client = Prometheus::new(PrometheusEndpoint {
            url: self.prometheus,
            credentials: self.token.map_or(Credentials::None, Credentials::Token),
            authority: None,
        })?;
        let scope = Scope::Cluster {
            namespace: &self.namespace,
            name: &self.name,
        };
        let query = queries::together(&scaling::SIGNALS, &scope, scaling::WINDOW);
        let end = Timestamp::now().as_second();
        let mut start = end - i64::try_from(self.since.get().as_secs())?;
        let mut moments = 0;
        while start <= end {
            let until = end.min(start + (MOMENTS - 1) * i64::from(self.step));
            let values = client.query_range(&query, (start, until), self.step).await?;
            let mut found: BTreeMap<Timestamp, Recorded> = BTreeMap::new();
            for value in values.into_iter().filter(|value| value.value.is_finite()) {
                let at = value.moment().context("a value has no moment")?;
                let moment = found.entry(at).or_insert_with(|| Recorded {
                    at,
                    ..Recorded::default()
                });
                match (value.labels.get("dependency"), value.labels.get(SIGNAL)) {
                    (Some(name), _) => moment.dependencies.insert(name.clone(), value.value),
                    (None, Some(signal)) => moment.values.insert(signal.clone(), value.value),
                    (None, None) => None,
                };
            }
            moments += found.len();
            let mut out = stdout().lock();
            for moment in found.values() {
                serde_json::to_writer(&mut out, moment)?;
                writeln!(out)?;
            }
            start = until + i64::from(self.step);
        }
        ensure!(
            moments > 0,
            "nothing is known there of SelextractCluster {}/{}; see --namespace, --name and --since",
            self.namespace,
            self.name
        );
        Ok(())
    }
}

fn read_policies(path: &Path) -> anyhow::Result<Policies> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cluster: SelextractCluster =
        serde_yaml_ng::from_str(&text).with_context(|| format!("{} is no SelextractCluster", path.display()))?;
    let defaults = Defaults {
        registry: String::new(),
        tag: "latest".to_owned(),
        namespace: String::new(),
        subject: String::new(),
    };
    let validated = match validate(&cluster, &defaults) {
        Ok(validated) => validated,
        Err(refusals) => {
            let all: Vec<_> = refusals.iter().map(ToString::to_string).collect();
            bail!("{}: {}", path.display(), all.join("; "));
        }
    };
    let policies = Policies {
        api: validated.scaling.api.policy().cloned(),
        worker: validated.scaling.worker.policy().cloned(),
    };
    ensure!(
        policies.any(),
        "{} sizes nothing: give spec.scaling.api or spec.scaling.worker",
        path.display()
    );
    Ok(policies)
}

fn read_signals(path: &Path) -> anyhow::Result<Vec<Recorded>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut recorded = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        let moment: Recorded = serde_json::from_str(&line)
            .with_context(|| format!("{}: line {} is no record", path.display(), number + 1))?;
        recorded.push(moment);
    }
    Ok(recorded)
}

fn print(replay: &Replay, moments: usize) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for change in &replay.changes {
        writeln!(
            out,
            "{}  {:<6} {:>2} -> {:<2}  {:<18} {}",
            change.at,
            change.target.as_str(),
            change.from,
            change.to,
            change.reason.as_str(),
            change.message
        )?;
    }
    writeln!(out, "{} changes in {moments} moments", replay.changes.len())?;
    let rows = [
        ("api", replay.decided.0, replay.recorded.0),
        ("worker", replay.decided.1, replay.recorded.1),
    ];
    for (target, decided, recorded) in rows {
        writeln!(
            out,
            "{target:<6} {decided:.1} pod hours as decided, {recorded:.1} as recorded"
        )?;
    }
    Ok(())
}
