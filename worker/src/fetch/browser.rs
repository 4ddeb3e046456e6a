//! Fetching in Chromium: navigate, wait for what the plan names, read the DOM. The caller's text is never run as script.

mod answer;
mod headers;
mod login;
mod pool;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chromiumoxide::{
    cdp::{
        browser_protocol::{
            inspector::EventTargetCrashed,
            network::{EventLoadingFinished, EventRequestWillBeSent, EventResponseReceived, ResourceType},
            page::{CreateIsolatedWorldParams, FrameId, NavigateParams},
        },
        js_protocol::runtime::EvaluateParams,
    },
    error::CdpError,
    listeners::EventStream,
};
use futures::StreamExt;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};
use url::Url;

use super::{
    BrowserSnafu, ConnectionSnafu, FetchError, Freshness, MAX_BYTES, Page, SchemeSnafu, WaitingSnafu,
    http::MAX_REDIRECTS, shortened,
};
use crate::{
    access::Access,
    browser::{BrowserError, Browsers, Tab},
    content::Content,
};
use answer::Answer;
use headers::Interception;
use pool::Relay;

/// How often the page is asked whether it is ready.
const POLL: Duration = Duration::from_millis(50);
/// The part of the page's time after which a page that still loads is read as it is (a sub-resource that hangs, an endless frame).
const PATIENCE: f64 = 0.75;
/// Our scripts run in a world of their own, in which the page's script cannot have replaced anything.
const WORLD: &str = "selextract";

/// What has to be in a page, with the time for it.
pub type WaitConditions<'a> = &'a [(String, Duration)];

impl From<BrowserError> for FetchError {
    fn from(error: BrowserError) -> Self {
        Self::Browser {
            message: shortened(&error.to_string()),
        }
    }
}

/// A run's tab.
#[derive(Debug)]
pub struct Session {
    tab: Tab,
    _headers: Option<Interception>,
    reusable: bool,
    access: Option<Arc<Access>>,
    /// Whether the login that its access asks for was done in this tab.
    entered: bool,
    /// The tab's way out, where that is a pool of upstream proxies.
    relay: Option<Relay>,
}

impl Session {
    /// Opens a tab that sends these headers to the origin of `home`.
    ///
    /// # Errors
    /// [`FetchError::Browser`].
    pub async fn open(browsers: &Browsers, home: &Url, headers: &[(String, String)]) -> Result<Self, FetchError> {
        Self::set_up(browsers.open_tab().await?, (home, headers), None).await
    }

    /// The same, with the rights of a run; a login is done by [`Session::enter`].
    ///
    /// # Errors
    /// [`FetchError::Browser`].
    pub async fn open_with(
        browsers: &Browsers,
        home: &Url,
        headers: &[(String, String)],
        access: &Arc<Access>,
    ) -> Result<Self, FetchError> {
        let relay = match access.route() {
            Some(route) => Some(Relay::start(route).await?),
            None => None,
        };
        let tab = browsers.open_tab_by(relay.as_ref().map(Relay::url)).await?;
        let mut session = Self::set_up(tab, (home, headers), Some(Arc::clone(access))).await?;
        session.relay = relay;
        Ok(session)
    }

    async fn set_up(
        tab: Tab,
        (home, headers): (&Url, &[(String, String)]),
        access: Option<Arc<Access>>,
    ) -> Result<Self, FetchError> {
        let gone = tab.gone().clone();
        let set_up = async {
            login::set_cookies(&tab, access.as_deref()).await?;
            headers::add(&tab, (home, headers), access.clone()).await
        };
        let headers = tokio::select! {
            biased;
            () = gone.cancelled() => return Err(BrowserError::Gone.into()),
            headers = set_up => headers?,
        };
        Ok(Self {
            tab,
            _headers: headers,
            reusable: true,
            access,
            entered: false,
            relay: None,
        })
    }

    /// Whether the next page may be loaded in it. A tab that was left while it loaded would delay the next page.
    pub fn is_usable(&self) -> bool {
        self.reusable && self.tab.is_fresh()
    }

    /// Browser CPU that the run is charged so far.
    pub fn cpu(&self) -> Duration {
        self.tab.cpu()
    }

    /// Loads a page. The caller bounds the time, for all of it; `timeout` is what it grants.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&mut self, url: &Url, waits: WaitConditions<'_>, timeout: Duration) -> Result<Page, FetchError> {
        self.tab.count_page();
        // Stays so when the caller's time is over and this future is dropped.
        self.reusable = false;
        let mut load = Load {
            tab: &self.tab,
            access: self.access.as_deref(),
            started: Instant::now(),
            timeout,
            loaded: false,
        };
        let gone = self.tab.gone().clone();
        let page = tokio::select! {
            biased;
            () = gone.cancelled() => Err(BrowserError::Gone.into()),
            page = load.run(url, waits) => page,
        };
        self.reusable = load.loaded && !gone.is_cancelled();
        page
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.reusable {
            self.tab.suspect();
        }
    }
}

/// One page on its way.
struct Load<'t> {
    tab: &'t Tab,
    access: Option<&'t Access>,
    started: Instant,
    timeout: Duration,
    /// Whether the navigation is over.
    loaded: bool,
}

impl Load<'_> {
    async fn run(&mut self, url: &Url, waits: WaitConditions<'_>) -> Result<Page, FetchError> {
        let page = &self.tab.page;
        let mut crashes = page.event_listener::<EventTargetCrashed>().await.map_err(failed)?;
        let mut answers = page.event_listener::<EventResponseReceived>().await.map_err(failed)?;
        let mut ends = page.event_listener::<EventLoadingFinished>().await.map_err(failed)?;
        let mut requests = page.event_listener::<EventRequestWillBeSent>().await.map_err(failed)?;
        let renderer_end = async {
            if crashes.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        };
        let page = tokio::select! {
            biased;
            () = renderer_end => {
                self.tab.condemn_browser();
                BrowserSnafu { message: "the page crashed its process" }.fail()
            }
            error = too_many_redirects(&mut requests, &self.tab.frame) => Err(error),
            page = self.navigate_and_read(url, waits, &mut answers) => page,
        }?;
        Ok(Page {
            bytes: received(&mut ends, page.text.len()),
            ..page
        })
    }

    async fn navigate_and_read(
        &mut self,
        url: &Url,
        waits: WaitConditions<'_>,
        answers: &mut EventStream<EventResponseReceived>,
    ) -> Result<Page, FetchError> {
        // It ends when the page and all of its frames have loaded, so the page is looked at while it is under way.
        let navigation = self.tab.page.execute(NavigateParams::new(url.as_str()));
        tokio::pin!(navigation);
        let mut answer: Option<Answer> = None;
        let mut waiting = Waiting::new(waits);
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(event) = answers.next() => {
                    if event.r#type == ResourceType::Document && event.frame_id.as_ref() == Some(&self.tab.frame) {
                        answer = Some(Answer::from(&event.response));
                    }
                }
                ended = &mut navigation, if !self.loaded => {
                    self.loaded = true;
                    check_navigation(ended.map(|ended| ended.result.error_text))?;
                }
                _ = tick.tick() => {
                    let Some(answer) = &answer else { continue };
                    answer.check(url).map_err(|error| answer.judged(self.access, error))?;
                    answer.check_session(url, self.access)?;
                    if self.is_ready(&mut waiting).await? {
                        return self.read().await;
                    }
                }
            }
        }
    }

    /// Whether the page may be read: the conditions hold in their order; without any, it has loaded.
    async fn is_ready(&self, waiting: &mut Waiting<'_>) -> Result<bool, FetchError> {
        while let Some(selector) = waiting.current() {
            if !self.matches(selector).await? {
                return waiting.check_time().map(|()| false);
            }
            waiting.advance();
        }
        if waiting.had_any() || self.loaded {
            return Ok(true);
        }
        let impatient = self.started.elapsed() > self.timeout.mul_f64(PATIENCE);
        Ok(impatient && self.evaluate("document.readyState !== 'loading'").await? == Some(Value::Bool(true)))
    }

    async fn matches(&self, selector: &str) -> Result<bool, FetchError> {
        // As a JSON string it is a string for JavaScript too, whatever stands in it.
        let literal = Value::from(selector).to_string();
        let found = self
            .evaluate(&format!("document.querySelector({literal}) !== null"))
            .await?;
        Ok(found == Some(Value::Bool(true)))
    }

    /// The DOM, if it is not too large: its size is looked at inside Chromium, before it comes here.
    async fn read(&self) -> Result<Page, FetchError> {
        let script = format!(
            "(() => {{ const html = document.documentElement.outerHTML; \
             return [location.href, html.length <= {MAX_BYTES} ? html : null]; }})()"
        );
        let Some(Value::Array(parts)) = self.evaluate(&script).await? else {
            return ConnectionSnafu {
                message: "the page navigated away while it was read",
            }
            .fail();
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
        Ok(Page {
            url,
            content: Content::Html,
            text,
            bytes: 0,
            freshness: Freshness::Unknown,
        })
    }

    /// Runs a script of ours in our own world of the main frame. `None` when the document went away meanwhile.
    async fn evaluate(&self, script: &str) -> Result<Option<Value>, FetchError> {
        let page = &self.tab.page;
        let mut world = CreateIsolatedWorldParams::new(self.tab.frame.clone());
        world.world_name = Some(WORLD.into());
        let context = match page.execute(world).await {
            Ok(context) => context.result.execution_context_id,
            Err(CdpError::Chrome(_)) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut call = EvaluateParams::new(script);
        call.context_id = Some(context);
        call.return_by_value = Some(true);
        match page.execute(call).await {
            Ok(answer) if answer.result.exception_details.is_none() => Ok(answer.result.result.value),
            // An exception, or the context is gone.
            Ok(_) | Err(CdpError::Chrome(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

/// The wait conditions and how far they hold.
struct Waiting<'w> {
    all: WaitConditions<'w>,
    next: usize,
    since: Instant,
}

impl<'w> Waiting<'w> {
    fn new(all: WaitConditions<'w>) -> Self {
        Self {
            all,
            next: 0,
            since: Instant::now(),
        }
    }

    fn had_any(&self) -> bool {
        !self.all.is_empty()
    }

    fn current(&self) -> Option<&'w str> {
        self.all.get(self.next).map(|(selector, _)| selector.as_str())
    }

    fn advance(&mut self) {
        self.next += 1;
        self.since = Instant::now();
    }

    fn check_time(&self) -> Result<(), FetchError> {
        match self.all.get(self.next) {
            Some((selector, timeout)) if self.since.elapsed() > *timeout => WaitingSnafu {
                selector,
                timeout: *timeout,
            }
            .fail(),
            _ => Ok(()),
        }
    }
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
fn check_navigation(ended: Result<Option<String>, CdpError>) -> Result<(), FetchError> {
    match ended {
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

/// Bytes of all the page's answers so far; what still loads is not counted, so never less than the page itself.
fn received(ends: &mut EventStream<EventLoadingFinished>, at_least: usize) -> u64 {
    let mut bytes = 0.0;
    while let Some(Some(end)) = futures::FutureExt::now_or_never(ends.next()) {
        bytes += end.encoded_data_length.max(0.0);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a sum of sizes; the cast saturates"
    )]
    let bytes = bytes as u64;
    bytes.max(at_least as u64)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: CdpError) -> FetchError {
    BrowserSnafu {
        message: shortened(&error.to_string()),
    }
    .build()
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

    #[test]
    fn a_condition_that_is_late_names_its_selector() {
        let waits = [(".list".to_owned(), Duration::ZERO)];
        let waiting = Waiting::new(&waits);
        std::thread::sleep(Duration::from_millis(1));
        assert!(matches!(waiting.check_time(), Err(FetchError::Waiting { selector, .. }) if selector == ".list"));
    }
}
