//! What a site says about a page's state, and asking it whether that has changed (RFC 9110, sections 8.8 and 13). Pure.

use reqwest::{
    Response,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use selextract_platform::ledger::conditional::{Known, Validators};
use url::Url;

use super::{EGRESS_HEADER, FetchError, Freshness, Page, check_egress};
use crate::content::Content;

/// The longest `ETag` that is kept.
const MAX_ETAG: usize = 512;
/// The longest `Last-Modified` that is kept; a date has 29 characters.
const MAX_DATE: usize = 64;

/// What an answer says about the state of its page: nothing where it must not be stored, or differs for reasons that nobody knows.
pub(super) fn of(headers: &HeaderMap) -> Freshness {
    if has_word(headers, &header::CACHE_CONTROL, "no-store") || has_word(headers, &header::VARY, "*") {
        return Freshness::Unknown;
    }
    let text = |name: HeaderName, most: usize| {
        let value = headers.get(name)?.to_str().ok()?.trim();
        (!value.is_empty() && value.len() <= most).then(|| value.to_owned())
    };
    let etag = text(header::ETAG, MAX_ETAG).filter(|etag| etag.ends_with('"'));
    let last_modified = text(header::LAST_MODIFIED, MAX_DATE);
    if etag.is_none() && last_modified.is_none() {
        return Freshness::Unknown;
    }
    Freshness::Named(Validators { etag, last_modified })
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// The headers that ask whether a page has changed.
pub(super) fn conditions(validators: &Validators) -> HeaderMap {
    let both = [
        (header::IF_NONE_MATCH, &validators.etag),
        (header::IF_MODIFIED_SINCE, &validators.last_modified),
    ];
    let given = both
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::from_str(value.as_ref()?).ok()?)));
    given.collect()
}

/// A page of which the site said that it is as it was.
pub(super) fn not_modified(url: &Url, response: &Response, known: Known) -> Result<Page, FetchError> {
    let word = response
        .headers()
        .get(EGRESS_HEADER)
        .and_then(|word| word.to_str().ok());
    check_egress(word)?;
    Ok(Page {
        url: url.clone(),
        content: Content::Html,
        text: String::new(),
        bytes: 0,
        freshness: Freshness::NotModified(Box::new(known)),
        captures: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_page_names_its_state_by_its_etag_and_its_date() {
        let date = "Wed, 25 Nov 2026 10:00:00 GMT";
        let Freshness::Named(named) = of(&headers(&[("etag", "W/\"a\""), ("last-modified", date)])) else {
            panic!("it is named");
        };
        let asked = conditions(&named);
        assert_eq!(asked[header::IF_NONE_MATCH], "W/\"a\"");
        assert_eq!(asked[header::IF_MODIFIED_SINCE], date);
    }

    #[test]
    fn what_must_not_be_stored_or_varies_by_everything_has_no_state() {
        for more in [("cache-control", "private, No-Store"), ("vary", "accept, *")] {
            assert_eq!(of(&headers(&[("etag", "\"a\""), more])), Freshness::Unknown, "{more:?}");
        }
        assert_eq!(of(&headers(&[("etag", "no quotes")])), Freshness::Unknown);
        assert_eq!(of(&HeaderMap::new()), Freshness::Unknown);
        let others = headers(&[("etag", "\"a\""), ("cache-control", "no-cache"), ("vary", "accept")]);
        assert_ne!(of(&others), Freshness::Unknown);
    }
}
