//! Claims: who holds a run, and every write that only its holder may make.
//!
//! A write carries the lease's token; one whose token is no longer the lease's matches no row and changes nothing.

use std::time::Duration;

use selextract_task::TaskSpec;
use serde_json::{Map, Value};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Doing, Ledger, Result, millis, pages};

/// A run that this worker holds until its lease ends.
#[derive(Clone, Debug, FromRow)]
pub struct Claimed {
    /// The run's id.
    pub id: Uuid,
    /// Goes with every write.
    pub token: Uuid,
    /// What to extract.
    #[sqlx(json)]
    pub spec: TaskSpec,
    /// All claims, this one included.
    pub attempts: i32,
    /// Claims since the last committed page, this one included: 1 is the first try.
    pub tries: i32,
    /// Pages committed before; the next page's number is one more.
    pub pages: i64,
    /// Where to go on; the spec's URL without one.
    pub next_url: Option<String>,
    /// Milliseconds from when it could run to this claim.
    pub waited_ms: i64,
}

/// A page with its records.
#[derive(Clone, Copy, Debug)]
pub struct PageCommit<'a> {
    /// The run.
    pub id: Uuid,
    /// The claim's token.
    pub token: Uuid,
    /// The page's number, from 1, without a gap.
    pub page: i32,
    /// The page's address.
    pub url: &'a str,
    /// What it gave.
    pub records: &'a [Map<String, Value>],
    /// Records left out and the like.
    pub warnings: i64,
    /// Where the run goes on; where a later claim would resume.
    pub next_url: Option<&'a str>,
    /// CPU time of worker and browser.
    pub cpu: Duration,
    /// Bytes through the egress proxy.
    pub egress_bytes: i64,
    /// The lease is extended to this long from now.
    pub lease: Duration,
}

/// How a holder lets go of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Every page was read.
    Succeeded,
    /// It ended with an error; what was committed stays.
    Failed {
        /// A stable `CamelCase` word.
        class: String,
        /// One sentence for people.
        message: String,
    },
    /// The page is tried again after a while; the try counts.
    Retry {
        /// How long from now.
        after: Duration,
        /// A stable `CamelCase` word.
        class: String,
        /// One sentence for people.
        message: String,
    },
    /// Given back because the worker stops: the attempt does not count.
    HandBack,
}

/// Whether a holder's write took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It did.
    Done,
    /// The claim is no longer this holder's (lease lost, canceled or deleted): nothing was written.
    Fenced,
}

impl Written {
    const fn of(rows: u64) -> Self {
        if rows == 0 { Self::Fenced } else { Self::Done }
    }
}

impl Ledger {
    /// Claims those of the runs that are still due, each with a token of its own. The attempt counts from here.
    pub async fn claim(&self, ids: &[Uuid], worker: &str, lease: Duration) -> Result<Vec<Claimed>> {
        sqlx::query_as(
            "WITH due AS (SELECT id, due_at FROM tasks WHERE id = ANY ($1) AND status = 'pending' AND due_at <= now() FOR UPDATE SKIP LOCKED) \
             UPDATE tasks t SET status = 'running', lease_token = gen_random_uuid(), lease_until = now() + $3 * interval '1 millisecond', \
             worker = $2, attempts = t.attempts + 1, tries = t.tries + 1, started_at = coalesce(t.started_at, now()) \
             FROM due WHERE t.id = due.id \
             RETURNING t.id, t.lease_token AS token, t.spec, t.attempts, t.tries, t.pages, t.next_url, \
             (extract(epoch FROM now() - due.due_at) * 1000)::bigint AS waited_ms",
        )
        .bind(ids)
        .bind(worker)
        .bind(millis(lease))
        .fetch_all(&self.pool)
        .await
        .doing("claiming runs")
    }

    /// Extends leases, given as (run, token); returns the runs that are still held.
    pub async fn renew(&self, held: &[(Uuid, Uuid)], lease: Duration) -> Result<Vec<Uuid>> {
        let (ids, tokens): (Vec<_>, Vec<_>) = held.iter().copied().unzip();
        sqlx::query_scalar(
            "UPDATE tasks t SET lease_until = now() + $3 * interval '1 millisecond' FROM unnest($1::uuid[], $2::uuid[]) AS h (id, token) \
             WHERE t.id = h.id AND t.lease_token = h.token AND t.status = 'running' RETURNING t.id",
        )
        .bind(ids)
        .bind(tokens)
        .bind(millis(lease))
        .fetch_all(&self.pool)
        .await
        .doing("renewing leases")
    }

    /// Commits a page with its records and extends the lease: one statement. Sent twice, it is committed once.
    pub async fn commit_page(&self, page: &PageCommit<'_>) -> Result<Written> {
        let body = pages::encode(page.records)?;
        let done = sqlx::query(
            "WITH held AS (UPDATE tasks SET pages = $3, records = records + $4, warnings = warnings + $5, next_url = $6, cpu_ms = cpu_ms + $7, \
             egress_bytes = egress_bytes + $8, \
             compute_units_used = ceil((cpu_ms + $7) / 1000.0 + (egress_bytes + $8) / 100000000.0)::bigint, \
             tries = 1, error_class = NULL, error_message = NULL, lease_until = now() + $9 * interval '1 millisecond' \
             WHERE id = $1 AND lease_token = $2 AND status = 'running' AND pages = $3 - 1 RETURNING id) \
             INSERT INTO pages (task_id, page, url, record_count, compressed, body) SELECT id, $3, $10, $4, $11, $12 FROM held",
        )
        .bind(page.id)
        .bind(page.token)
        .bind(page.page)
        .bind(i32::try_from(page.records.len()).unwrap_or(i32::MAX))
        .bind(page.warnings)
        .bind(page.next_url)
        .bind(millis(page.cpu))
        .bind(page.egress_bytes)
        .bind(millis(page.lease))
        .bind(page.url)
        .bind(body.compressed)
        .bind(body.bytes)
        .execute(&self.pool)
        .await
        .doing("committing a page")?;
        if done.rows_affected() == 1 {
            Ok(Written::Done)
        } else {
            self.was_committed(page).await
        }
    }

    /// After an answer that was lost the holder sends its page again.
    async fn was_committed(&self, page: &PageCommit<'_>) -> Result<Written> {
        let found: Option<Uuid> = sqlx::query_scalar(
            "SELECT id FROM tasks WHERE id = $1 AND lease_token = $2 AND status = 'running' AND pages = $3",
        )
        .bind(page.id)
        .bind(page.token)
        .bind(i64::from(page.page))
        .fetch_optional(&self.pool)
        .await
        .doing("asking for a committed page")?;
        Ok(if found.is_some() {
            Written::Done
        } else {
            Written::Fenced
        })
    }

    /// Lets go of a run.
    pub async fn finish(&self, id: Uuid, token: Uuid, finish: &Finish) -> Result<Written> {
        let (state, error, wait, given_back) = match finish {
            Finish::Succeeded => ("succeeded", None, None, 0),
            Finish::Failed { class, message } => ("failed", Some((class, message)), None, 0),
            Finish::Retry { after, class, message } => ("pending", Some((class, message)), Some(millis(*after)), 0),
            Finish::HandBack => ("pending", None, Some(0), 1),
        };
        let (class, message) = error.unzip();
        let done = sqlx::query(
            "UPDATE tasks SET status = $3, error_class = $4, error_message = $5, due_at = coalesce(now() + $6 * interval '1 millisecond', due_at), \
             finished_at = CASE WHEN $6::bigint IS NULL THEN now() END, attempts = attempts - $7, tries = greatest(tries - $7, 0), \
             lease_token = NULL, lease_until = NULL WHERE id = $1 AND lease_token = $2 AND status = 'running'",
        )
        .bind(id)
        .bind(token)
        .bind(state)
        .bind(class)
        .bind(message)
        .bind(wait)
        .bind(given_back)
        .execute(&self.pool)
        .await
        .doing("finishing a run")?;
        Ok(Written::of(done.rows_affected()))
    }
}
