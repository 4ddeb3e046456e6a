//! Crawls of which no page is read at the moment, and the page that each of them waits for.

use snafu::ResultExt;
use sqlx::FromRow;

use crate::ledger::{Ledger, LedgerError, TaskId, error::DatabaseSnafu};

/// Of the task `t`: its crawl has begun and is not over, and no worker reads a page of it.
macro_rules! crawl_waits {
    () => {
        "(t.status = 'running' AND t.lease_until IS NULL AND t.crawl_open > 0
          AND NOT EXISTS (SELECT FROM crawl_pages c WHERE c.task_id = t.id AND c.status = 'running' AND c.lease_until IS NOT NULL))"
    };
}

/// Of the task `t`: the page that is due first. Of very many a thousand are looked at: their ids are in no order, and most are due at once.
macro_rules! first_page {
    () => {
        "(SELECT * FROM (
              SELECT c.host, c.due_at, c.attempts, c.error_class FROM crawl_pages c
              WHERE c.id BETWEEN crawl_first(t.id) AND crawl_last(t.id) AND c.task_id = t.id AND c.status = 'pending' ORDER BY c.id LIMIT 1000
          ) looked_at ORDER BY due_at LIMIT 1)"
    };
}

pub(in crate::ledger) use {crawl_waits, first_page};

/// The page that a crawl waits for.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct WaitingPage {
    /// Its host.
    pub host: String,
    /// Not before this moment, in milliseconds since the epoch.
    pub due_milliseconds: i64,
    /// How often it failed so far.
    pub attempts: i32,
    /// The class of what it last failed or was given back for.
    pub error_class: Option<String>,
}

impl Ledger {
    /// The page that a crawl waits for; `None` while workers read pages of it, and for any other run.
    pub async fn waiting_page(&self, id: TaskId) -> Result<Option<WaitingPage>, LedgerError> {
        sqlx::query_as(concat!(
            "SELECT page.host, ceil(extract(epoch FROM page.due_at) * 1000)::bigint AS due_milliseconds, page.attempts, page.error_class
             FROM tasks t CROSS JOIN LATERAL ",
            first_page!(),
            " page WHERE t.id = $1 AND ",
            crawl_waits!()
        ))
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading what a crawl waits for",
        })
    }
}
