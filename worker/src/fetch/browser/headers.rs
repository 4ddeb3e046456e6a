//! The task's headers, on requests to the task's own origin only, and those of its credentials, on requests of their origin's own pages;
//! the kinds of resources that the task does not load; and the main frame's documents, each of which is held until somebody lets it go on.
//!
//! `Network.setExtraHTTPHeaders` would send them to every host that a page names, so requests are intercepted instead; all of them only
//! for tasks that have headers, since interception costs a round trip for each request. Documents, and what is blocked, cost one for each
//! of their own kind.

use std::sync::{Arc, Mutex, PoisonError};

use chromiumoxide::{
    Page,
    cdp::browser_protocol::{
        fetch::{
            ContinueRequestParams, EnableParams, EventRequestPaused, FailRequestParams, HeaderEntry, RequestPattern,
        },
        network::{ErrorReason, ResourceType},
        page::FrameId,
    },
};
use futures::StreamExt;
use selextract_task::Resource;
use tokio::{sync::mpsc, task::JoinHandle};
use url::{Origin, Url};

use super::{Opening, failed};
use crate::{
    access::Access,
    browser::{TOO_LONG, Tab},
    fetch::FetchError,
};

/// The most documents of a tab that are held at a time. A further one for the main frame takes the place of the one before, so those that
/// are not heard of are not missed.
const HELD: usize = 16;

/// Interception under way, for as long as its tab lives: a paused request that nobody answers hangs.
#[derive(Debug)]
pub(super) struct Interception {
    answering: JoinHandle<()>,
    documents: mpsc::Receiver<HeldDocument>,
}

/// A document that the main frame asks for, and that is not asked for before it is let go on.
#[derive(Debug)]
pub(super) struct HeldDocument {
    /// Without a fragment.
    pub(super) url: Url,
    page: Page,
    answer: ContinueRequestParams,
    top: Arc<Mutex<Option<Origin>>>,
}

impl HeldDocument {
    pub(super) fn go_on(self) {
        *self.top.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.url.origin());
        // One that was given up meanwhile cannot go on.
        tokio::spawn(async move { self.page.execute(self.answer).await.map(drop) });
    }
}

impl Interception {
    /// The next document that the main frame asks for.
    pub(super) async fn held(&mut self) -> Option<HeldDocument> {
        self.documents.recv().await
    }

    /// Forgets what an earlier page asked for after it was read: the main frame goes elsewhere.
    pub(super) fn forget(&mut self) {
        while self.documents.try_recv().is_ok() {}
    }
}

/// Adds the headers to what the tab sends to the origin of `home` from now on, and to the credentials' origin theirs.
///
/// What is blocked is kept from being loaded, and the main frame's documents are held.
pub(super) async fn add(tab: &Tab, opening: Opening<'_>) -> Result<Interception, FetchError> {
    let Opening {
        home, headers, block, ..
    } = opening;
    let access = opening.access.filter(|access| access.shows_headers()).cloned();
    let has_headers = !headers.is_empty() || access.is_some();
    let blocked: Vec<ResourceType> = block.iter().copied().map(kind).collect();
    let page = tab.page.clone();
    let mut paused = page.event_listener::<EventRequestPaused>().await.map_err(failed)?;
    let everything = RequestPattern::builder().url_pattern("*");
    let enable = if has_headers {
        EnableParams::builder().pattern(everything.build())
    } else {
        let of_kind = |kind: &ResourceType| everything.clone().resource_type(kind.clone()).build();
        let kinds = blocked.iter().chain([&ResourceType::Document]);
        EnableParams::builder().patterns(kinds.map(of_kind))
    };
    page.execute(enable.build()).await.map_err(failed)?;
    let rights = Rights {
        home: home.origin(),
        headers: headers.to_vec(),
        access,
        main: tab.frame.clone(),
        top: Arc::default(),
    };
    let led_too_far = tab.traffic.led_too_far().clone();
    let (hold, documents) = mpsc::channel(HELD);
    let answering = tokio::spawn(async move {
        while let Some(event) = paused.next().await {
            let page = page.clone();
            // Each in a task of its own: one that hangs must not hold up the others.
            let is_too_long = event.request.url == TOO_LONG;
            if is_too_long && rights.is_for_main_frame(&event) {
                led_too_far.cancel();
            }
            if is_too_long || blocked.contains(&event.resource_type) {
                let refusal = FailRequestParams::new(event.request_id.clone(), ErrorReason::BlockedByClient);
                tokio::spawn(async move { page.execute(refusal).await.map(drop) });
                continue;
            }
            let answer = rights.continuation(&event);
            match Url::parse(&event.request.url) {
                Ok(url) if rights.is_for_main_frame(&event) => {
                    let top = Arc::clone(&rights.top);
                    let _ = hold.try_send(HeldDocument { url, page, answer, top });
                }
                _ => drop(tokio::spawn(async move { page.execute(answer).await.map(drop) })),
            }
        }
    });
    Ok(Interception { answering, documents })
}

/// What Chromium calls it.
const fn kind(kind: Resource) -> ResourceType {
    match kind {
        Resource::Image => ResourceType::Image,
        Resource::Font => ResourceType::Font,
        Resource::Media => ResourceType::Media,
        Resource::Stylesheet => ResourceType::Stylesheet,
        Resource::Script => ResourceType::Script,
    }
}

/// What requests are given.
struct Rights {
    home: Origin,
    headers: Vec<(String, String)>,
    access: Option<Arc<Access>>,
    main: FrameId,
    /// The origin of the page in the main frame, as it was let go on last.
    top: Arc<Mutex<Option<Origin>>>,
}

impl Rights {
    fn continuation(&self, event: &EventRequestPaused) -> ContinueRequestParams {
        let mut answer = ContinueRequestParams::new(event.request_id.clone());
        let Ok(url) = Url::parse(&event.request.url) else {
            return answer;
        };
        let top = if self.is_for_main_frame(event) {
            Some(url.origin())
        } else {
            self.top.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        let ours = self.headers_for(&url, top.as_ref());
        if !ours.is_empty() {
            answer.headers = Some(with(event, ours));
        }
        answer
    }

    fn is_for_main_frame(&self, event: &EventRequestPaused) -> bool {
        event.resource_type == ResourceType::Document && event.frame_id == self.main
    }

    /// A page of another origin must not act with the run's credentials: what it loads from their origin carries none.
    fn headers_for(&self, url: &Url, top: Option<&Origin>) -> Vec<(String, String)> {
        let origin = url.origin();
        let mut ours = if origin == self.home {
            self.headers.clone()
        } else {
            Vec::new()
        };
        let shown = self.access.as_ref().filter(|_| top == Some(&origin));
        if let Some((name, value)) = shown.and_then(|access| access.shown(url)) {
            ours.retain(|(other, _)| !other.eq_ignore_ascii_case(name.as_str()));
            // It was made of printable ASCII.
            ours.extend(
                value
                    .to_str()
                    .ok()
                    .map(|value| (name.as_str().to_owned(), value.to_owned())),
            );
        }
        ours
    }
}

/// The request's headers with ours over them.
fn with(event: &EventRequestPaused, ours: Vec<(String, String)>) -> Vec<HeaderEntry> {
    let sent = event.request.headers.inner().as_object().into_iter().flatten();
    let mut all: Vec<HeaderEntry> = sent
        .filter(|(name, _)| !ours.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)))
        .filter_map(|(name, value)| Some(HeaderEntry::new(name.clone(), value.as_str()?)))
        .collect();
    all.extend(ours.into_iter().map(|(name, value)| HeaderEntry::new(name, value)));
    all
}

impl Drop for Interception {
    fn drop(&mut self) {
        self.answering.abort();
    }
}
