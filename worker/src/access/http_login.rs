//! Logging in by HTTP: the login page, its form with the credentials entered, and what came of it. Never beyond the credentials' origin
//! with anything secret; its redirects may lead on, as those of single sign-on do.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use selextract_task::credentials::{FormLogin, LoginSuccess};
use url::{Url, form_urlencoded};

use super::{
    Access,
    form::{self, Filled},
    login::Came,
};
use crate::{
    extract::tree,
    failure::Failure,
    fetch::{FetchError, browser::Leave, http::Http},
};

/// The class of logins that did not go well.
pub(super) const FAILED: &str = "LoginFailed";
const MAX_REDIRECTS: usize = 10;
/// The most time that reading a login's page may take.
const PARSING: Duration = Duration::from_secs(5);
/// The most bytes of a login's page that are read.
const MAX_PAGE: usize = 2 << 20;

/// Where a request arrived in the end.
#[derive(Clone)]
struct Landing {
    url: Url,
    status: StatusCode,
    /// Cut off where it grows too large.
    text: String,
}

/// Logs in if that is due. Leave is asked for each of the login's documents.
///
/// # Errors
/// `LoginFailed`, or what kept the site from answering; or what is said in place of leave.
pub async fn enter<L: Leave>(http: &Http, access: &Access, mut leave: L) -> Result<(), L::Refusal>
where
    L::Refusal: From<Failure>,
{
    let Some(entering) = access.begin_login().await? else {
        return Ok(());
    };
    let came = log_in(http, access, (entering.page, entering.form), &mut leave).await;
    entering.ended(came).await
}

async fn log_in<L: Leave>(
    http: &Http,
    access: &Access,
    (page, login): (&Url, &FormLogin),
    leave: &mut L,
) -> Result<Came, L::Refusal>
where
    L::Refusal: From<Failure>,
{
    let may_be_in = access.has_cookies(page);
    let asked = land(http, access, (page, None), leave).await?;
    if asked.url.origin() != page.origin() {
        return Err(failed("the login page redirects to another origin").into());
    }
    if !asked.status.is_success() {
        return Err(status_failure(asked.status).into());
    }
    let led_away = may_be_in && asked.url.path() != page.path();
    if led_away && is_inside(asked.clone(), access, page, login).await? {
        return Ok(Came::In);
    }
    let filled = fill(asked, login.clone()).await?;
    let answer = land(http, access, (&filled.action, Some(&filled.fields)), leave).await?;
    match check(answer, access, page, login).await {
        Ok(()) => Ok(Came::In),
        Err(failure) if failure.class == FAILED => Ok(Came::Refused(failure)),
        Err(failure) => Err(failure.into()),
    }
}

/// The failure of a login, for people.
pub(crate) fn failed(why: &str) -> Failure {
    Failure::permanent(FAILED, format!("the login failed: {why}"))
}

/// A site that is down says nothing about the credentials.
fn status_failure(status: StatusCode) -> Failure {
    Failure::from(FetchError::Status {
        status: status.as_u16(),
        retry_after: None,
    })
}

/// Whether a page that the login page led to is a member's: many a site leads members away from its login. It is believed only where all
/// holds that tells a login that went well, but for the status, which is that of the form's answer.
async fn is_inside(page: Landing, access: &Access, home: &Url, login: &FormLogin) -> Result<bool, Failure> {
    let success = login.success.clone().unwrap_or_default();
    if success.cookie.is_some_and(|name| !access.has_cookie(home, &name)) {
        return Ok(false);
    }
    let login = login.clone();
    let work = move || {
        let (html, _) = tree(&page.text, &page.url, Instant::now() + PARSING)?;
        let holds = success
            .selector
            .is_none_or(|selector| form::find(&html, &selector).is_some());
        Ok(holds && !form::asks(&html, &login))
    };
    off_the_runtime(work).await
}

async fn fill(page: Landing, login: FormLogin) -> Result<Filled, Failure> {
    let work = move || {
        let (html, base) = tree(&page.text, &page.url, Instant::now() + PARSING)?;
        form::fill(&html, &base, &page.url, &login).map_err(|why| failed(&why))
    };
    off_the_runtime(work).await
}

/// Whether the login went well.
async fn check(answer: Landing, access: &Access, page: &Url, login: &FormLogin) -> Result<(), Failure> {
    if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
        return Err(status_failure(answer.status));
    }
    let success = login.success.clone().unwrap_or_default();
    check_words(&success, answer.status.as_u16(), |name| access.has_cookie(page, name))?;
    if login.success.is_some() && success.selector.is_none() {
        return Ok(());
    }
    let login = login.clone();
    let work = move || {
        let (html, _) = tree(&answer.text, &answer.url, Instant::now() + PARSING)?;
        let missing = match &success.selector {
            Some(selector) => form::find(&html, selector)
                .is_none()
                .then(|| format!("nothing in the page after it matches success.selector {selector:?}")),
            None if answer.status.is_client_error() => Some(format!("the site answered {}", answer.status.as_u16())),
            None => form::asks(&html, &login).then(|| "the site asks for the password again".to_owned()),
        };
        missing.map_or(Ok(()), |why| Err(failed(&why)))
    };
    off_the_runtime(work).await
}

/// What of a success needs no page.
pub(crate) fn check_words(
    success: &LoginSuccess,
    status: u16,
    has_cookie: impl Fn(&str) -> bool,
) -> Result<(), Failure> {
    if let Some(wanted) = success.status.filter(|wanted| *wanted != status) {
        return Err(failed(&format!(
            "the site answered {status} and success.status is {wanted}"
        )));
    }
    if let Some(cookie) = success.cookie.as_deref().filter(|cookie| !has_cookie(cookie)) {
        return Err(failed(&format!(
            "the site set no cookie {cookie:?}, which success.cookie names"
        )));
    }
    Ok(())
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(failed("the login page cannot be read")))
}

/// Asks for a page, or sends a form to it, and follows redirects. A form is never sent again to another origin.
async fn land<L: Leave>(
    http: &Http,
    access: &Access,
    (url, form): (&Url, Option<&[(String, String)]>),
    leave: &mut L,
) -> Result<Landing, L::Refusal>
where
    L::Refusal: From<Failure>,
{
    let (mut url, mut body) = (url.clone(), form.map(encoded));
    for _ in 0..=MAX_REDIRECTS {
        leave.ask(&url).await?;
        let arrived = http.visit(&url, body.as_deref(), access, MAX_PAGE).await;
        let arrived = arrived.map_err(Failure::from)?;
        let Some(target) = arrived.redirect else {
            return Ok(Landing {
                url,
                status: arrived.status,
                text: arrived.text,
            });
        };
        let keeps = matches!(arrived.status.as_u16(), 307 | 308);
        if body.is_some() && keeps && target.origin() != url.origin() {
            return Err(failed("the site wants the password to be sent to another origin").into());
        }
        body = body.filter(|_| keeps);
        url = target;
    }
    Err(Failure::from(FetchError::TooManyRedirects { limit: MAX_REDIRECTS }).into())
}

fn encoded(fields: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}
