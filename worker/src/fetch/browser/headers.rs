//! The task's headers, on requests to the task's own origin only, and those of its credentials, on requests of their origin's own pages;
//! and the kinds of resources that the task does not load.
//!
//! `Network.setExtraHTTPHeaders` would send them to every host that a page names, so requests are intercepted instead; only for tasks
//! that have headers, since interception costs a round trip for each request. What is blocked costs one for each of its own kind.

use std::sync::Arc;

use chromiumoxide::cdp::browser_protocol::{
    fetch::{ContinueRequestParams, EnableParams, EventRequestPaused, FailRequestParams, HeaderEntry, RequestPattern},
    network::{ErrorReason, ResourceType},
    page::FrameId,
};
use futures::StreamExt;
use selextract_task::Resource;
use tokio::task::JoinHandle;
use url::{Origin, Url};

use super::{Opening, failed};
use crate::{access::Access, browser::Tab, fetch::FetchError};

/// Interception under way, for as long as its tab lives: a paused request that nobody answers hangs.
#[derive(Debug)]
pub(super) struct Interception(JoinHandle<()>);

/// Adds the headers to what the tab sends to the origin of `home` from now on, and to the credentials' origin theirs.
///
/// What is blocked is kept from being loaded.
pub(super) async fn add(tab: &Tab, opening: Opening<'_>) -> Result<Option<Interception>, FetchError> {
    let Opening {
        home, headers, block, ..
    } = opening;
    let access = opening.access.filter(|access| access.shows_headers()).cloned();
    let has_headers = !headers.is_empty() || access.is_some();
    let blocked: Vec<ResourceType> = block.iter().copied().map(kind).collect();
    if !has_headers && blocked.is_empty() {
        return Ok(None);
    }
    let page = tab.page.clone();
    let mut paused = page.event_listener::<EventRequestPaused>().await.map_err(failed)?;
    let everything = RequestPattern::builder().url_pattern("*");
    let enable = if has_headers {
        EnableParams::builder().pattern(everything.build())
    } else {
        let of_kind = |kind: &ResourceType| everything.clone().resource_type(kind.clone()).build();
        EnableParams::builder().patterns(blocked.iter().map(of_kind))
    };
    page.execute(enable.build()).await.map_err(failed)?;
    let mut rights = Rights {
        home: home.origin(),
        headers: headers.to_vec(),
        access,
        main: tab.frame.clone(),
        top: None,
    };
    let task = tokio::spawn(async move {
        while let Some(event) = paused.next().await {
            let page = page.clone();
            // Each in a task of its own: one that hangs must not hold up the others.
            if blocked.contains(&event.resource_type) {
                let refusal = FailRequestParams::new(event.request_id.clone(), ErrorReason::BlockedByClient);
                tokio::spawn(async move { page.execute(refusal).await.map(drop) });
            } else {
                let answer = rights.continuation(&event);
                tokio::spawn(async move { page.execute(answer).await.map(drop) });
            }
        }
    });
    Ok(Some(Interception(task)))
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
    /// The origin of the page in the main frame, as it was asked for last.
    top: Option<Origin>,
}

impl Rights {
    fn continuation(&mut self, event: &EventRequestPaused) -> ContinueRequestParams {
        let mut answer = ContinueRequestParams::new(event.request_id.clone());
        let Ok(url) = Url::parse(&event.request.url) else {
            return answer;
        };
        if event.resource_type == ResourceType::Document && event.frame_id == self.main {
            self.top = Some(url.origin());
        }
        let ours = self.headers_for(&url);
        if !ours.is_empty() {
            answer.headers = Some(with(event, ours));
        }
        answer
    }

    /// A page of another origin must not act with the run's credentials: what it loads from their origin carries none.
    fn headers_for(&self, url: &Url) -> Vec<(String, String)> {
        let origin = url.origin();
        let mut ours = if origin == self.home {
            self.headers.clone()
        } else {
            Vec::new()
        };
        let shown = self.access.as_ref().filter(|_| self.top.as_ref() == Some(&origin));
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
        self.0.abort();
    }
}
