//! From a URL to a page's HTML, by one of two engines that share one way out: the egress proxy.

pub mod browser;
mod charset;
pub mod http;
mod tunnel;

use std::time::Duration;

use snafu::Snafu;
use url::Url;

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
    /// Its HTML.
    pub html: String,
    /// Bytes that came in through the egress proxy. HTTP counts bodies after decompression.
    pub bytes: u64,
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
    /// The answer is something else than HTML.
    #[snafu(display("the page is not HTML but {content_type:?}"))]
    NotHtml {
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
    /// A wait condition was not met.
    #[snafu(display("nothing matched {selector:?} within {}", selextract_task::Duration::from_millis(millis(*timeout))))]
    Waiting {
        /// What was waited for.
        selector: String,
        /// How long.
        timeout: Duration,
    },
    /// The browser crashed, hung or did not start.
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

/// Refuses what is not a page that was found: an error status, or something else than HTML.
fn check_answer(status: u16, content_type: Option<&str>, retry_after: Option<Duration>) -> Result<(), FetchError> {
    if !(200..300).contains(&status) {
        return StatusSnafu { status, retry_after }.fail();
    }
    let Some(content_type) = content_type else {
        return Ok(());
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("text/html") || essence.eq_ignore_ascii_case("application/xhtml+xml") {
        return Ok(());
    }
    NotHtmlSnafu {
        content_type: shortened(essence),
    }
    .fail()
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
