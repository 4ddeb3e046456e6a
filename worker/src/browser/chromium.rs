//! One Chromium and its supervisor, which notices within seconds when it crashes or hangs, and then ends all of it.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use chromiumoxide::{Browser, Handler, handler::HandlerConfig};
use futures::StreamExt;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{BrowserError, BrowserSettings, ComeUpSnafu, Kind, group::Group, process::Process};
use crate::{cpu::Meter, telemetry::Metrics};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a command may wait for its answer; the page's deadline bounds the whole.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
const WATCH_TIMEOUT: Duration = Duration::from_secs(3);

/// A running Chromium. It ends when the last handle is dropped.
pub(super) struct Chromium {
    pub(super) browser: Browser,
    pub(super) kind: Kind,
    pub(super) meter: Arc<Meter>,
    /// What it calls itself, with our name added.
    pub(super) user_agent: String,
    /// Cancelled when it is gone.
    pub(super) gone: CancellationToken,
    released: CancellationToken,
    /// Pages that it may still load.
    pages_left: AtomicU32,
    retires_at: Instant,
    too_large: AtomicBool,
    max_memory: u64,
    metrics: Metrics,
}

impl Chromium {
    /// Starts one under supervision.
    pub(super) async fn launch(
        kind: Kind,
        settings: &BrowserSettings,
        metrics: &Metrics,
        supervisors: &TaskTracker,
    ) -> Result<Arc<Self>, BrowserError> {
        let process = Process::launch(kind, settings).await?;
        let (browser, handler) = connect(&process).await?;
        let group = process.group;
        let gone = CancellationToken::new();
        let released = CancellationToken::new();
        // Commands are answered only while the handler is polled, which from here on the supervisor does.
        let (ready, chromium) = tokio::sync::oneshot::channel::<Weak<Self>>();
        let supervisor = Supervisor {
            process,
            handler,
            gone: gone.clone(),
            released: released.clone(),
            metrics: metrics.clone(),
        };
        supervisors.spawn(supervisor.run(chromium));
        let ends_if_dropped = released.clone().drop_guard();
        let Ok(Ok(version)) = timeout(CONNECT_TIMEOUT, browser.version()).await else {
            return ComeUpSnafu {
                message: "its DevTools do not answer",
            }
            .fail();
        };
        ends_if_dropped.disarm();
        let chromium = Arc::new(Self {
            browser,
            kind,
            meter: Meter::new(move || group.cpu()),
            user_agent: settings.contact.behind(&version.user_agent),
            gone,
            released,
            pages_left: AtomicU32::new(settings.max_pages),
            retires_at: Instant::now() + settings.max_age,
            too_large: AtomicBool::new(false),
            max_memory: settings.max_memory,
            metrics: metrics.clone(),
        });
        let _ = ready.send(Arc::downgrade(&chromium));
        metrics.browser_started();
        tracing::info!(version = version.product, ?kind, "A browser came up.");
        Ok(chromium)
    }

    /// Whether it lives and is not due for retirement.
    pub(super) fn is_fresh(&self) -> bool {
        !self.gone.is_cancelled()
            && self.pages_left.load(Ordering::Relaxed) > 0
            && Instant::now() < self.retires_at
            && !self.too_large.load(Ordering::Relaxed)
    }

    /// Counts one page.
    pub(super) fn count_page(&self) {
        let _ = self
            .pages_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }

    /// A page had loaded so long after its navigation began.
    pub(super) fn page_loaded(&self, after: Duration) {
        self.metrics.browser_page_loaded(after);
    }

    /// Pages that it may still load.
    pub(super) fn pages_left(&self) -> u32 {
        self.pages_left.load(Ordering::Relaxed)
    }

    /// Lets it end with its last tab.
    pub(super) fn retire(&self) {
        self.pages_left.store(0, Ordering::Relaxed);
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.released.cancel();
    }
}

impl fmt::Debug for Chromium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chromium")
            .field("pages_left", &self.pages_left)
            .finish_non_exhaustive()
    }
}

async fn connect(process: &Process) -> Result<(Browser, Handler), BrowserError> {
    let config = HandlerConfig {
        // Its default accepts every certificate.
        ignore_https_errors: false,
        viewport: None,
        request_timeout: COMMAND_TIMEOUT,
        ..HandlerConfig::default()
    };
    let devtools = process.sieve.as_ref().map_or("", |sieve| &sieve.devtools);
    match timeout(CONNECT_TIMEOUT, Browser::connect_with_config(devtools, config)).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(error)) => ComeUpSnafu {
            message: error.to_string(),
        }
        .fail(),
        Err(_) => ComeUpSnafu {
            message: "its DevTools do not accept a connection",
        }
        .fail(),
    }
}

/// Owns the processes and the connection of one browser until their end.
struct Supervisor {
    process: Process,
    handler: Handler,
    gone: CancellationToken,
    released: CancellationToken,
    metrics: Metrics,
}

/// Why a browser ended; also the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Retired,
    Crashed,
    Hung,
}

impl Supervisor {
    async fn run(mut self, chromium: tokio::sync::oneshot::Receiver<Weak<Chromium>>) {
        let end = self.watch(chromium).await;
        self.gone.cancel();
        let label = match end {
            End::Retired => "retired",
            End::Crashed => "crashed",
            End::Hung => "hung",
        };
        if end != End::Retired {
            tracing::warn!(
                reason = label,
                log = self.process.log.tail(),
                "The browser failed; the next page starts another."
            );
        }
        self.metrics.browser_ended(label);
        self.process.end().await;
    }

    async fn watch(&mut self, chromium: tokio::sync::oneshot::Receiver<Weak<Chromium>>) -> End {
        let watchdog = watch_answers(chromium, self.process.group);
        tokio::pin!(watchdog);
        loop {
            tokio::select! {
                event = self.handler.next() => if !matches!(event, Some(Ok(()))) { return End::Crashed },
                _ = self.process.child.wait() => return End::Crashed,
                () = self.released.cancelled() => return End::Retired,
                () = &mut watchdog => return End::Hung,
            }
        }
    }
}

/// Ends when the browser does not answer any more. On the way it looks at its memory.
async fn watch_answers(chromium: tokio::sync::oneshot::Receiver<Weak<Chromium>>, group: Group) {
    let Ok(chromium) = chromium.await else {
        return std::future::pending().await;
    };
    loop {
        sleep(WATCH_INTERVAL).await;
        let Some(chromium) = chromium.upgrade() else {
            return std::future::pending().await;
        };
        if !matches!(timeout(WATCH_TIMEOUT, chromium.browser.version()).await, Ok(Ok(_))) {
            return;
        }
        if group.memory() > chromium.max_memory {
            chromium.too_large.store(true, Ordering::Relaxed);
        }
    }
}
