//! Accepting, showing, canceling and deleting tasks, for their owners.

use selextract_task::{SPEC_VERSION, TaskSpec, feed::RunState};
use snafu::ResultExt;
use sqlx::{FromRow, types::Json};

use super::{
    Ledger, LedgerError, TaskId, UserId,
    error::{DatabaseSnafu, StoredSnafu},
    idempotency::{self, Idempotency, Taken},
    transaction,
};

/// The guide's list has twenty rows ("Query Optimization").
pub const PAGE_ROWS: i64 = 20;

/// A task to accept. Its spec was compiled before.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// What to extract.
    pub spec: TaskSpec,
    /// The host of the first page, for the frontier.
    pub host: String,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// How long it is kept once it has ended; `None` for as long as the platform keeps any.
    pub ttl: Option<std::time::Duration>,
}

/// A task that was accepted; it is committed.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The task.
    pub id: TaskId,
    /// Whether an earlier request with the same key made it.
    pub replayed: bool,
    /// The task as it was stored, where this call knows it.
    pub task: Option<TaskDetail>,
}

/// A row of the list: the columns of the guide's query.
#[derive(Clone, Debug, FromRow)]
pub struct TaskSummary {
    /// The task.
    pub id: TaskId,
    /// Its name for people.
    pub name: Option<String>,
    /// Where it stands, as in [`RunState`].
    pub status: String,
    /// RFC 3339.
    pub created_at: String,
    /// See [`TaskDetail::compute_units_used`].
    pub compute_units_used: i64,
}

/// Everything about a task but its records.
#[derive(Clone, Debug, Default, FromRow)]
pub struct TaskDetail {
    /// The task.
    pub id: TaskId,
    /// Who owns it.
    pub user_id: UserId,
    /// Its name for people.
    pub name: Option<String>,
    /// Where it stands, as in [`RunState`].
    pub status: String,
    /// 0 to 9.
    pub priority: i16,
    /// RFC 3339.
    pub created_at: String,
    /// Not before this moment; later than `created_at` while it waits for a retry. RFC 3339.
    pub due_at: String,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// What to extract, as stored.
    pub spec: Json<serde_json::Value>,
    /// Claims since the last committed page.
    pub attempts: i32,
    /// The most claims for one page.
    pub max_attempts: i16,
    /// Pages committed.
    pub pages: i32,
    /// Records committed.
    pub records: i64,
    /// Records left out for a missing required field.
    pub warnings: i64,
    /// CPU seconds of worker and browser and hundreds of megabytes of egress, rounded up.
    pub compute_units_used: i64,
    /// Somebody asked to end it and the worker has not yet.
    pub cancel_requested: bool,
    /// Somebody paused it.
    pub paused: bool,
    /// How often it was replayed.
    pub replays: i32,
    /// When it is removed. RFC 3339.
    pub expires_at: Option<String>,
    /// There is a [`super::watching::Report`] on it.
    pub reported: bool,
    /// A stable word for why it failed.
    pub error_class: Option<String>,
    /// One sentence.
    pub error_message: Option<String>,
}

impl NewTask {
    pub(crate) fn ttl_seconds(&self) -> Option<i64> {
        self.ttl.map(|ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX))
    }
}

/// The columns of a [`TaskDetail`].
macro_rules! detail_columns {
    () => {
        "id, user_id, name, status, priority, rfc3339(created_at) AS created_at, rfc3339(due_at) AS due_at,
         rfc3339(started_at) AS started_at, rfc3339(finished_at) AS finished_at, spec, attempts, max_attempts, pages, records, warnings,
         compute_units_used, cancel_requested, paused, replays, rfc3339(expires_at) AS expires_at, reported, error_class, error_message"
    };
}

impl TaskDetail {
    /// Where it stands.
    pub fn state(&self) -> Result<RunState, LedgerError> {
        RunState::from_ledger(&self.status).ok_or_else(|| {
            StoredSnafu {
                what: "a task's status",
                message: self.status.clone(),
            }
            .build()
        })
    }
}

const ACCEPT: &str = "
    WITH accepted AS (
        INSERT INTO tasks (id, user_id, name, priority, created_at, due_at, spec, spec_version, host, max_attempts, ttl_seconds)
        VALUES ($1, $2, $3, $4, to_timestamp($5::double precision / 1000), least(to_timestamp($5::double precision / 1000), now()), $6, $7, $8,
            $9, $10)
    )
    INSERT INTO owner_counter_deltas (user_id, total) VALUES ($2, 1)";

/// The statement of [`Ledger::list`], for whoever looks at its plan: the owner, before, the state, the rows, the moment of before.
pub const LIST: &str = "
    SELECT id, name, status, rfc3339(created_at) AS created_at, compute_units_used FROM tasks
    WHERE user_id = $1 AND ($2::uuid IS NULL OR id < $2 AND tasks.created_at <= to_timestamp($5::double precision / 1000))
        AND ($3::text IS NULL OR status = $3)
    ORDER BY tasks.created_at DESC, id DESC LIMIT $4";

/// A crawl that has begun ends at once, as nobody holds it; its pages and records were counted as they came.
pub(crate) const CANCEL: &str = "
    WITH found AS (
         SELECT id, status, status = 'pending' OR crawl_open IS NOT NULL AS free FROM tasks WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2) FOR UPDATE
     ), canceled AS (
         UPDATE tasks SET
             cancel_requested = true,
             status = CASE WHEN found.free THEN 'canceled' ELSE found.status END,
             finished_at = CASE WHEN found.free THEN now() END
         FROM found WHERE tasks.id = found.id AND found.status IN ('pending', 'running')
         RETURNING tasks.id, tasks.user_id, tasks.source_uid, tasks.status,
             CASE WHEN crawl_open IS NULL THEN tasks.pages ELSE 0 END AS pages,
             CASE WHEN crawl_open IS NULL THEN tasks.records ELSE 0 END AS records,
             CASE WHEN crawl_open IS NULL THEN tasks.compute_units_used ELSE 0 END AS compute_units_used
     ), counted AS (
         INSERT INTO owner_counter_deltas (user_id, canceled, pages, records, compute_units)
         SELECT user_id, 1, pages, records, compute_units_used FROM canceled WHERE status = 'canceled'
     ), told AS (
         INSERT INTO changes (uid, task_id) SELECT source_uid, id FROM canceled
         WHERE status = 'canceled' AND source_uid IS NOT NULL
     )
     SELECT status IN ('pending', 'running') FROM found";

impl Ledger {
    /// Accepts a task in one transaction. When this returns it is committed; only then may a client be told so.
    ///
    /// # Errors
    /// [`LedgerError::IdempotencyConflict`] when the key was used with another body.
    pub async fn accept(
        &self,
        owner: UserId,
        task: &NewTask,
        idempotency: Option<&Idempotency>,
    ) -> Result<Accepted, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "accepting a task",
        };
        let id = TaskId::new();
        let Some(idempotency) = idempotency else {
            let task = self.accept_together(id, owner, task).await?;
            return Ok(Accepted {
                id,
                replayed: false,
                task: Some(task),
            });
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        if let Taken::Earlier(ids) = idempotency::take(&mut transaction, owner, idempotency, &[id]).await? {
            return Ok(Accepted {
                id: ids.first().copied().unwrap_or(id),
                replayed: true,
                task: None,
            });
        }
        accept_query(id, owner, task)
            .execute(&mut *transaction)
            .await
            .context(doing)?;
        transaction.commit().await.context(doing)?;
        Ok(Accepted {
            id,
            replayed: false,
            task: None,
        })
    }

    /// The newest tasks of an owner, [`PAGE_ROWS`] at most, older than `before`, and in one state when asked.
    pub async fn list(
        &self,
        owner: UserId,
        before: Option<TaskId>,
        status: Option<RunState>,
    ) -> Result<Vec<TaskSummary>, LedgerError> {
        sqlx::query_as(LIST)
            .bind(owner)
            .bind(before)
            .bind(status.map(RunState::as_str))
            .bind(PAGE_ROWS)
            // A task's id holds the moment in created_at: the index skips what is newer.
            .bind(before.map(TaskId::unix_milliseconds))
            .fetch_all(&self.pool)
            .await
            .context(DatabaseSnafu { doing: "listing tasks" })
    }

    /// One task, of this owner, or of anybody when `owner` is `None` (for administrators).
    pub async fn task(&self, owner: Option<UserId>, id: TaskId) -> Result<Option<TaskDetail>, LedgerError> {
        sqlx::query_as(concat!(
            "SELECT ",
            detail_columns!(),
            " FROM tasks WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2)"
        ))
        .bind(id)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading a task",
        })
    }

    /// Ends a task: at once when it waits, at its next page when it runs. `None` when there is none, else whether it was still open.
    pub async fn cancel(&self, owner: Option<UserId>, id: TaskId) -> Result<Option<bool>, LedgerError> {
        sqlx::query_scalar(CANCEL)
            .bind(id)
            .bind(owner)
            .fetch_optional(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "canceling a task",
            })
    }

    /// Removes a task that has ended, with its pages. `None` when there is none, `Some(false)` when it is still open.
    pub async fn delete(&self, owner: Option<UserId>, id: TaskId) -> Result<Option<bool>, LedgerError> {
        sqlx::query_scalar(
            "WITH found AS (
                 SELECT id, status FROM tasks WHERE id = $1 AND ($2::uuid IS NULL OR user_id = $2) FOR UPDATE
             ), ended AS (
                 SELECT id FROM found WHERE status NOT IN ('pending', 'running')
             ), gone_pages AS (
                 DELETE FROM pages USING ended WHERE pages.task_id = ended.id
             ), gone_crawl AS (
                 DELETE FROM crawl_pages c USING ended
                 WHERE c.id BETWEEN crawl_first(ended.id) AND crawl_last(ended.id) AND c.task_id = ended.id
             ), gone AS (
                 DELETE FROM tasks USING ended WHERE tasks.id = ended.id
             )
             SELECT status NOT IN ('pending', 'running') FROM found",
        )
        .bind(id)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "deleting a task",
        })
    }
}

fn accept_query(
    id: TaskId,
    owner: UserId,
    task: &NewTask,
) -> sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments> {
    sqlx::query(ACCEPT)
        .bind(id)
        .bind(owner)
        .bind(task.spec.name.as_deref())
        .bind(i16::from(task.priority))
        .bind(id.unix_milliseconds())
        .bind(Json(&task.spec))
        .bind(SPEC_VERSION)
        .bind(&task.host)
        .bind(i16::from(task.spec.max_retries) + 1)
        .bind(task.ttl_seconds())
}
