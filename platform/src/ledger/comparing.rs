//! Compares the records of a run with those of the run before it: each is new, changed, the same, or gone.
//!
//! By hashes in the database, one page in memory at a time: of a run itself memory holds the numbers of its pages and no more. In
//! `watch_records` a kind of 0 is the same, 1 new, 2 changed, 3 gone and 4 unseen.
//!
//! A crawl may miss pages, and what stood on them is not gone: it is carried on as unseen, to be compared when its page is read again.

use selextract_task::{Watch, normal_url};
use snafu::ResultExt;
use url::Url;
use uuid::Uuid;

use super::{
    Ledger, LedgerError, TaskId,
    claims::{Fenced, Lease, Record},
    error::DatabaseSnafu,
    pages::Page,
    watching::{Counts, DOING, MOST_RECORDS},
};
use crate::digest::{Digest, digest};

/// How many records one statement notes.
const CHUNK: usize = 5_000;
/// In how many runs in a row a record may be unseen; then it is gone.
const MOST_UNSEEN: i16 = 10;

/// What is to be known of a crawl that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crawled {
    /// No page of it failed, and it found fewer than it may visit: what it does not have is not there.
    pub(super) is_whole: bool,
}

impl Ledger {
    /// Notes every record of the run, and those of the former run that it has no more.
    pub(super) async fn compare(
        &self,
        held: Lease,
        former: Option<TaskId>,
        (watch, crawled): (&Watch, Option<Crawled>),
        records: i64,
    ) -> Result<Result<Counts, Fenced>, LedgerError> {
        let mut counts = Counts::default();
        // What a claim that was lost in the middle has left.
        sqlx::query(
            "DELETE FROM watch_records WHERE task_id = $1
                 AND EXISTS (SELECT FROM tasks WHERE id = $1 AND lease_token = $2 AND status = 'running')",
        )
        .bind(held.id)
        .bind(held.token)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })?;
        if records > MOST_RECORDS {
            counts.too_many = true;
            return Ok(Ok(counts));
        }
        for number in self.page_numbers(held.id, crawled.is_some()).await? {
            let Some(page) = self.pages(held.id, number - 1, 1).await?.pop() else {
                break;
            };
            let rows = rows(&page, watch);
            let source = crawled.and_then(|_| Some(normal_url(&Url::parse(&page.url).ok()?).to_string()));
            counts.keyless += i64::try_from(page.records.len() - rows.len()).unwrap_or_default();
            for chunk in rows.chunks(CHUNK) {
                let on = (page.number, source.as_deref());
                let Some(noted) = self.note(held, former, on, chunk).await? else {
                    return Ok(Err(Fenced));
                };
                counts.new += noted.0;
                counts.changed += noted.1;
                counts.same += noted.2;
                counts.duplicates += i64::try_from(chunk.len()).unwrap_or_default() - noted.0 - noted.1 - noted.2;
            }
        }
        if let Some(former) = former {
            if crawled.is_some_and(|crawled| !crawled.is_whole) {
                counts.unseen = self.note_unseen(held, former).await?;
            }
            counts.gone = self.note_gone(held, former).await?;
        }
        Ok(Ok(counts))
    }

    /// The run's pages that have records, in their order; those of a crawl, which come in any order, by their URLs: so it is the same one
    /// of records with one key that counts in each run.
    async fn page_numbers(&self, id: TaskId, by_url: bool) -> Result<Vec<i32>, LedgerError> {
        sqlx::query_scalar(
            "SELECT number FROM pages WHERE task_id = $1 AND record_count > 0 ORDER BY CASE WHEN $2 THEN url END COLLATE \"C\", number",
        )
        .bind(id)
        .bind(by_url)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })
    }

    /// Notes records of a page, and returns how many are new, changed and the same; `None` where the lease is lost.
    async fn note(
        &self,
        held: Lease,
        former: Option<TaskId>,
        (page, source): (i32, Option<&str>),
        rows: &[(i32, Digest)],
    ) -> Result<Option<(i64, i64, i64)>, LedgerError> {
        let (held_still, new, changed, same): (bool, i64, i64, i64) = sqlx::query_as(
            "WITH held AS (
                 SELECT id FROM tasks WHERE id = $1 AND lease_token = $2 AND status = 'running'
             ), noted AS (
                 INSERT INTO watch_records (task_id, key_hash, record_hash, kind, page, place, before_page, before_place, seen_in, source)
                 SELECT held.id, n.key_hash, n.record_hash,
                        CASE WHEN o.key_hash IS NULL THEN 1 WHEN o.record_hash = n.record_hash THEN 0 ELSE 2 END, $4, n.place,
                        CASE WHEN o.kind = 4 THEN o.before_page ELSE o.page END, CASE WHEN o.kind = 4 THEN o.before_place ELSE o.place END,
                        CASE WHEN o.kind = 4 THEN o.seen_in END, page_source($8)
                 FROM held CROSS JOIN unnest($5::uuid[], $6::uuid[], $7::integer[]) AS n (key_hash, record_hash, place)
                     LEFT JOIN watch_records o ON o.task_id = $3 AND o.key_hash = n.key_hash AND o.kind <> 3
                 ON CONFLICT (task_id, key_hash) DO NOTHING RETURNING kind
             )
             SELECT EXISTS (SELECT FROM held), count(*) FILTER (WHERE kind = 1), count(*) FILTER (WHERE kind = 2),
                    count(*) FILTER (WHERE kind = 0) FROM noted",
        )
        .bind(held.id)
        .bind(held.token)
        .bind(former)
        .bind(page)
        .bind(rows.iter().map(|(_, digest)| digest.key).collect::<Vec<Uuid>>())
        .bind(rows.iter().map(|(_, digest)| digest.content).collect::<Vec<Uuid>>())
        .bind(rows.iter().map(|(place, _)| *place).collect::<Vec<_>>())
        .bind(source)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })?;
        Ok(held_still.then_some((new, changed, same)))
    }

    /// Notes the records of the former crawl that this one does not have, and that stand on pages of which it has no answer.
    async fn note_unseen(&self, held: Lease, former: TaskId) -> Result<i64, LedgerError> {
        let noted = sqlx::query(
            "WITH answered AS (
                 SELECT page_source(url) AS source FROM crawl_pages c
                 WHERE c.id BETWEEN crawl_first($1) AND crawl_last($1) AND c.task_id = $1 AND c.kind = 'page'
                     AND (c.status IN ('done', 'skipped') OR c.absent)
             )
             INSERT INTO watch_records (task_id, key_hash, record_hash, kind, page, place, before_page, before_place, seen_in, source, unseen)
             SELECT t.id, o.key_hash, o.record_hash, 4, 0, (row_number() OVER ())::integer,
                    CASE WHEN o.kind = 4 THEN o.before_page ELSE o.page END, CASE WHEN o.kind = 4 THEN o.before_place ELSE o.place END,
                    CASE WHEN o.kind = 4 THEN o.seen_in ELSE o.task_id END, o.source, o.unseen + 1
             FROM tasks t JOIN watch_records o ON o.task_id = $3 AND o.kind <> 3 AND o.unseen < $4
             WHERE t.id = $1 AND t.lease_token = $2 AND t.status = 'running'
                 AND NOT EXISTS (SELECT FROM watch_records n WHERE n.task_id = $1 AND n.key_hash = o.key_hash)
                 AND NOT EXISTS (SELECT FROM answered a WHERE a.source = o.source)
             ON CONFLICT (task_id, key_hash) DO NOTHING",
        )
        .bind(held.id)
        .bind(held.token)
        .bind(former)
        .bind(MOST_UNSEEN)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })?;
        Ok(i64::try_from(noted.rows_affected()).unwrap_or(i64::MAX))
    }

    async fn note_gone(&self, held: Lease, former: TaskId) -> Result<i64, LedgerError> {
        let noted = sqlx::query(
            "INSERT INTO watch_records (task_id, key_hash, record_hash, kind, page, place, before_page, before_place, seen_in)
             SELECT t.id, o.key_hash, o.record_hash, 3, o.page, o.place, CASE WHEN o.kind = 4 THEN o.before_page END,
                    CASE WHEN o.kind = 4 THEN o.before_place END, CASE WHEN o.kind = 4 THEN o.seen_in END
             FROM tasks t JOIN watch_records o ON o.task_id = $3 AND o.kind <> 3
             WHERE t.id = $1 AND t.lease_token = $2 AND t.status = 'running'
                 AND NOT EXISTS (SELECT FROM watch_records n WHERE n.task_id = $1 AND n.key_hash = o.key_hash)
             ON CONFLICT (task_id, key_hash) DO NOTHING",
        )
        .bind(held.id)
        .bind(held.token)
        .bind(former)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })?;
        Ok(i64::try_from(noted.rows_affected()).unwrap_or(i64::MAX))
    }
}

/// The places of a page's records with their digests; those without a key are left out.
fn rows(page: &Page, watch: &Watch) -> Vec<(i32, Digest)> {
    let places = page.records.iter().zip(0_i32..);
    places
        .filter_map(|(record, place): (&Record, i32)| Some((place, digest(record, watch)?)))
        .collect()
}
