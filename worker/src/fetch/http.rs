//! Fetching by HTTP. The egress proxy is the client's only route.

use std::time::Duration;

use reqwest::{
    Client, Proxy, Response, StatusCode,
    header::{self, HeaderMap},
    redirect,
};
use url::Url;

use super::{
    ConnectionSnafu, EGRESS_HEADER, FetchError, MAX_BYTES, Page, Request, SchemeSnafu, TooManyRedirectsSnafu, charset,
    check_content, check_egress, check_status, retry_after, shortened, tunnel,
};
use crate::contact::Contact;

const MAX_REDIRECTS: usize = 10;
/// To the proxy and through it. The page's own deadline bounds the whole.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Redirects of a robots.txt that are followed (RFC 9309, section 2.3.1.2).
const MAX_ROBOTS_REDIRECTS: usize = 5;
/// How much of a robots.txt is read (section 2.5).
const MAX_ROBOTS_BYTES: usize = 500 << 10;
const ACCEPT: &str = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1";

/// A client that knows one way out.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    proxy: Url,
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
        let client = Client::builder()
            // First of all forget what the environment says; then there is one proxy, for every host.
            .no_proxy()
            .proxy(Proxy::all(proxy.clone())?)
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(contact.user_agent())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()?;
        Ok(Self {
            client,
            proxy: proxy.clone(),
        })
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

    /// Goes on with a trip: to the page, or `None` when a redirect leads to another host, which is not asked yet: it has rules of its own.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn go_on(&self, trip: &mut Trip, request: Request<'_>) -> Result<Option<Page>, FetchError> {
        match self.arrive(trip, request).await? {
            Some(response) => read(trip.url.clone(), response).await.map(Some),
            None => Ok(None),
        }
    }

    /// The answer at the end of a trip, or `None` when a redirect leads to another host.
    pub(super) async fn arrive(&self, trip: &mut Trip, request: Request<'_>) -> Result<Option<Response>, FetchError> {
        // Redirects are followed by hand: each hop's scheme is looked at, and the task's headers stay at home.
        while trip.hops <= MAX_REDIRECTS {
            trip.hops += 1;
            let response = self.get(&trip.url, request).await?;
            let Some(target) = redirect_target(&trip.url, &response)? else {
                return Ok(Some(response));
            };
            let left = std::mem::replace(&mut trip.url, target);
            if left.host() != trip.url.host() {
                return Ok(None);
            }
        }
        TooManyRedirectsSnafu { limit: MAX_REDIRECTS }.fail()
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
            let response = self.get(&url, request).await?;
            match redirect_target(&url, &response)? {
                Some(target) => url = target,
                None => return read_robots(response).await,
            }
        }
        Ok(RobotsAnswer::Absent)
    }

    async fn get(&self, url: &Url, request: Request<'_>) -> Result<Response, FetchError> {
        let mut get = self.client.get(url.clone()).header(header::ACCEPT, ACCEPT);
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
        match get.send().await {
            Ok(response) => Ok(response),
            Err(error) => Err(self.explain(url, connection(&error)).await),
        }
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

/// The way to a page, by all of its redirects.
#[derive(Clone, Debug)]
pub struct Trip {
    url: Url,
    hops: usize,
}

impl Trip {
    /// A trip that has not begun.
    pub fn to(url: &Url) -> Self {
        Self {
            url: url.clone(),
            hops: 0,
        }
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
    let content = check_content(content_type.as_deref(), &url, "HTML, XML, JSON or CSV", |_| true)?;
    let mut body = Vec::new();
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
