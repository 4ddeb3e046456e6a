//! Why a page failed, as users see it, and when it is tried again.

use std::time::Duration;

use rand::Rng;
use selextract_platform::frontier::hosts::Outcome;

use crate::{extract::ExtractError, fetch::FetchError};

/// The longest wait before a retry.
const MAX_DELAY: Duration = Duration::from_mins(15);
/// How long a host is left in peace that asked for it without saying how long.
const QUIET: Duration = Duration::from_secs(5);

/// The class of pages that ended with a whole browser.
pub const BROWSER_GONE: &str = "BrowserGone";

/// A failure of a page, classed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A stable name in `CamelCase`, for users and metrics; one of a fixed set.
    pub class: &'static str,
    /// One sentence for people.
    pub message: String,
    /// Whether it may pass by itself.
    pub retryable: bool,
    /// The least wait that the server asked for.
    pub retry_after: Option<Duration>,
    /// What it says about the host.
    pub blames: Blame,
    /// The server answered that there is no such page.
    pub no_page: bool,
}

/// What a failure says about the host of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nothing.
    Nobody,
    /// It answered; the page is at fault.
    Page,
    /// It failed.
    Host,
    /// It asked for quiet.
    Haste,
}

impl Failure {
    /// One that may pass by itself.
    pub fn retryable(class: &'static str, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retryable: true,
            retry_after: None,
            blames: Blame::Nobody,
            no_page: false,
        }
    }

    /// A page took longer than it may.
    pub fn late(allowed: Duration) -> Self {
        let allowed = selextract_task::Duration::from_millis(u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX));
        Self::retryable("Timeout", format!("the page took longer than {allowed}"))
    }

    /// The same, with what it says about the host.
    #[must_use]
    pub fn blaming(self, blames: Blame) -> Self {
        Self { blames, ..self }
    }

    /// What the frontier is told about the host.
    pub fn outcome(&self) -> Outcome {
        match self.blames {
            Blame::Nobody => Outcome::Unknown,
            Blame::Page => Outcome::Answered,
            Blame::Host => Outcome::Failed,
            Blame::Haste => Outcome::Busy(self.retry_after.unwrap_or(QUIET)),
        }
    }

    /// One that will be the same next time.
    pub fn permanent(class: &'static str, message: impl Into<String>) -> Self {
        Self {
            retryable: false,
            ..Self::retryable(class, message)
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let message = error.to_string();
        match error {
            FetchError::Status { status, retry_after } => Self {
                class: if status == 429 { "TooManyRequests" } else { "HttpStatus" },
                message,
                retryable: status >= 500 || matches!(status, 408 | 425 | 429),
                retry_after,
                blames: match status {
                    429 => Blame::Haste,
                    503 if retry_after.is_some() => Blame::Haste,
                    500.. => Blame::Host,
                    _ => Blame::Page,
                },
                no_page: matches!(status, 404 | 410),
            },
            FetchError::CredentialsRefused { .. } => {
                Self::permanent("CredentialsRefused", message).blaming(Blame::Page)
            }
            FetchError::UnknownProxyPool => Self::permanent("UnknownProxyPool", message),
            FetchError::UnsupportedContent { .. } => {
                Self::permanent("UnsupportedContent", message).blaming(Blame::Page)
            }
            FetchError::TooLarge | FetchError::Floods { .. } | FetchError::AddressTooLong => {
                Self::permanent("TooLarge", message).blaming(Blame::Page)
            }
            FetchError::TooManyRedirects { .. } => Self::permanent("TooManyRedirects", message).blaming(Blame::Page),
            FetchError::Scheme { .. } => Self::permanent("Scheme", message).blaming(Blame::Page),
            FetchError::Refused => Self::permanent("EgressRefused", message),
            FetchError::Connection { .. } => Self::retryable("Connection", message).blaming(Blame::Host),
            FetchError::Egress { .. } => Self::retryable("Egress", message),
            FetchError::Waiting { .. } => Self::retryable("WaitCondition", message).blaming(Blame::Page),
            FetchError::Step { .. } => Self::retryable("Step", message).blaming(Blame::Page),
            FetchError::CaptureTooLarge { .. } => Self::permanent("CaptureTooLarge", message).blaming(Blame::Page),
            FetchError::BrowserGone => Self::retryable(BROWSER_GONE, message),
            FetchError::Browser { .. } => Self::retryable("Browser", message),
        }
    }
}

impl From<ExtractError> for Failure {
    fn from(error: ExtractError) -> Self {
        let message = error.to_string();
        match error {
            ExtractError::TooDeep { .. }
            | ExtractError::TooManyNodes { .. }
            | ExtractError::TooMuchOutput { .. }
            | ExtractError::TooLongToSearch { .. } => Self::permanent("TooLarge", message),
            ExtractError::WrongContent { .. } | ExtractError::Malformed { .. } => {
                Self::permanent("UnsupportedContent", message)
            }
            ExtractError::Late => Self::retryable("Timeout", message),
            ExtractError::NoRecords { .. } => Self::permanent("NoRecords", message),
        }
    }
}

/// The wait before retry number `retry` (from 1): it doubles, up to 15 minutes, less up to a quarter at random, so that what failed
/// together does not come back together. Never shorter than what the server asked for, unless that is longer than 15 minutes.
pub fn backoff(base: Duration, retry: u32, at_least: Option<Duration>) -> Duration {
    let doubled = base.saturating_mul(2_u32.saturating_pow(retry.saturating_sub(1)));
    let jittered = doubled
        .min(MAX_DELAY)
        .mul_f64(1.0 - rand::rng().random_range(0.0..0.25));
    jittered.max(at_least.unwrap_or_default()).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_with_jitter_and_stays_under_fifteen_minutes() {
        let base = Duration::from_secs(5);
        for retry in 1..=70 {
            let whole = Duration::from_secs(5 << (retry - 1).min(20)).min(MAX_DELAY);
            for _ in 0..50 {
                let wait = backoff(base, retry, None);
                assert!(wait <= whole && wait >= whole.mul_f64(0.75), "{retry}: {wait:?}");
            }
        }
    }

    #[test]
    fn a_server_that_asks_for_more_gets_it_up_to_fifteen_minutes() {
        let base = Duration::from_secs(1);
        assert_eq!(backoff(base, 1, Some(Duration::from_mins(1))), Duration::from_mins(1));
        assert_eq!(backoff(base, 1, Some(Duration::from_hours(24))), MAX_DELAY);
    }

    #[test]
    fn only_what_the_host_did_is_held_against_it() {
        let status = |status, retry_after| Failure::from(FetchError::Status { status, retry_after }).outcome();
        let asked = Duration::from_secs(7);
        assert_eq!(status(429, Some(asked)), Outcome::Busy(asked));
        assert_eq!(status(429, None), Outcome::Busy(QUIET));
        assert_eq!(status(503, Some(asked)), Outcome::Busy(asked));
        assert_eq!(status(503, None), Outcome::Failed);
        assert_eq!(status(500, None), Outcome::Failed);
        assert_eq!(status(404, None), Outcome::Answered);
        let message = String::new;
        assert_eq!(
            Failure::from(FetchError::Connection { message: message() }).outcome(),
            Outcome::Failed
        );
        assert_eq!(
            Failure::from(FetchError::Egress { message: message() }).outcome(),
            Outcome::Unknown
        );
        assert_eq!(
            Failure::from(FetchError::Browser { message: message() }).outcome(),
            Outcome::Unknown
        );
        assert_eq!(Failure::from(FetchError::Refused).outcome(), Outcome::Unknown);
    }

    #[test]
    fn what_may_pass_is_retryable_and_what_stays_is_not() {
        let status = |status| {
            Failure::from(FetchError::Status {
                status,
                retry_after: None,
            })
            .retryable
        };
        assert!([500, 502, 503, 504, 429, 408].into_iter().all(status));
        assert!(![400, 401, 403, 404, 410, 304].into_iter().any(status));
    }
}
