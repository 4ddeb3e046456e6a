//! With whose rights a run's requests are made: its cookies, and the credentials that its spec names.
//!
//! Credentials go to the origin that they are bound to and to no other, by whatever redirect a request came. They are opened here, at the
//! start of a claim, and live as long as it; a session that they open is kept for minutes, for the run's next claims. Nothing of them is
//! logged, told or shown.

mod date;
mod form;
pub mod http_login;
pub mod jar;
pub(crate) mod login;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use moka::future::Cache;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use selextract_platform::{
    frontier::Frontier,
    ledger::{
        Ledger, LedgerError, UserId,
        credentials::{Sealed, place},
    },
    sealed::Seal,
};
use selextract_task::{
    Plan,
    credentials::{Checked, FormLogin, SiteCredentials, Way},
};
use url::Url;
use uuid::Uuid;

use crate::{
    failure::Failure,
    fetch::{FetchError, http::Http},
};
use jar::Jar;
use login::{Login, Logins};

/// How long a client through a pool is kept that nobody asks for: its connections last about as long.
const CLIENT_IDLES: Duration = Duration::from_mins(2);
/// The most clients through pools.
const MOST_CLIENTS: u64 = 200;

/// Where credentials come from: the ledger, and the key that opens them. And what a run's claims in this worker share of their rights:
/// its login, and its client through a pool.
#[derive(Clone)]
pub struct Vault {
    credentials: Option<Arc<(Ledger, Seal)>>,
    logins: Logins,
    /// By pool and session.
    clients: Cache<(String, Uuid), Http>,
}

impl Default for Vault {
    fn default() -> Self {
        let clients = Cache::builder().max_capacity(MOST_CLIENTS).time_to_idle(CLIENT_IDLES);
        Self {
            credentials: None,
            logins: Logins::default(),
            clients: clients.build(),
        }
    }
}

impl Vault {
    /// Over the ledger, with the cluster's data key. Without a key nothing can be opened. What comes of logins is shared by the frontier.
    pub fn new(ledger: Ledger, frontier: Frontier, seal: Option<Seal>) -> Self {
        Self {
            credentials: seal.map(|seal| Arc::new((ledger, seal))),
            logins: Logins::shared_by(frontier),
            ..Self::default()
        }
    }

    /// What a run of this plan may use, and the client that its requests go by: of a pool's, `run` keeps a proxy where the pool says so.
    /// An `owner` who is not known has no credentials.
    ///
    /// # Errors
    /// When the ledger does not answer; within it, why the run cannot have what its spec names.
    pub async fn open(
        &self,
        plan: &Plan,
        owner: Option<UserId>,
        (http, run): (&Http, Uuid),
    ) -> Result<Result<(Arc<Access>, Http), Failure>, LedgerError> {
        let http = match self.client(plan, http, run).await {
            Ok(http) => http,
            Err(error) => return Ok(Err(error.into())),
        };
        let access = match self.credentials(plan, owner).await? {
            Ok(None) => Access::of(plan, None),
            Ok(Some((write, name, checked))) => {
                let login = self.logins.of(run, write).await;
                Access::of(plan, Some((name, checked))).sharing(login)
            }
            Err(failure) => return Ok(Err(failure)),
        };
        Ok(Ok((Arc::new(access.by(&http)), http)))
    }

    /// One client for all claims of a run: each has connections of its own to the pool.
    async fn client(&self, plan: &Plan, http: &Http, run: Uuid) -> Result<Http, FetchError> {
        let Some(pool) = &plan.proxy_pool else {
            return Ok(http.clone());
        };
        let key = (pool.clone(), run);
        if let Some(client) = self.clients.get(&key).await {
            return Ok(client);
        }
        let client = http.through(pool, &run.to_string())?;
        self.clients.insert(key, client.clone()).await;
        Ok(client)
    }

    /// The credentials that a plan names, with the id of the write that stored them and their name.
    async fn credentials(
        &self,
        plan: &Plan,
        owner: Option<UserId>,
    ) -> Result<Result<Option<(Uuid, String, Checked)>, Failure>, LedgerError> {
        let Some(name) = &plan.credentials else {
            return Ok(Ok(None));
        };
        let Some(vault) = &self.credentials else {
            return Ok(Err(unreadable(name, "this cluster's workers have no data key")));
        };
        let (ledger, seal) = vault.as_ref();
        let sealed = match owner {
            Some(owner) => ledger.sealed_credentials(owner, name).await?,
            None => None,
        };
        let Some(sealed) = sealed else {
            let message = format!(
                "the task's owner has no credentials {name:?}; store them with PUT /api/v1/credentials/{name}, or as the Secret of that name"
            );
            return Ok(Err(Failure::permanent("CredentialsMissing", message)));
        };
        Ok(opened(seal, &sealed)
            .ok_or_else(|| unreadable(name, "they cannot be opened; is their data key still there?"))
            .map(|checked| Some((sealed.id, name.clone(), checked))))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("credentials", &self.credentials.is_some())
            .finish_non_exhaustive()
    }
}

fn opened(seal: &Seal, sealed: &Sealed) -> Option<Checked> {
    let text = seal.open(&place(sealed.id, &sealed.origin), &sealed.secret).ok()?;
    let credentials: SiteCredentials = serde_json::from_str(&text).ok()?;
    let checked = credentials.check().ok()?;
    // What is sealed must speak of the origin that it is sealed for.
    (checked.origin.origin().ascii_serialization() == sealed.origin).then_some(checked)
}

fn unreadable(name: &str, why: &str) -> Failure {
    Failure::permanent(
        "CredentialsUnreadable",
        format!("the credentials {name:?} cannot be used: {why}"),
    )
}

/// The rights of one claim of a run.
pub struct Access {
    jar: Mutex<Jar>,
    planned: Vec<selextract_task::access::PlannedCookie>,
    credentials: Option<(String, Checked)>,
    login: Arc<Login>,
    session: Mutex<Session>,
    route: Option<Url>,
}

/// The session that a form login makes, as one claim has it.
#[derive(Clone, Copy, Default)]
struct Session {
    /// The jar has it.
    is_open: bool,
    /// It was had, in the jar or in a tab.
    has_entered: bool,
    /// Which one of its run's logins made it, from 1.
    login: u32,
    /// The login whose session the site did not know any more. It is made anew once.
    lost: Option<u32>,
}

impl Session {
    fn enter(&mut self, login: u32) {
        (self.is_open, self.has_entered, self.login) = (true, true, login);
    }
}

impl Access {
    /// With the plan's cookies and these credentials.
    pub fn of(plan: &Plan, credentials: Option<(String, Checked)>) -> Self {
        Self {
            jar: Mutex::new(Jar::of(&plan.cookies)),
            planned: plan.cookies.clone(),
            credentials,
            login: Arc::default(),
            session: Mutex::default(),
            route: None,
        }
    }

    /// The same, with a login that other claims of its run share.
    fn sharing(self, login: Arc<Login>) -> Self {
        Self { login, ..self }
    }

    /// The same for requests that go by this client.
    #[must_use]
    pub fn by(mut self, http: &Http) -> Self {
        self.route = http.route().cloned();
        self
    }

    /// The way through a pool of upstream proxies, which it names as user and password, if the run takes one.
    pub fn route(&self) -> Option<&Url> {
        self.route.as_ref()
    }

    /// The headers of a request to this URL that show its rights.
    pub fn headers(&self, url: &Url) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let cookies = self.jar().header(url, SystemTime::now());
        if let Some(cookies) = cookies.and_then(|cookies| secret_value(&cookies)) {
            headers.insert(header::COOKIE, cookies);
        }
        if let Some((name, value)) = self.shown(url) {
            headers.insert(name, value);
        }
        headers
    }

    /// The header that shows the credentials to their own origin.
    pub fn shown(&self, url: &Url) -> Option<(HeaderName, HeaderValue)> {
        let value = match &self.bound_to(url)?.way {
            Way::Basic(basic) => {
                let pair = format!("{}:{}", basic.username.expose(), basic.password.expose());
                format!("Basic {}", BASE64_STANDARD.encode(pair))
            }
            Way::Bearer(bearer) => format!("Bearer {}", bearer.token.expose()),
            Way::Header(header) => {
                let name = header.name.parse().ok()?;
                return Some((name, secret_value(header.value.expose())?));
            }
            Way::Form { .. } => return None,
        };
        Some((header::AUTHORIZATION, secret_value(&value)?))
    }

    /// Whether requests are to show a header of credentials at all.
    pub fn shows_headers(&self) -> bool {
        self.credentials
            .as_ref()
            .is_some_and(|(_, checked)| !matches!(checked.way, Way::Form { .. }))
    }

    /// Takes the cookies of an answer.
    pub fn learn(&self, url: &Url, answer: &HeaderMap) {
        let mut cookies = answer.get_all(header::SET_COOKIE).iter().peekable();
        if cookies.peek().is_none() {
            return;
        }
        let (mut jar, now) = (self.jar(), SystemTime::now());
        for cookie in cookies {
            jar.set(url, &String::from_utf8_lossy(cookie.as_bytes()), now);
        }
    }

    /// An error, told as what it is where the site does not take the credentials that it was shown.
    pub fn judge(&self, url: &Url, error: FetchError) -> FetchError {
        let FetchError::Status { status, .. } = error else {
            return error;
        };
        match self.bound_to(url).map(|checked| &checked.way) {
            Some(Way::Form { .. }) if status == 401 => self.refused(status),
            Some(Way::Basic(_) | Way::Bearer(_) | Way::Header(_)) if matches!(status, 401 | 403) => {
                self.refused(status)
            }
            _ => error,
        }
    }

    /// Whether a page that was asked for has become the login's own page: the site has forgotten the session.
    pub fn is_turned_away(&self, requested: &Url, arrived: &Url) -> bool {
        let same = |one: &Url, other: &Url| one.origin() == other.origin() && one.path() == other.path();
        self.form()
            .is_some_and(|(page, _)| same(arrived, page) && !same(requested, page))
    }

    /// The error of a site that does not take the credentials.
    pub fn refused(&self, status: u16) -> FetchError {
        let name = self
            .credentials
            .as_ref()
            .map(|(name, _)| name.clone())
            .unwrap_or_default();
        FetchError::CredentialsRefused { name, status }
    }

    /// The form to log in by, if there is one and the jar has no session of it.
    pub fn due_login(&self) -> Option<(&Url, &FormLogin)> {
        self.form().filter(|_| !self.session().is_open)
    }

    /// Has the login done once more after this failure, the first time that the site does not know the session any more.
    pub fn may_enter_again(&self, failure: &Failure) -> bool {
        if failure.class != "CredentialsRefused" || self.form().is_none() {
            return false;
        }
        let mut session = self.session();
        let again = session.has_entered && session.lost.is_none();
        if again {
            (session.is_open, session.lost) = (false, Some(session.login));
            *self.jar() = Jar::of(&self.planned);
        }
        again
    }

    /// The cookies, for a browser that goes on with them.
    pub fn cookies(&self) -> Vec<jar::Kept> {
        self.jar().all().to_vec()
    }

    /// Goes on with a browser's cookies instead, those that it has for all of the run.
    pub fn take_cookies(&self, cookies: Vec<jar::Kept>) {
        *self.jar() = Jar::with(cookies);
    }

    /// Whether a request to this URL would carry any cookie.
    pub fn has_cookies(&self, url: &Url) -> bool {
        self.jar().header(url, SystemTime::now()).is_some()
    }

    /// Whether a request to this URL would carry a cookie of this name.
    pub fn has_cookie(&self, url: &Url, name: &str) -> bool {
        self.jar().has(url, name, SystemTime::now())
    }

    /// The form to log in by.
    pub fn form(&self) -> Option<(&Url, &FormLogin)> {
        match &self.credentials.as_ref()?.1.way {
            Way::Form { page, login } => Some((page, login)),
            _ => None,
        }
    }

    fn bound_to(&self, url: &Url) -> Option<&Checked> {
        let (_, checked) = self.credentials.as_ref()?;
        (checked.origin.origin() == url.origin()).then_some(checked)
    }

    fn jar(&self) -> MutexGuard<'_, Jar> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.credentials.as_ref().map(|(name, _)| name);
        f.debug_struct("Access")
            .field("credentials", &name)
            .finish_non_exhaustive()
    }
}

fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(text.as_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use selextract_task::TaskSpec;
    use serde_json::{Value, json};

    use super::{
        login::{Came, Entering},
        *,
    };

    fn access(credentials: Value) -> Access {
        let spec = json!({
            "url": "https://shop.example/list", "fields": [{ "name": "t" }], "cookies": [{ "name": "region", "value": "eu" }],
            "credentials": "shop",
        });
        let plan = serde_json::from_value::<TaskSpec>(spec).unwrap().compile().unwrap();
        let credentials: SiteCredentials = serde_json::from_value(credentials).unwrap();
        Access::of(&plan, Some(("shop".into(), credentials.check().unwrap())))
    }

    async fn begin(access: &Access) -> Option<Entering<'_>> {
        access.begin_login().await.unwrap()
    }

    async fn ended(entering: Entering<'_>, came: Came) {
        entering.ended::<Failure>(Ok(came)).await.unwrap();
    }

    fn status(status: u16) -> FetchError {
        FetchError::Status {
            status,
            retry_after: None,
        }
    }

    #[test]
    fn credentials_go_to_their_origin_alone() {
        let access =
            access(json!({ "origin": "https://shop.example", "basic": { "username": "ann", "password": "pass" } }));
        let shown = |url: &str| access.headers(&url.parse().unwrap()).get("authorization").cloned();
        assert_eq!(shown("https://shop.example/a").unwrap(), "Basic YW5uOnBhc3M=");
        for elsewhere in [
            "http://shop.example/",
            "https://shop.example:8443/",
            "https://www.shop.example/",
            "https://evil.test/",
        ] {
            assert!(shown(elsewhere).is_none(), "{elsewhere}");
        }
        assert!(
            !format!(
                "{access:?} {:?}",
                access.headers(&"https://shop.example/".parse().unwrap())
            )
            .contains("YW5u")
        );
    }

    #[test]
    fn a_refusal_is_the_credentials_fault_only_where_they_were_shown() {
        let access = access(json!({ "origin": "https://shop.example", "bearer": { "token": "t" } }));
        let judged = |url: &str, code| access.judge(&url.parse().unwrap(), status(code));
        assert!(
            matches!(judged("https://shop.example/", 403), FetchError::CredentialsRefused { name, status: 403 } if name == "shop")
        );
        assert!(matches!(
            judged("https://shop.example/", 404),
            FetchError::Status { status: 404, .. }
        ));
        assert!(matches!(
            judged("https://other.example/", 401),
            FetchError::Status { status: 401, .. }
        ));
    }

    #[tokio::test]
    async fn a_lost_session_is_made_anew_once() {
        let form = json!({ "loginUrl": "/login", "usernameField": "u", "username": "ann", "password": "pass" });
        let access = access(json!({ "origin": "https://shop.example", "formLogin": form }));
        let [home, login]: [Url; 2] =
            ["https://shop.example/list", "https://shop.example/login?back=1"].map(|u| u.parse().unwrap());
        let refused = || Failure::from(access.refused(401));
        assert!(access.is_turned_away(&home, &login) && !access.is_turned_away(&login, &login));
        assert!(!access.may_enter_again(&refused()), "it never entered");
        ended(begin(&access).await.unwrap(), Came::In).await;
        assert!(access.due_login().is_none() && begin(&access).await.is_none());
        let mut answer = HeaderMap::new();
        answer.insert("set-cookie", "sid=1".parse().unwrap());
        access.learn(&home, &answer);
        assert_eq!(access.headers(&home)["cookie"], "region=eu; sid=1");
        assert!(access.may_enter_again(&refused()) && access.due_login().is_some());
        assert_eq!(access.headers(&home)["cookie"], "region=eu");
        ended(begin(&access).await.unwrap(), Came::In).await;
        assert!(!access.may_enter_again(&refused()));
    }

    #[tokio::test]
    async fn claims_of_a_run_share_a_login_and_its_cookies_and_make_it_anew_once_for_all() {
        let login: Arc<Login> = Arc::default();
        let form = json!({ "loginUrl": "/login", "usernameField": "u", "username": "ann", "password": "pass" });
        let form = json!({ "origin": "https://shop.example", "formLogin": form });
        let [one, two, three] = [(); 3].map(|()| access(form.clone()).sharing(Arc::clone(&login)));
        let home: Url = "https://shop.example/list".parse().unwrap();
        let set = |access: &Access, cookie: &'static str| {
            let mut answer = HeaderMap::new();
            answer.insert("set-cookie", cookie.parse().unwrap());
            access.learn(&home, &answer);
        };
        let entering = begin(&one).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(20), two.begin_login()).await;
        assert!(waits.is_err(), "one makes it");
        set(&one, "sid=1");
        ended(entering, Came::In).await;
        assert!(begin(&two).await.is_none());
        assert_eq!(two.headers(&home)["cookie"], "region=eu; sid=1");
        set(&two, "mine=2");
        assert!(!one.has_cookie(&home, "mine"), "what a page sets is its claim's own");
        let refused = Failure::from(one.refused(401));
        assert!(one.may_enter_again(&refused) && two.may_enter_again(&refused));
        let again = begin(&two).await.unwrap();
        set(&two, "sid=2");
        ended(again, Came::In).await;
        assert!(begin(&one).await.is_none() && begin(&three).await.is_none());
        assert_eq!(one.headers(&home)["cookie"], "region=eu; sid=2");
        assert_eq!(three.headers(&home)["cookie"], "region=eu; sid=2");
    }

    #[tokio::test]
    async fn a_login_that_is_given_up_is_the_next_claims() {
        let form = json!({ "loginUrl": "/login", "usernameField": "u", "username": "ann", "password": "pass" });
        let access = access(json!({ "origin": "https://shop.example", "formLogin": form }));
        drop(begin(&access).await.unwrap());
        let entering = begin(&access).await.unwrap();
        ended(entering, Came::InATab).await;
        assert!(access.due_login().is_some(), "HTTP has none of it");
        assert!(access.may_enter_again(&Failure::from(access.refused(401))));
    }
}
