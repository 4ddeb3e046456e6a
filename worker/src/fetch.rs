//! From a URL to a page's text, by one of two engines that share one way out: the egress proxy.

pub mod browser;
mod charset;
mod freshness;
pub mod http;
mod sitemap;
mod tunnel;

use std::{fmt, time::Duration};

use selextract_platform::ledger::conditional::{Known, Validators};
use selextract_task::CaptureType;
use snafu::Snafu;
use url::Url;

use crate::content::Content;

/// The most bytes of one page, after decompression (HTTP) or as the DOM's serialization (browser).
pub const MAX_BYTES: usize = 10 << 20;

/// One page to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// http or https, as the `url` crate wrote it: no engine parses what a user typed.
    pub url: &'a Url,
    /// The task's own URL: its headers go to this origin and no other.
    pub home: &'a Url,
    /// The task's headers, names in lower case.
    pub headers: &'a [(String, String)],
}

impl Request<'_> {
    /// Whether the task's headers may go with a request to this URL.
    fn may_carry_headers(&self, url: &Url) -> bool {
        url.origin() == self.home.origin()
    }
}

/// A page that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where it came from in the end.
    pub url: Url,
    /// What it is.
    pub content: Content,
    /// Its text.
    pub text: String,
    /// Bytes that came in through the egress proxy. HTTP counts bodies after decompression.
    pub bytes: u64,
    /// What the site says about its state.
    pub freshness: Freshness,
    /// What is kept of it beside its records.
    pub captures: Vec<Capture>,
}

/// What a site says about a page's state (RFC 9110, section 8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing that it could be asked about.
    #[default]
    Unknown,
    /// It can be asked the next time whether the page has changed.
    Named(Validators),
    /// The page is as it was: there is no text.
    NotModified(Box<Known>),
}

/// Something that is kept of a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Capture {
    /// What the task calls it.
    pub name: String,
    /// What it is.
    pub kind: CaptureType,
    /// Its media type.
    pub media_type: String,
    /// At most 10 MiB.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Capture({:?}, {:?}, {} bytes)",
            self.name,
            self.kind,
            self.bytes.len()
        )
    }
}

/// Why a page could not be fetched.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(crate)))]
pub enum FetchError {
    /// The server answered with an error.
    #[snafu(display("the server answered {status}"))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// The answer is something that is not read.
    #[snafu(display("the page is {content_type:?}; {read} is read"))]
    UnsupportedContent {
        /// What is read by this engine.
        read: &'static str,
        /// What it is.
        content_type: String,
    },
    /// The page is too large.
    #[snafu(display("the page has more than {MAX_BYTES} bytes"))]
    TooLarge,
    /// Redirects do not end.
    #[snafu(display("more than {limit} redirects"))]
    TooManyRedirects {
        /// The most that are followed.
        limit: usize,
    },
    /// A redirect or a script leads to something that is not a web page.
    #[snafu(display("the page leads to {target:?}, which is not an http or https URL"))]
    Scheme {
        /// Where to, shortened.
        target: String,
    },
    /// The egress proxy does not let this address be reached.
    #[snafu(display("the cluster's egress does not let this address be reached"))]
    Refused,
    /// The site does not take the credentials that it was shown.
    #[snafu(display("the site answered {status} to the credentials {name:?}"))]
    CredentialsRefused {
        /// The credentials.
        name: String,
        /// The HTTP status: 401, 403, or that of a redirect to the login.
        status: u16,
    },
    /// The cluster has no pool of upstream proxies of the task's name.
    #[snafu(display("the cluster declares no pool of upstream proxies of the name that proxyPool has"))]
    UnknownProxyPool,
    /// The connection failed, or the egress proxy did not make it.
    #[snafu(display("the connection failed: {message}"))]
    Connection {
        /// What happened.
        message: String,
    },
    /// The egress proxy itself does not serve; no site is at fault.
    #[snafu(display("the way out is blocked: {message}"))]
    Egress {
        /// What happened.
        message: String,
    },
    /// A page asks for more than is listened to.
    #[snafu(display("the page makes more than {limit} requests"))]
    Floods {
        /// The most that a page may make.
        limit: u32,
    },
    /// A redirect, a script or a form leads to an address that no browser's client is told of.
    #[snafu(display("the page leads to an address of more than 256 KiB"))]
    AddressTooLong,
    /// A wait condition was not met.
    #[snafu(display("{what} within {}", selextract_task::Duration::from_millis(millis(*timeout))))]
    Waiting {
        /// What was waited for in vain.
        what: String,
        /// How long.
        timeout: Duration,
    },
    /// A step lacks what it is done to.
    #[snafu(display("step {number} was not done within {}: {reason}", selextract_task::Duration::from_millis(millis(*timeout))))]
    Step {
        /// Which one of those of the page, from 1.
        number: usize,
        /// What is missing.
        reason: String,
        /// How long.
        timeout: Duration,
    },
    /// Something that is kept of a page is too large.
    #[snafu(display("the capture {name:?} has more than 10 MiB; a Jpeg, or one without fullPage, is smaller"))]
    CaptureTooLarge {
        /// The capture.
        name: String,
    },
    /// The whole browser crashed or hung, with all the pages in it: which of them did it cannot be told.
    #[snafu(display("the browser ended under the page"))]
    BrowserGone,
    /// The page's own process crashed, or the browser did not start or did not do what it was told.
    #[snafu(display("the browser failed: {message}"))]
    Browser {
        /// What happened.
        message: String,
    },
}

/// How the egress proxy marks an answer that is its own and not the site's.
const EGRESS_HEADER: &str = "x-selextract-egress";

/// Refuses an answer that the egress proxy made itself.
fn check_egress(word: Option<&str>) -> Result<(), FetchError> {
    match word {
        None => Ok(()),
        Some("EgressRefused" | "EgressMalformed") => Err(FetchError::Refused),
        Some("EgressUnknownPool") => Err(FetchError::UnknownProxyPool),
        Some("EgressNoUpstream") => EgressSnafu {
            message: "no proxy of the task's pool makes a connection",
        }
        .fail(),
        Some("EgressUnreachable") => ConnectionSnafu {
            message: "the host is unreachable",
        }
        .fail(),
        Some("EgressTimedOut") => ConnectionSnafu {
            message: "the host did not answer in time",
        }
        .fail(),
        Some(_) => EgressSnafu {
            message: "the egress proxy is busy",
        }
        .fail(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Refuses what is not a page that was found.
fn check_status(status: u16, retry_after: Option<Duration>) -> Result<(), FetchError> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    StatusSnafu { status, retry_after }.fail()
}

/// What a page is, or a refusal that says what is read.
fn check_content(
    content_type: Option<&str>,
    url: &Url,
    read: &'static str,
    is_read: impl Fn(Content) -> bool,
) -> Result<Content, FetchError> {
    Content::of(content_type, url)
        .filter(|content| is_read(*content))
        .ok_or_else(|| {
            UnsupportedContentSnafu {
                content_type: shortened(content_type.unwrap_or_default()),
                read,
            }
            .build()
        })
}

/// For messages: what a page says about itself can be of any length.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// `Retry-After` (RFC 9110, section 10.2.3): whole seconds, or a date, from which on it may be tried again.
fn retry_after(value: Option<&str>) -> Option<Duration> {
    let text = value?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = httpdate::parse_http_date(text).ok()?;
    Some(moment.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}
