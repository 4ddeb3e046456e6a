//! What the keeper does for crawls: pages that wait into the frontier, and pages whose worker was lost back.

use std::time::Duration;

use selextract_task::feed::RunError;
use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    CrawlEnd, CrawlKind,
    ends::{End, Step},
};
use crate::{
    frontier::Entry,
    ledger::{
        Ledger, LedgerError, TaskId, UserId,
        claims::Lease,
        error::DatabaseSnafu,
        maintenance::Swept,
        refill::{Circle, HEAD, OWNERS, Round, Waits},
        transaction,
        waiting::EntryRow,
    },
};

/// How many rows one sweep takes.
const BATCH: i64 = 5_000;

/// How far a circle through all pages of crawls that wait has come.
pub type CrawlCursor = Circle<CrawlPlace>;

/// A page in its owner's order: by the priority of its run, then by the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrawlPlace {
    rank: i32,
    run: TaskId,
    page: TaskId,
}

impl CrawlPlace {
    /// Before all pages.
    const START: Self = Self {
        rank: -1,
        run: TaskId(Uuid::nil()),
        page: TaskId(Uuid::nil()),
    };
}

#[derive(FromRow)]
struct WaitingRow {
    #[sqlx(flatten)]
    entry: EntryRow,
    run: TaskId,
}

impl Waits for WaitingRow {
    type Place = CrawlPlace;

    fn owner(&self) -> UserId {
        self.entry.owner()
    }

    fn place(&self) -> CrawlPlace {
        CrawlPlace {
            rank: self.entry.rank(),
            run: self.run,
            page: self.entry.id(),
        }
    }
}

#[derive(FromRow)]
struct Expired {
    id: TaskId,
    task_id: TaskId,
    lease_token: Uuid,
    attempts: i32,
    max_attempts: Option<i16>,
    runs: Option<bool>,
    kind: String,
}

impl Ledger {
    /// A stretch of the pages of open crawls that wait, for the frontier; with where to go on, `None` at the end of the circle. It goes through
    /// the owners as [`Ledger::refill`] does: nobody's crawls, however large, stand before another's.
    pub async fn refill_crawls(&self, from: CrawlCursor) -> Result<(Vec<Entry>, Option<CrawlCursor>), LedgerError> {
        let (rows, next) = match from.round {
            Round::Heads(after) => {
                let owners = self.crawling_owners(after).await?;
                let starts: Vec<_> = owners.iter().map(|owner| (*owner, CrawlPlace::START)).collect();
                let rows = self.waiting_pages(&starts, HEAD).await?;
                let next = from.after_heads(&owners, &rows);
                (rows, next)
            }
            Round::Deeper(after) => {
                let (owners, most) = from.deeper(after);
                let rows = self.waiting_pages(&owners, most).await?;
                let next = from.after_deeper(&owners, most, &rows);
                (rows, next)
            }
        };
        Ok((rows.into_iter().map(|row| row.entry.into()).collect(), next))
    }

    /// The next owners of whom something runs: what runs is not much, and few indexes are told of its pages.
    async fn crawling_owners(&self, after: Option<UserId>) -> Result<Vec<UserId>, LedgerError> {
        sqlx::query_scalar(
            "WITH RECURSIVE owners AS (
                 (SELECT user_id FROM tasks WHERE status = 'running' AND ($1::uuid IS NULL OR user_id > $1) ORDER BY user_id LIMIT 1)
                 UNION ALL
                 SELECT next.user_id FROM owners CROSS JOIN LATERAL (
                     SELECT user_id FROM tasks WHERE status = 'running' AND user_id > owners.user_id ORDER BY user_id LIMIT 1
                 ) next
             )
             SELECT user_id FROM owners LIMIT $2",
        )
        .bind(after)
        .bind(i64::try_from(OWNERS).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading whose crawls are open",
        })
    }

    /// Of each owner up to so many pages behind a place, in their order. An open crawl is a run without a lease; of each, no more pages are
    /// looked at than may come: the planner, who expects few rows between two ids, would read all of a crawl's and sort them, so it is left
    /// nothing but the index that has this order.
    async fn waiting_pages(
        &self,
        owners: &[(UserId, CrawlPlace)],
        most: usize,
    ) -> Result<Vec<WaitingRow>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "reading pages that wait",
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        sqlx::query("SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true)")
            .execute(&mut *transaction)
            .await
            .context(doing)?;
        let rows = sqlx::query_as(
            "SELECT w.id, o.user_id, w.host, w.priority, ceil(extract(epoch FROM w.due_at) * 1000)::bigint AS due_milliseconds, w.run
             FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::uuid[]) AS o (user_id, rank, run, page) CROSS JOIN LATERAL (
                 SELECT c.id, c.host, c.due_at, r.id AS run, r.priority, r.rank
                 FROM (
                     SELECT t.id, t.priority, 9 - t.priority AS rank FROM tasks t
                     WHERE t.status = 'running' AND t.user_id = o.user_id AND t.lease_until IS NULL AND t.crawl_open > 0 AND NOT t.paused
                         AND (9 - t.priority, t.id) >= (o.rank, o.run)
                     ORDER BY 9 - t.priority, t.id
                 ) r CROSS JOIN LATERAL (
                     SELECT p.id, p.host, p.due_at FROM crawl_pages p
                     WHERE p.id > CASE WHEN r.id = o.run THEN o.page ELSE crawl_first(r.id) END AND p.id <= crawl_last(r.id)
                         AND p.status = 'pending' AND p.task_id = r.id
                     ORDER BY p.id LIMIT $5
                 ) c
                 ORDER BY r.rank, r.id, c.id LIMIT $5
             ) w
             WHERE NOT EXISTS (SELECT FROM owner_holds h WHERE h.user_id = o.user_id AND h.until > now())
             ORDER BY o.user_id, w.rank, w.run, w.id",
        )
        .bind(owners.iter().map(|(owner, _)| owner.0).collect::<Vec<Uuid>>())
        .bind(owners.iter().map(|(_, place)| place.rank).collect::<Vec<_>>())
        .bind(owners.iter().map(|(_, place)| place.run.0).collect::<Vec<Uuid>>())
        .bind(owners.iter().map(|(_, place)| place.page.0).collect::<Vec<Uuid>>())
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await
        .context(doing)?;
        transaction.commit().await.context(doing)?;
        Ok(rows)
    }

    /// Takes expired leases of pages back: the page waits again, or fails where its attempts are used up, and its run may end with it.
    pub async fn sweep_crawls(&self) -> Result<Swept, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "taking expired leases of pages back",
        };
        let expired: Vec<Expired> = sqlx::query_as(
            "SELECT c.id, c.task_id, c.lease_token, c.attempts, t.max_attempts, t.status = 'running' AS runs, c.kind
             FROM crawl_pages c LEFT JOIN tasks t ON t.id = c.task_id
             WHERE c.status = 'running' AND c.lease_until < now() ORDER BY c.id LIMIT $1",
        )
        .bind(BATCH)
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        let (live, over): (Vec<_>, Vec<_>) = expired.into_iter().partition(|page| page.runs == Some(true));
        // Nobody reads for a run that has ended; a replay finds them where they were.
        sqlx::query(
            "UPDATE crawl_pages SET status = 'pending', attempts = greatest(attempts - 1, 0), lease_token = NULL, lease_until = NULL,
                 worker = NULL
             WHERE id = ANY($1) AND status = 'running' AND lease_until < now()",
        )
        .bind(over.iter().map(|page| page.id.0).collect::<Vec<Uuid>>())
        .execute(&self.pool)
        .await
        .context(doing)?;
        let ends = live.iter().map(|page| async {
            let exhausted = page.attempts >= i32::from(page.max_attempts.unwrap_or(1));
            let ended = self.end_step(page.lost(exhausted)).await?;
            Ok::<_, LedgerError>(ended.map(|_| exhausted))
        });
        let mut swept = Swept::default();
        for ended in futures::future::try_join_all(ends).await?.into_iter().flatten() {
            swept.exhausted += i64::from(ended);
            swept.returned += i64::from(!ended);
        }
        Ok(swept)
    }
}

impl Expired {
    fn lost(&self, exhausted: bool) -> End {
        let error = RunError {
            class: "AttemptsExhausted".into(),
            message: format!("it was begun {} times and its worker was lost each time", self.attempts),
        };
        let end = if exhausted && self.kind == CrawlKind::Report.as_str() {
            // Without it the run would seem to be what it was compared as.
            CrawlEnd::FailsRun(error)
        } else if exhausted {
            CrawlEnd::Failed(error)
        } else {
            CrawlEnd::Retry {
                after: Duration::ZERO,
                error: RunError {
                    class: "WorkerLost".into(),
                    message: "the worker that read it was lost".into(),
                },
            }
        };
        End {
            held: Lease {
                id: self.id,
                token: self.lease_token,
            },
            task: self.task_id,
            step: Step::End(end),
            links: None,
            artifacts: None,
            micros: 0,
            max_pages: 0,
            expired: true,
        }
    }
}
