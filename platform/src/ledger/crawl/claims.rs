//! Claiming a crawl's pages, and keeping their leases.

use std::time::Duration;

use selextract_task::TaskSpec;
use snafu::{OptionExt, ResultExt};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{CrawlKind, HeldPage, uuids};
use crate::frontier::Entry;
use crate::ledger::{
    Ledger, LedgerError, TaskId, UserId,
    claims::{Claim, Lease, Renewed},
    error::{DatabaseSnafu, StoredSnafu},
    waiting::EntryRow,
};

#[derive(FromRow)]
struct Row {
    id: TaskId,
    task_id: TaskId,
    user_id: UserId,
    lease_token: Uuid,
    spec: Json<TaskSpec>,
    attempts: i32,
    max_attempts: i16,
    kind: String,
    url: String,
    depth: i16,
    waited_seconds: f64,
    running_seconds: f64,
    units_used: i64,
    source_uid: Option<String>,
}

impl Ledger {
    /// Claims those of a crawl's pages that are still to be read, as [`Ledger::claim`] does with tasks: the attempt is counted here.
    pub async fn claim_crawl_pages(
        &self,
        ids: &[TaskId],
        worker: &str,
        lease: Duration,
    ) -> Result<Vec<Claim>, LedgerError> {
        let rows: Vec<Row> = sqlx::query_as(
            "WITH found AS (
                 SELECT c.id FROM crawl_pages c JOIN tasks t ON t.id = c.task_id
                 WHERE c.id = ANY($1) AND c.status = 'pending' AND c.due_at <= now() + interval '100 milliseconds'
                     AND t.status = 'running' AND t.crawl_open IS NOT NULL AND NOT t.paused
                     AND NOT EXISTS (SELECT FROM owner_holds h WHERE h.user_id = t.user_id AND h.until > now())
                 FOR UPDATE OF c SKIP LOCKED
             ), claimed AS (
                 UPDATE crawl_pages c SET status = 'running', worker = $2, lease_token = gen_random_uuid(),
                     lease_until = now() + make_interval(secs => $3), attempts = c.attempts + 1
                 FROM found WHERE c.id = found.id
                 RETURNING c.id, c.task_id, c.lease_token, c.attempts, c.kind, c.url, c.depth, c.due_at
             )
             SELECT c.id, c.task_id, t.user_id, c.lease_token, t.spec, c.attempts, t.max_attempts, c.kind, c.url, c.depth,
                    extract(epoch FROM now() - c.due_at)::double precision AS waited_seconds,
                    extract(epoch FROM now() - t.started_at)::double precision AS running_seconds,
                    t.compute_units_used - t.compute_units_before AS units_used, t.source_uid
             FROM claimed c JOIN tasks t ON t.id = c.task_id ORDER BY t.priority DESC, c.due_at",
        )
        .bind(uuids(ids))
        .bind(worker)
        .bind(lease.as_secs_f64())
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "claiming pages of crawls",
        })?;
        rows.into_iter().map(Claim::try_from).collect()
    }

    /// Those of these pages that are there, as the frontier had them.
    pub async fn unclaimed_crawl_pages(&self, ids: &[TaskId]) -> Result<Vec<Entry>, LedgerError> {
        let rows: Vec<EntryRow> = sqlx::query_as(
            "SELECT c.id, t.user_id, c.host, t.priority, ceil(extract(epoch FROM c.due_at) * 1000)::bigint AS due_milliseconds
             FROM crawl_pages c JOIN tasks t ON t.id = c.task_id WHERE c.id = ANY($1)",
        )
        .bind(uuids(ids))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading pages that were not claimed",
        })?;
        Ok(rows.into_iter().map(Entry::from).collect())
    }

    /// Extends the leases of pages. One that is missing in the answer is lost: another has it, or its run has ended.
    pub async fn renew_crawl_pages(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>, LedgerError> {
        let ids: Vec<Uuid> = leases.iter().map(|l| l.id.0).collect();
        let tokens: Vec<Uuid> = leases.iter().map(|l| l.token).collect();
        sqlx::query_as(
            "WITH held AS (
                 SELECT c.id, t.cancel_requested FROM unnest($1::uuid[], $2::uuid[]) AS held (id, token)
                     JOIN crawl_pages c ON c.id = held.id AND c.lease_token = held.token JOIN tasks t ON t.id = c.task_id
                 WHERE c.status = 'running' AND t.status = 'running'
                 ORDER BY c.id FOR UPDATE OF c
             )
             UPDATE crawl_pages c SET lease_until = now() + make_interval(secs => $3)
             FROM held WHERE c.id = held.id RETURNING c.id, held.cancel_requested, false AS paused",
        )
        .bind(&ids)
        .bind(&tokens)
        .bind(lease.as_secs_f64())
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "renewing leases of pages",
        })
    }
}

impl TryFrom<Row> for Claim {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<Self, LedgerError> {
        let kind = CrawlKind::from_ledger(&row.kind).context(StoredSnafu {
            what: "the kind of a crawl's page",
            message: row.kind,
        })?;
        Ok(Self {
            id: row.id,
            user_id: row.user_id,
            lease_token: row.lease_token,
            spec: row.spec,
            attempts: row.attempts,
            max_attempts: row.max_attempts,
            pages: 0,
            next_url: None,
            waited_seconds: row.waited_seconds,
            running_seconds: row.running_seconds,
            units_used: row.units_used,
            source_uid: row.source_uid,
            page: Some(HeldPage {
                task: row.task_id,
                kind,
                url: row.url,
                depth: row.depth,
            }),
        })
    }
}
