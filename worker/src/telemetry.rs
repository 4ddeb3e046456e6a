//! The worker's metrics.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, core::Collector};
use selextract_platform::frontier::hosts::Admission;
use selextract_telemetry::{LONG_SECONDS, SECONDS};

use crate::rendering::{Engine, Lack};

/// How browsers end.
const BROWSER_ENDS: [&str; 3] = ["retired", "crashed", "hung"];
/// What hosts answer to a page that wants to begin.
const HOST_ANSWERS: [&str; 5] = ["start", "later", "unavailable", "full", "give_way"];
/// What the worker counts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    busy: IntGauge,
    pages: IntCounterVec,
    runs: IntCounterVec,
    run_duration: Histogram,
    page_duration: Histogram,
    wait: Histogram,
    host_turns: IntCounterVec,
    host_wait: Histogram,
    auto: IntCounterVec,
    browser_starts: prometheus::IntCounter,
    browser_ends: IntCounterVec,
    page_load: Histogram,
    drifted: prometheus::IntCounter,
}

impl Metrics {
    /// Registers every metric, each counter at 0 from the start.
    ///
    /// # Errors
    /// When a name is taken in the registry.
    pub fn new(registry: &Registry, concurrency: u32) -> prometheus::Result<Self> {
        let limit = IntGauge::new(
            "selextract_worker_concurrency",
            "Runs that this worker may execute at the same time.",
        )?;
        limit.set(concurrency.into());
        registered(registry, limit)?;
        let metrics = Self {
            busy: registered(
                registry,
                IntGauge::new("selextract_worker_busy", "Runs that this worker executes now.")?,
            )?,
            pages: counters(
                registry,
                "selextract_pages_total",
                "Pages that were tried.",
                &["engine", "outcome"],
            )?,
            runs: counters(
                registry,
                "selextract_worker_tasks_total",
                "Runs that this worker let go of.",
                &["outcome"],
            )?,
            run_duration: histogram(
                registry,
                "selextract_task_duration_seconds",
                "From a run's claim until this worker let go of it.",
                &LONG_SECONDS,
            )?,
            page_duration: seconds(
                registry,
                "selextract_page_duration_seconds",
                "From a page's request to its commit.",
            )?,
            wait: histogram(
                registry,
                "selextract_task_wait_seconds",
                "From the moment when a run could start to its claim.",
                &LONG_SECONDS,
            )?,
            host_turns: counters(
                registry,
                "selextract_host_turns_total",
                "Turns that pages asked for at their hosts, by the answer.",
                &["answer"],
            )?,
            host_wait: seconds(
                registry,
                "selextract_host_wait_seconds",
                "How long a page that had its turn waited for its host in place.",
            )?,
            auto: counters(
                registry,
                "selextract_auto_pages_total",
                "Pages with render Auto, by what decided about their engine.",
                &["decision"],
            )?,
            browser_starts: registered(
                registry,
                prometheus::IntCounter::new("selextract_browser_starts_total", "Browsers that came up.")?,
            )?,
            browser_ends: counters(
                registry,
                "selextract_browser_ends_total",
                "Browsers that ended.",
                &["reason"],
            )?,
            page_load: seconds(
                registry,
                "selextract_browser_page_load_seconds",
                "From a navigation in the browser until the page and its frames had loaded.",
            )?,
            drifted: registered(
                registry,
                prometheus::IntCounter::new(
                    "selextract_schema_drift_runs_total",
                    "Runs that found far less than the runs before them: the site seems to have changed under its selectors.",
                )?,
            )?,
        };
        for engine in ["http", "browser"] {
            for outcome in ["committed", "not_modified", "retryable", "permanent"] {
                metrics.pages.with_label_values(&[engine, outcome]);
            }
        }
        for outcome in RunOutcome::ALL {
            metrics.runs.with_label_values(&[outcome.label()]);
        }
        for answer in HOST_ANSWERS {
            metrics.host_turns.with_label_values(&[answer]);
        }
        for decision in Decision::all() {
            metrics.auto.with_label_values(&[decision.label()]);
        }
        for reason in BROWSER_ENDS {
            metrics.browser_ends.with_label_values(&[reason]);
        }
        Ok(metrics)
    }

    /// A run began after this wait. The guard counts it as busy until it is dropped.
    pub(crate) fn run_began(&self, waited: Duration) -> Busy {
        self.wait.observe(waited.as_secs_f64());
        self.busy.inc();
        Busy(self.busy.clone())
    }

    pub(crate) fn run_ended(&self, outcome: RunOutcome, after: Duration) {
        self.runs.with_label_values(&[outcome.label()]).inc();
        self.run_duration.observe(after.as_secs_f64());
    }

    pub(crate) fn page(&self, engine: Engine, outcome: PageOutcome, after: Duration) {
        let engine = match engine {
            Engine::Http => "http",
            Engine::Browser => "browser",
        };
        let outcome = match outcome {
            PageOutcome::Committed => "committed",
            PageOutcome::NotModified => "not_modified",
            PageOutcome::Retryable => "retryable",
            PageOutcome::Permanent => "permanent",
        };
        self.pages.with_label_values(&[engine, outcome]).inc();
        self.page_duration.observe(after.as_secs_f64());
    }

    pub(crate) fn auto_decided(&self, decision: Decision) {
        self.auto.with_label_values(&[decision.label()]).inc();
    }

    pub(crate) fn host_answered(&self, admission: Admission) {
        let answer = match admission {
            Admission::Start(wait) => {
                self.host_wait.observe(wait.as_secs_f64());
                "start"
            }
            Admission::Later(_) => "later",
            Admission::Unavailable(_) => "unavailable",
            Admission::Full => "full",
            Admission::GiveWay => "give_way",
        };
        self.host_turns.with_label_values(&[answer]).inc();
    }

    pub(crate) fn run_drifted(&self) {
        self.drifted.inc();
    }

    pub(crate) fn browser_started(&self) {
        self.browser_starts.inc();
    }

    pub(crate) fn browser_page_loaded(&self, after: Duration) {
        self.page_load.observe(after.as_secs_f64());
    }

    pub(crate) fn browser_ended(&self, reason: &'static str) {
        self.browser_ends.with_label_values(&[reason]).inc();
    }
}

/// What decided about the engine of a page with render Auto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The server's HTML had everything.
    Enough,
    /// It lacked something, and the page went to the browser.
    Lacked(Lack),
    /// It lacked something that the browser did not find on an earlier page of the run either.
    Helpless,
    /// The host is remembered as one whose pages need the browser.
    Remembered,
}

impl Decision {
    fn all() -> impl Iterator<Item = Self> {
        [Self::Enough, Self::Helpless, Self::Remembered]
            .into_iter()
            .chain(Lack::ALL.map(Self::Lacked))
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Enough => "enough",
            Self::Lacked(lack) => lack.label(),
            Self::Helpless => "helpless",
            Self::Remembered => "remembered",
        }
    }
}

/// A busy slot; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(IntGauge);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What became of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageOutcome {
    Committed,
    /// Committed with the records of a former run: the site said that it is as it was.
    NotModified,
    Retryable,
    Permanent,
}

/// Why a worker let go of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// Every page was read.
    Succeeded,
    /// It ended with an error.
    Failed,
    /// A page will be tried again later.
    Retried,
    /// Somebody ended it.
    Canceled,
    /// Given back at a page boundary, because this worker stops.
    HandedBack,
    /// Given back for a while: its host rests or is unavailable, or another owner waits.
    Waits,
    /// The claim was no longer this worker's.
    Fenced,
    /// The ledger could not be reached; the lease runs out.
    Abandoned,
}

impl RunOutcome {
    const ALL: [Self; 8] = [
        Self::Succeeded,
        Self::Failed,
        Self::Retried,
        Self::Canceled,
        Self::HandedBack,
        Self::Waits,
        Self::Fenced,
        Self::Abandoned,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Canceled => "canceled",
            Self::HandedBack => "handed_back",
            Self::Waits => "waits",
            Self::Fenced => "fenced",
            Self::Abandoned => "abandoned",
        }
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn seconds(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    histogram(registry, name, help, &SECONDS)
}

fn histogram(registry: &Registry, name: &str, help: &str, edges: &[f64]) -> prometheus::Result<Histogram> {
    registered(
        registry,
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(edges.to_vec()))?,
    )
}
