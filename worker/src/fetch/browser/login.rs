//! A run's cookies in its tab, and logging in by a site's form: the fields are entered as a person enters them, the password is no part
//! of any script, and nothing is entered into a page or sent by a form of another origin.

use std::time::{Duration, Instant, UNIX_EPOCH};

use chromiumoxide::{
    cdp::browser_protocol::{
        emulation::SetFocusEmulationEnabledParams,
        input::InsertTextParams,
        network::{
            Cookie, CookieParam, EventResponseReceived, GetCookiesParams, ResourceType, SetCookiesParams,
            TimeSinceEpoch,
        },
    },
    listeners::EventStream,
};
use futures::{FutureExt, StreamExt};
use selextract_task::{
    Awaited, Wait, WaitState,
    credentials::{FormLogin, LoginSuccess},
};
use serde_json::{Value, json};
use tokio::time::sleep;
use url::Url;

use super::{BrowserError, Errand, FetchError, Leave, Session, alive, answer::Answer, by_leave, failed, world::World};
use crate::{
    access::{
        Access,
        http_login::{check_words, failed as login_failed},
        jar::Kept,
        login::Came,
    },
    browser::Tab,
    failure::Failure,
};

/// How often the page is asked after the form was sent.
const POLL: Duration = Duration::from_millis(50);
/// How long the login's page and then its answer may take, each.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long a page that came after the login may go on asking for the password.
const SETTLES: Duration = Duration::from_secs(2);

/// Puts the run's cookies into the tab's context.
pub(super) async fn set_cookies(tab: &Tab, access: Option<&Access>) -> Result<(), FetchError> {
    let cookies = access.map(Access::cookies).unwrap_or_default();
    let cookies: Vec<CookieParam> = cookies.into_iter().map(param).collect();
    if !cookies.is_empty() {
        tab.page.execute(SetCookiesParams::new(cookies)).await.map_err(failed)?;
    }
    Ok(())
}

fn param(cookie: Kept) -> CookieParam {
    let scheme = if cookie.secure { "https" } else { "http" };
    let mut param = CookieParam::new(cookie.name, cookie.value);
    param.secure = Some(cookie.secure);
    if cookie.host_only {
        param.url = Some(format!("{scheme}://{}/", cookie.domain));
    } else {
        param.domain = Some(format!(".{}", cookie.domain));
    }
    param.path = Some(cookie.path);
    let lasts = cookie.expires.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
    param.expires = lasts.map(|lasts| TimeSinceEpoch::new(lasts.as_secs_f64()));
    param
}

/// Takes the cookies of the tab's context for the run.
async fn take_cookies(tab: &Tab, access: &Access) -> Result<(), FetchError> {
    access.take_cookies(tab.cookies().await?.into_iter().map(kept).collect());
    Ok(())
}

fn kept(cookie: Cookie) -> Kept {
    let of_domain = cookie.domain.strip_prefix('.').map(str::to_owned);
    let lasts = Duration::try_from_secs_f64(cookie.expires)
        .ok()
        .filter(|_| !cookie.session);
    Kept {
        name: cookie.name,
        value: cookie.value,
        host_only: of_domain.is_none(),
        domain: of_domain.unwrap_or(cookie.domain),
        path: cookie.path,
        secure: cookie.secure,
        expires: lasts.and_then(|lasts| UNIX_EPOCH.checked_add(lasts)),
    }
}

impl Session {
    /// Logs in by the form of the run's credentials, once for this tab, where its cookies have no session yet. Leave is asked for each of the
    /// login's documents.
    ///
    /// # Errors
    /// `LoginFailed`, or why the login page could not be had; or what is said in place of leave.
    pub async fn enter<L: Leave + Send>(&mut self, leave: L) -> Result<(), L::Refusal>
    where
        L::Refusal: From<Failure>,
    {
        let Some(access) = self.access.clone().filter(|access| access.form().is_some()) else {
            return Ok(());
        };
        if self.entered {
            return Ok(());
        }
        match access.begin_login().await? {
            None => self.bring_cookies().await.map_err(Failure::from)?,
            Some(entering) => {
                let came = self.log_in(&access, (entering.page, entering.form), leave).await;
                entering.ended(came).await?;
            }
        }
        self.entered = true;
        Ok(())
    }

    /// Gives the tab the run's cookies, for what was done by HTTP meanwhile.
    ///
    /// # Errors
    /// [`FetchError::Browser`].
    pub async fn bring_cookies(&self) -> Result<(), FetchError> {
        alive(&self.tab, set_cookies(&self.tab, self.access.as_deref())).await
    }

    /// Gives the run the tab's cookies, for what is done by HTTP or in another tab next.
    ///
    /// # Errors
    /// [`FetchError::Browser`].
    pub async fn keep_cookies(&self) -> Result<(), FetchError> {
        match &self.access {
            Some(access) => alive(&self.tab, take_cookies(&self.tab, access)).await,
            None => Ok(()),
        }
    }

    /// Logs in; the run has the tab's cookies then.
    async fn log_in<L: Leave + Send>(
        &mut self,
        access: &Access,
        (page, login): (&Url, &FormLogin),
        mut leave: L,
    ) -> Result<Came, L::Refusal>
    where
        L::Refusal: From<Failure>,
    {
        let may_be_in = access.has_cookies(page);
        let waits = [Wait {
            what: Awaited::Element {
                selector: login.password_field.clone(),
                state: WaitState::Present,
                text: None,
            },
            timeout: PATIENCE,
        }];
        let errand = Errand {
            // Whom the site leads away sees no such field.
            waits: if may_be_in { &[] } else { &waits },
            ..Errand::default()
        };
        leave.ask(page).await?;
        let asked = self.fetch_by_leave(page, &errand, PATIENCE * 2, &mut leave).await?;
        asked.map_err(Failure::from)?;
        let gone = self.tab.gone().clone();
        // Stays so when the caller's time is over and this future is dropped.
        self.reusable = false;
        let form = Form {
            tab: &self.tab,
            page,
            login,
        };
        let entering = async {
            if may_be_in && form.is_inside().await? {
                return Ok(Came::In);
            }
            form.run().await
        };
        let entered = by_leave(&mut self.requests, None, Box::pin(entering), || false, leave);
        let came = tokio::select! {
            biased;
            () = gone.cancelled() => return Err(Failure::from(FetchError::from(BrowserError::Gone)).into()),
            entered = entered => entered??,
        };
        self.reusable = !gone.is_cancelled();
        self.keep_cookies().await.map_err(Failure::from)?;
        Ok(came)
    }
}

/// A login page that has loaded.
struct Form<'t> {
    tab: &'t Tab,
    page: &'t Url,
    login: &'t FormLogin,
}

impl Form<'_> {
    /// Whether the site has led a member away from its login page; otherwise the form is there. It is believed only where all holds that
    /// tells a login that went well, but for the status, which is that of the form's answer.
    async fn is_inside(&self) -> Result<bool, Failure> {
        const PLACE: &str = "() => document.readyState === 'complete' ? [location.origin, location.pathname] : null";
        let (started, mut away_since) = (Instant::now(), None);
        let success = self.login.success.clone().unwrap_or_default();
        loop {
            if self.matches(&self.login.password_field).await? {
                return Ok(false);
            }
            let place = self.call(PLACE).await?.unwrap_or_default();
            let part = |index: usize| place.get(index).and_then(Value::as_str);
            let is_away =
                part(0) == Some(&self.page.origin().ascii_serialization()) && part(1) != Some(self.page.path());
            let cookies = self.cookies(&success).await?;
            let has_cookie = success.cookie.as_ref().is_none_or(|name| cookies.contains(name));
            let has_element = match &success.selector {
                Some(selector) => self.matches(selector).await?,
                None => true,
            };
            if is_away && has_cookie && has_element {
                // A form may still come.
                if away_since.get_or_insert_with(Instant::now).elapsed() > SETTLES {
                    return Ok(true);
                }
            } else {
                away_since = None;
            }
            if started.elapsed() > PATIENCE {
                return Err(login_failed("the login page has no field for the password"));
            }
            sleep(POLL).await;
        }
    }

    /// Fills the form in and sends it. The session may be in this tab alone where the login has left something in its storage.
    async fn run(&self) -> Result<Came, Failure> {
        let tab = self.tab;
        let mut answers = tab
            .page
            .event_listener::<EventResponseReceived>()
            .await
            .map_err(failed)?;
        self.check().await?;
        let focus = SetFocusEmulationEnabledParams::new(true);
        tab.page.execute(focus).await.map_err(failed)?;
        self.fill(&self.login.username_field, self.login.username.expose())
            .await?;
        for (name, value) in &self.login.extra {
            self.set(name, value.expose()).await?;
        }
        self.fill(&self.login.password_field, self.login.password.expose())
            .await?;
        // What the page's script did meanwhile must not have led the password elsewhere.
        self.check().await?;
        let stored = self.stored().await?;
        self.submit().await?;
        if let Some(failure) = self.wait(&mut answers).await? {
            return Ok(Came::Refused(failure));
        }
        let stays_here = self.stored().await? != stored;
        Ok(if stays_here { Came::InATab } else { Came::In })
    }

    /// What the login's origin has in the tab's storage, by the names and lengths of it.
    async fn stored(&self) -> Result<Option<Value>, FetchError> {
        let origin = json!(self.page.origin().ascii_serialization());
        let script = format!(
            "() => location.origin !== {origin} ? '' :
                [localStorage, sessionStorage].map(stored => Object.keys(stored).map(key => key + ' ' + stored.getItem(key).length).join())"
        );
        self.call(&script).await
    }

    /// Refuses a page, or a form, of another origin.
    async fn check(&self) -> Result<(), Failure> {
        let found = self
            .script(
                "const form = field.form;
                 const action = form && form.getAttribute('action');
                 return [location.origin, new URL(action || location.href, document.baseURI).origin];",
                &self.login.password_field,
            )
            .await?;
        let origin = self.page.origin().ascii_serialization();
        let part = |index: usize| found.get(index).and_then(Value::as_str).unwrap_or_default();
        if part(0) != origin || part(1) != origin {
            return Err(login_failed("the login page or its form is of another origin"));
        }
        Ok(())
    }

    /// Enters a text as a keyboard does.
    async fn fill(&self, field: &str, text: &str) -> Result<(), Failure> {
        self.script("field.value = ''; field.focus(); return true;", field)
            .await?;
        let insert = InsertTextParams::new(text);
        self.tab.page.execute(insert).await.map_err(failed)?;
        let change = "field.dispatchEvent(new Event('change', { bubbles: true })); return true;";
        self.script(change, field).await.map(drop)
    }

    /// Sets a further field, of whatever kind.
    async fn set(&self, name: &str, value: &str) -> Result<(), Failure> {
        let script = format!(
            "field.value = {}; for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {{ bubbles: true }})); return true;",
            json!(value)
        );
        self.script(&script, &format!("[name={}]", json!(name))).await.map(drop)
    }

    async fn submit(&self) -> Result<(), Failure> {
        let (script, field) = match &self.login.submit {
            Some(submit) => ("field.click(); return true;", submit),
            None => (
                "if (!field.form) return null; field.form.requestSubmit(); return true;",
                &self.login.password_field,
            ),
        };
        match self.script(script, field).await {
            Ok(Value::Null) => Err(login_failed(
                "the field for the password is in no form; name the button in formLogin.submit",
            )),
            // A form may take its page away before the script has ended.
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Runs a script of ours with a field at hand.
    async fn script(&self, body: &str, selector: &str) -> Result<Value, Failure> {
        let literal = json!(selector);
        let script = format!(
            "() => {{ const field = document.querySelector({literal}); if (!field) return 'missing'; {body} }}"
        );
        match self.call(&script).await? {
            Some(Value::String(missing)) if missing == "missing" => {
                Err(login_failed(&format!("nothing in the login page matches {selector:?}")))
            }
            Some(value) => Ok(value),
            None => Ok(Value::Bool(false)),
        }
    }

    /// Calls a function of ours in the document that is there at the moment.
    async fn call(&self, function: &str) -> Result<Option<Value>, FetchError> {
        World::of(self.tab).call(function, &[]).await
    }

    async fn matches(&self, selector: &str) -> Result<bool, FetchError> {
        const MATCHES: &str = "selector => document.querySelector(selector) !== null";
        let found = World::of(self.tab).call(MATCHES, &[selector.into()]).await?;
        Ok(found == Some(Value::Bool(true)))
    }

    /// Waits for a login that went well. What it still lacks in the end, the site has refused; one that is down has not.
    async fn wait(&self, answers: &mut EventStream<EventResponseReceived>) -> Result<Option<Failure>, Failure> {
        let (started, mut status) = (Instant::now(), None);
        let mut asked_since = None;
        loop {
            sleep(POLL).await;
            while let Some(Some(event)) = answers.next().now_or_never() {
                if event.r#type == ResourceType::Document && event.frame_id.as_ref() == Some(&self.tab.frame) {
                    status = Some(Answer::from(&event.response).status());
                    asked_since = Some(Instant::now());
                }
            }
            let missing = self.missing(status).await?;
            let Some(failure) = missing else { return Ok(None) };
            let late =
                asked_since.is_some_and(|since: Instant| since.elapsed() > SETTLES) && self.login.success.is_none();
            if late || started.elapsed() > PATIENCE {
                let is_down = status.is_some_and(|status| status >= 500 || status == 429);
                return if is_down { Err(failure) } else { Ok(Some(failure)) };
            }
        }
    }

    /// What a login that went well still lacks.
    async fn missing(&self, status: Option<u16>) -> Result<Option<Failure>, Failure> {
        let success = self.login.success.clone().unwrap_or_default();
        let cookies = self.cookies(&success).await?;
        let words = check_words(&success, status.unwrap_or_default(), |name| {
            cookies.iter().any(|cookie| cookie == name)
        });
        if let Err(failure) = words {
            return Ok(Some(failure));
        }
        if let Some(selector) = &success.selector {
            let matches = self.matches(selector).await?;
            let why = || {
                login_failed(&format!(
                    "nothing in the page after it matches success.selector {selector:?}"
                ))
            };
            return Ok((!matches).then(why));
        }
        if self.login.success.is_some() {
            return Ok(None);
        }
        let loaded = self.call("() => document.readyState === 'complete'").await?;
        if let Some(status) = status.filter(|status| *status >= 400) {
            return Ok(Some(login_failed(&format!("the site answered {status}"))));
        }
        let asks = self.matches(&self.login.password_field).await? || loaded != Some(Value::Bool(true));
        Ok(asks.then(|| login_failed("the site asks for the password again")))
    }

    async fn cookies(&self, success: &LoginSuccess) -> Result<Vec<String>, Failure> {
        if success.cookie.is_none() {
            return Ok(Vec::new());
        }
        let of_page = GetCookiesParams::builder().url(self.page.as_str()).build();
        let found = self.tab.page.execute(of_page).await.map_err(failed)?;
        Ok(found.result.cookies.into_iter().map(|cookie| cookie.name).collect())
    }
}
