//! Runs of `ScrapeTask`s that wait, and why: what lasts is told to the operator by the change feed, once, and so is its end.
//!
//! Decides nothing about reasons: those are [`crate::waiting`]'s.

use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Ledger, LedgerError, TaskId, error::DatabaseSnafu};
use crate::waiting::Reason;

/// How many runs one stretch has.
const BATCH: i64 = 2_000;
/// A run that has waited for less is not looked at: most never wait longer.
const YOUNG_SECONDS: f64 = 20.0;
/// How long a reason lasts before it is told.
const LASTS_SECONDS: f64 = 60.0;
/// How long a run goes on before the end of its wait is told: one that reads a page and waits on has not ended it.
const RUNS_SECONDS: f64 = 30.0;
/// As a reason of a run that a worker has: it waits for nothing.
const RUNNING: &str = "Running";

/// A run of a `ScrapeTask` that waits.
#[derive(Clone, Debug, FromRow)]
pub struct WaitingRun {
    /// The task.
    pub id: TaskId,
    /// `metadata.uid` of the `ScrapeTask`.
    pub uid: String,
    /// The host of its first page.
    pub host: String,
    /// Somebody paused it.
    pub paused: bool,
    /// Not before this moment, in milliseconds since the epoch.
    pub due_milliseconds: i64,
    /// A worker had it before.
    pub begun: bool,
    /// Claims of its next page so far that failed.
    pub attempts: i32,
    /// Pages committed.
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
    /// A stretch of the runs of `ScrapeTask`s that wait, in the order of their ids after `after`; with where to go on, `None` at the end.
    pub async fn waiting_runs(&self, after: Option<TaskId>) -> Result<(Vec<WaitingRun>, Option<TaskId>), LedgerError> {
        let runs: Vec<WaitingRun> = sqlx::query_as(
            "SELECT t.id, t.source_uid AS uid, t.host, t.paused, ceil(extract(epoch FROM t.due_at) * 1000)::bigint AS due_milliseconds,
                    t.started_at IS NOT NULL AS begun, t.attempts, t.pages, t.error_class,
                    EXISTS (SELECT FROM owner_holds h WHERE h.user_id = t.user_id AND h.until > now())
                    OR EXISTS (SELECT FROM owner_quotas q WHERE q.user_id = t.user_id AND q.running IS NOT NULL AND q.running <=
                        (SELECT count(*) FROM tasks r WHERE r.status = 'running' AND r.user_id = t.user_id)) AS held
             FROM tasks t
             WHERE t.source_uid IS NOT NULL AND t.status = 'pending' AND t.created_at < now() - make_interval(secs => $3)
                 AND ($1::uuid IS NULL OR t.id > $1)
             ORDER BY t.id LIMIT $2",
        )
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

    /// Remembers why runs wait. What is as it was is not written.
    pub async fn note_waits(&self, waits: &[Wait]) -> Result<(), LedgerError> {
        if waits.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO run_waits AS w (task_id, uid, reason, progress)
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[])
             ON CONFLICT (task_id) DO UPDATE SET reason = excluded.reason, progress = excluded.progress, since = now()
             WHERE (w.reason, w.progress) IS DISTINCT FROM (excluded.reason, excluded.progress)",
        )
        .bind(waits.iter().map(|wait| wait.id.0).collect::<Vec<Uuid>>())
        .bind(waits.iter().map(|wait| wait.uid.as_str()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.reason.as_str()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.progress).collect::<Vec<_>>())
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
        sqlx::query(
            "UPDATE run_waits w SET reason = $1, since = now()
             FROM tasks t WHERE t.id = w.task_id AND t.status = 'running' AND w.reason <> $1",
        )
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
