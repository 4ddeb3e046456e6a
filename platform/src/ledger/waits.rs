//! Runs of `ScrapeTask`s that wait, and why: what lasts is told to the operator by the change feed, once, and so is its end.
//!
//! Decides nothing about reasons: those are [`crate::waiting`]'s.

use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Ledger, LedgerError, TaskId,
    crawl::waiting::{crawl_waits, first_page},
    error::DatabaseSnafu,
};
use crate::waiting::Reason;

/// How many runs one stretch has.
const BATCH: i64 = 2_000;
/// A run that has waited for less is not looked at: most never wait longer.
const YOUNG_SECONDS: f64 = 20.0;
/// How long a reason lasts before it is told.
const LASTS_SECONDS: f64 = 60.0;
/// How long a run goes on before the end of its wait is told: one that reads a page and waits on has not ended it.
const RUNS_SECONDS: f64 = 30.0;
/// As a reason of a run that a worker has, or that did something since the last look: it waits for nothing.
const RUNNING: &str = "Running";

/// A run of a `ScrapeTask` that waits.
#[derive(Clone, Debug, FromRow)]
pub struct WaitingRun {
    /// The task.
    pub id: TaskId,
    /// `metadata.uid` of the `ScrapeTask`.
    pub uid: String,
    /// The host of its first page; of a crawl that has begun, of the page that is due first.
    pub host: String,
    /// Somebody paused it.
    pub paused: bool,
    /// Not before this moment, in milliseconds since the epoch.
    pub due_milliseconds: i64,
    /// A worker had it before.
    pub begun: bool,
    /// Claims of its next page so far that failed.
    pub attempts: i32,
    /// Pages committed; of a crawl, those that have ended.
    pub pages: i32,
    /// The class of what it last failed or was given back for.
    pub error_class: Option<String>,
    /// Its owner has used up a quota.
    pub held: bool,
}

/// Why a run waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The task.
    pub id: TaskId,
    /// `metadata.uid` of the `ScrapeTask`.
    pub uid: String,
    /// Why.
    pub reason: Reason,
    /// Grows with what the run has done.
    pub progress: i64,
}

impl WaitingRun {
    /// Why it waits.
    pub fn wait(&self, reason: Reason) -> Wait {
        Wait {
            id: self.id,
            uid: self.uid.clone(),
            reason,
            progress: (i64::from(self.pages) << 16) + i64::from(self.attempts),
        }
    }
}

impl Ledger {
    /// A stretch of the runs of `ScrapeTask`s that wait, in the order of their ids after `after`; with where to go on, `None` at the end. A
    /// crawl that has begun waits while no page of it is read; it is one of its owner's running tasks already.
    pub async fn waiting_runs(&self, after: Option<TaskId>) -> Result<(Vec<WaitingRun>, Option<TaskId>), LedgerError> {
        let runs: Vec<WaitingRun> = sqlx::query_as(concat!(
            "WITH waiting AS (
                 (SELECT t.id, t.source_uid, t.user_id, t.host, t.paused, t.due_at, t.started_at, t.attempts, t.pages, t.error_class,
                         EXISTS (SELECT FROM owner_quotas q WHERE q.user_id = t.user_id AND q.running IS NOT NULL AND q.running <=
                             (SELECT count(*) FROM tasks r WHERE r.status = 'running' AND r.user_id = t.user_id)) AS crowded
                  FROM tasks t
                  WHERE t.source_uid IS NOT NULL AND t.status = 'pending' AND t.created_at < now() - make_interval(secs => $3)
                      AND ($1::uuid IS NULL OR t.id > $1)
                  ORDER BY t.id LIMIT $2)
                 UNION ALL
                 (SELECT t.id, t.source_uid, t.user_id, page.host, t.paused, page.due_at, t.started_at, page.attempts,
                         t.pages + t.crawl_failed + t.crawl_skipped, page.error_class, false
                  FROM tasks t CROSS JOIN LATERAL ",
            first_page!(),
            "     page
                  WHERE t.source_uid IS NOT NULL AND ",
            crawl_waits!(),
            "         AND t.created_at < now() - make_interval(secs => $3) AND ($1::uuid IS NULL OR t.id > $1)
                  ORDER BY t.id LIMIT $2)
             )
             SELECT id, source_uid AS uid, host, paused, ceil(extract(epoch FROM due_at) * 1000)::bigint AS due_milliseconds,
                    started_at IS NOT NULL AS begun, attempts, pages, error_class,
                    crowded OR EXISTS (SELECT FROM owner_holds h WHERE h.user_id = waiting.user_id AND h.until > now()) AS held
             FROM waiting ORDER BY id LIMIT $2"
        ))
        .bind(after)
        .bind(BATCH)
        .bind(YOUNG_SECONDS)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading runs that wait" })?;
        let full = i64::try_from(runs.len()) == Ok(BATCH);
        let next = runs.last().filter(|_| full).map(|run| run.id);
        Ok((runs, next))
    }

    /// Remembers why runs wait. What is as it was is not written; one that did something since the last look has not waited.
    pub async fn note_waits(&self, waits: &[Wait]) -> Result<(), LedgerError> {
        if waits.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO run_waits AS w (task_id, uid, reason, progress)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[])
             ON CONFLICT (task_id) DO UPDATE SET progress = excluded.progress,
                 reason = CASE WHEN w.progress = excluded.progress THEN excluded.reason ELSE $5 END,
                 since = CASE WHEN w.progress <> excluded.progress AND w.reason = $5 THEN w.since ELSE now() END
             WHERE (w.reason, w.progress) IS DISTINCT FROM (excluded.reason, excluded.progress)",
        )
        .bind(waits.iter().map(|wait| wait.id.0).collect::<Vec<Uuid>>())
        .bind(waits.iter().map(|wait| wait.uid.as_str()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.reason.as_str()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.progress).collect::<Vec<_>>())
        .bind(RUNNING)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "noting why runs wait",
        })?;
        Ok(())
    }

    /// Tells the change feed of waits that have lasted, and of the end of those that were told. Returns how many changes that made.
    pub async fn tell_waits(&self) -> Result<u64, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "telling why runs wait",
        };
        // A run that ended told that itself.
        sqlx::query(
            "DELETE FROM run_waits w WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.id = w.task_id AND t.status IN ('pending', 'running'))",
        )
        .execute(&self.pool)
        .await
        .context(doing)?;
        sqlx::query(concat!(
            "UPDATE run_waits w SET reason = $1, since = now()
             FROM tasks t WHERE t.id = w.task_id AND t.status = 'running' AND w.reason <> $1 AND NOT ",
            crawl_waits!()
        ))
        .bind(RUNNING)
        .execute(&self.pool)
        .await
        .context(doing)?;
        let told = sqlx::query(
            "WITH lasting AS (
                 SELECT task_id, CASE WHEN reason NOT IN ($1, 'Queued') THEN reason END AS tells, reason = $1 AS runs FROM run_waits
                 WHERE since < now() - make_interval(secs => CASE WHEN reason = $1 THEN $2 ELSE $3 END)
                     AND (reason = $1 OR told IS DISTINCT FROM CASE WHEN reason <> 'Queued' THEN reason END)
                 ORDER BY since LIMIT $4 FOR UPDATE SKIP LOCKED
             ), over AS (
                 DELETE FROM run_waits w USING lasting l WHERE w.task_id = l.task_id AND l.runs RETURNING w.task_id, w.uid, w.told
             ), tells AS (
                 UPDATE run_waits w SET told = l.tells FROM lasting l WHERE w.task_id = l.task_id AND NOT l.runs RETURNING w.task_id, w.uid
             )
             INSERT INTO changes (uid, task_id)
             SELECT uid, task_id FROM over WHERE told IS NOT NULL UNION ALL SELECT uid, task_id FROM tells",
        )
        .bind(RUNNING)
        .bind(RUNS_SECONDS)
        .bind(LASTS_SECONDS)
        .bind(BATCH)
        .execute(&self.pool)
        .await
        .context(doing)?;
        Ok(told.rows_affected())
    }
}
