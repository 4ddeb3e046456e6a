//! Fetching in Chromium: navigate, do the plan's steps, wait for what it names, read the DOM. The caller's text is never run as script.

mod answer;
mod captures;
mod headers;
mod load;
mod login;
mod more;
mod pointer;
mod pool;
mod steps;
mod waits;
mod world;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use chromiumoxide::{cdp::browser_protocol::inspector::EventTargetCrashed, error::CdpError};
use futures::StreamExt;
use selextract_task::{BrowserCapture, CaptureWhen, More, On, Plan, Resource, Step, Wait};
use url::{Position, Url};

use super::{BrowserSnafu, Capture, FetchError, Page, shortened};
use crate::{
    access::Access,
    browser::{BrowserError, Browsers, Kind, MOST, Tab},
};
use headers::Interception;
use load::Load;
use pool::Relay;
use world::World;

impl From<BrowserError> for FetchError {
    fn from(error: BrowserError) -> Self {
        match error {
            BrowserError::Gone => Self::BrowserGone,
            error => Self::Browser {
                message: shortened(&error.to_string()),
            },
        }
    }
}

/// What a run's tab is like.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'o> {
    /// What its browser loads.
    pub kind: Kind,
    /// The task's own URL.
    pub home: &'o Url,
    /// Headers that go to the origin of `home`.
    pub headers: &'o [(String, String)],
    /// What is not loaded, besides what its browser leaves out.
    pub block: &'o [Resource],
    /// The rights of its run; a login is done by [`Session::enter`].
    pub access: Option<&'o Arc<Access>>,
}

impl<'o> Opening<'o> {
    /// A lean tab for this task's URL.
    pub fn lean(home: &'o Url) -> Self {
        Self {
            kind: Kind::Lean,
            home,
            headers: &[],
            block: &[],
            access: None,
        }
    }

    /// What a plan needs.
    pub fn of(plan: &'o Plan, access: &'o Arc<Access>) -> Self {
        let visit = &plan.visit;
        Self {
            kind: if visit.is_full() { Kind::Full } else { Kind::Lean },
            home: &plan.url,
            headers: &plan.headers,
            block: visit.block.as_deref().unwrap_or_default(),
            access: Some(access),
        }
    }
}

/// What is done with a page before it is read.
#[derive(Clone, Debug, Default)]
pub struct Errand<'e> {
    /// Done in this order.
    pub steps: Vec<&'e Step>,
    /// Held in this order after that.
    pub waits: &'e [Wait],
    /// Taken when it is read.
    pub captures: Vec<&'e BrowserCapture>,
}

impl<'e> Errand<'e> {
    /// What a plan asks for on the run's first page, or on a later one.
    pub fn of(plan: &'e Plan, first: bool) -> Self {
        let visit = &plan.visit;
        Self {
            steps: visit
                .steps
                .iter()
                .filter(|step| first || step.on == On::EveryPage)
                .collect(),
            waits: &visit.waits,
            captures: visit.captures(CaptureWhen::EveryPage).collect(),
        }
    }
}

/// A run's tab.
#[derive(Debug)]
pub struct Session {
    tab: Tab,
    requests: Interception,
    reusable: bool,
    access: Option<Arc<Access>>,
    /// Whether the login that its access asks for was done in this tab.
    entered: bool,
    /// The tab's way out, where that is a pool of upstream proxies.
    _relay: Option<Relay>,
}

impl Session {
    /// Opens a tab.
    ///
    /// # Errors
    /// [`FetchError::Browser`].
    pub async fn open(browsers: &Browsers, opening: Opening<'_>) -> Result<Self, FetchError> {
        let relay = match opening.access.and_then(|access| access.route()) {
            Some(route) => Some(Relay::start(route).await?),
            None => None,
        };
        let tab = browsers
            .open_tab_by(opening.kind, relay.as_ref().map(Relay::url))
            .await?;
        let gone = tab.gone().clone();
        let set_up = async {
            login::set_cookies(&tab, opening.access.map(AsRef::as_ref)).await?;
            headers::add(&tab, opening).await
        };
        let requests = tokio::select! {
            biased;
            () = gone.cancelled() => return Err(BrowserError::Gone.into()),
            set_up = set_up => set_up?,
        };
        Ok(Self {
            tab,
            requests,
            reusable: true,
            access: opening.access.cloned(),
            entered: false,
            _relay: relay,
        })
    }

    /// Whether the next page may be loaded in it. A tab that was left while it loaded would delay the next page.
    pub fn is_usable(&self) -> bool {
        self.reusable && self.tab.is_fresh() && !self.tab.traffic.is_spoilt()
    }

    /// Browser CPU that the run is charged so far.
    pub fn cpu(&self) -> Duration {
        self.tab.cpu()
    }

    /// Loads a page. The caller bounds the time, for all of it; `timeout` is what it grants.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&mut self, url: &Url, errand: &Errand<'_>, timeout: Duration) -> Result<Page, FetchError> {
        let Ok(page) = self.fetch_by_leave(url, errand, timeout, Anywhere).await;
        page
    }

    /// The same, where leave is asked before the main frame asks for any other document.
    ///
    /// # Errors
    /// What is said in place of leave, and then the tab is not used again.
    pub async fn fetch_by_leave<L: Leave>(
        &mut self,
        url: &Url,
        errand: &Errand<'_>,
        timeout: Duration,
        leave: L,
    ) -> Result<Result<Page, FetchError>, L::Refusal> {
        self.tab.count_page();
        self.tab.traffic.begin();
        // Stays so when the caller's time is over and this future is dropped.
        self.reusable = false;
        let load = Load::new(&self.tab, self.access.as_deref(), timeout);
        self.requests.forget();
        let page = Box::pin(alive(&self.tab, load.run(url, errand)));
        let page = by_leave(&mut self.requests, Some(url), page, || load.has_read(), leave).await?;
        self.reusable = load.has_loaded() && !self.tab.gone().is_cancelled();
        Ok(page)
    }

    /// Brings more of the open page into it and reads it again. `None` when there is nothing to click on. The caller bounds the time. Leave is
    /// asked as in [`Session::fetch_by_leave`].
    ///
    /// # Errors
    /// What is said in place of leave; within it, see [`FetchError`].
    pub async fn bring_more<L: Leave>(
        &mut self,
        more: &More,
        errand: &Errand<'_>,
        timeout: Duration,
        leave: L,
    ) -> Result<Result<Option<Page>, FetchError>, L::Refusal> {
        self.tab.count_page();
        self.tab.traffic.begin();
        let bring = async |world: &mut World<'_>| {
            if !more::bring(world, more).await? {
                return Ok(None);
            }
            more::settle(world, more::REST, timeout).await?;
            let page = load::hold_and_read(world, errand.waits).await?;
            let page = captures::take(world, page, &errand.captures).await?;
            Ok(Some(Page {
                bytes: world.tab.traffic.take_bytes(0),
                ..page
            }))
        };
        self.act(bring, leave).await
    }

    /// Reads the open page again after a while without requests and changes.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn look_again(&mut self, timeout: Duration) -> Result<Page, FetchError> {
        let look = async |world: &mut World<'_>| {
            more::settle(world, more::LONG_REST, timeout).await?;
            load::hold_and_read(world, &[]).await
        };
        let Ok(page) = self.act(look, Nowhere).await;
        page
    }

    /// Captures the page as it is.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn capture(&mut self, captures: &[&BrowserCapture]) -> Result<Vec<Capture>, FetchError> {
        let capture = async |world: &mut World<'_>| {
            let page = load::read(world).await?.ok_or_else(load::left)?;
            Ok(captures::take(world, page, captures).await?.captures)
        };
        let Ok(captures) = self.act(capture, Nowhere).await;
        captures
    }

    /// Does something in the page that was fetched last.
    async fn act<T, L: Leave>(
        &mut self,
        what: impl AsyncFnOnce(&mut World<'_>) -> Result<T, FetchError>,
        leave: L,
    ) -> Result<Result<T, FetchError>, L::Refusal> {
        let was = std::mem::replace(&mut self.reusable, false);
        let done = Box::pin(alive(&self.tab, async { what(&mut World::of(&self.tab)).await }));
        let done = by_leave(&mut self.requests, None, done, || false, leave).await?;
        self.reusable = was && done.is_ok();
        Ok(done)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.reusable {
            self.tab.suspect();
        }
    }
}

/// Something in a tab whose main frame asks for the document that was asked for, and for others when there is leave; for none once it is
/// over.
async fn by_leave<T, L: Leave>(
    requests: &mut Interception,
    mut asked: Option<&Url>,
    what: impl Future<Output = T>,
    is_over: impl Fn() -> bool,
    mut leave: L,
) -> Result<T, L::Refusal> {
    tokio::pin!(what);
    loop {
        let document = tokio::select! {
            biased;
            done = &mut what => return Ok(done),
            Some(document) = requests.held() => document,
        };
        if is_over() {
            continue;
        }
        if asked.take().is_none_or(|asked| !is_same(asked, &document.url)) {
            tokio::select! {
                biased;
                done = &mut what => return Ok(done),
                leave = leave.ask(&document.url) => leave?,
            }
        }
        document.go_on();
    }
}

/// Whether these are one document.
fn is_same(one: &Url, other: &Url) -> bool {
    one[..Position::AfterQuery] == other[..Position::AfterQuery]
}

/// Who says whether another document than the page's own may be asked for: by the main frame, which a redirect or a script may lead
/// anywhere, or for a login.
pub trait Leave {
    /// What is said in place of leave; the page is given up.
    type Refusal;

    /// Waits until it may.
    fn ask(&mut self, url: &Url) -> impl Future<Output = Result<(), Self::Refusal>> + Send;
}

impl<L: Leave + Send> Leave for &mut L {
    type Refusal = L::Refusal;

    async fn ask(&mut self, url: &Url) -> Result<(), Self::Refusal> {
        (**self).ask(url).await
    }
}

/// Leave for whatever the main frame asks for.
pub struct Anywhere;

impl Leave for Anywhere {
    type Refusal = Infallible;

    async fn ask(&mut self, _: &Url) -> Result<(), Infallible> {
        Ok(())
    }
}

/// No leave, and no refusal: the main frame stays where it is.
struct Nowhere;

impl Leave for Nowhere {
    type Refusal = Infallible;

    async fn ask(&mut self, _: &Url) -> Result<(), Infallible> {
        std::future::pending().await
    }
}

/// Something in a tab, for as long as its browser and its renderer live.
async fn alive<T>(tab: &Tab, what: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    match watched(tab, what).await {
        // Its commands failed before anybody said why.
        Err(FetchError::Browser { .. }) if tab.gone().is_cancelled() => Err(FetchError::BrowserGone),
        done => done,
    }
}

async fn watched<T>(tab: &Tab, what: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    let mut crashes = tab.page.event_listener::<EventTargetCrashed>().await.map_err(failed)?;
    let renderer_end = async {
        if crashes.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = tab.gone().cancelled() => Err(BrowserError::Gone.into()),
        () = renderer_end => {
            tab.retire_browser();
            BrowserSnafu { message: "the page crashed its process" }.fail()
        }
        () = tab.traffic.flooded().cancelled() => Err(FetchError::Floods { limit: MOST }),
        () = tab.traffic.led_too_far().cancelled() => Err(FetchError::AddressTooLong),
        done = what => done,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: CdpError) -> FetchError {
    BrowserSnafu {
        message: shortened(&error.to_string()),
    }
    .build()
}

/// When something that may take this long must be over.
fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout
}
