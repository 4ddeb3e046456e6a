//! Writing artifacts with their page.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use snafu::ResultExt;
use sqlx::FromRow;
use tracing::warn;
use uuid::Uuid;

use super::{CHUNK, Kind, MAX_BYTES, MAX_PER_PAGE, NewArtifact, clean};
use crate::{
    artifacts::Store,
    ledger::{
        Ledger, LedgerError, TaskId,
        claims::{Fenced, Lease, Renewed},
        error::{DatabaseSnafu, StoredSnafu},
        leased::{self, PageRow},
        transaction,
    },
    packing,
};

/// The page that artifacts are written for, and the lease under which they are.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Place {
    /// The run's, or the one of a page of a crawl.
    pub(in crate::ledger) held: Lease,
    pub(in crate::ledger) task: TaskId,
    /// How objects tell the page from others of the run.
    pub(in crate::ledger) page: String,
}

/// The artifacts of a page whose contents were written, and those that were left out.
#[derive(Debug)]
pub(in crate::ledger) struct Contents {
    written: Vec<Written>,
    /// How many were left out.
    pub(in crate::ledger) left_out: i32,
}

/// An artifact whose content was written, or left out.
#[derive(Debug)]
struct Written {
    id: Uuid,
    name: String,
    kind: Kind,
    size: i64,
    sha256: Vec<u8>,
    object: Option<String>,
    compressed: bool,
    left_out: Option<String>,
}

/// A content as it is stored.
struct Content {
    sha256: Vec<u8>,
    /// For the database.
    chunks: Vec<Vec<u8>>,
    /// For the bucket.
    whole: Bytes,
}

/// What reserving room said.
#[derive(FromRow)]
struct Room {
    used: i64,
    most: i64,
    begun: bool,
}

impl Ledger {
    /// Commits a page with its artifacts: contents first, then page and artifacts in one transaction.
    pub(in crate::ledger) async fn commit_with_artifacts(
        &self,
        page: PageRow,
        artifacts: &[NewArtifact],
    ) -> Result<Result<Renewed, Fenced>, LedgerError> {
        let place = Place {
            held: page.held,
            task: page.held.id,
            page: page.number.to_string(),
        };
        let contents = match self.write_artifacts(&place, artifacts).await? {
            Ok(contents) => contents,
            Err(Fenced) => return Ok(Err(Fenced)),
        };
        let answer = self.commit_written(page, &contents).await;
        if !matches!(answer, Ok(Ok(_))) {
            self.take_back(&contents).await;
        }
        answer
    }

    /// Writes the contents of a page's artifacts, before the page. They become artifacts by [`Contents::keep`].
    pub(in crate::ledger) async fn write_artifacts(
        &self,
        place: &Place,
        artifacts: &[NewArtifact],
    ) -> Result<Result<Contents, Fenced>, LedgerError> {
        let mut contents = Contents {
            written: Vec::with_capacity(artifacts.len()),
            left_out: 0,
        };
        let answer = self.write_all(place, artifacts, &mut contents.written).await;
        if !matches!(answer, Ok(Ok(()))) {
            self.take_back(&contents).await;
        }
        let kept = contents.written.iter().filter(|new| new.left_out.is_none()).count();
        contents.left_out = i32::try_from(artifacts.len() - kept).unwrap_or(i32::MAX);
        Ok(answer?.map(|()| contents))
    }

    /// Removes contents that did not become artifacts. Those that did, as where the commit's answer was lost, stay.
    pub(in crate::ledger) async fn take_back(&self, contents: &Contents) {
        let written = contents.written.iter().filter(|new| new.left_out.is_none());
        let ids: Vec<Uuid> = written.map(|new| new.id).collect();
        if ids.is_empty() {
            return;
        }
        if let Err(error) = self.remove_uploads(&ids).await {
            warn!(%error, "Contents of a page that was not committed stay until the keeper finds them.");
        }
    }

    async fn write_all(
        &self,
        place: &Place,
        artifacts: &[NewArtifact],
        written: &mut Vec<Written>,
    ) -> Result<Result<(), Fenced>, LedgerError> {
        if artifacts.len() > MAX_PER_PAGE {
            warn!(task = %place.task, page = place.page, "A page has more artifacts than {MAX_PER_PAGE}; the others are left out.");
        }
        for artifact in artifacts.iter().take(MAX_PER_PAGE) {
            let mut new = Written::new(artifact);
            let Ok(begun) = self.make_room(place, &mut new).await? else {
                return Ok(Err(Fenced));
            };
            written.push(new);
            if begun && let Some(new) = written.last_mut() {
                self.write(place.task, new, &artifact.bytes).await?;
            }
        }
        Ok(Ok(()))
    }

    /// Whether the content may be written; the artifact says why when it may not.
    async fn make_room(&self, place: &Place, new: &mut Written) -> Result<Result<bool, Fenced>, LedgerError> {
        if new.left_out.is_some() {
            return Ok(Ok(false));
        }
        if self.artifacts.store == Store::S3
            && let Some(objects) = &self.artifacts.objects
        {
            new.object = Some(objects.key(&key(place, new)));
        }
        let Some(room) = self.reserve(place, new).await? else {
            return Ok(Err(Fenced));
        };
        if !room.begun {
            new.object = None;
            new.left_out = Some(format!(
                "the quota artifact_bytes is {} and {} are used; this has {}",
                room.most, room.used, new.size
            ));
        }
        Ok(Ok(room.begun))
    }

    /// Counts an artifact against its owner's quota and notes that it is being written, if there is room and the lease holds.
    async fn reserve(&self, place: &Place, new: &Written) -> Result<Option<Room>, LedgerError> {
        sqlx::query_as(
            "WITH quota AS (
                 SELECT t.user_id, coalesce((SELECT q.artifact_bytes FROM owner_quotas q WHERE q.user_id = t.user_id), $5) AS most
                 FROM tasks t WHERE t.id = $2 AND t.status = 'running'
                     AND (t.lease_token = $3 OR EXISTS (
                         SELECT FROM crawl_pages c WHERE c.id = $7 AND c.lease_token = $3 AND c.status = 'running'))
             ), taken AS (
                 INSERT INTO artifact_usage AS u (user_id, bytes) SELECT user_id, $4 FROM quota WHERE $4 <= most
                 ON CONFLICT (user_id) DO UPDATE SET bytes = u.bytes + excluded.bytes
                     WHERE u.bytes + excluded.bytes <= (SELECT most FROM quota)
                 RETURNING user_id
             ), begun AS (
                 INSERT INTO artifact_uploads (id, task_id, user_id, size, object) SELECT $1, $2, user_id, $4, $6 FROM taken
                 RETURNING id
             )
             SELECT coalesce((SELECT u.bytes FROM artifact_usage u WHERE u.user_id = quota.user_id), 0) AS used, most,
                    EXISTS (SELECT FROM begun) AS begun
             FROM quota",
        )
        .bind(new.id)
        .bind(place.task)
        .bind(place.held.token)
        .bind(new.size)
        .bind(self.artifacts.bytes_per_owner)
        .bind(&new.object)
        .bind(place.held.id)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "making room for an artifact",
        })
    }

    async fn write(&self, task: TaskId, new: &mut Written, bytes: &[u8]) -> Result<(), LedgerError> {
        let content = prepare(bytes.to_vec(), new.object.is_some(), new.compressed).await?;
        new.sha256 = content.sha256;
        if let (Some(key), Some(objects)) = (new.object.clone(), &self.artifacts.objects) {
            if let Err(error) = objects.put(&key, content.whole, new.kind.media_type).await {
                warn!(%task, artifact = new.name, %error, "An artifact is left out.");
                // Its upload stays for the keeper: the object may come into being all the same.
                new.object = None;
                new.left_out = Some("the artifact store did not take it".to_owned());
            }
            return Ok(());
        }
        for (number, chunk) in (0i32..).zip(&content.chunks) {
            self.write_chunk(new.id, number, chunk).await?;
        }
        Ok(())
    }

    /// Refused where the keeper has taken the upload for abandoned.
    async fn write_chunk(&self, id: Uuid, number: i32, bytes: &[u8]) -> Result<(), LedgerError> {
        let done = sqlx::query(
            "INSERT INTO artifact_chunks (task_id, artifact, number, bytes)
             SELECT task_id, id, $2, $3 FROM artifact_uploads WHERE id = $1 FOR KEY SHARE",
        )
        .bind(id)
        .bind(number)
        .bind(bytes)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "writing an artifact",
        })?;
        if done.rows_affected() == 1 {
            Ok(())
        } else {
            Err(abandoned())
        }
    }

    async fn commit_written(&self, page: PageRow, contents: &Contents) -> Result<Result<Renewed, Fenced>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "committing a page with artifacts",
        };
        let (task, number) = (page.held.id, page.number);
        let page = PageRow {
            warnings: page.warnings.saturating_add(contents.left_out),
            ..page
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        let answers = leased::commit(&mut *transaction, vec![Arc::new(page)])
            .await
            .context(doing)?;
        let Some(Ok(renewed)) = answers.into_iter().next() else {
            transaction.rollback().await.context(doing)?;
            return Ok(Err(Fenced));
        };
        if !contents.keep(&mut transaction, task, number).await.context(doing)? {
            transaction.rollback().await.context(doing)?;
            return Err(abandoned());
        }
        transaction.commit().await.context(doing)?;
        Ok(Ok(renewed))
    }
}

impl Written {
    fn new(artifact: &NewArtifact) -> Self {
        let (kind, size) = (Kind::of(&artifact.media_type), artifact.bytes.len());
        Self {
            id: Uuid::now_v7(),
            name: clean(&artifact.name),
            kind,
            size: i64::try_from(size).unwrap_or(i64::MAX),
            sha256: Vec::new(),
            object: None,
            compressed: kind.compresses,
            left_out: (size > MAX_BYTES).then(|| format!("it has {size} bytes, and an artifact may have {MAX_BYTES}")),
        }
    }
}

impl Contents {
    /// Turns them into artifacts of the page, in the transaction that commits it. Whether all of them were still there.
    pub(in crate::ledger) async fn keep(
        &self,
        transaction: &mut sqlx::PgConnection,
        task: TaskId,
        page: i32,
    ) -> Result<bool, sqlx::Error> {
        let written = &self.written;
        let done = sqlx::query(
        "WITH new AS (
             SELECT * FROM unnest($3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bytea[], $8::text[], $9::boolean[], $10::text[])
                 AS new (id, name, media_type, size, sha256, object, compressed, left_out)
         ), begun AS (
             DELETE FROM artifact_uploads u USING new WHERE u.id = new.id AND new.left_out IS NULL RETURNING u.id
         )
         INSERT INTO artifacts (task_id, page, user_id, id, name, media_type, size, sha256, object, compressed, left_out)
         SELECT t.id, $2, t.user_id, new.id, new.name, new.media_type, new.size, new.sha256, new.object, new.compressed, new.left_out
         FROM tasks t CROSS JOIN new LEFT JOIN begun ON begun.id = new.id
         WHERE t.id = $1 AND (new.left_out IS NOT NULL OR begun.id IS NOT NULL)",
    )
    .bind(task)
    .bind(page)
    .bind(column(written, |new| new.id))
    .bind(column(written, |new| new.name.as_str()))
    .bind(column(written, |new| new.kind.media_type))
    .bind(column(written, |new| new.size))
    .bind(column(written, |new| new.sha256.as_slice()))
    .bind(column(written, |new| new.object.as_deref()))
    .bind(column(written, |new| new.compressed && new.object.is_none()))
    .bind(column(written, |new| new.left_out.as_deref()))
    .execute(transaction)
    .await?;
        Ok(done.rows_affected() == written.len() as u64)
    }
}

fn column<'r, T: 'r>(written: &'r [Written], read: impl Fn(&'r Written) -> T) -> Vec<T> {
    written.iter().map(read).collect()
}

/// Hashes and compresses off the runtime. Each chunk is compressed by itself, so that a part is read without those before it.
async fn prepare(bytes: Vec<u8>, whole: bool, compress: bool) -> Result<Content, LedgerError> {
    let unusable = |message: String| {
        StoredSnafu {
            what: "an artifact",
            message,
        }
        .build()
    };
    let work = tokio::task::spawn_blocking(move || {
        let sha256 = Sha256::digest(&bytes).to_vec();
        let chunks = match (whole, compress) {
            (true, _) => Vec::new(),
            (false, true) => bytes
                .chunks(CHUNK)
                .map(|chunk| packing::pack(chunk, packing::STORED))
                .collect::<Result<_, _>>()?,
            (false, false) => bytes.chunks(CHUNK).map(<[u8]>::to_vec).collect(),
        };
        Ok::<_, std::io::Error>(Content {
            sha256,
            chunks,
            whole: if whole { bytes.into() } else { Bytes::new() },
        })
    });
    let content = work.await.map_err(|error| unusable(error.to_string()))?;
    content.map_err(|error| unusable(error.to_string()))
}

/// A key that no other writer has: one that was thought dead must not change what another has committed.
fn key(place: &Place, new: &Written) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = new.name.chars().map(plain).collect();
    format!("{}/{}/{}-{name}.{}", place.task, place.page, new.id, new.kind.extension)
}

fn abandoned() -> LedgerError {
    StoredSnafu {
        what: "an artifact",
        message: "it took so long to write that it was taken for abandoned",
    }
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn text_is_compressed_chunk_by_chunk_and_hashed_as_it_was() {
        let text = "<p>price</p>".repeat(100_000).into_bytes();
        let content = prepare(text.clone(), false, true).await.unwrap();
        assert_eq!(content.sha256, Sha256::digest(&text).to_vec());
        assert_eq!(content.chunks.len(), text.len().div_ceil(CHUNK));
        assert!(content.chunks.iter().map(Vec::len).sum::<usize>() < text.len() / 10);
        let second = zstd::bulk::decompress(&content.chunks[1], CHUNK).unwrap();
        assert_eq!(second, text[CHUNK..2 * CHUNK]);
    }

    #[test]
    fn what_is_too_large_is_left_out_and_says_so() {
        let new = Written::new(&NewArtifact {
            name: "front".to_owned(),
            media_type: "image/png".to_owned(),
            bytes: vec![0; MAX_BYTES + 1],
        });
        let reason = new.left_out.unwrap();
        assert!(reason.contains("10485761") && reason.contains("10485760"), "{reason}");
    }

    #[test]
    fn two_writers_of_the_same_artifact_have_two_keys() {
        let task = TaskId::new();
        let place = Place {
            held: Lease {
                id: task,
                token: Uuid::nil(),
            },
            task,
            page: "3".to_owned(),
        };
        let new = || {
            Written::new(&NewArtifact {
                name: "the front/ä".to_owned(),
                media_type: "image/png".to_owned(),
                bytes: Vec::new(),
            })
        };
        let (first, second) = (key(&place, &new()), key(&place, &new()));
        assert_ne!(first, second);
        assert!(
            first.starts_with(&format!("{task}/3/")) && first.ends_with("-the-front--.png"),
            "{first}"
        );
    }
}
