//! Pausing, resuming and replaying runs, and the runs that failed: the dead letters.

use snafu::ResultExt;
use sqlx::FromRow;

use super::{Ledger, LedgerError, TaskId, UserId, error::DatabaseSnafu, tasks::PAGE_ROWS, waiting::EntryRow};
use crate::frontier::Entry;

/// The most dead letters that one statement replays.
pub const REPLAY_BATCH: i64 = 1_000;
/// The most causes that are listed.
const CAUSES: i64 = 100;

/// What became of a run that was to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// There is no such run.
    Missing,
    /// It is not in a state in which this can be done.
    Unfit,
    /// It was done. What may run now is to be offered to the frontier.
    Done(Option<Entry>),
}

/// A run that failed: what was committed stays, and a replay goes on behind it.
#[derive(Clone, Debug, FromRow)]
pub struct DeadLetter {
    /// The task.
    pub id: TaskId,
    /// Its name for people.
    pub name: Option<String>,
    /// Its first page.
    pub url: String,
    /// The class of the error that ended it.
    pub cause: String,
    /// One sentence.
    pub message: String,
    /// Pages committed.
    pub pages: i32,
    /// Records committed.
    pub records: i64,
    /// Claims since the last committed page.
    pub attempts: i32,
    /// How often it was replayed.
    pub replays: i32,
    /// RFC 3339.
    pub failed_at: Option<String>,
}

/// How many runs of an owner failed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Cause {
    /// The class of their error.
    pub cause: String,
    /// How many.
    pub count: i64,
}

/// A row of a change: whether the state fitted, and what may run now.
#[derive(FromRow)]
struct Row {
    fits: bool,
    waits: bool,
    #[sqlx(flatten)]
    entry: EntryRow,
}

/// A dead letter that is replayed. The entry of a crawl is offered for nothing: its pages are found by the refill.
#[derive(FromRow)]
struct Dead {
    crawl: bool,
    #[sqlx(flatten)]
    entry: EntryRow,
}

impl Ledger {
    /// Holds a run: one that waits is not begun, one that runs is handed back at its next page. The same twice changes nothing.
    pub async fn pause(&self, owner: Option<UserId>, id: TaskId) -> Result<Changed, LedgerError> {
        let fits: Option<bool> = sqlx::query_scalar(
            "WITH found AS (
                 SELECT id, status IN ('pending', 'running') AS fits FROM tasks WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2) FOR UPDATE
             ), paused AS (
                 UPDATE tasks SET paused = true FROM found WHERE tasks.id = found.id AND found.fits
             )
             SELECT fits FROM found",
        )
        .bind(id)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "pausing a run" })?;
        Ok(match fits {
            None => Changed::Missing,
            Some(false) => Changed::Unfit,
            Some(true) => Changed::Done(None),
        })
    }

    /// Lets a paused run go on. The time of the pause is no waiting for a worker.
    pub async fn resume(&self, owner: Option<UserId>, id: TaskId) -> Result<Changed, LedgerError> {
        let row = sqlx::query_as(
            "WITH found AS (
                 SELECT * FROM tasks WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2) FOR UPDATE
             ), resumed AS (
                 UPDATE tasks SET paused = false, due_at = greatest(tasks.due_at, now())
                 FROM found WHERE tasks.id = found.id AND found.paused AND found.status IN ('pending', 'running')
                 RETURNING tasks.id, tasks.due_at
             )
             SELECT found.status IN ('pending', 'running') AS fits, resumed.id IS NOT NULL AND found.status = 'pending' AS waits,
                    found.id, found.user_id, found.host, found.priority,
                    ceil(extract(epoch FROM coalesce(resumed.due_at, found.due_at)) * 1000)::bigint AS due_milliseconds
             FROM found LEFT JOIN resumed ON true",
        )
        .bind(id)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "resuming a run" })?;
        Ok(changed(row))
    }

    /// Takes a failed run up again, behind its last committed page, with all its attempts, its time and its compute units anew; of a crawl
    /// what failed and what still waited.
    pub async fn replay(&self, owner: Option<UserId>, id: TaskId) -> Result<Changed, LedgerError> {
        let row = sqlx::query_as(
            "WITH found AS (
                 SELECT id, status, user_id, host, priority FROM tasks WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2) FOR UPDATE
             ), replayed AS (
                 UPDATE tasks SET status = 'pending', attempts = 0, replays = tasks.replays + 1, paused = false, cancel_requested = false,
                     compute_units_before = tasks.compute_units_used, due_at = now(), started_at = NULL, finished_at = NULL
                 FROM found WHERE tasks.id = found.id AND found.status = 'failed' AND tasks.crawl_open IS NULL
                 RETURNING tasks.id, tasks.user_id, tasks.source_uid, tasks.pages, tasks.records, tasks.compute_units_used, tasks.due_at
             ), counted AS (
                 INSERT INTO owner_counter_deltas (user_id, failed, pages, records, compute_units)
                 SELECT user_id, -1, -pages, -records, -compute_units_used FROM replayed
             ), told AS (
                 INSERT INTO changes (uid, task_id) SELECT source_uid, id FROM replayed WHERE source_uid IS NOT NULL
             )
             SELECT replayed.id IS NOT NULL AS fits, replayed.id IS NOT NULL AS waits, found.id, found.user_id, found.host, found.priority,
                    ceil(extract(epoch FROM coalesce(replayed.due_at, now())) * 1000)::bigint AS due_milliseconds
             FROM found LEFT JOIN replayed ON true",
        )
        .bind(id)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "replaying a run" })?;
        let changed = changed(row);
        if changed == Changed::Unfit && !self.reopen_crawls(&[id], &["failed"]).await?.is_empty() {
            return Ok(Changed::Done(None));
        }
        Ok(changed)
    }

    /// Replays an owner's dead letters, of one cause or of all, oldest first after `after`; `most` of them, and [`REPLAY_BATCH`] at most.
    pub async fn replay_dead_letters(
        &self,
        owner: UserId,
        cause: Option<&str>,
        after: Option<TaskId>,
        most: i64,
    ) -> Result<Vec<Entry>, LedgerError> {
        let rows: Vec<Dead> = sqlx::query_as(
            "WITH dead AS (
                 SELECT id, user_id, host, priority, crawl_open IS NOT NULL AS crawl FROM tasks
                 WHERE status = 'failed' AND user_id = $1 AND ($2::text IS NULL OR error_class = $2) AND ($3::uuid IS NULL OR id > $3)
                     AND (crawl_open IS NULL OR crawl_open + crawl_failed > 0)
                 ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED
             ), replayed AS (
                 UPDATE tasks SET status = 'pending', attempts = 0, replays = replays + 1, paused = false, cancel_requested = false,
                     compute_units_before = compute_units_used, due_at = now(), started_at = NULL, finished_at = NULL
                 FROM dead WHERE tasks.id = dead.id AND NOT dead.crawl
                 RETURNING tasks.id, tasks.user_id, source_uid, pages, records, compute_units_used
             ), counted AS (
                 INSERT INTO owner_counter_deltas (user_id, failed, pages, records, compute_units)
                 SELECT user_id, -count(*), -sum(pages), -sum(records), -sum(compute_units_used) FROM replayed GROUP BY user_id
             ), told AS (
                 INSERT INTO changes (uid, task_id) SELECT source_uid, id FROM replayed WHERE source_uid IS NOT NULL
             )
             SELECT id, user_id, host, priority, crawl, ceil(extract(epoch FROM now()) * 1000)::bigint AS due_milliseconds
             FROM dead ORDER BY id",
        )
        .bind(owner)
        .bind(cause)
        .bind(after)
        .bind(most.min(REPLAY_BATCH))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "replaying dead letters" })?;
        let crawls: Vec<TaskId> = rows
            .iter()
            .filter(|dead| dead.crawl)
            .map(|dead| dead.entry.id())
            .collect();
        if !crawls.is_empty() {
            self.reopen_crawls(&crawls, &["failed"]).await?;
        }
        Ok(rows.into_iter().map(|dead| Entry::from(dead.entry)).collect())
    }

    /// An owner's newest dead letters older than `before`, [`PAGE_ROWS`] at most, of one cause when asked.
    pub async fn dead_letters(
        &self,
        owner: UserId,
        cause: Option<&str>,
        before: Option<TaskId>,
    ) -> Result<Vec<DeadLetter>, LedgerError> {
        sqlx::query_as(
            "SELECT id, name, coalesce(spec->>'url', '') AS url, coalesce(error_class, '') AS cause, coalesce(error_message, '') AS message,
                    pages, records, attempts, replays, rfc3339(finished_at) AS failed_at
             FROM tasks WHERE status = 'failed' AND user_id = $1 AND ($2::text IS NULL OR error_class = $2) AND ($3::uuid IS NULL OR id < $3)
             ORDER BY id DESC LIMIT $4",
        )
        .bind(owner)
        .bind(cause)
        .bind(before)
        .bind(PAGE_ROWS)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "listing dead letters" })
    }

    /// Why an owner's runs failed, the most frequent cause first, a hundred at most.
    pub async fn causes(&self, owner: UserId) -> Result<Vec<Cause>, LedgerError> {
        sqlx::query_as(
            "SELECT coalesce(error_class, '') AS cause, count(*) AS count FROM tasks
             WHERE status = 'failed' AND user_id = $1 GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $2",
        )
        .bind(owner)
        .bind(CAUSES)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "counting dead letters",
        })
    }
}

fn changed(row: Option<Row>) -> Changed {
    match row {
        None => Changed::Missing,
        Some(row) if !row.fits => Changed::Unfit,
        Some(row) => Changed::Done(row.waits.then(|| row.entry.into())),
    }
}
