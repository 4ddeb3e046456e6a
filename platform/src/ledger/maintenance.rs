//! What the keeper does to the ledger, on a direct connection: its own lease, sweeping, counters.

use std::time::Duration;

use snafu::ResultExt;
use sqlx::FromRow;

use super::{Ledger, LedgerError, crawl::waiting::crawl_waits, error::DatabaseSnafu};

/// How many rows one sweep or fold takes.
const BATCH: i64 = 5_000;
/// How many deltas one fold takes.
pub const FOLDED: i64 = BATCH;

/// The right to act as the keeper, until it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(i64);

/// Counts of tasks by state, and how long the oldest waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromRow)]
pub struct Backlog {
    /// Tasks that wait, due or not.
    pub pending: i64,
    /// Tasks that could run now.
    pub due: i64,
    /// Tasks that a worker holds.
    pub running: i64,
    /// Seconds since the oldest due task became due.
    pub oldest_due_seconds: f64,
}

/// What a sweep took back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Swept {
    /// Tasks that wait again.
    pub returned: i64,
    /// Tasks whose attempts are used up.
    pub exhausted: i64,
}

impl std::ops::Add for Swept {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            returned: self.returned + other.returned,
            exhausted: self.exhausted + other.exhausted,
        }
    }
}

impl Ledger {
    /// Becomes or stays the active keeper: `Some` with the epoch while this holder has the lease.
    pub async fn hold_keeper_lease(&self, holder: &str, lives: Duration) -> Result<Option<Epoch>, LedgerError> {
        let epoch: Option<i64> = sqlx::query_scalar(
            "INSERT INTO keeper_lease AS l (holder, epoch, expires_at) VALUES ($1, 1, now() + make_interval(secs => $2))
             ON CONFLICT (singleton) DO UPDATE SET
                 epoch = l.epoch + CASE WHEN l.holder = excluded.holder THEN 0 ELSE 1 END,
                 holder = excluded.holder, expires_at = excluded.expires_at
             WHERE l.holder = excluded.holder OR l.expires_at < now()
             RETURNING epoch",
        )
        .bind(holder)
        .bind(lives.as_secs_f64())
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "taking the keeper's lease" })?;
        Ok(epoch.map(Epoch))
    }

    /// Gives the keeper's lease up, so that another keeper need not wait.
    pub async fn drop_keeper_lease(&self, epoch: Epoch) -> Result<(), LedgerError> {
        sqlx::query("UPDATE keeper_lease SET expires_at = now() WHERE epoch = $1")
            .bind(epoch.0)
            .execute(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "giving up the keeper's lease",
            })?;
        Ok(())
    }

    /// Takes expired leases back: the task waits again, or fails where its attempts are used up.
    pub async fn sweep(&self) -> Result<Swept, LedgerError> {
        sqlx::query_as(
            "WITH expired AS (
                 SELECT id FROM tasks WHERE status = 'running' AND lease_until < now() LIMIT $1 FOR UPDATE SKIP LOCKED
             ), swept AS (
                 UPDATE tasks SET
                     status = CASE WHEN cancel_requested THEN 'canceled' WHEN attempts >= max_attempts THEN 'failed' ELSE 'pending' END,
                     finished_at = CASE WHEN cancel_requested OR attempts >= max_attempts THEN now() END,
                     due_at = CASE WHEN cancel_requested OR attempts >= max_attempts THEN due_at ELSE now() END,
                     error_class = CASE WHEN NOT cancel_requested AND attempts >= max_attempts THEN 'AttemptsExhausted' ELSE error_class END,
                     error_message = CASE WHEN NOT cancel_requested AND attempts >= max_attempts
                         THEN format('page %s was begun %s times and its worker was lost each time', pages + 1, attempts)
                         ELSE error_message END,
                     lease_token = NULL, lease_until = NULL, worker = NULL
                 FROM expired WHERE tasks.id = expired.id
                 RETURNING tasks.id, user_id, source_uid, status, pages, records, compute_units_used
             ), counted AS (
                 INSERT INTO owner_counter_deltas (user_id, failed, canceled, pages, records, compute_units)
                 SELECT user_id, (status = 'failed')::int, (status = 'canceled')::int, pages, records, compute_units_used
                 FROM swept WHERE status <> 'pending'
             ), told AS (
                 INSERT INTO changes (uid, task_id) SELECT source_uid, id FROM swept WHERE status <> 'pending' AND source_uid IS NOT NULL
             )
             SELECT count(*) FILTER (WHERE status = 'pending') AS returned, count(*) FILTER (WHERE status = 'failed') AS exhausted FROM swept",
        )
        .bind(BATCH)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "taking expired leases back" })
    }

    /// Ends runs that nobody reads and that have taken as long as their `maxDuration` allows: those that wait for a worker, a quota or their
    /// resumption. A worker ends those that it reads. Returns how many.
    pub async fn end_late_runs(&self) -> Result<i64, LedgerError> {
        sqlx::query_scalar(concat!(
            "WITH late AS (
                 SELECT t.id FROM tasks t
                 WHERE t.deadline_at IS NOT NULL AND t.status IN ('pending', 'running') AND t.deadline_at < now()
                     AND (t.status = 'pending' OR ",
            crawl_waits!(),
            ")   LIMIT $1 FOR UPDATE OF t SKIP LOCKED
             ), ended AS (
                 UPDATE tasks SET status = 'failed', finished_at = now(), error_class = 'MaxDuration',
                     error_message = format('the run took longer than its maxDuration of %s', spec ->> 'maxDuration'),
                     lease_token = NULL, worker = NULL
                 FROM late WHERE tasks.id = late.id
                 RETURNING tasks.id, user_id, source_uid, crawl_open IS NULL AS whole, pages, records, compute_units_used
             ), counted AS (
                 INSERT INTO owner_counter_deltas (user_id, failed, pages, records, compute_units)
                 SELECT user_id, 1, CASE WHEN whole THEN pages ELSE 0 END, CASE WHEN whole THEN records ELSE 0 END,
                     CASE WHEN whole THEN compute_units_used ELSE 0 END
                 FROM ended
             ), told AS (
                 INSERT INTO changes (uid, task_id) SELECT source_uid, id FROM ended WHERE source_uid IS NOT NULL
             )
             SELECT count(*) FROM ended"
        ))
        .bind(BATCH)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "ending runs at their maxDuration" })
    }

    /// Folds counter deltas into the owners' rows. Returns how many deltas were folded: as long as it is [`FOLDED`], there are more.
    pub async fn fold_counters(&self) -> Result<i64, LedgerError> {
        sqlx::query_scalar(
            "WITH taken AS (
                 DELETE FROM owner_counter_deltas WHERE id IN (SELECT id FROM owner_counter_deltas ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
                 RETURNING *
             ), folded AS (
                 INSERT INTO owner_counters AS c (user_id, total, succeeded, failed, canceled, records, pages, compute_units, active_at)
                 SELECT user_id, sum(total), sum(succeeded), sum(failed), sum(canceled), sum(records), sum(pages), sum(compute_units),
                     CASE WHEN bool_or(signed_in OR total > 0) THEN now() END
                 FROM taken GROUP BY user_id
                 ON CONFLICT (user_id) DO UPDATE SET total = c.total + excluded.total, succeeded = c.succeeded + excluded.succeeded,
                     failed = c.failed + excluded.failed, canceled = c.canceled + excluded.canceled, records = c.records + excluded.records,
                     pages = c.pages + excluded.pages, compute_units = c.compute_units + excluded.compute_units,
                     active_at = coalesce(excluded.active_at, c.active_at)
             ), days AS (
                 INSERT INTO owner_days AS d (user_id, day, pages)
                 SELECT user_id, (now() AT TIME ZONE 'UTC')::date, sum(pages_read) FROM taken GROUP BY user_id HAVING sum(pages_read) <> 0
                 ON CONFLICT (user_id, day) DO UPDATE SET pages = d.pages + excluded.pages
             )
             SELECT count(*) FROM taken",
        )
        .bind(BATCH)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "folding counters" })
    }

    /// Removes what has expired: idempotency keys, refresh tokens, changes, ticks, deliveries and days' counts older than a week.
    pub async fn purge(&self) -> Result<(), LedgerError> {
        for sql in [
            "DELETE FROM idempotency_keys WHERE expires_at < now()",
            "DELETE FROM refresh_tokens WHERE expires_at < now()",
            "DELETE FROM page_validators WHERE expires_at < now()",
            "DELETE FROM changes WHERE changed_at < now() - interval '7 days'",
            // A day longer than the longest starting deadline.
            "DELETE FROM schedule_ticks WHERE tick < now() - interval '8 days'",
            "DELETE FROM webhook_deliveries WHERE created_at < now() - interval '7 days'",
            "DELETE FROM owner_days WHERE day < now() - interval '7 days'",
        ] {
            sqlx::query(sql).execute(&self.pool).await.context(DatabaseSnafu {
                doing: "removing what has expired",
            })?;
        }
        Ok(())
    }

    /// How much waits and runs.
    pub async fn backlog(&self) -> Result<Backlog, LedgerError> {
        sqlx::query_as(
            "SELECT count(*) FILTER (WHERE status = 'pending') AS pending,
                    count(*) FILTER (WHERE status = 'pending' AND NOT paused AND due_at <= now()) AS due,
                    count(*) FILTER (WHERE status = 'running') AS running,
                    coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE status = 'pending' AND NOT paused AND due_at <= now())), 0)::double precision
                        AS oldest_due_seconds
             FROM tasks WHERE status IN ('pending', 'running')",
        )
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "counting tasks" })
    }
}
