//! A tab in a browser context of its own: one run's cookies, cache and storage, gone with it. Its dialogs are dismissed, its downloads refused.

use std::{future::Future, sync::Arc, time::Duration};

use chromiumoxide::{
    Page,
    cdp::{
        browser_protocol::{
            browser::{BrowserContextId, SetDownloadBehaviorBehavior, SetDownloadBehaviorParams},
            inspector, log,
            network::{BlockPattern, Cookie, SetBlockedUrLsParams, SetUserAgentOverrideParams},
            page::{DialogType, EventJavascriptDialogOpening, FrameId, HandleJavaScriptDialogParams},
            performance,
            storage::GetCookiesParams,
            target::{CreateBrowserContextParams, CreateTargetParams},
        },
        js_protocol::runtime::{self, EvaluateParams},
    },
    error::CdpError,
};
use futures::StreamExt;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{BrowserError, Kind, chromium::Chromium, traffic::Traffic};
use crate::cpu::Share;

/// For commands that do not wait for a site.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a renderer may take to say that it lives.
const LIFE_SIGN: Duration = Duration::from_secs(2);
/// What a lean browser does not load besides images and fonts, which its flags leave out.
const MEDIA: [&str; 10] = ["mp4", "m4v", "webm", "mov", "mp3", "m4a", "ogg", "oga", "ogv", "wav"];

/// A tab; its context is disposed when it is dropped.
#[derive(Debug)]
pub struct Tab {
    /// The page in it.
    pub(crate) page: Page,
    /// Its main frame, which keeps its id through all navigations.
    pub(crate) frame: FrameId,
    /// What happens in it.
    pub(crate) traffic: Traffic,
    context: Context,
    share: Share,
    _dialogs: Dialogs,
}

/// Answers dialogs for as long as it lives: a page stands still until somebody does.
#[derive(Debug)]
struct Dialogs(JoinHandle<()>);

/// A browser context; disposed when it is dropped.
#[derive(Debug)]
struct Context {
    chromium: Arc<Chromium>,
    id: BrowserContextId,
    /// The page of a tab that did not finish: its renderer may hang.
    suspect: Option<Page>,
}

impl Tab {
    pub(super) async fn open(chromium: Arc<Chromium>, proxy: Option<&Url>) -> Result<Self, BrowserError> {
        let gone = chromium.gone.clone();
        tokio::select! {
            biased;
            () = gone.cancelled() => Err(BrowserError::Gone),
            opened = Self::set_up(chromium, proxy) => opened,
        }
    }

    async fn set_up(chromium: Arc<Chromium>, proxy: Option<&Url>) -> Result<Self, BrowserError> {
        let share = chromium.meter.share();
        let context = Context::create(chromium, proxy).await?;
        let browser = &context.chromium.browser;
        let mut download = SetDownloadBehaviorParams::new(SetDownloadBehaviorBehavior::Deny);
        download.browser_context_id = Some(context.id.clone());
        command("refusing downloads", browser.execute(download)).await?;
        let mut target = CreateTargetParams::new("about:blank");
        target.browser_context_id = Some(context.id.clone());
        let page = command("opening a tab", browser.new_page(target)).await?;
        mute(&page).await?;
        command("watching for crashes", page.execute(inspector::EnableParams::default())).await?;
        if context.chromium.kind == Kind::Lean {
            let patterns = MEDIA.map(|ending| BlockPattern::new(format!("*://*:*/*.{ending}"), true));
            let block = SetBlockedUrLsParams::builder().url_patterns(patterns).build();
            command("leaving media out", page.execute(block)).await?;
        }
        let dialogs = Dialogs::of(&page).await?;
        let agent = SetUserAgentOverrideParams::new(context.chromium.user_agent.clone());
        command("naming ourselves", page.execute(agent)).await?;
        let frame = command("finding the main frame", page.mainframe())
            .await?
            .ok_or(BrowserError::NoAnswer {
                what: "finding the main frame",
            })?;
        let traffic = Traffic::of(&page, frame.clone()).await?;
        Ok(Self {
            page,
            frame,
            traffic,
            context,
            share,
            _dialogs: dialogs,
        })
    }

    /// Whether a further page may be loaded in it; otherwise a new tab comes in a fresh browser.
    pub fn is_fresh(&self) -> bool {
        self.context.chromium.is_fresh()
    }

    /// Browser CPU that its run is charged so far.
    pub fn cpu(&self) -> Duration {
        self.share.spent()
    }

    /// All cookies of its context. A tab itself tells only of those that it would send to URLs that it is asked about.
    pub(crate) async fn cookies(&self) -> Result<Vec<Cookie>, BrowserError> {
        let of_context = GetCookiesParams::builder().browser_context_id(self.context.id.clone());
        let answer = self.context.chromium.browser.execute(of_context.build());
        Ok(command("reading cookies", answer).await?.result.cookies)
    }

    /// Cancelled when the browser is gone.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.context.chromium.gone
    }

    /// Counts one page towards the browser's retirement.
    pub(crate) fn count_page(&self) {
        self.context.chromium.count_page();
    }

    /// A page had loaded so long after its navigation began.
    pub(crate) fn page_loaded(&self, after: Duration) {
        self.context.chromium.page_loaded(after);
    }

    /// Has its renderer asked for a sign of life when it is dropped.
    pub(crate) fn suspect(&mut self) {
        self.context.suspect = Some(self.page.clone());
    }

    /// Lets the browser end with its last tab, because this tab's renderer crashed: its neighbours have renderers of their own, but what
    /// made one crash may come from the browser's age or size.
    pub(crate) fn retire_browser(&self) {
        self.context.chromium.retire();
    }
}

/// Turns off what the DevTools client turns on and nobody here reads: a page's console would have a worker read whatever it is told.
async fn mute(page: &Page) -> Result<(), BrowserError> {
    const WHAT: &str = "muting the console";
    tokio::try_join!(
        command(WHAT, page.execute(runtime::DisableParams::default())),
        command(WHAT, page.execute(log::DisableParams::default())),
        command(WHAT, page.execute(performance::DisableParams::default())),
    )?;
    Ok(())
}

impl Dialogs {
    async fn of(page: &Page) -> Result<Self, BrowserError> {
        let opened = page.event_listener::<EventJavascriptDialogOpening>();
        let mut opened = command("watching for dialogs", opened).await?;
        let page = page.clone();
        Ok(Self(tokio::spawn(async move {
            while let Some(dialog) = opened.next().await {
                // Only a page that wants to be asked before it is left is told yes: it is being left.
                let accept = dialog.r#type == DialogType::Beforeunload;
                let answer = HandleJavaScriptDialogParams::new(accept);
                let _ = command("dismissing a dialog", page.execute(answer)).await;
            }
        })))
    }
}

impl Drop for Dialogs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Context {
    async fn create(chromium: Arc<Chromium>, proxy: Option<&Url>) -> Result<Self, BrowserError> {
        let mut params = CreateBrowserContextParams::builder().dispose_on_detach(true).build();
        if let Some(proxy) = proxy {
            let (host, port) = (
                proxy.host_str().unwrap_or_default(),
                proxy.port_or_known_default().unwrap_or(80),
            );
            params.proxy_server = Some(format!("http://{host}:{port}"));
            // As for the whole browser: nothing goes past the proxy.
            params.proxy_bypass_list = Some("<-loopback>".to_owned());
        }
        let id = command("opening a context", chromium.browser.create_browser_context(params)).await?;
        Ok(Self {
            chromium,
            id,
            suspect: None,
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.chromium.gone.is_cancelled() {
            return;
        }
        let (chromium, id, suspect) = (Arc::clone(&self.chromium), self.id.clone(), self.suspect.take());
        // Outside a runtime the program is ending, and the browser with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            if let Some(page) = suspect
                && !matches!(
                    timeout(LIFE_SIGN, page.execute(EvaluateParams::new("0"))).await,
                    Ok(Ok(_))
                )
            {
                // Chromium does not kill a renderer that does not hear it; it goes with the browser.
                chromium.retire();
            }
            let disposal = chromium.browser.dispose_browser_context(id);
            if command("disposing a context", disposal).await.is_err() {
                // What cannot be disposed must not pile up.
                chromium.retire();
            }
        });
    }
}

/// Awaits a command's answer for a bounded time.
pub(super) async fn command<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, CdpError>>,
) -> Result<T, BrowserError> {
    match timeout(COMMAND_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(BrowserError::Command {
            what,
            source: Box::new(source),
        }),
        Err(_) => Err(BrowserError::NoAnswer { what }),
    }
}
