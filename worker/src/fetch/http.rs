//! Fetching by HTTP. The egress proxy is the client's only route.

use std::{sync::Arc, time::Duration};

use reqwest::{
    Client, Proxy, RequestBuilder, Response, StatusCode,
    header::{self, HeaderMap},
    redirect,
};
use selextract_platform::ledger::conditional::Known;
use url::Url;

use super::{
    ConnectionSnafu, EGRESS_HEADER, FetchError, MAX_BYTES, Page, Request, SchemeSnafu, TooManyRedirectsSnafu, charset,
    check_content, check_egress, check_status, freshness, retry_after, shortened, tunnel,
};
use crate::{access::Access, contact::Contact, content::Content};

/// The most redirects on the way to a page, by either engine.
pub(super) const MAX_REDIRECTS: usize = 10;
/// To the proxy and through it. The page's own deadline bounds the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Redirects of a robots.txt that are followed (RFC 9309, section 2.3.1.2).
const MAX_ROBOTS_REDIRECTS: usize = 5;
/// How much of a robots.txt is read (section 2.5).
const MAX_ROBOTS_BYTES: usize = 500 << 10;
/// So much of a length that a site tells is believed before it has come.
const EXPECTED: usize = 64 << 10;
const ACCEPT: &str = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1";

/// A client that knows one way out.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    proxy: Url,
    contact: Contact,
    /// The egress proxy's listener for pools of upstream proxies.
    pools: Option<Url>,
}

impl Http {
    /// A client through this proxy that names the platform's home as its contact.
    ///
    /// # Errors
    /// When the proxy's URL or the system's certificates cannot be used.
    pub fn new(proxy: &Url) -> reqwest::Result<Self> {
        Self::with_contact(proxy, &Contact::default())
    }

    /// A client through this proxy that says whom to write to.
    ///
    /// # Errors
    /// As [`Http::new`].
    pub fn with_contact(proxy: &Url, contact: &Contact) -> reqwest::Result<Self> {
        Ok(Self {
            client: client(proxy, contact)?,
            proxy: proxy.clone(),
            contact: contact.clone(),
            pools: None,
        })
    }

    /// The same where the egress proxy has a listener for pools of upstream proxies.
    #[must_use]
    pub fn with_pools(self, pools: Option<Url>) -> Self {
        Self { pools, ..self }
    }

    /// A client of its own through a pool: what it is connected to is shared with no other session. The session goes no further than
    /// the egress proxy.
    ///
    /// # Errors
    /// When the cluster has no such pool.
    pub fn through(&self, pool: &str, session: &str) -> Result<Self, FetchError> {
        let mut proxy = self.pools.clone().ok_or(FetchError::UnknownProxyPool)?;
        if proxy.set_username(pool).is_err() || proxy.set_password(Some(session)).is_err() {
            return Err(FetchError::UnknownProxyPool);
        }
        let made = client(&proxy, &self.contact).map_err(|error| connection(&error))?;
        Ok(Self {
            client: made,
            proxy,
            ..self.clone()
        })
    }

    /// The way through a pool, which it names as user and password, if it takes one.
    pub fn route(&self) -> Option<&Url> {
        Some(&self.proxy).filter(|proxy| !proxy.username().is_empty())
    }

    /// Fetches a page and follows its redirects. The caller bounds the time.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch(&self, request: Request<'_>) -> Result<Page, FetchError> {
        let mut trip = Trip::to(request.url);
        loop {
            if let Some(page) = self.go_on(&mut trip, request).await? {
                return Ok(page);
            }
        }
    }

    /// Goes on with a trip: to the page, or `None` when a redirect leads on, to where it is not asked yet: what the site and the task allow
    /// holds there too.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn go_on(&self, trip: &mut Trip, request: Request<'_>) -> Result<Option<Page>, FetchError> {
        let Some(response) = self.arrive(trip, request).await? else {
            return Ok(None);
        };
        let known = trip.known.take_if(|known| known.url == trip.url.as_str());
        if let Some(known) = known.filter(|_| response.status() == StatusCode::NOT_MODIFIED) {
            return freshness::not_modified(&trip.url, &response, known).map(Some);
        }
        let page = read(trip.url.clone(), response).await.map(Some);
        page.map_err(|error| match trip.access.as_deref() {
            Some(access) => access.judge(&trip.url, error),
            None => error,
        })
    }

    /// The answer at the end of a trip, or `None` when a redirect leads on.
    pub(super) async fn arrive(&self, trip: &mut Trip, request: Request<'_>) -> Result<Option<Response>, FetchError> {
        // Redirects are followed by hand: each hop is judged by the caller, its scheme is looked at, and the task's headers stay at home.
        if trip.hops > MAX_REDIRECTS {
            return TooManyRedirectsSnafu { limit: MAX_REDIRECTS }.fail();
        }
        trip.hops += 1;
        let access = trip.access.as_deref();
        let known = trip.known.as_ref().filter(|known| known.url == trip.url.as_str());
        let response = self.get(&trip.url, request, (known, access)).await?;
        if known.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Some(response));
        }
        let Some(target) = redirect_target(&trip.url, &response)? else {
            return Ok(Some(response));
        };
        if let Some(access) = access.filter(|access| access.is_turned_away(request.url, &target)) {
            return Err(access.refused(response.status().as_u16()));
        }
        trip.url = target;
        Ok(None)
    }

    /// Asks for the robots.txt of a URL's origin. The caller bounds the time.
    ///
    /// # Errors
    /// When no answer came; what the answer means is in [`RobotsAnswer`].
    pub async fn robots(&self, origin: &Url) -> Result<RobotsAnswer, FetchError> {
        let mut url = origin.clone();
        url.set_path("/robots.txt");
        url.set_query(None);
        url.set_fragment(None);
        for _ in 0..=MAX_ROBOTS_REDIRECTS {
            let request = Request {
                url: &url,
                home: &url,
                headers: &[],
            };
            let response = self.get(&url, request, (None, None)).await?;
            match redirect_target(&url, &response)? {
                Some(target) => url = target,
                None => return read_robots(response).await,
            }
        }
        Ok(RobotsAnswer::Absent)
    }

    async fn get(
        &self,
        url: &Url,
        request: Request<'_>,
        (known, access): (Option<&Known>, Option<&Access>),
    ) -> Result<Response, FetchError> {
        let mut get = self.client.get(url.clone()).header(header::ACCEPT, ACCEPT);
        if let Some(known) = known {
            get = get.headers(freshness::conditions(&known.validators));
        }
        if request.may_carry_headers(url) {
            // A header of the task's replaces ours.
            let mut headers = HeaderMap::new();
            for (name, value) in request.headers {
                if let (Ok(name), Ok(value)) = (name.parse::<header::HeaderName>(), value.parse()) {
                    headers.insert(name, value);
                }
            }
            get = get.headers(headers);
        }
        self.send(url, get, access).await
    }

    /// Sends a request with its rights, and takes the cookies of its answer.
    async fn send(
        &self,
        url: &Url,
        mut request: RequestBuilder,
        access: Option<&Access>,
    ) -> Result<Response, FetchError> {
        if let Some(access) = access {
            request = request.headers(access.headers(url));
        }
        match request.send().await {
            Ok(response) => {
                if let Some(access) = access {
                    access.learn(url, response.headers());
                }
                Ok(response)
            }
            Err(error) => Err(self.explain(url, connection(&error)).await),
        }
    }

    /// Asks for a page, or posts a form to it, whatever its status; follows nothing. Of its text `most` bytes are read.
    pub(crate) async fn visit(
        &self,
        url: &Url,
        form: Option<&str>,
        access: &Access,
        most: usize,
    ) -> Result<Visited, FetchError> {
        let request = match form {
            None => self.client.get(url.clone()),
            Some(form) => {
                let kind = "application/x-www-form-urlencoded";
                let post = self.client.post(url.clone()).header(header::CONTENT_TYPE, kind);
                post.body(form.to_owned())
            }
        };
        let mut response = self
            .send(url, request.header(header::ACCEPT, ACCEPT), Some(access))
            .await?;
        check_egress(
            response
                .headers()
                .get(EGRESS_HEADER)
                .and_then(|word| word.to_str().ok()),
        )?;
        let redirect = redirect_target(url, &response)?;
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while body.len() < most
            && let Some(chunk) = response.chunk().await.map_err(|error| connection(&error))?
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(most);
        Ok(Visited {
            status: response.status(),
            redirect,
            text: charset::decode(&body, content_type.as_deref(), Content::Html),
        })
    }

    /// A failure of either engine, told as what it was when the egress proxy refused the tunnel to an https page, or does not serve.
    pub async fn explain(&self, url: &Url, failure: FetchError) -> FetchError {
        if !matches!(failure, FetchError::Connection { .. }) {
            return failure;
        }
        if url.scheme() != "https" {
            return tunnel::absence(&self.proxy).await.unwrap_or(failure);
        }
        tunnel::objection(&self.proxy, url).await.unwrap_or(failure)
    }
}

fn client(proxy: &Url, contact: &Contact) -> reqwest::Result<Client> {
    Client::builder()
        // First of all forget what the environment says; then there is one proxy, for every host.
        .no_proxy()
        .proxy(Proxy::all(proxy.clone())?)
        .redirect(redirect::Policy::none())
        .referer(false)
        .user_agent(contact.user_agent())
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
}

/// What came of one request.
pub(crate) struct Visited {
    pub(crate) status: StatusCode,
    /// Where it leads on.
    pub(crate) redirect: Option<Url>,
    pub(crate) text: String,
}

/// The way to a page, by all of its redirects.
#[derive(Clone, Debug)]
pub struct Trip {
    url: Url,
    hops: usize,
    known: Option<Known>,
    access: Option<Arc<Access>>,
}

impl Trip {
    /// A trip that has not begun.
    pub fn to(url: &Url) -> Self {
        Self {
            url: url.clone(),
            hops: 0,
            known: None,
            access: None,
        }
    }

    /// The same, with these rights.
    #[must_use]
    pub fn by(self, access: &Arc<Access>) -> Self {
        Self {
            access: Some(Arc::clone(access)),
            ..self
        }
    }

    /// The same to a page that a former run has: the site is asked whether it has changed.
    #[must_use]
    pub fn with(self, known: Option<Known>) -> Self {
        Self { known, ..self }
    }

    /// What is asked for next.
    pub fn next(&self) -> &Url {
        &self.url
    }
}

/// What a site says about its robots.txt (RFC 9309, section 2.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RobotsAnswer {
    /// It has one; cut off where it grows too large.
    Text(String),
    /// It has none: everything may be fetched.
    Absent,
    /// The server failed: nothing may be fetched for now.
    Unavailable {
        /// The HTTP status.
        status: u16,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
}

async fn read_robots(mut response: Response) -> Result<RobotsAnswer, FetchError> {
    let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    check_egress(text(EGRESS_HEADER))?;
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(RobotsAnswer::Unavailable {
            status: status.as_u16(),
            retry_after: retry_after(text("retry-after")),
        });
    }
    if !status.is_success() {
        return Ok(RobotsAnswer::Absent);
    }
    let mut body = Vec::new();
    while body.len() < MAX_ROBOTS_BYTES
        && let Some(chunk) = response.chunk().await.map_err(|error| connection(&error))?
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(MAX_ROBOTS_BYTES);
    Ok(RobotsAnswer::Text(String::from_utf8_lossy(&body).into_owned()))
}

fn redirect_target(url: &Url, response: &Response) -> Result<Option<Url>, FetchError> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let location = response.headers().get(header::LOCATION);
    let Some(location) = location.filter(|_| redirects.contains(&response.status())) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(location.as_bytes());
    match url.join(&text) {
        Ok(target) if matches!(target.scheme(), "http" | "https") => Ok(Some(target)),
        _ => SchemeSnafu {
            target: shortened(&text),
        }
        .fail(),
    }
}

async fn read(url: Url, mut response: Response) -> Result<Page, FetchError> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let content_type = text(header::CONTENT_TYPE).map(str::to_owned);
    let wait = retry_after(text(header::RETRY_AFTER));
    check_egress(
        response
            .headers()
            .get(EGRESS_HEADER)
            .and_then(|word| word.to_str().ok()),
    )?;
    check_status(response.status().as_u16(), wait)?;
    let freshness = freshness::of(response.headers());
    let content = check_content(content_type.as_deref(), &url, "HTML, XML, JSON or CSV", |_| true)?;
    let told = response
        .content_length()
        .and_then(|length| usize::try_from(length).ok());
    let mut body = Vec::with_capacity(told.unwrap_or_default().min(EXPECTED));
    while let Some(chunk) = response.chunk().await.map_err(|error| connection(&error))? {
        // Chunks come out of the decompressor, so a bomb is stopped when it has grown to the cap.
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Page {
        url,
        content,
        text: charset::decode(&body, content_type.as_deref(), content),
        bytes: body.len() as u64,
        freshness,
        captures: Vec::new(),
    })
}

/// The innermost cause says what happened; the outer ones repeat the URL.
pub(super) fn connection(error: &reqwest::Error) -> FetchError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    ConnectionSnafu {
        message: shortened(&cause.to_string()),
    }
    .build()
}
