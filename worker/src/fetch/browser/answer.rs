//! The server's answer to the main frame's request, as Chromium tells it.

use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::network::Response;

use url::Url;

use crate::{
    access::Access,
    content::Content,
    fetch::{FetchError, check_content, check_egress, check_status, retry_after},
};

/// What decides whether a document is read.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    content_type: String,
    retry_after: Option<Duration>,
    egress: Option<String>,
    /// Where it came from.
    url: Option<Url>,
}

impl From<&Response> for Answer {
    fn from(response: &Response) -> Self {
        let header = |wanted: &str| {
            response
                .headers
                .inner()
                .as_object()?
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .and_then(|(_, value)| value.as_str())
        };
        Self {
            status: u16::try_from(response.status).unwrap_or_default(),
            content_type: response.mime_type.clone(),
            retry_after: retry_after(header("retry-after")),
            egress: header(crate::fetch::EGRESS_HEADER).map(str::to_owned),
            url: Url::parse(&response.url).ok(),
        }
    }
}

impl Answer {
    pub(super) fn check(&self, url: &Url) -> Result<(), FetchError> {
        check_egress(self.egress.as_deref())?;
        check_status(self.status, self.retry_after)?;
        check_content(Some(&self.content_type), url, "with render Browser HTML", |content| {
            content == Content::Html
        })?;
        Ok(())
    }

    /// An error, told as what it is where credentials were refused.
    pub(super) fn judged(&self, access: Option<&Access>, error: FetchError) -> FetchError {
        match (access, &self.url) {
            (Some(access), Some(url)) => access.judge(url, error),
            _ => error,
        }
    }

    /// Refuses the page of a login that nobody asked for: the session is over.
    pub(super) fn check_session(&self, requested: &Url, access: Option<&Access>) -> Result<(), FetchError> {
        match (access, &self.url) {
            (Some(access), Some(url)) if access.is_turned_away(requested, url) => Err(access.refused(self.status)),
            _ => Ok(()),
        }
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> u16 {
        self.status
    }
}
