//! Which requests of a tab are under way.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chromiumoxide::{
    cdp::browser_protocol::network::{
        EventLoadingFailed, EventLoadingFinished, EventRequestWillBeSent, RequestId, ResourceType,
    },
    listeners::EventStream,
};
use futures::StreamExt;

use super::failed;
use crate::{browser::Tab, fetch::FetchError};

/// A request that takes longer is one that waits for news, and is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most requests that are remembered.
const MOST: usize = 10_000;

/// The requests of a tab, as its events tell them.
#[derive(Debug)]
pub(super) struct Traffic {
    sent: EventStream<EventRequestWillBeSent>,
    finished: EventStream<EventLoadingFinished>,
    failed: EventStream<EventLoadingFailed>,
    open: HashMap<RequestId, Instant>,
    last: Instant,
}

impl Traffic {
    pub(super) async fn of(tab: &Tab) -> Result<Self, FetchError> {
        let page = &tab.page;
        Ok(Self {
            sent: page.event_listener().await.map_err(failed)?,
            finished: page.event_listener().await.map_err(failed)?,
            failed: page.event_listener().await.map_err(failed)?,
            open: HashMap::new(),
            last: Instant::now(),
        })
    }

    /// Takes in what happens, for as long as it is polled.
    pub(super) async fn pump(&mut self) {
        loop {
            tokio::select! {
                biased;
                Some(sent) = self.sent.next() => {
                    if counts(sent.r#type.as_ref()) && self.open.len() < MOST {
                        self.open.insert(sent.request_id.clone(), Instant::now());
                        self.last = Instant::now();
                    }
                }
                Some(finished) = self.finished.next() => self.ended(&finished.request_id),
                Some(failed) = self.failed.next() => self.ended(&failed.request_id),
                else => std::future::pending().await,
            }
        }
    }

    fn ended(&mut self, id: &RequestId) {
        if self.open.remove(id).is_some() {
            self.last = Instant::now();
        }
    }

    /// Whether nothing was under way for so long.
    pub(super) fn rests(&mut self, rest: Duration) -> bool {
        self.open.retain(|_, since| since.elapsed() < PATIENCE);
        self.open.is_empty() && self.last.elapsed() >= rest
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
