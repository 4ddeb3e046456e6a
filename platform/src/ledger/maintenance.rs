//! What the keeper does to the ledger, on a direct connection: its own lease, sweeping, refill, schedules, counters.

use std::time::Duration;

use jiff::Timestamp;
use selextract_task::{TaskSpec, feed::Schedule};
use snafu::ResultExt;
use sqlx::{FromRow, types::Json};
use tracing::warn;

use super::{Ledger, LedgerError, TaskId, UserId, error::DatabaseSnafu, scrape_tasks::Clock, waiting::EntryRow};
use crate::frontier::Entry;

/// A tick that was missed by more than this is skipped.
const STARTING_DEADLINE: Duration = Duration::from_mins(10);
/// How many rows one sweep, refill or fold takes.
const BATCH: i64 = 5_000;

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

#[derive(FromRow)]
struct Due {
    uid: String,
    user_id: UserId,
    name: String,
    spec: Json<TaskSpec>,
    spec_hash: String,
    priority: i16,
    cron: String,
    time_zone: String,
    tick_milliseconds: i64,
    ttl_seconds: Option<i64>,
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

    /// A stretch of the tasks that wait, in the order of their ids after `after`, for the frontier; with where to go on, `None` at the end.
    pub async fn refill(&self, after: Option<TaskId>) -> Result<(Vec<Entry>, Option<TaskId>), LedgerError> {
        let rows: Vec<EntryRow> = sqlx::query_as(
            "SELECT id, user_id, host, priority, ceil(extract(epoch FROM due_at) * 1000)::bigint AS due_milliseconds FROM tasks
             WHERE status = 'pending' AND NOT paused AND ($1::uuid IS NULL OR id > $1)
                 AND NOT EXISTS (SELECT FROM owner_holds h WHERE h.user_id = tasks.user_id AND h.until > now())
             ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(BATCH)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading tasks that wait" })?;
        let full = rows.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        let entries: Vec<Entry> = rows.into_iter().map(Entry::from).collect();
        let next = entries.last().filter(|_| full).map(|entry| entry.id);
        Ok((entries, next))
    }

    /// Starts the runs of schedules that are due, each tick once, whoever else does the same. Returns how many started.
    pub async fn tick_schedules(&self, now: Timestamp) -> Result<u64, LedgerError> {
        let due: Vec<Due> = sqlx::query_as(
            "SELECT uid, user_id, name, spec, spec_hash, priority, cron, time_zone, ttl_seconds,
                    (extract(epoch FROM next_run_at) * 1000)::bigint AS tick_milliseconds
             FROM scrape_tasks WHERE NOT suspend AND cron IS NOT NULL AND next_run_at <= to_timestamp($1::double precision / 1000)
             ORDER BY next_run_at LIMIT 500",
        )
        .bind(now.as_millisecond())
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading schedules" })?;
        let mut started = 0;
        for schedule in due {
            match self.tick(&schedule, now).await {
                Ok(did) => started += u64::from(did),
                Err(error) if error.is_unavailable() => return Err(error),
                // One schedule that cannot be started stands in no other's way.
                Err(error) => warn!(uid = schedule.uid, %error, "A scheduled run could not be started; trying again."),
            }
        }
        Ok(started)
    }

    async fn tick(&self, due: &Due, now: Timestamp) -> Result<bool, LedgerError> {
        let clock = Clock::parse(&Schedule {
            cron: due.cron.clone(),
            time_zone: due.time_zone.clone(),
        });
        let next = clock.ok().and_then(|clock| clock.next_after(now));
        let late =
            Duration::from_millis(u64::try_from(now.as_millisecond() - due.tick_milliseconds).unwrap_or_default());
        let host = due
            .spec
            .compile()
            .ok()
            .and_then(|plan| plan.url.host_str().map(str::to_owned));
        let doing = DatabaseSnafu {
            doing: "starting a scheduled run",
        };
        let mut transaction = self.pool.begin().await.context(doing)?;
        let advanced = sqlx::query(
            "UPDATE scrape_tasks SET next_run_at = to_timestamp($3::double precision / 1000)
             WHERE uid = $1 AND NOT suspend AND next_run_at = to_timestamp($2::double precision / 1000) AND spec_hash = $4",
        )
        .bind(&due.uid)
        .bind(due.tick_milliseconds)
        .bind(next.map(Timestamp::as_millisecond))
        // A spec that changed since it was read is read again: the tick is still due.
        .bind(&due.spec_hash)
        .execute(&mut *transaction)
        .await
        .context(doing)?;
        let mut started = false;
        if advanced.rows_affected() > 0
            && late <= STARTING_DEADLINE
            && let Some(host) = host
        {
            started = insert_tick(&mut transaction, due, &host).await?;
        }
        transaction.commit().await.context(doing)?;
        Ok(started)
    }

    /// Folds counter deltas into the owners' rows. Returns how many deltas were folded.
    pub async fn fold_counters(&self) -> Result<i64, LedgerError> {
        sqlx::query_scalar(
            "WITH taken AS (
                 DELETE FROM owner_counter_deltas WHERE id IN (SELECT id FROM owner_counter_deltas ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
                 RETURNING *
             ), folded AS (
                 INSERT INTO owner_counters AS c (user_id, total, succeeded, failed, canceled, records, pages, compute_units)
                 SELECT user_id, sum(total), sum(succeeded), sum(failed), sum(canceled), sum(records), sum(pages), sum(compute_units)
                 FROM taken GROUP BY user_id
                 ON CONFLICT (user_id) DO UPDATE SET total = c.total + excluded.total, succeeded = c.succeeded + excluded.succeeded,
                     failed = c.failed + excluded.failed, canceled = c.canceled + excluded.canceled, records = c.records + excluded.records,
                     pages = c.pages + excluded.pages, compute_units = c.compute_units + excluded.compute_units
             ), days AS (
                 INSERT INTO owner_days AS d (user_id, day, pages)
                 SELECT user_id, (now() AT TIME ZONE 'UTC')::date, sum(pages) FROM taken GROUP BY user_id HAVING sum(pages) <> 0
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
            "DELETE FROM changes WHERE changed_at < now() - interval '7 days'",
            "DELETE FROM schedule_ticks WHERE tick < now() - interval '7 days'",
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

async fn insert_tick(transaction: &mut sqlx::PgConnection, due: &Due, host: &str) -> Result<bool, LedgerError> {
    let id = TaskId::of_tick(&due.uid, due.tick_milliseconds);
    let done: Option<TaskId> = sqlx::query_scalar(
        "WITH ticked AS (
             INSERT INTO schedule_ticks (uid, tick, task_id) VALUES ($1, to_timestamp($2::double precision / 1000), $3)
             ON CONFLICT DO NOTHING RETURNING task_id
         ), accepted AS (
             INSERT INTO tasks (id, user_id, name, priority, created_at, due_at, spec, spec_version, host, max_attempts, source_uid, spec_hash, ttl_seconds)
             SELECT task_id, $4, $5, $6, to_timestamp($2::double precision / 1000),
                    least(to_timestamp($2::double precision / 1000), now()), $7, $8, $9, $10, $1, $11, $12
             FROM ticked RETURNING id
         ), remembered AS (
             UPDATE scrape_tasks SET ran_spec_hash = $11 FROM accepted WHERE uid = $1
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, total) SELECT $4, 1 FROM accepted
         ), told AS (
             INSERT INTO changes (uid, task_id) SELECT $1, id FROM accepted
         )
         SELECT id FROM accepted",
    )
    .bind(&due.uid)
    .bind(due.tick_milliseconds)
    .bind(id)
    .bind(due.user_id)
    .bind(due.spec.name.as_deref().unwrap_or(&due.name))
    .bind(due.priority)
    .bind(&due.spec)
    .bind(selextract_task::SPEC_VERSION)
    .bind(host)
    .bind(i16::from(due.spec.max_retries) + 1)
    .bind(&due.spec_hash)
    .bind(due.ttl_seconds)
    .fetch_optional(transaction)
    .await
    .context(DatabaseSnafu { doing: "starting a scheduled run" })?;
    Ok(done.is_some())
}
