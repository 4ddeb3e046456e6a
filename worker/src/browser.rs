//! Chromium: of each kind one at a time that is shared by the worker's runs, started when it is needed, retired before it grows old,
//! and ended when nobody has needed it for a while.

mod chromium;
mod flags;
mod group;
mod process;
mod sieve;
mod tab;
mod traffic;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use snafu::Snafu;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use url::Url;
use uuid::Uuid;

pub use self::{process::remove_leftovers, tab::Tab};
pub(crate) use self::{
    sieve::{TOO_LARGE, TOO_LONG},
    traffic::MOST,
};
use crate::{contact::Contact, telemetry::Metrics};
use chromium::Chromium;

/// The most runs that are remembered as let off.
const LET_OFF: usize = 1_000;

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
    /// How long it is kept without a tab.
    pub max_idle: Duration,
}

/// What a browser loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No images, fonts and media: for records alone.
    Lean,
    /// Everything: for what people look at.
    Full,
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
    /// It crashed or hung as a whole.
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

/// The worker's browsers.
#[derive(Debug)]
pub struct Browsers {
    settings: BrowserSettings,
    metrics: Metrics,
    lean: Slot,
    full: Slot,
    /// Runs that were let off, oldest first.
    let_off: std::sync::Mutex<VecDeque<Uuid>>,
    /// The supervisors of all browsers that are not gone yet.
    supervisors: TaskTracker,
}

/// The running browser of a kind.
type Slot = Arc<Mutex<Option<Arc<Chromium>>>>;

impl Browsers {
    /// Starts nothing yet.
    pub fn new(settings: BrowserSettings, metrics: Metrics) -> Self {
        Self {
            settings,
            metrics,
            lean: Slot::default(),
            full: Slot::default(),
            let_off: std::sync::Mutex::default(),
            supervisors: TaskTracker::new(),
        }
    }

    /// A tab in a context of its own, in a browser of this kind that is neither dead nor due for retirement.
    ///
    /// # Errors
    /// When the browser does not come up or does not answer.
    pub async fn open_tab(&self, kind: Kind) -> Result<Tab, BrowserError> {
        self.open_tab_by(kind, None).await
    }

    /// The same, whose requests go out by this proxy instead of the browser's.
    ///
    /// # Errors
    /// As [`Browsers::open_tab`].
    pub async fn open_tab_by(&self, kind: Kind, proxy: Option<&Url>) -> Result<Tab, BrowserError> {
        let chromium = self.running(kind).await?;
        Tab::open(chromium, proxy).await
    }

    /// Whether a run whose page ended with a whole browser is let off. Which of the browser's pages brought it down cannot be told, and most
    /// did not; but one that does is there the next time too. So each run is let off once.
    pub fn lets_off(&self, run: Uuid) -> bool {
        let mut let_off = self.let_off.lock().unwrap_or_else(PoisonError::into_inner);
        if let_off.contains(&run) {
            return false;
        }
        if let_off.len() == LET_OFF {
            let_off.pop_front();
        }
        let_off.push_back(run);
        true
    }

    /// The running browser, or a new one. A retired one ends with its last tab.
    async fn running(&self, kind: Kind) -> Result<Arc<Chromium>, BrowserError> {
        let slot = match kind {
            Kind::Lean => &self.lean,
            Kind::Full => &self.full,
        };
        let mut current = slot.lock().await;
        if let Some(chromium) = current.as_ref().filter(|chromium| chromium.is_fresh()) {
            return Ok(Arc::clone(chromium));
        }
        // The old one is let go before the new one starts: without tabs it is gone at once.
        *current = None;
        let chromium = Chromium::launch(kind, &self.settings, &self.metrics, &self.supervisors).await?;
        *current = Some(Arc::clone(&chromium));
        tokio::spawn(end_when_idle(
            Arc::downgrade(slot),
            Arc::downgrade(&chromium),
            self.settings.max_idle,
        ));
        Ok(chromium)
    }

    /// Ends the browsers and waits until their processes and profiles are gone. Tabs must be dropped before.
    pub async fn close(&self) {
        *self.lean.lock().await = None;
        *self.full.lock().await = None;
        self.supervisors.close();
        if timeout(Duration::from_secs(10), self.supervisors.wait()).await.is_err() {
            tracing::warn!("A browser did not end within 10 seconds; its processes are left to the container's end.");
        }
    }
}

/// Lets go of a browser that has had no tab for so long.
async fn end_when_idle(slot: Weak<Mutex<Option<Arc<Chromium>>>>, chromium: Weak<Chromium>, max_idle: Duration) {
    let mut pages = None;
    loop {
        sleep(max_idle).await;
        let (Some(slot), Some(chromium)) = (slot.upgrade(), chromium.upgrade()) else {
            return;
        };
        let mut current = slot.lock().await;
        let is_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &chromium));
        if !is_current {
            return;
        }
        // Nobody but the slot and this function has it, and nobody had since the last look.
        let now = Some(chromium.pages_left());
        if Arc::strong_count(&chromium) == 2 && pages == now {
            *current = None;
            return;
        }
        pages = now;
    }
}
