//! Removing contents that nothing refers to: those of writers who are gone, and objects whose artifacts were removed.

use snafu::ResultExt;
use uuid::Uuid;

use crate::{
    ledger::{
        Ledger, LedgerError,
        error::{DatabaseSnafu, ObjectSnafu},
    },
    objects::ObjectError,
};

/// Uploads and objects that one round removes.
const BATCH: i64 = 500;

/// What one round removed from the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Objects that are gone.
    pub gone: usize,
    /// Objects that stay for now, and are tried again later.
    pub left: usize,
}

/// Uploads with their contents; their objects go to the outbox. Behind it stands which ones.
const REMOVE: &str = "WITH gone AS (
         DELETE FROM artifact_uploads WHERE id IN (";
const REMOVE_CONTENTS: &str = ") RETURNING id, task_id, user_id, size, object
     ), chunks AS (
         DELETE FROM artifact_chunks c USING gone WHERE c.task_id = gone.task_id AND c.artifact = gone.id
     ), objects AS (
         INSERT INTO artifact_removals (object) SELECT object FROM gone WHERE object IS NOT NULL ON CONFLICT DO NOTHING
     ), freed AS (
         UPDATE artifact_usage u SET bytes = greatest(u.bytes - f.bytes, 0)
         FROM (SELECT user_id, sum(size) AS bytes FROM gone GROUP BY user_id) f WHERE u.user_id = f.user_id
     )
     SELECT count(*) FROM gone";

impl Ledger {
    /// Removes what writers left behind an hour ago and longer: no lease lives so long without its page being committed. Returns how many.
    pub async fn remove_abandoned_uploads(&self) -> Result<i64, LedgerError> {
        let which = "SELECT id FROM artifact_uploads WHERE begun_at < now() - interval '1 hour' ORDER BY begun_at LIMIT $1 FOR UPDATE SKIP LOCKED";
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{REMOVE}{which}{REMOVE_CONTENTS}")))
            .bind(BATCH)
            .fetch_one(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "removing abandoned uploads",
            })
    }

    /// Removes these uploads, those of them that did not become artifacts.
    pub(super) async fn remove_uploads(&self, ids: &[Uuid]) -> Result<i64, LedgerError> {
        let which = "SELECT unnest($1::uuid[])";
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{REMOVE}{which}{REMOVE_CONTENTS}")))
            .bind(ids)
            .fetch_one(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "removing uploads",
            })
    }

    /// Removes objects that nothing refers to from the bucket, a bounded number. One that cannot be removed is tried again after a
    /// minute, and after twice as long each further time, up to six hours.
    pub async fn remove_objects(&self) -> Result<Removed, LedgerError> {
        let due: Vec<String> = sqlx::query_scalar(
            "UPDATE artifact_removals SET attempts = attempts + 1,
                 due_at = now() + least(interval '1 minute' * power(2, least(attempts, 10)), interval '6 hours')
             WHERE object IN (SELECT object FROM artifact_removals WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING object",
        )
        .bind(BATCH)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading which objects are to be removed",
        })?;
        if due.is_empty() {
            return Ok(Removed::default());
        }
        let objects = self.artifacts.objects.as_ref();
        let objects = objects.ok_or(ObjectError::NoStore).context(ObjectSnafu)?;
        let gone = objects.remove(&due).await;
        sqlx::query("DELETE FROM artifact_removals WHERE object = ANY($1)")
            .bind(&gone)
            .execute(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "noting which objects were removed",
            })?;
        Ok(Removed {
            gone: gone.len(),
            left: due.len().saturating_sub(gone.len()),
        })
    }
}

/// Drops a month of artifacts that has no parent any more, in one transaction: the quota gets its bytes back and the outbox its objects.
pub(in crate::ledger) fn forget(partition: &str) -> String {
    format!(
        "INSERT INTO artifact_removals (object) SELECT object FROM {partition} WHERE object IS NOT NULL ON CONFLICT DO NOTHING;
         UPDATE artifact_usage u SET bytes = greatest(u.bytes - freed.bytes, 0)
         FROM (SELECT user_id, sum(size) AS bytes FROM {partition} WHERE left_out IS NULL GROUP BY user_id) freed
         WHERE u.user_id = freed.user_id;
         DROP TABLE {partition}"
    )
}
