//! Reading artifacts: what there is, and a content chunk by chunk, so that nothing is held at a reader's pace.

use bytes::Bytes;
use snafu::{OptionExt, ResultExt};
use sqlx::FromRow;
use uuid::Uuid;

use super::CHUNK;
use crate::{
    ledger::{
        Ledger, LedgerError, TaskId,
        error::{DatabaseSnafu, ObjectSnafu, StoredSnafu},
    },
    objects::ObjectError,
};

/// An artifact, without its content.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Artifact {
    /// A `UUIDv7`: artifacts of a run sort by it in the order in which they were taken.
    pub id: Uuid,
    /// The run.
    pub task_id: TaskId,
    /// The page that it was taken of.
    pub page: i32,
    /// What it is called in its run.
    pub name: String,
    /// What it is, from a fixed list.
    pub media_type: String,
    /// Bytes of its content.
    pub size: i64,
    /// The hash of its content; empty where it was left out.
    pub sha256: Vec<u8>,
    object: Option<String>,
    compressed: bool,
    /// Why there is no content.
    pub left_out: Option<String>,
    /// RFC 3339.
    pub created_at: String,
}

impl Artifact {
    /// How many chunks its content has.
    pub fn chunks(&self) -> u64 {
        u64::try_from(self.size).unwrap_or_default().div_ceil(CHUNK as u64)
    }
}

impl Ledger {
    /// Up to `limit` artifacts of a run, in the order in which they were taken, behind the artifact `after`.
    pub async fn artifacts(&self, task: TaskId, after: Option<Uuid>, limit: i64) -> Result<Vec<Artifact>, LedgerError> {
        sqlx::query_as(
            "SELECT id, task_id, page, name, media_type, size, sha256, object, compressed, left_out, rfc3339(created_at) AS created_at
             FROM artifacts WHERE task_id = $1 AND id > coalesce($2, '00000000-0000-0000-0000-000000000000'::uuid)
             ORDER BY id LIMIT $3",
        )
        .bind(task)
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "listing artifacts",
        })
    }

    /// An artifact of a run.
    pub async fn artifact(&self, task: TaskId, id: Uuid) -> Result<Option<Artifact>, LedgerError> {
        sqlx::query_as(
            "SELECT id, task_id, page, name, media_type, size, sha256, object, compressed, left_out, rfc3339(created_at) AS created_at
             FROM artifacts WHERE task_id = $1 AND id = $2",
        )
        .bind(task)
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading an artifact",
        })
    }

    /// The bytes of an artifact from `number` times [`CHUNK`] on, as many as a chunk has. One short statement or request each.
    pub async fn artifact_chunk(&self, artifact: &Artifact, number: u64) -> Result<Bytes, LedgerError> {
        if let Some(key) = &artifact.object {
            let objects = self.artifacts.objects.as_ref();
            let objects = objects.ok_or(ObjectError::NoStore).context(ObjectSnafu)?;
            let (from, size) = (number * CHUNK as u64, u64::try_from(artifact.size).unwrap_or_default());
            let part = from..size.min(from + CHUNK as u64);
            return objects.read(key, part).await.context(ObjectSnafu);
        }
        let chunk: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT bytes FROM artifact_chunks WHERE task_id = $1 AND artifact = $2 AND number = $3",
        )
        .bind(artifact.task_id)
        .bind(artifact.id)
        .bind(i32::try_from(number).unwrap_or(i32::MAX))
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading an artifact",
        })?;
        let unreadable = |message: String| StoredSnafu {
            what: "an artifact",
            message,
        };
        let chunk = chunk.with_context(|| unreadable("it was removed meanwhile".to_owned()))?;
        if !artifact.compressed {
            return Ok(chunk.into());
        }
        let bytes = zstd::bulk::decompress(&chunk, CHUNK);
        bytes
            .map(Bytes::from)
            .map_err(|error| unreadable(error.to_string()).build())
    }
}
