//! Keys that make a repeated request the same one.

use snafu::ResultExt;
use sqlx::{FromRow, PgConnection};

use super::{
    Ledger, LedgerError, TaskId, UserId,
    error::{DatabaseSnafu, IdempotencyConflictSnafu},
};

/// What makes a repeated request the same one.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The header `Idempotency-Key`.
    pub key: String,
    /// SHA-256 of the body.
    pub body_hash: [u8; 32],
}

/// What a key stands for.
pub(crate) enum Taken {
    /// This request, from now on.
    Ours,
    /// An earlier request, which made these tasks.
    Earlier(Vec<TaskId>),
}

#[derive(FromRow)]
struct Row {
    task_id: TaskId,
    body_hash: Vec<u8>,
    task_ids: Option<Vec<TaskId>>,
}

impl Ledger {
    /// Whether an earlier request with the same body has taken the key.
    pub async fn was_used(&self, owner: UserId, idempotency: &Idempotency) -> Result<bool, LedgerError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM idempotency_keys WHERE user_id = $1 AND key = $2 AND body_hash = $3 AND expires_at > now())",
        )
        .bind(owner)
        .bind(&idempotency.key)
        .bind(idempotency.body_hash.as_slice())
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "looking for an idempotency key",
        })
    }
}

/// Takes a key for the tasks that this transaction makes. A concurrent request with the same key waits for its end.
///
/// # Errors
/// [`LedgerError::IdempotencyConflict`] when the key was used with another body.
pub(crate) async fn take(
    connection: &mut PgConnection,
    owner: UserId,
    idempotency: &Idempotency,
    ids: &[TaskId],
) -> Result<Taken, LedgerError> {
    let first = ids.first().copied().unwrap_or_default();
    let row: Row = sqlx::query_as(
        "INSERT INTO idempotency_keys AS k (user_id, key, body_hash, task_id, task_ids, expires_at)
         VALUES ($1, $2, $3, $4, $5, now() + interval '24 hours')
         ON CONFLICT (user_id, key) DO UPDATE SET
             body_hash = CASE WHEN k.expires_at < now() THEN excluded.body_hash ELSE k.body_hash END,
             task_id = CASE WHEN k.expires_at < now() THEN excluded.task_id ELSE k.task_id END,
             task_ids = CASE WHEN k.expires_at < now() THEN excluded.task_ids ELSE k.task_ids END,
             expires_at = CASE WHEN k.expires_at < now() THEN excluded.expires_at ELSE k.expires_at END
         RETURNING task_id, body_hash, task_ids",
    )
    .bind(owner)
    .bind(&idempotency.key)
    .bind(idempotency.body_hash.as_slice())
    .bind(first)
    .bind((ids.len() > 1).then(|| ids.iter().map(|id| id.0).collect::<Vec<_>>()))
    .fetch_one(connection)
    .await
    .context(DatabaseSnafu {
        doing: "taking an idempotency key",
    })?;
    if row.task_id == first {
        return Ok(Taken::Ours);
    }
    if row.body_hash != idempotency.body_hash {
        return IdempotencyConflictSnafu.fail();
    }
    Ok(Taken::Earlier(row.task_ids.unwrap_or_else(|| vec![row.task_id])))
}
