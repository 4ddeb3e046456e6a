//! What the keeper does for crawls: pages that wait into the frontier, and pages whose worker was lost back.

use std::time::Duration;

use selextract_task::feed::RunError;
use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    CrawlEnd, CrawlKind,
    ends::{End, Step},
};
use crate::{
    frontier::Entry,
    ledger::{Ledger, LedgerError, TaskId, claims::Lease, error::DatabaseSnafu, maintenance::Swept, waiting::EntryRow},
};

/// How many rows one sweep or refill takes.
const BATCH: i64 = 5_000;

/// How far a circle through the pages that wait has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrawlCursor {
    /// The runs up to this one are done.
    behind: Option<TaskId>,
    /// The run at hand, and its last page that was read.
    within: Option<(TaskId, TaskId)>,
}

#[derive(FromRow)]
struct Expired {
    id: TaskId,
    task_id: TaskId,
    lease_token: Uuid,
    attempts: i32,
    max_attempts: Option<i16>,
    runs: Option<bool>,
    kind: String,
}

impl Ledger {
    /// A stretch of the pages of open crawls that wait, for the frontier; with where to go on, `None` at the end of the circle.
    pub async fn refill_crawls(&self, from: CrawlCursor) -> Result<(Vec<Entry>, Option<CrawlCursor>), LedgerError> {
        let run = match from.within {
            Some((run, _)) => Some(run),
            None => self.next_crawl(from.behind).await?,
        };
        let Some(run) = run else { return Ok((Vec::new(), None)) };
        let rows: Vec<EntryRow> = sqlx::query_as(
            "SELECT c.id, t.user_id, c.host, t.priority, ceil(extract(epoch FROM c.due_at) * 1000)::bigint AS due_milliseconds
             FROM crawl_pages c JOIN tasks t ON t.id = c.task_id
             WHERE c.id BETWEEN crawl_first($1) AND crawl_last($1) AND c.id > coalesce($2, crawl_first($1)) AND c.status = 'pending'
                 AND c.task_id = $1 AND t.status = 'running' AND NOT t.paused
             ORDER BY c.id LIMIT $3",
        )
        .bind(run)
        .bind(from.within.map(|(_, page)| page.0))
        .bind(BATCH)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading pages that wait" })?;
        let full = rows.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        let entries: Vec<Entry> = rows.into_iter().map(Entry::from).collect();
        let next = match entries.last().filter(|_| full) {
            Some(last) => CrawlCursor {
                behind: from.behind,
                within: Some((run, last.id)),
            },
            None => CrawlCursor {
                behind: Some(run),
                within: None,
            },
        };
        Ok((entries, Some(next)))
    }

    /// The next run whose crawl goes on: one that runs without a lease.
    async fn next_crawl(&self, behind: Option<TaskId>) -> Result<Option<TaskId>, LedgerError> {
        sqlx::query_scalar(
            "SELECT id FROM tasks WHERE status = 'running' AND lease_until IS NULL AND crawl_open > 0 AND NOT paused
                 AND ($1::uuid IS NULL OR id > $1)
                 AND NOT EXISTS (SELECT FROM owner_holds h WHERE h.user_id = tasks.user_id AND h.until > now())
             ORDER BY id LIMIT 1",
        )
        .bind(behind)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "looking for open crawls",
        })
    }

    /// Takes expired leases of pages back: the page waits again, or fails where its attempts are used up, and its run may end with it.
    pub async fn sweep_crawls(&self) -> Result<Swept, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "taking expired leases of pages back",
        };
        let expired: Vec<Expired> = sqlx::query_as(
            "SELECT c.id, c.task_id, c.lease_token, c.attempts, t.max_attempts, t.status = 'running' AS runs, c.kind
             FROM crawl_pages c LEFT JOIN tasks t ON t.id = c.task_id
             WHERE c.status = 'running' AND c.lease_until < now() ORDER BY c.id LIMIT $1",
        )
        .bind(BATCH)
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        let (live, over): (Vec<_>, Vec<_>) = expired.into_iter().partition(|page| page.runs == Some(true));
        // Nobody reads for a run that has ended; a replay finds them where they were.
        sqlx::query(
            "UPDATE crawl_pages SET status = 'pending', attempts = greatest(attempts - 1, 0), lease_token = NULL, lease_until = NULL,
                 worker = NULL
             WHERE id = ANY($1) AND status = 'running' AND lease_until < now()",
        )
        .bind(over.iter().map(|page| page.id.0).collect::<Vec<Uuid>>())
        .execute(&self.pool)
        .await
        .context(doing)?;
        let ends = live.iter().map(|page| async {
            let exhausted = page.attempts >= i32::from(page.max_attempts.unwrap_or(1));
            let ended = self.end_step(page.lost(exhausted)).await?;
            Ok::<_, LedgerError>(ended.map(|_| exhausted))
        });
        let mut swept = Swept::default();
        for ended in futures::future::try_join_all(ends).await?.into_iter().flatten() {
            swept.exhausted += i64::from(ended);
            swept.returned += i64::from(!ended);
        }
        Ok(swept)
    }
}

impl Expired {
    fn lost(&self, exhausted: bool) -> End {
        let error = RunError {
            class: "AttemptsExhausted".into(),
            message: format!("it was begun {} times and its worker was lost each time", self.attempts),
        };
        let end = if exhausted && self.kind == CrawlKind::Report.as_str() {
            // Without it the run would seem to be what it was compared as.
            CrawlEnd::FailsRun(error)
        } else if exhausted {
            CrawlEnd::Failed(error)
        } else {
            CrawlEnd::Retry {
                after: Duration::ZERO,
                error: RunError {
                    class: "WorkerLost".into(),
                    message: "the worker that read it was lost".into(),
                },
            }
        };
        End {
            held: Lease {
                id: self.id,
                token: self.lease_token,
            },
            task: self.task_id,
            step: Step::End(end),
            links: None,
            artifacts: None,
            micros: 0,
            max_pages: 0,
            expired: true,
        }
    }
}
