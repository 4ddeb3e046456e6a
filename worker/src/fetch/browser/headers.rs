//! The task's headers, on requests to the task's own origin only.
//!
//! `Network.setExtraHTTPHeaders` would send them to every host that a page names, so requests are intercepted instead; only for tasks
//! that have headers, since interception costs a round trip for each request.

use chromiumoxide::cdp::browser_protocol::fetch::{
    ContinueRequestParams, EnableParams, EventRequestPaused, HeaderEntry, RequestPattern,
};
use futures::StreamExt;
use tokio::task::JoinHandle;
use url::Url;

use super::failed;
use crate::{browser::Tab, fetch::FetchError};

/// Interception under way, for as long as its tab lives: a paused request that nobody answers hangs.
#[derive(Debug)]
pub(super) struct Interception(JoinHandle<()>);

/// Adds the headers to what the tab sends to the origin of `home` from now on.
pub(super) async fn add(
    tab: &Tab,
    home: &Url,
    headers: &[(String, String)],
) -> Result<Option<Interception>, FetchError> {
    if headers.is_empty() {
        return Ok(None);
    }
    let page = tab.page.clone();
    let mut paused = page.event_listener::<EventRequestPaused>().await.map_err(failed)?;
    let everything = EnableParams::builder().pattern(RequestPattern::builder().url_pattern("*").build());
    page.execute(everything.build()).await.map_err(failed)?;
    let (home, headers) = (home.clone(), headers.to_vec());
    let task = tokio::spawn(async move {
        while let Some(event) = paused.next().await {
            let answer = continuation(&event, &home, &headers);
            let page = page.clone();
            // Each in a task of its own: one that hangs must not hold up the others.
            tokio::spawn(async move { page.execute(answer).await.map(drop) });
        }
    });
    Ok(Some(Interception(task)))
}

fn continuation(event: &EventRequestPaused, home: &Url, headers: &[(String, String)]) -> ContinueRequestParams {
    let mut answer = ContinueRequestParams::new(event.request_id.clone());
    let at_home = Url::parse(&event.request.url).is_ok_and(|url| url.origin() == home.origin());
    if at_home {
        let mut all: Vec<HeaderEntry> = event
            .request
            .headers
            .inner()
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| !headers.iter().any(|(ours, _)| ours.eq_ignore_ascii_case(name)))
            .filter_map(|(name, value)| Some(HeaderEntry::new(name.clone(), value.as_str()?)))
            .collect();
        all.extend(
            headers
                .iter()
                .map(|(name, value)| HeaderEntry::new(name.clone(), value.clone())),
        );
        answer.headers = Some(all);
    }
    answer
}

impl Drop for Interception {
    fn drop(&mut self) {
        self.0.abort();
    }
}
