//! Chromium: one at a time that is shared by the worker's runs, started when it is needed, retired before it grows old.

mod chromium;
mod flags;
mod group;
mod process;
mod tab;

use std::{path::PathBuf, sync::Arc, time::Duration};

use snafu::Snafu;
use tokio::{sync::Mutex, time::timeout};
use tokio_util::task::TaskTracker;
use url::Url;

pub use self::{process::remove_leftovers, tab::Tab};
use crate::{contact::Contact, telemetry::Metrics};
use chromium::Chromium;

/// How the browser is run.
#[derive(Clone, Debug)]
pub struct BrowserSettings {
    /// The program.
    pub program: PathBuf,
    /// Whether Chromium's own sandbox is on.
    pub sandbox: bool,
    /// The only way out.
    pub proxy: Url,
    /// Whom its user agent names.
    pub contact: Contact,
    /// Pages until it is retired.
    pub max_pages: u32,
    /// Age at which it is retired.
    pub max_age: Duration,
    /// Bytes of memory of all its processes at which it is retired.
    pub max_memory: u64,
}

/// Why there is no browser, or no longer.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum BrowserError {
    /// The program could not be started.
    #[snafu(display("starting {} failed: {source}", program.display()))]
    Start {
        /// What was started.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It ran, but did not come up.
    #[snafu(display("the browser did not come up: {message}"))]
    ComeUp {
        /// What it said last.
        message: String,
    },
    /// It crashed or hung, or was retired.
    #[snafu(display("the browser is gone"))]
    Gone,
    /// A command of the DevTools protocol failed.
    #[snafu(display("{what} failed: {source}"))]
    Command {
        /// What was being done.
        what: &'static str,
        /// What came back.
        source: Box<chromiumoxide::error::CdpError>,
    },
    /// A command had no answer.
    #[snafu(display("{what} had no answer"))]
    NoAnswer {
        /// What was being done.
        what: &'static str,
    },
}

/// The worker's browser.
#[derive(Debug)]
pub struct Browsers {
    settings: BrowserSettings,
    metrics: Metrics,
    current: Mutex<Option<Arc<Chromium>>>,
    /// The supervisors of all browsers that are not gone yet.
    supervisors: TaskTracker,
}

impl Browsers {
    /// Starts nothing yet.
    pub fn new(settings: BrowserSettings, metrics: Metrics) -> Self {
        Self {
            settings,
            metrics,
            current: Mutex::new(None),
            supervisors: TaskTracker::new(),
        }
    }

    /// A tab in a context of its own, in a browser that is neither dead nor due for retirement.
    ///
    /// # Errors
    /// When the browser does not come up or does not answer.
    pub async fn open_tab(&self) -> Result<Tab, BrowserError> {
        self.open_tab_by(None).await
    }

    /// The same, whose requests go out by this proxy instead of the browser's.
    ///
    /// # Errors
    /// As [`Browsers::open_tab`].
    pub async fn open_tab_by(&self, proxy: Option<&Url>) -> Result<Tab, BrowserError> {
        let chromium = self.running().await?;
        Tab::open(chromium, proxy).await
    }

    /// The running browser, or a new one. A retired one ends with its last tab.
    async fn running(&self) -> Result<Arc<Chromium>, BrowserError> {
        let mut current = self.current.lock().await;
        if let Some(chromium) = current.as_ref().filter(|chromium| chromium.is_fresh()) {
            return Ok(Arc::clone(chromium));
        }
        // The old one is let go before the new one starts: without tabs it is gone at once.
        *current = None;
        let chromium = Chromium::launch(&self.settings, &self.metrics, &self.supervisors).await?;
        *current = Some(Arc::clone(&chromium));
        Ok(chromium)
    }

    /// Ends the browser and waits until its processes and its profile are gone. Tabs must be dropped before.
    pub async fn close(&self) {
        *self.current.lock().await = None;
        self.supervisors.close();
        if timeout(Duration::from_secs(10), self.supervisors.wait()).await.is_err() {
            tracing::warn!("A browser did not end within 10 seconds; its processes are left to the container's end.");
        }
    }
}
