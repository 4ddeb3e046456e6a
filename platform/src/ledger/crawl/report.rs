//! The end of a crawl that is compared with the one before: a row that is claimed, leased and tried again like a page, when there is no
//! other left. Who holds it holds the run meanwhile, by the token of its lease.

use snafu::ResultExt;
use sqlx::FromRow;

use super::{CrawlKind, HeldPage, begin::Turn};
use crate::{
    drift::Drift,
    frontier::Entry,
    ledger::{
        Ledger, LedgerError, TaskId,
        claims::{Claim, Fenced, Lease},
        comparing::Crawled,
        error::DatabaseSnafu,
    },
};

/// What came of comparing a crawl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrawlReport {
    /// How many pages it had then: when more come, it is compared again.
    pub pages: i32,
    /// What drifted; `None` where there is too little to tell.
    pub drift: Option<Vec<Drift>>,
}

/// The row's id.
pub(super) fn id(task: TaskId) -> TaskId {
    TaskId::of_crawl_page(task, CrawlKind::Report, CrawlKind::Report.as_str())
}

/// A host of its own, which no site has (RFC 2606), and which its URL names: nothing is fetched, so that nobody's politeness is to be waited for.
pub(super) fn host(task: TaskId) -> String {
    format!("{task}.invalid")
}

impl Turn {
    pub(super) fn report(self, task: TaskId, due_milliseconds: i64) -> Entry {
        Entry {
            id: id(task),
            owner: self.user_id,
            host: host(task),
            priority: u8::try_from(self.priority).unwrap_or_default(),
            due_milliseconds,
        }
    }
}

#[derive(FromRow)]
struct Held {
    pages: i32,
    failed: bool,
    cut: bool,
}

impl Ledger {
    /// Reports on a crawl whose pages have ended, under the lease of its report; the same twice gives the same.
    pub async fn report_crawl(
        &self,
        claim: &Claim,
        page: &HeldPage,
    ) -> Result<Result<CrawlReport, Fenced>, LedgerError> {
        let most = claim.spec.crawl.as_ref().map_or(0, |crawl| crawl.max_pages);
        let held: Option<Held> = sqlx::query_as(
            "WITH held AS (
                 UPDATE tasks SET lease_token = $3 FROM crawl_pages c
                 WHERE tasks.id = $1 AND tasks.status = 'running' AND c.id = $2 AND c.lease_token = $3 AND c.status = 'running'
                 RETURNING tasks.pages, tasks.crawl_found
             )
             SELECT pages, crawl_found >= $4 AS cut, EXISTS (
                 SELECT FROM crawl_pages c WHERE c.id BETWEEN crawl_first($1) AND crawl_last($1) AND c.task_id = $1
                     AND c.status = 'failed' AND NOT c.absent) AS failed
             FROM held",
        )
        .bind(page.task)
        .bind(claim.id)
        .bind(claim.lease_token)
        .bind(i32::try_from(most).unwrap_or(i32::MAX))
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reporting on a crawl",
        })?;
        let Some(held) = held else { return Ok(Err(Fenced)) };
        let lease = Lease {
            id: page.task,
            token: claim.lease_token,
        };
        let crawled = Crawled {
            is_whole: !held.failed && !held.cut,
        };
        let reported = self.report_on(lease, claim, Some(crawled)).await?;
        Ok(reported.map(|drift| CrawlReport {
            pages: held.pages,
            drift,
        }))
    }
}
