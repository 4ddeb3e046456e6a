//! Accepting many tasks at once, all or none.

use selextract_task::SPEC_VERSION;
use snafu::ResultExt;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    Ledger, LedgerError, TaskId, UserId,
    error::DatabaseSnafu,
    idempotency::{self, Idempotency, Taken},
    tasks::NewTask,
    transaction,
};

/// The most tasks of one batch.
pub const MAX_BATCH: usize = 10_000;

/// A batch that was accepted; it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedBatch {
    /// The tasks, in the order of the request.
    pub ids: Vec<TaskId>,
    /// Whether an earlier request with the same key made them.
    pub replayed: bool,
}

impl Ledger {
    /// Accepts tasks in one transaction: all of them, or none. One key stands for the whole batch.
    ///
    /// # Errors
    /// [`LedgerError::IdempotencyConflict`] when the key was used with another body.
    pub async fn accept_batch(
        &self,
        owner: UserId,
        tasks: &[NewTask],
        idempotency: Option<&Idempotency>,
    ) -> Result<AcceptedBatch, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "accepting a batch of tasks",
        };
        let ids: Vec<TaskId> = tasks.iter().map(|_| TaskId::new()).collect();
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        if let Some(key) = idempotency
            && let Taken::Earlier(ids) = idempotency::take(&mut transaction, owner, key, &ids).await?
        {
            return Ok(AcceptedBatch { ids, replayed: true });
        }
        insert(&mut transaction, owner, &ids, tasks).await?;
        transaction.commit().await.context(doing)?;
        Ok(AcceptedBatch { ids, replayed: false })
    }
}

async fn insert(
    connection: &mut PgConnection,
    owner: UserId,
    ids: &[TaskId],
    tasks: &[NewTask],
) -> Result<(), LedgerError> {
    fn column<T>(tasks: &[NewTask], read: impl Fn(&NewTask) -> T) -> Vec<T> {
        tasks.iter().map(read).collect()
    }
    sqlx::query(
        "WITH accepted AS (
             INSERT INTO tasks (id, user_id, name, priority, created_at, due_at, spec, spec_version, host, max_attempts, ttl_seconds)
             SELECT id, $1, name, priority, moment, least(moment, now()), spec, $2, host, max_attempts, ttl_seconds
             FROM unnest($3::uuid[], $4::bigint[], $5::text[], $6::smallint[], $7::jsonb[], $8::text[], $9::smallint[], $10::bigint[])
                  AS new (id, milliseconds, name, priority, spec, host, max_attempts, ttl_seconds),
                  LATERAL to_timestamp(milliseconds::double precision / 1000) AS moment
         )
         INSERT INTO owner_counter_deltas (user_id, total) VALUES ($1, cardinality($3))",
    )
    .bind(owner)
    .bind(SPEC_VERSION)
    .bind(ids.iter().map(|id| id.0).collect::<Vec<Uuid>>())
    .bind(ids.iter().map(|id| id.unix_milliseconds()).collect::<Vec<_>>())
    .bind(column(tasks, |task| task.spec.name.clone()))
    .bind(column(tasks, |task| i16::from(task.priority)))
    .bind(column(tasks, |task| Json(task.spec.clone())))
    .bind(column(tasks, |task| task.host.clone()))
    .bind(column(tasks, |task| i16::from(task.spec.max_retries) + 1))
    .bind(column(tasks, NewTask::ttl_seconds))
    .execute(connection)
    .await
    .context(DatabaseSnafu {
        doing: "accepting a batch of tasks",
    })?;
    Ok(())
}
