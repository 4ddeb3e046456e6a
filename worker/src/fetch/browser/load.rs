//! One page on its way: from its navigation to its text.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use chromiumoxide::types::CommandResponse;
use chromiumoxide::{
    cdp::browser_protocol::{
        network::{EventRequestWillBeSent, EventResponseReceived, ResourceType},
        page::{FrameId, NavigateParams, NavigateReturns},
    },
    error::CdpError,
    listeners::EventStream,
};
use futures::StreamExt;
use selextract_task::Wait;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{sleep, sleep_until, timeout},
};
use url::Url;

use super::{Errand, answer::Answer, captures, failed, steps, waits, world::World};
use crate::{
    access::Access,
    browser::Tab,
    content::Content,
    fetch::{
        BrowserSnafu, ConnectionSnafu, FetchError, Freshness, MAX_BYTES, Page, SchemeSnafu, http::MAX_REDIRECTS,
        millis, shortened,
    },
};

/// The part of the page's time after which a page that still loads is read as it is (a sub-resource that hangs, an endless frame).
const PATIENCE: f64 = 0.75;
/// How long a page that was read may go on loading.
const LINGER: Duration = Duration::from_secs(1);
/// How often an impatient load looks whether there is a document at all.
const POLL: Duration = Duration::from_millis(100);
/// How often a page may go elsewhere while it is read.
const MOST_LEAVES: u32 = 10;
/// The answer's event may come a moment after the end of a navigation that it made fail.
const ANSWER_DELAY: Duration = Duration::from_millis(200);

/// How far a page has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The server's answer is one that is read.
    answered: bool,
    /// The navigation is over.
    loaded: bool,
    /// What was wanted of the page was read.
    read: bool,
}

/// One page on its way.
pub(super) struct Load<'t> {
    tab: &'t Tab,
    access: Option<&'t Access>,
    patient_until: Instant,
    progress: watch::Sender<Progress>,
}

impl<'t> Load<'t> {
    pub(super) fn new(tab: &'t Tab, access: Option<&'t Access>, timeout: Duration) -> Self {
        Self {
            tab,
            access,
            patient_until: Instant::now() + timeout.mul_f64(PATIENCE),
            progress: watch::Sender::default(),
        }
    }

    /// Whether the navigation is over.
    pub(super) fn has_loaded(&self) -> bool {
        self.progress.borrow().loaded
    }

    /// Whether the page was read, and only the rest of it is still waited for.
    pub(super) fn has_read(&self) -> bool {
        self.progress.borrow().read
    }

    pub(super) async fn run(&self, url: &Url, errand: &Errand<'_>) -> Result<Page, FetchError> {
        let page = &self.tab.page;
        let mut answers = page.event_listener::<EventResponseReceived>().await.map_err(failed)?;
        let mut requests = page.event_listener::<EventRequestWillBeSent>().await.map_err(failed)?;
        let mut world = World::of(self.tab);
        let navigation = self.navigate(url, &mut answers);
        tokio::pin!(navigation);
        let page = tokio::select! {
            biased;
            page = self.act(&mut world, errand) => page,
            error = too_many_redirects(&mut requests, &self.tab.frame) => Err(error),
            Err(error) = &mut navigation => Err(error),
        }?;
        self.progress.send_modify(|progress| progress.read = true);
        // The rest of a page that was read early comes soon as a rule, and then the tab serves for the next one.
        let end = self.patient_until.min(Instant::now() + LINGER);
        if !self.has_loaded() {
            let mut progress = self.progress.subscribe();
            tokio::select! {
                _ = progress.wait_for(|progress| progress.loaded) => {}
                _ = navigation => {}
                () = sleep_until(end.into()) => {}
            }
        }
        Ok(Page {
            bytes: self.tab.traffic.take_bytes(page.text.len()),
            ..page
        })
    }

    /// Navigates, and looks at every document's answer for as long as it is polled.
    async fn navigate(
        &self,
        url: &Url,
        answers: &mut EventStream<EventResponseReceived>,
    ) -> Result<Infallible, FetchError> {
        // It ends when the page and all of its frames have loaded, so the page is looked at while it is under way.
        let began = Instant::now();
        let navigation = self.tab.page.execute(NavigateParams::new(url.as_str()));
        tokio::pin!(navigation);
        loop {
            tokio::select! {
                biased;
                Some(event) = answers.next() => self.take_answer(url, &event)?,
                ended = &mut navigation, if !self.has_loaded() => {
                    if let Err(error) = check_navigation(ended) {
                        return Err(self.explained(url, answers, error).await);
                    }
                    self.tab.page_loaded(began.elapsed());
                    self.progress.send_modify(|progress| progress.loaded = true);
                }
            }
        }
    }

    fn take_answer(&self, url: &Url, event: &EventResponseReceived) -> Result<(), FetchError> {
        if event.r#type == ResourceType::Document && event.frame_id.as_ref() == Some(&self.tab.frame) {
            let answer = Answer::from(&event.response);
            answer.check(url).map_err(|error| answer.judged(self.access, error))?;
            answer.check_session(url, self.access)?;
            self.progress.send_modify(|progress| progress.answered = true);
        }
        Ok(())
    }

    /// A navigation that failed because of what the server answered fails by that.
    async fn explained(
        &self,
        url: &Url,
        answers: &mut EventStream<EventResponseReceived>,
        failure: FetchError,
    ) -> FetchError {
        while let Ok(Some(event)) = timeout(ANSWER_DELAY, answers.next()).await {
            if let Err(answered) = self.take_answer(url, &event) {
                return answered;
            }
        }
        failure
    }

    async fn act(&self, world: &mut World<'_>, errand: &Errand<'_>) -> Result<Page, FetchError> {
        let mut progress = self.progress.subscribe();
        // Its sender lives as long as this does.
        let _ = progress.wait_for(|progress| progress.answered).await;
        world.commit().await;
        if errand.waits.is_empty() || !errand.steps.is_empty() {
            self.loaded(world, &mut progress).await?;
        }
        steps::run(world, &errand.steps).await?;
        let page = hold_and_read(world, errand.waits).await?;
        captures::take(world, page, &errand.captures).await
    }

    /// Until the page has loaded, or has taken so long that it is used as it is.
    async fn loaded(&self, world: &mut World<'_>, progress: &mut watch::Receiver<Progress>) -> Result<(), FetchError> {
        tokio::select! {
            biased;
            _ = progress.wait_for(|progress| progress.loaded) => return Ok(()),
            () = sleep_until(self.patient_until.into()) => {}
        }
        loop {
            if self.has_loaded() || world.call(PARSED, &[]).await? == Some(Value::Bool(true)) {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
}

const PARSED: &str = "() => document.readyState !== 'loading'";

/// The DOM, when all of it has come, or a while later; if it is not too large: its size is looked at before it leaves Chromium.
/// Script can put half of a UTF-16 pair into it, which no JSON of ours may hold: it is read as U+FFFD, as browsers send it.
const READ: &str = r"async (most, ms) => {
    if (document.readyState === 'loading') await new Promise(done => {
        document.addEventListener('readystatechange', done, { once: true });
        setTimeout(done, ms);
    });
    const html = document.documentElement?.outerHTML ?? '';
    return [location.href, html.length <= most ? html.toWellFormed() : null];
}";
/// How long a page is waited for whose conditions hold while it still comes: a list may be half there.
const PARSING: Duration = Duration::from_secs(5);

/// Waits until the conditions hold in the document that is there then, and reads it.
pub(super) async fn hold_and_read(world: &mut World<'_>, conditions: &[Wait]) -> Result<Page, FetchError> {
    for _ in 0..MOST_LEAVES {
        waits::hold(world, conditions).await?;
        if let Some(page) = read(world).await? {
            return Ok(page);
        }
        sleep(POLL).await;
    }
    Err(left())
}

pub(super) fn left() -> FetchError {
    ConnectionSnafu {
        message: "the page navigated away while it was read",
    }
    .build()
}

/// Reads the page as it is. `None` when it went elsewhere meanwhile.
pub(super) async fn read(world: &mut World<'_>) -> Result<Option<Page>, FetchError> {
    let Some(Value::Array(parts)) = world.call(READ, &[MAX_BYTES.into(), millis(PARSING).into()]).await? else {
        return Ok(None);
    };
    let mut parts = parts.into_iter();
    let (Some(Value::String(address)), Some(html)) = (parts.next(), parts.next()) else {
        return BrowserSnafu {
            message: "the page cannot be read",
        }
        .fail();
    };
    let url = web_url(&address)?;
    let text = match html {
        Value::String(html) if html.len() <= MAX_BYTES => html,
        _ => return Err(FetchError::TooLarge),
    };
    Ok(Some(Page {
        url,
        content: Content::Html,
        text,
        bytes: 0,
        freshness: Freshness::Unknown,
        captures: Vec::new(),
    }))
}

/// Ends when the main frame's page is redirected more often than is followed by HTTP; Chromium itself follows twenty.
async fn too_many_redirects(requests: &mut EventStream<EventRequestWillBeSent>, main: &FrameId) -> FetchError {
    let mut hops = 0;
    while let Some(event) = requests.next().await {
        if event.r#type == Some(ResourceType::Document) && event.frame_id.as_ref() == Some(main) {
            hops = if event.redirect_response.is_some() { hops + 1 } else { 0 };
        }
        if hops > MAX_REDIRECTS {
            return FetchError::TooManyRedirects { limit: MAX_REDIRECTS };
        }
    }
    std::future::pending().await
}

/// A navigation that ended in an error page. One that only did not end in time is none: what there is will be read.
fn check_navigation(ended: Result<CommandResponse<NavigateReturns>, CdpError>) -> Result<(), FetchError> {
    match ended.map(|ended| ended.result.error_text) {
        Ok(None) | Err(CdpError::Timeout) => Ok(()),
        Ok(Some(text)) => ConnectionSnafu {
            message: shortened(&text),
        }
        .fail(),
        Err(error) => Err(failed(error)),
    }
}

/// Script may lead anywhere; what is read must be a web page.
fn web_url(address: &str) -> Result<Url, FetchError> {
    match Url::parse(address) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        _ => SchemeSnafu {
            target: shortened(address),
        }
        .fail(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_pages_are_read() {
        for address in [
            "file:///etc/passwd",
            "chrome://version",
            "about:blank",
            "data:text/html,x",
            "chrome-error://x/",
        ] {
            assert!(matches!(web_url(address), Err(FetchError::Scheme { .. })), "{address}");
        }
        assert!(web_url("http://site.test/").is_ok());
    }
}
