//! A run's cookies in its tab, and logging in by a site's form: the fields are entered as a person enters them, the password is no part
//! of any script, and nothing is entered into a page or sent by a form of another origin.

use std::time::{Duration, Instant};

use chromiumoxide::{
    cdp::browser_protocol::{
        emulation::SetFocusEmulationEnabledParams,
        input::InsertTextParams,
        network::{CookieParam, EventResponseReceived, GetCookiesParams, ResourceType, SetCookiesParams},
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

use super::{Anywhere, BrowserError, Errand, FetchError, Session, answer::Answer, by_leave, failed, world::World};
use crate::{
    access::{
        Access,
        http_login::{check_words, failed as login_failed},
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
    let cookies: Vec<CookieParam> = access
        .map(Access::cookies)
        .unwrap_or_default()
        .into_iter()
        .map(|cookie| {
            let scheme = if cookie.secure { "https" } else { "http" };
            let mut param = CookieParam::new(cookie.name, cookie.value);
            param.secure = Some(cookie.secure);
            if cookie.host_only {
                param.url = Some(format!("{scheme}://{}/", cookie.domain));
            } else {
                param.domain = Some(format!(".{}", cookie.domain));
            }
            param.path = Some(cookie.path);
            param
        })
        .collect();
    if !cookies.is_empty() {
        tab.page.execute(SetCookiesParams::new(cookies)).await.map_err(failed)?;
    }
    Ok(())
}

impl Session {
    /// Logs in by the form of the run's credentials, once for this tab.
    ///
    /// # Errors
    /// `LoginFailed`, or why the login page could not be had.
    pub async fn enter(&mut self) -> Result<(), Failure> {
        let Some(access) = self.access.clone() else {
            return Ok(());
        };
        let Some((page, login)) = access.form().filter(|_| !self.entered) else {
            return Ok(());
        };
        let waits = [Wait {
            what: Awaited::Element {
                selector: login.password_field.clone(),
                state: WaitState::Present,
                text: None,
            },
            timeout: PATIENCE,
        }];
        let errand = Errand {
            waits: &waits,
            ..Errand::default()
        };
        self.fetch(page, &errand, PATIENCE * 2).await?;
        let gone = self.tab.gone().clone();
        // Stays so when the caller's time is over and this future is dropped.
        self.reusable = false;
        let form = Form {
            tab: &self.tab,
            page,
            login,
        };
        let entered = by_leave(&mut self.requests, None, Box::pin(form.run()), || false, Anywhere);
        tokio::select! {
            biased;
            () = gone.cancelled() => return Err(FetchError::from(BrowserError::Gone).into()),
            Ok(entered) = entered => entered?,
        }
        self.reusable = !gone.is_cancelled();
        self.entered = true;
        access.enter();
        Ok(())
    }
}

/// A login page that has loaded.
struct Form<'t> {
    tab: &'t Tab,
    page: &'t Url,
    login: &'t FormLogin,
}

impl Form<'_> {
    async fn run(&self) -> Result<(), Failure> {
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
        self.submit().await?;
        self.wait(&mut answers).await
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

    async fn wait(&self, answers: &mut EventStream<EventResponseReceived>) -> Result<(), Failure> {
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
            let Some(failure) = missing else { return Ok(()) };
            let late =
                asked_since.is_some_and(|since: Instant| since.elapsed() > SETTLES) && self.login.success.is_none();
            if late || started.elapsed() > PATIENCE {
                return Err(failure);
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
