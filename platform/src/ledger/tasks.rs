//! Tasks: accept, read, list, cancel, delete.

use selextract_task::{
    SPEC_VERSION, TaskSpec,
    feed::{RunError, RunState},
};
use sqlx::{FromRow, PgConnection, types::Json};
use uuid::Uuid;

use super::{ContentSnafu, Doing, Ledger, Result};
use crate::frontier::Entry;

/// A task as it is accepted.
#[derive(Clone, Debug)]
pub struct NewTask<'a> {
    /// A user's id as text, or `k8s:<namespace>`.
    pub owner: &'a str,
    /// What to extract.
    pub spec: &'a TaskSpec,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// The Idempotency-Key and the hash of the body.
    pub idempotency: Option<(&'a str, [u8; 32])>,
}

/// What became of a [`NewTask`].
#[derive(Clone, Debug)]
pub enum Accepted {
    /// It was accepted.
    New(Task),
    /// The same key came with the same body before: its task.
    Again(Task),
    /// The same key came with another body before.
    Mismatch,
}

/// A run of a spec.
#[derive(Clone, Debug)]
pub struct Task {
    /// The id, a `UUIDv7`.
    pub id: Uuid,
    /// A user's id as text, or `k8s:<namespace>`.
    pub owner: String,
    /// The spec's name.
    pub name: Option<String>,
    /// Where it stands.
    pub state: RunState,
    /// 0 (last) to 9 (first).
    pub priority: i16,
    /// What to extract.
    pub spec: TaskSpec,
    /// RFC 3339, as all moments here.
    pub created_at: String,
    /// When a worker first took it.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// How often a worker took it.
    pub attempts: i32,
    /// When a pending one may run.
    pub next_attempt_at: Option<String>,
    /// Pages committed.
    pub pages: i64,
    /// Records committed.
    pub records: i64,
    /// Records left out and the like.
    pub warnings: i64,
    /// 1 per CPU second and 1 per 100 MB of egress, rounded up.
    pub compute_units_used: i64,
    /// Why it failed, or why it is tried again.
    pub error: Option<RunError>,
    entry: Entry,
}

/// A row of the guide's list query.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The id.
    pub id: Uuid,
    /// The spec's name.
    pub name: Option<String>,
    /// Where it stands.
    pub state: RunState,
    /// RFC 3339.
    pub created_at: String,
    /// 1 per CPU second and 1 per 100 MB of egress, rounded up.
    pub compute_units_used: i64,
}

#[derive(FromRow)]
struct TaskRow {
    id: Uuid,
    owner: String,
    user_id: Uuid,
    host: String,
    due_ms: i64,
    name: Option<String>,
    status: String,
    priority: i16,
    spec: Json<TaskSpec>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    attempts: i32,
    next_attempt_at: Option<String>,
    pages: i64,
    records: i64,
    warnings: i64,
    compute_units_used: i64,
    error_class: Option<String>,
    error_message: Option<String>,
}

const TASK: &str = "SELECT t.id, CASE u.kind WHEN 'namespace' THEN u.name ELSE u.id::text END AS owner, t.user_id, t.host, \
    (extract(epoch FROM t.due_at) * 1000)::bigint AS due_ms, t.name, t.status, t.priority, t.spec, rfc3339(t.created_at) AS created_at, \
    rfc3339(t.started_at) AS started_at, rfc3339(t.finished_at) AS finished_at, t.attempts, \
    CASE t.status WHEN 'pending' THEN rfc3339(t.due_at) END AS next_attempt_at, t.pages, t.records, t.warnings, t.compute_units_used, \
    t.error_class, t.error_message FROM tasks t JOIN users u ON u.id = t.user_id WHERE t.id = $1";

/// What a new row of `tasks` is made of.
pub(super) struct Insert<'a> {
    pub id: Uuid,
    pub user: Uuid,
    pub spec: &'a TaskSpec,
    pub priority: i16,
    pub scrape: Option<(&'a str, &'a str)>,
}

impl Insert<'_> {
    /// `created_at` follows from the id, so that one order serves both.
    pub async fn run(&self, connection: &mut PgConnection) -> Result<bool> {
        let host = url::Url::parse(&self.spec.url)
            .ok()
            .and_then(|u| u.host_str().map(str::to_owned))
            .unwrap_or_default();
        let (uid, hash) = self.scrape.unzip();
        let done = sqlx::query(
            "INSERT INTO tasks (id, user_id, name, spec, spec_version, host, priority, max_retries, created_at, scrape_uid, spec_hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, uuid_extract_timestamp($1), $9, $10) ON CONFLICT (id) DO NOTHING",
        )
        .bind(self.id)
        .bind(self.user)
        .bind(&self.spec.name)
        .bind(Json(self.spec))
        .bind(SPEC_VERSION)
        .bind(host)
        .bind(self.priority)
        .bind(i16::from(self.spec.max_retries))
        .bind(uid)
        .bind(hash)
        .execute(connection)
        .await
        .doing("accepting a task")?;
        Ok(done.rows_affected() == 1)
    }
}

impl Ledger {
    /// Accepts a task in one transaction with its idempotency key. Durable when it returns.
    pub async fn create_task(&self, new: &NewTask<'_>) -> Result<Accepted> {
        const DOING: &str = "accepting a task";
        let user = self.owner_id(new.owner).await?;
        let id = Uuid::now_v7();
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        if let Some((key, hash)) = new.idempotency {
            // A concurrent call with the same key waits here until the first one's transaction has ended.
            let ours = sqlx::query(
                "INSERT INTO idempotency_keys AS k (user_id, key, body_hash, task_id, expires_at) VALUES ($1, $2, $3, $4, now() + interval '1 day') \
                 ON CONFLICT (user_id, key) DO UPDATE SET body_hash = excluded.body_hash, task_id = excluded.task_id, \
                 expires_at = excluded.expires_at WHERE k.expires_at < now()",
            )
            .bind(user)
            .bind(key)
            .bind(hash.as_slice())
            .bind(id)
            .execute(&mut *transaction)
            .await
            .doing(DOING)?;
            if ours.rows_affected() == 0 {
                transaction.rollback().await.doing(DOING)?;
                return self.earlier(user, key, &hash).await;
            }
        }
        Insert {
            id,
            user,
            spec: new.spec,
            priority: new.priority.into(),
            scrape: None,
        }
        .run(&mut transaction)
        .await?;
        let row = sqlx::query_as::<_, TaskRow>(TASK)
            .bind(id)
            .fetch_one(&mut *transaction)
            .await
            .doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        row.read().map(Accepted::New)
    }

    async fn earlier(&self, user: Uuid, key: &str, hash: &[u8; 32]) -> Result<Accepted> {
        let earlier: Option<(Vec<u8>, Uuid)> =
            sqlx::query_as("SELECT body_hash, task_id FROM idempotency_keys WHERE user_id = $1 AND key = $2")
                .bind(user)
                .bind(key)
                .fetch_optional(&self.pool)
                .await
                .doing("reading an idempotency key")?;
        match earlier {
            Some((stored, id)) if stored == hash => {
                Ok(self.task(id).await?.map_or(Accepted::Mismatch, Accepted::Again))
            }
            _ => Ok(Accepted::Mismatch),
        }
    }

    /// The task of an id.
    pub async fn task(&self, id: Uuid) -> Result<Option<Task>> {
        let row = sqlx::query_as::<_, TaskRow>(TASK)
            .bind(id)
            .fetch_optional(&self.pool)
            .await
            .doing("reading a task")?;
        row.map(TaskRow::read).transpose()
    }

    /// The guide's list query: an owner's tasks, newest first, below `cursor`.
    pub async fn list_tasks(
        &self,
        owner: &str,
        state: Option<RunState>,
        cursor: Option<Uuid>,
        limit: u16,
    ) -> Result<Vec<Summary>> {
        let Some(user) = self.find_owner(owner).await? else {
            return Ok(Vec::new());
        };
        let rows: Vec<(Uuid, Option<String>, String, String, i64)> = sqlx::query_as(LIST)
            .bind(user)
            .bind(cursor.unwrap_or(Uuid::max()))
            .bind(state.map(RunState::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
            .doing("listing tasks")?;
        rows.into_iter()
            .map(|(id, name, status, created_at, compute_units_used)| {
                Ok(Summary {
                    id,
                    name,
                    state: read_state(&status)?,
                    created_at,
                    compute_units_used,
                })
            })
            .collect()
    }

    /// Ends a task; what was committed stays. One that has ended stays as it is.
    pub async fn cancel_task(&self, id: Uuid) -> Result<()> {
        sqlx::query(
            "UPDATE tasks SET status = 'canceled', finished_at = now(), lease_token = NULL, lease_until = NULL \
             WHERE id = $1 AND status IN ('pending', 'running')",
        )
        .bind(id)
        .execute(&self.pool)
        .await
        .doing("canceling a task")
        .map(drop)
    }

    /// Deletes a task with its pages. A worker that holds it is fenced off by the missing row.
    pub async fn delete_task(&self, id: Uuid) -> Result<()> {
        const DOING: &str = "deleting a task";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        for statement in [
            "DELETE FROM tasks WHERE id = $1",
            "DELETE FROM pages WHERE task_id = $1",
        ] {
            sqlx::query(statement)
                .bind(id)
                .execute(&mut *transaction)
                .await
                .doing(DOING)?;
        }
        transaction.commit().await.doing(DOING)
    }

    /// What the frontier needs to know of those ids that are pending.
    pub async fn entries(&self, ids: &[Uuid]) -> Result<Vec<Entry>> {
        sqlx::query_as(
            "SELECT id, user_id AS owner, host, priority, (extract(epoch FROM due_at) * 1000)::bigint AS due_ms FROM tasks \
             WHERE id = ANY ($1) AND status = 'pending'",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await
        .doing("reading what the frontier needs")
    }
}

/// `id` and `created_at` have one order; the id's bound prunes partitions, the moment's uses the index.
pub(super) const LIST: &str = "SELECT id, name, status, rfc3339(created_at), compute_units_used FROM tasks WHERE user_id = $1 AND id < $2 \
    AND ($3::text IS NULL OR status = $3) ORDER BY created_at DESC, id DESC LIMIT $4";

impl Task {
    /// What the frontier needs to know of it.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl TaskRow {
    fn read(self) -> Result<Task> {
        let state = read_state(&self.status)?;
        let message = self.error_message.unwrap_or_default();
        Ok(Task {
            entry: Entry {
                id: self.id,
                owner: self.user_id,
                host: self.host,
                priority: self.priority,
                due_ms: self.due_ms,
            },
            id: self.id,
            owner: self.owner,
            name: self.name,
            state,
            priority: self.priority,
            spec: self.spec.0,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            attempts: self.attempts,
            next_attempt_at: self.next_attempt_at,
            pages: self.pages,
            records: self.records,
            warnings: self.warnings,
            compute_units_used: self.compute_units_used,
            error: self.error_class.map(|class| RunError { class, message }),
        })
    }
}

pub(super) fn read_state(text: &str) -> Result<RunState> {
    use snafu::ResultExt;
    RunState::from_ledger(text)
        .ok_or_else(|| anyhow::anyhow!("unknown state {text:?}"))
        .context(ContentSnafu {
            doing: "reading a task's state",
        })
}
