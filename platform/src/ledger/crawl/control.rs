//! What people see of a crawl, and running its failed pages again.

use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use crate::ledger::{Ledger, LedgerError, TaskId, UserId, error::DatabaseSnafu, run_control::Changed, transaction};

/// The most pages of one answer.
pub const PAGE_LIMIT: i64 = 1_000;

/// Where a page of a crawl stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStatus {
    /// It waits.
    Pending,
    /// A worker reads it.
    Running,
    /// It was read.
    Done,
    /// It failed, as often as it may.
    Failed,
    /// It is none that is read.
    Skipped,
}

impl PageStatus {
    /// As the ledger writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Reads what the ledger wrote.
    pub fn from_ledger(text: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Done, Self::Failed, Self::Skipped]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// How far a crawl is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct CrawlProgress {
    /// Pages found.
    pub found: i32,
    /// Pages, sitemaps and robots.txt that wait.
    pub pending: i32,
    /// Those that workers read at the moment.
    pub running: i32,
    /// Pages that were read.
    pub done: i32,
    /// Those that failed.
    pub failed: i32,
    /// Those that are none that is read.
    pub skipped: i32,
}

/// A page of a crawl.
#[derive(Clone, Debug, FromRow)]
pub struct CrawlPageRow {
    /// The page.
    pub id: TaskId,
    /// As in [`super::CrawlKind`].
    pub kind: String,
    /// Its URL.
    pub url: String,
    /// How many links away from the crawl's beginning it is.
    pub depth: i16,
    /// As in [`PageStatus`].
    pub status: String,
    /// How often a worker took it up.
    pub attempts: i32,
    /// Records that it gave.
    pub records: i32,
    /// While it waits, not before this moment. RFC 3339.
    pub due_at: Option<String>,
    /// RFC 3339.
    pub ended_at: Option<String>,
    /// A stable word for why it failed, was skipped, or waits for a retry.
    pub error_class: Option<String>,
    /// One sentence.
    pub error_message: Option<String>,
}

impl Ledger {
    /// How far a crawl is; `None` for a run that is none, or has not begun.
    pub async fn crawl_progress(&self, id: TaskId) -> Result<Option<CrawlProgress>, LedgerError> {
        sqlx::query_as(
            "SELECT crawl_found AS found, crawl_open - held.running AS pending, held.running, pages AS done, crawl_failed AS failed,
                    crawl_skipped AS skipped
             FROM tasks CROSS JOIN LATERAL (
                 SELECT count(*)::integer AS running FROM crawl_pages c WHERE c.task_id = tasks.id AND c.status = 'running'
                     AND c.lease_until IS NOT NULL AND tasks.status = 'running'
             ) held
             WHERE id = $1 AND crawl_open IS NOT NULL",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading a crawl's progress" })
    }

    /// The pages of a crawl after `after`, in one state when asked, in an order that stays and means nothing; `limit` of them at most.
    pub async fn crawl_pages(
        &self,
        task: TaskId,
        after: Option<TaskId>,
        status: Option<PageStatus>,
        limit: i64,
    ) -> Result<Vec<CrawlPageRow>, LedgerError> {
        // Written out, so that those in a state are found by its index among very many others.
        let of = status
            .map(|status| format!("AND status = '{}'", status.as_str()))
            .unwrap_or_default();
        sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT id, kind, url, depth, status, attempts, records, CASE WHEN status = 'pending' THEN rfc3339(due_at) END AS due_at,
                    rfc3339(ended_at) AS ended_at, error_class, error_message
             FROM crawl_pages
             WHERE id BETWEEN crawl_first($1) AND crawl_last($1) AND task_id = $1 AND kind <> 'report'
                 AND id > coalesce($2, crawl_first($1)) {of}
             ORDER BY id LIMIT $3"
        )))
        .bind(task)
        .bind(after.map(|id| id.0))
        .bind(limit.clamp(1, PAGE_LIMIT))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "listing a crawl's pages" })
    }

    /// Lets the failed pages of a crawl run again, with all their attempts, whether the run has ended or not; one that was canceled stays.
    pub async fn retry_failed_pages(&self, owner: Option<UserId>, id: TaskId) -> Result<Changed, LedgerError> {
        let found: Option<bool> = sqlx::query_scalar(
            "SELECT status IN ('running', 'succeeded', 'failed') AND coalesce(crawl_failed, 0) > 0 FROM tasks
             WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2)",
        )
        .bind(id)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "looking for failed pages",
        })?;
        match found {
            None => Ok(Changed::Missing),
            Some(false) => Ok(Changed::Unfit),
            Some(true) => {
                let reopened = self.reopen_crawls(&[id], &["running", "succeeded", "failed"]).await?;
                Ok(if reopened.is_empty() {
                    Changed::Unfit
                } else {
                    Changed::Done(None)
                })
            }
        }
    }

    /// Takes crawls up again: what had failed waits again, with all its attempts, and what still waited goes on; those of which nothing is
    /// left to do stay as they are. Returns those that run again.
    pub(in crate::ledger) async fn reopen_crawls(
        &self,
        ids: &[TaskId],
        of: &[&str],
    ) -> Result<Vec<TaskId>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "running the failed pages of a crawl again",
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        // Whoever commits a page waits for the task, so that the pages that failed are all there.
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "SELECT id FROM tasks WHERE id = ANY($1) AND status = ANY($2) AND crawl_open + crawl_failed > 0
                 AND (crawl_failed > 0 OR status = 'failed') ORDER BY id FOR UPDATE",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<Uuid>>())
        .bind(of)
        .fetch_all(&mut *transaction)
        .await
        .context(doing)?;
        sqlx::query(
            "UPDATE crawl_pages c SET status = 'pending', attempts = 0, due_at = now(), ended_at = NULL, absent = false
             FROM unnest($1::uuid[]) AS run (id)
             WHERE c.id BETWEEN crawl_first(run.id) AND crawl_last(run.id) AND c.task_id = run.id AND c.status = 'failed'",
        )
        .bind(&ids)
        .execute(&mut *transaction)
        .await
        .context(doing)?;
        sqlx::query(
            "WITH was AS (
                 SELECT id, status FROM tasks WHERE id = ANY($1)
             ), again AS (
                 UPDATE tasks SET status = 'running', crawl_open = crawl_open + crawl_failed, crawl_failed = 0, paused = false,
                     cancel_requested = false, error_class = NULL, error_message = NULL,
                     started_at = CASE WHEN was.status = 'running' THEN started_at ELSE now() END, finished_at = NULL,
                     compute_units_before = CASE WHEN was.status = 'running' THEN compute_units_before ELSE compute_units_used END,
                     replays = replays + CASE WHEN was.status = 'running' THEN 0 ELSE 1 END
                 FROM was WHERE tasks.id = was.id
                 RETURNING tasks.id, user_id, source_uid, was.status AS was
             ), counted AS (
                 INSERT INTO owner_counter_deltas (user_id, succeeded, failed)
                 SELECT user_id, -(was = 'succeeded')::int, -(was = 'failed')::int FROM again WHERE was <> 'running'
             )
             INSERT INTO changes (uid, task_id) SELECT source_uid, id FROM again WHERE source_uid IS NOT NULL",
        )
        .bind(&ids)
        .execute(&mut *transaction)
        .await
        .context(doing)?;
        // Nobody compares with a run that goes on.
        sqlx::query("UPDATE run_reports SET succeeded = false WHERE task_id = ANY($1)")
            .bind(&ids)
            .execute(&mut *transaction)
            .await
            .context(doing)?;
        transaction.commit().await.context(doing)?;
        Ok(ids.into_iter().map(TaskId).collect())
    }
}
