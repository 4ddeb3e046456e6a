//! What happens in a tab: its commits, what its pages request, how much comes, and whether it is more than a page may do.
//!
//! Events are taken in as they come, whatever else is done with the tab: what nobody reads would pile up in the worker's memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chromiumoxide::{
    Page,
    cdp::browser_protocol::{
        network::{EventLoadingFailed, EventLoadingFinished, EventRequestWillBeSent, RequestId, ResourceType},
        page::{EventFrameNavigated, FrameId},
    },
    listeners::EventStream,
};
use futures::StreamExt;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{BrowserError, tab::command};

/// A request that takes longer is one that waits for news, and is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most requests and documents of frames of one page: with more it keeps the worker busy with nothing but hearing of them.
pub(crate) const MOST: u32 = 10_000;

/// What happens in a tab, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Traffic {
    seen: Arc<Mutex<Seen>>,
    /// How many documents the main frame has had.
    commits: watch::Receiver<u64>,
    flooded: CancellationToken,
    led_too_far: CancellationToken,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct Seen {
    /// Requests under way, and since when.
    open: HashMap<RequestId, Instant>,
    /// When something changed last.
    last: Instant,
    /// Bytes that came and that no page was charged yet.
    bytes: f64,
    /// What the page has requested, and documents of its frames.
    count: u32,
}

struct Listener {
    sent: EventStream<EventRequestWillBeSent>,
    finished: EventStream<EventLoadingFinished>,
    failed: EventStream<EventLoadingFailed>,
    documents: EventStream<EventFrameNavigated>,
    main: FrameId,
    seen: Arc<Mutex<Seen>>,
    commits: watch::Sender<u64>,
}

impl Traffic {
    pub(super) async fn of(page: &Page, main: FrameId) -> Result<Self, BrowserError> {
        const WHAT: &str = "watching the tab";
        let seen = Arc::new(Mutex::new(Seen {
            open: HashMap::new(),
            last: Instant::now(),
            bytes: 0.0,
            count: 0,
        }));
        let (sender, commits) = watch::channel(0);
        let listener = Listener {
            sent: command(WHAT, page.event_listener()).await?,
            finished: command(WHAT, page.event_listener()).await?,
            failed: command(WHAT, page.event_listener()).await?,
            documents: command(WHAT, page.event_listener()).await?,
            main,
            seen: Arc::clone(&seen),
            commits: sender,
        };
        let flooded = CancellationToken::new();
        let floods = flooded.clone();
        let listening = tokio::spawn(async move {
            listener.listen().await;
            floods.cancel();
        });
        Ok(Self {
            seen,
            commits,
            flooded,
            led_too_far: CancellationToken::new(),
            listening,
        })
    }

    /// Counts anew, for another page or for more of one.
    pub(crate) fn begin(&self) {
        let mut seen = lock(&self.seen);
        seen.count = 0;
        seen.forget_old();
    }

    /// Cancelled when a page has done too much; nothing is listened to any more then.
    pub(crate) fn flooded(&self) -> &CancellationToken {
        &self.flooded
    }

    /// Cancelled when the main frame was led to an address that is too long to be told.
    pub(crate) fn led_too_far(&self) -> &CancellationToken {
        &self.led_too_far
    }

    /// Whether a page has done what ends with its tab.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.flooded.is_cancelled() || self.led_too_far.is_cancelled()
    }

    /// Changes with every document that the main frame gets from now on.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        let mut commits = self.commits.clone();
        commits.mark_unchanged();
        commits
    }

    /// Whether nothing was under way for so long.
    pub(crate) fn rests(&self, rest: Duration) -> bool {
        let mut seen = lock(&self.seen);
        seen.forget_old();
        seen.open.is_empty() && seen.last.elapsed() >= rest
    }

    /// Bytes of all answers since this was asked last; what still loads is not counted, so never less than the page itself.
    pub(crate) fn take_bytes(&self, at_least: usize) -> u64 {
        let bytes = std::mem::take(&mut lock(&self.seen).bytes);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a sum of sizes; the cast saturates"
        )]
        let bytes = bytes as u64;
        bytes.max(at_least as u64)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener {
    /// Until the page has done too much.
    async fn listen(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(sent) = self.sent.next() => {
                    let mut seen = lock(&self.seen);
                    if seen.floods() {
                        return;
                    }
                    if counts(sent.r#type.as_ref()) {
                        seen.open.insert(sent.request_id.clone(), Instant::now());
                        seen.last = Instant::now();
                    }
                }
                Some(document) = self.documents.next() => {
                    if document.frame.id == self.main {
                        self.commits.send_modify(|commits| *commits += 1);
                    } else if lock(&self.seen).floods() {
                        return;
                    }
                }
                Some(finished) = self.finished.next() => {
                    let mut seen = lock(&self.seen);
                    seen.bytes += finished.encoded_data_length.max(0.0);
                    seen.ended(&finished.request_id);
                }
                Some(failed) = self.failed.next() => lock(&self.seen).ended(&failed.request_id),
                // The browser is gone, and says so elsewhere.
                else => std::future::pending().await,
            }
        }
    }
}

impl Seen {
    /// Counts one more, and says whether that is too many.
    fn floods(&mut self) -> bool {
        self.count += 1;
        self.count > MOST
    }

    fn ended(&mut self, id: &RequestId) {
        if self.open.remove(id).is_some() {
            self.last = Instant::now();
        }
    }

    fn forget_old(&mut self) {
        self.open.retain(|_, since| since.elapsed() < PATIENCE);
    }
}

/// Streams of events, sockets and beacons do not bring content that is waited for.
fn counts(kind: Option<&ResourceType>) -> bool {
    !matches!(
        kind,
        Some(
            ResourceType::EventSource
                | ResourceType::WebSocket
                | ResourceType::Ping
                | ResourceType::CspViolationReport
                | ResourceType::Preflight
                | ResourceType::Media
        )
    )
}
