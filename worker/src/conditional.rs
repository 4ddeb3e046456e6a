//! Pages that are as they were: the site is asked, and their records are taken from the run before, whole.

use selextract_platform::{
    digest,
    ledger::{
        LedgerError,
        claims::Claim,
        conditional::{FormerPage, Known, PageState},
    },
};
use selextract_task::{Plan, Render};
use url::Url;
use uuid::Uuid;

use crate::{
    claims::Claims,
    extract::{Extracted, Fill},
    failure::Failure,
    fetch::{Freshness, Page},
};

/// Whether a run asks for the state of its pages: where there is a run before it, unless the spec says otherwise.
pub(crate) fn asks(plan: &Plan, claim: &Claim) -> bool {
    plan.render != Render::Browser && claim.spec.conditional.unwrap_or(claim.source_uid.is_some())
}

/// Whether what is known of a page serves only with its links: in a crawl that follows them from it.
pub(crate) fn needs_links(plan: &Plan) -> bool {
    plan.crawl.as_ref().is_some_and(|crawl| crawl.reads_links)
}

/// What a page is known by.
pub(crate) fn key(claim: &Claim, url: &Url) -> Uuid {
    digest::page_key(&claim.spec, url.as_str())
}

/// What the former run read in a page that is as it was. A page that was removed meanwhile is fetched at the next attempt.
pub(crate) async fn read(claims: &Claims, known: &Known) -> Result<Result<Extracted, Failure>, LedgerError> {
    let former = claims.former_page(known).await?;
    Ok(former.map(extracted).ok_or_else(|| {
        Failure::retryable(
            "Gone",
            "the page is as it was, and the run that has it was removed meanwhile",
        )
    }))
}

fn extracted(page: FormerPage) -> Extracted {
    let number = |number: i32| u32::try_from(number).unwrap_or_default();
    let mut fill = page.fill.into_iter().map(number);
    let items = fill.next().unwrap_or_default();
    let next = page.next_url.and_then(|next| Url::parse(&next).ok());
    Extracted {
        records: page.records,
        left_out: number(page.warnings),
        fill: Fill {
            items,
            found: fill.collect(),
        },
        // Where the run before ended, this one does: it asks for the same.
        stops: next.is_none(),
        links: page.links.iter().filter_map(|link| Url::parse(link).ok()).collect(),
        streamed: false,
        next,
    }
}

/// Remembers the state of a page that was committed under this number.
pub(crate) async fn remember(claims: &Claims, claim: &Claim, requested: &Url, page: &Page, number: i32) {
    if let Some(state) = state(claim, requested, page) {
        claims.remember_page(claim, &state, number).await;
    }
}

/// The state of a page, where its site names it.
pub(crate) fn state(claim: &Claim, requested: &Url, page: &Page) -> Option<PageState> {
    let validators = match &page.freshness {
        Freshness::Unknown => return None,
        Freshness::Named(validators) => validators.clone(),
        Freshness::NotModified(known) => known.validators.clone(),
    };
    Some(PageState {
        key: key(claim, requested),
        url: page.url.to_string(),
        validators,
    })
}
