//! Prometheus and promtool out of the data image's root, for tests of queries and rules.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    process::{self, Process},
    root::Root,
};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A Prometheus of one test's own, on loopback.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    folder: PathBuf,
    _process: Process,
}

impl Prometheus {
    /// Starts one that reads this `prometheus.yml`.
    ///
    /// # Errors
    /// When the data image's root is missing, or Prometheus does not take the file; its log is told.
    pub fn start(configuration: &str) -> Result<Self> {
        Self::start_with_past(configuration, "")
    }

    /// The same with a past: samples with their moments, as `OpenMetrics` without its end.
    ///
    /// # Errors
    /// As [`Prometheus::start`], and when promtool does not take the samples.
    pub fn start_with_past(configuration: &str, past: &str) -> Result<Self> {
        let root = Root::open()?;
        let folder = root.folder("prometheus")?;
        let inside = root.inside(&folder);
        if !past.is_empty() {
            fs::write(folder.join("past"), format!("{past}# EOF\n"))?;
            let (from, to) = (format!("{inside}/past"), format!("{inside}/data"));
            root.run_telling(&[
                "/usr/bin/promtool",
                "tsdb",
                "create-blocks-from",
                "openmetrics",
                &from,
                &to,
            ])?;
        }
        let port = process::free_port()?;
        fs::write(folder.join("prometheus.yml"), configuration)?;
        let log = folder.join("log");
        let process = root.spawn(
            &[
                "/usr/bin/prometheus",
                &format!("--config.file={inside}/prometheus.yml"),
                &format!("--storage.tsdb.path={inside}/data"),
                // As long as the managed one: a past may be a month.
                "--storage.tsdb.retention.time=31d",
                &format!("--web.listen-address=127.0.0.1:{port}"),
            ],
            &log,
        )?;
        process::wait_for_port(START_TIMEOUT, "Prometheus", port, &log)?;
        Ok(Self {
            port,
            folder,
            _process: process,
        })
    }

    /// Where its API is: what comes before `/api/v1`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// Runs promtool in a new folder that holds these files (name, content), and returns what it said.
///
/// # Errors
/// When the data image's root or promtool in it is missing, and when promtool says no: what it said is told.
pub fn promtool(files: &[(&str, &str)], arguments: &[&str]) -> Result<String> {
    let root = Root::open()?;
    ensure!(
        root.holds("usr/bin/promtool"),
        "the root of the data image is older than promtool in it: make it anew with images/build --root data"
    );
    let folder = root.folder("promtool")?;
    for (name, content) in files {
        fs::write(folder.join(name), content).with_context(|| format!("writing {name}"))?;
    }
    let inside = root.inside(&folder);
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| {
            if files.iter().any(|(name, _)| name == argument) {
                format!("{inside}/{argument}")
            } else {
                (*argument).to_owned()
            }
        })
        .collect();
    let command: Vec<&str> = ["/usr/bin/promtool"]
        .into_iter()
        .chain(arguments.iter().map(String::as_str))
        .collect();
    root.run_telling(&command)
}
