//! A run in one open page, of which clicks or scrolling bring more and more: each time, what is new commits as a page.
//!
//! A run that comes back begins with the page as everybody finds it: what was committed is brought again and left out.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use selextract_platform::{frontier::hosts::Outcome, ledger::LedgerError};
use selextract_task::More;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Ending, Fenced, PageOutcome, Run, Spending, Walk, led::Led, read_page, told};
use crate::{
    extract::{Extracted, Record},
    failure::{Blame, Failure},
    fetch::{BrowserSnafu, Freshness, Page, browser::Errand},
    gate::{Gate, Stopped},
};

/// How often each record was committed, told by a hash of it, and how many were left out.
#[derive(Debug, Default)]
struct Seen {
    records: HashMap<u64, u32>,
    left_out: u32,
}

impl Seen {
    /// What a page has more than what was seen before, in its order; from now on it is seen too. The page shows what was seen, so a
    /// record that stands in it twice is new once when it was seen once.
    fn take_new(&mut self, page: &mut Extracted) {
        let mut here: HashMap<u64, u32> = HashMap::new();
        page.records.retain(|record| {
            let hash = hash(record);
            let shown = here.entry(hash).or_default();
            *shown += 1;
            let seen = self.records.entry(hash).or_default();
            let is_new = *shown > *seen;
            *seen = (*seen).max(*shown);
            is_new
        });
        let left_out = page.left_out;
        page.left_out = left_out.saturating_sub(self.left_out);
        self.left_out = self.left_out.max(left_out);
    }

    fn add(&mut self, record: &Record) {
        *self.records.entry(hash(record)).or_default() += 1;
    }
}

fn hash(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (key, value) in record {
        (key, value.to_string()).hash(&mut hasher);
    }
    hasher.finish()
}

impl Run<'_> {
    /// Reads the page, and what every further click or scroll brings.
    pub(super) async fn click_through(
        &mut self,
        more: &More,
        gate: &mut Gate<'_>,
        stop: &CancellationToken,
        spending: &mut Spending,
    ) -> Result<Walk, LedgerError> {
        let url = self.plan.url.clone();
        let mut seen = self.seen().await?;
        let committed = self.pages;
        let mut shown = 0;
        loop {
            if stop.is_cancelled() {
                return Ok(Walk::Ended(Ending::HandedBack));
            }
            if let Some(over) = self.over(spending) {
                return Ok(Walk::Ended(Ending::Failed(told(&over))));
            }
            let passed = match shown {
                0 => gate.pass(&url, &self.plan, stop).await,
                _ => gate.stay(&url, &self.plan, stop).await,
            };
            match passed {
                Ok(()) => {}
                Err(Stopped::GivenBack(ending)) => return Ok(Walk::Ended(ending)),
                Err(Stopped::Failed(failure)) => return Ok(Walk::Ended(self.failed(&failure, Instant::now()))),
            }
            let started = Instant::now();
            let brought = self
                .bring(
                    more,
                    &url,
                    (shown == 0, shown < committed),
                    &mut seen,
                    (gate, stop, spending),
                )
                .await;
            let (mut page, extracted) = match brought {
                Ok(Brought::Page(page)) => *page,
                Ok(Brought::Again) => {
                    gate.ended(Outcome::Answered);
                    shown += 1;
                    continue;
                }
                Ok(Brought::Nothing) => {
                    gate.ended(Outcome::Answered);
                    return self.end_of_page(&url, started).await;
                }
                Err(Stopped::GivenBack(ending)) => return Ok(Walk::Ended(ending)),
                Err(Stopped::Failed(failure)) => {
                    gate.ended(failure.outcome());
                    let failure = self.over(spending).unwrap_or(failure);
                    return Ok(Walk::Ended(self.failed(&failure, started)));
                }
            };
            gate.ended(Outcome::Answered);
            shown += 1;
            let goes_on = !extracted.stops && i64::from(self.pages) + 1 < i64::from(self.plan.max_pages);
            if !goes_on {
                match self.capture_last().await {
                    Ok(last) => page.captures.extend(last),
                    Err(failure) => return Ok(Walk::Ended(self.failed(&failure, started))),
                }
            }
            match self
                .commit(&mut page, extracted, (goes_on.then_some(&url), Duration::ZERO))
                .await?
            {
                Err(Fenced) => return Ok(Walk::Fenced),
                Ok(renewed) => {
                    self.count_page(PageOutcome::Committed, started);
                    if renewed.cancel_requested {
                        return Ok(Walk::Ended(Ending::Canceled));
                    }
                    if renewed.paused && goes_on {
                        return Ok(Walk::Ended(Ending::HandedBack));
                    }
                }
            }
            if !goes_on {
                return Ok(Walk::Ended(self.finished()));
            }
        }
    }

    /// What earlier claims have committed.
    async fn seen(&self) -> Result<Seen, LedgerError> {
        let mut seen = Seen::default();
        let mut after = 0;
        while after < self.pages {
            let pages = self.claims.committed(self.claim, after).await?;
            let Some(last) = pages.last() else { break };
            after = last.number;
            for page in &pages {
                page.records.iter().for_each(|record| seen.add(record));
                seen.left_out += u32::try_from(page.warnings).unwrap_or_default();
            }
        }
        Ok(seen)
    }

    /// Opens the page, or brings more of it, within a page's time.
    async fn bring(
        &mut self,
        more: &More,
        url: &Url,
        (opens, again): (bool, bool),
        seen: &mut Seen,
        (gate, stop, spending): (&mut Gate<'_>, &CancellationToken, &mut Spending),
    ) -> Result<Brought, Stopped> {
        let allowed = self.allowed();
        let deadline = Instant::now() + allowed;
        let late = |_| Failure::late(allowed).blaming(Blame::Host);
        let fetched = timeout(allowed, async {
            if opens {
                return self.fetch_by_browser(url, gate, stop, spending).await.map(Some);
            }
            let plan = Arc::clone(&self.plan);
            let errand = Errand::of(&plan, false);
            let session = self.session.as_mut().ok_or_else(closed)?;
            let leave = Led {
                gate,
                plan: &plan,
                access: &self.access,
                stop,
                url,
            };
            let brought = session.bring_more(more, &errand, allowed, leave).await?;
            Ok(brought.map_err(Failure::from)?)
        })
        .await;
        self.charge_browser(spending);
        let Some(page) = fetched.map_err(late)?? else {
            return Ok(Brought::Nothing);
        };
        spending.bytes += page.bytes;
        if again {
            return Ok(Brought::Again);
        }
        let (page, mut extracted) = read_page(Arc::clone(&self.plan), page, deadline).await?;
        seen.take_new(&mut extracted);
        if opens || !extracted.records.is_empty() {
            return Ok(Brought::Page(Box::new((page, extracted))));
        }
        Ok(self.look_again(page, seen).await?)
    }

    /// A page that seems to have no more gets a while longer.
    async fn look_again(&mut self, before: Page, seen: &mut Seen) -> Result<Brought, Failure> {
        let allowed = self.allowed();
        let deadline = Instant::now() + allowed;
        let session = self.session.as_mut().ok_or_else(closed)?;
        let looked = timeout(allowed, session.look_again(allowed)).await;
        let page = looked.map_err(|_| Failure::late(allowed))??;
        let (mut page, mut extracted) = read_page(Arc::clone(&self.plan), page, deadline).await?;
        seen.take_new(&mut extracted);
        if extracted.records.is_empty() {
            return Ok(Brought::Nothing);
        }
        page.captures = before.captures;
        Ok(Brought::Page(Box::new((page, extracted))))
    }

    /// Nothing more comes. What is captured at the end is a page of its own, without records.
    async fn end_of_page(&mut self, url: &Url, started: Instant) -> Result<Walk, LedgerError> {
        let captures = match self.capture_last().await {
            Ok(captures) => captures,
            Err(failure) => return Ok(Walk::Ended(self.failed(&failure, started))),
        };
        if !captures.is_empty() {
            let mut page = Page {
                url: url.clone(),
                content: crate::content::Content::Html,
                text: String::new(),
                bytes: 0,
                freshness: Freshness::Unknown,
                captures,
            };
            if self
                .commit(&mut page, Extracted::default(), (None, Duration::ZERO))
                .await?
                .is_err()
            {
                return Ok(Walk::Fenced);
            }
        }
        Ok(Walk::Ended(self.finished()))
    }
}

/// What a click or a scroll brought.
enum Brought {
    Page(Box<(Page, Extracted)>),
    /// What an earlier claim has committed.
    Again,
    /// Nothing that is new.
    Nothing,
}

fn closed() -> Failure {
    BrowserSnafu {
        message: "the open page is gone",
    }
    .build()
    .into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page(texts: &[&str]) -> Extracted {
        let record = |text: &&str| Record::from_iter([("t".to_owned(), json!(text))]);
        Extracted {
            records: texts.iter().map(record).collect(),
            ..Extracted::default()
        }
    }

    fn new(seen: &mut Seen, texts: &[&str]) -> Vec<String> {
        let mut page = page(texts);
        seen.take_new(&mut page);
        let text = |record: &Record| record["t"].as_str().unwrap().to_owned();
        page.records.iter().map(text).collect()
    }

    #[test]
    fn each_look_gives_what_is_new_and_equal_records_count_by_their_number() {
        let mut seen = Seen::default();
        assert_eq!(new(&mut seen, &["a", "b", "b"]), ["a", "b", "b"]);
        assert_eq!(new(&mut seen, &["a", "b", "b", "b", "c"]), ["b", "c"]);
        assert!(new(&mut seen, &["a", "b", "b", "b", "c"]).is_empty());
        assert_eq!(new(&mut seen, &["c", "d"]), ["d"], "a list that drops its beginning");
    }

    #[test]
    fn what_was_committed_before_is_not_new() {
        let mut seen = Seen::default();
        page(&["a", "b"]).records.iter().for_each(|record| seen.add(record));
        assert_eq!(new(&mut seen, &["0", "a", "b", "c"]), ["0", "c"]);
    }

    #[test]
    fn items_that_were_left_out_are_counted_once() {
        let mut seen = Seen::default();
        let mut left_out = |count| {
            let mut page = Extracted {
                left_out: count,
                ..Extracted::default()
            };
            seen.take_new(&mut page);
            page.left_out
        };
        assert_eq!([left_out(2), left_out(5), left_out(5)], [2, 3, 0]);
    }
}
