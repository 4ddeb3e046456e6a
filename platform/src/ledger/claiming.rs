//! How tasks are claimed: those of owners without a limit in one short statement, and what that leaves over with regard to limits.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{TaskId, claims::Claim, transaction};

/// What may be claimed: `tasks` is looked at, `$1` are the ids. `coalesce` hides the state from the planner, which would look through all
/// that waits by one of its indexes instead of looking for the ids.
macro_rules! due {
    () => {
        "id = ANY($1) AND coalesce(status, '') = 'pending' AND NOT paused AND due_at <= now() + interval '100 milliseconds'
             AND NOT EXISTS (SELECT FROM owner_holds h WHERE h.user_id = tasks.user_id AND h.until > now())"
    };
}

/// What a claim changes: `$2` is the worker, `$3` the seconds of its lease.
macro_rules! held {
    () => {
        "status = 'running', worker = $2, lease_token = gen_random_uuid(), lease_until = now() + make_interval(secs => $3),
             attempts = attempts + 1, started_at = coalesce(started_at, now())"
    };
}

/// The answer, from `claimed`: its `began` is now where it was never claimed before.
macro_rules! claims {
    () => {
        ", told AS (
             INSERT INTO changes (uid, task_id) SELECT source_uid, id FROM claimed WHERE source_uid IS NOT NULL AND started_at = now()
         )
         SELECT id, user_id, lease_token, spec, attempts, max_attempts, pages,
                CASE WHEN pages > 0 THEN (SELECT p.next_url FROM pages p WHERE p.task_id = claimed.id AND p.number = claimed.pages) END
                    AS next_url,
                extract(epoch FROM now() - due_at)::double precision AS waited_seconds,
                extract(epoch FROM now() - started_at)::double precision AS running_seconds,
                compute_units_used - compute_units_before AS units_used, source_uid
         FROM claimed ORDER BY priority DESC, id"
    };
}

/// Of owners whose running tasks nobody limits. Two batches that overlap take their rows in the same order, as both look by the same ids.
const UNLIMITED: &str = concat!(
    "WITH claimed AS (
         UPDATE tasks SET ",
    held!(),
    " WHERE ",
    due!(),
    " AND NOT EXISTS (SELECT FROM owner_quotas q WHERE q.user_id = tasks.user_id AND q.running IS NOT NULL)
         RETURNING *
     )",
    claims!()
);

/// Of those whose tasks are left, the owners with a limit, locked: who claims for them beside this one waits, and counts what this one took.
const LOCK: &str = "SELECT user_id FROM owner_quotas
     WHERE running IS NOT NULL AND user_id IN (SELECT user_id FROM tasks WHERE id = ANY($1) AND coalesce(status, '') = 'pending')
     ORDER BY user_id FOR NO KEY UPDATE";

/// Of any owner, within his limit of running tasks.
const LIMITED: &str = concat!(
    "WITH found AS (
         SELECT id, user_id, priority FROM tasks WHERE ",
    due!(),
    " FOR UPDATE SKIP LOCKED
     ), room AS (
         SELECT q.user_id, q.running - (SELECT count(*) FROM tasks r WHERE r.status = 'running' AND r.user_id = q.user_id) AS free
         FROM owner_quotas q WHERE q.running IS NOT NULL AND q.user_id IN (SELECT user_id FROM found)
     ), due AS (
         SELECT id FROM (
             SELECT found.*, row_number() OVER (PARTITION BY user_id ORDER BY priority DESC, id) AS place FROM found
         ) placed LEFT JOIN room USING (user_id) WHERE room.free IS NULL OR place <= room.free
     ), claimed AS (
         UPDATE tasks SET ",
    held!(),
    " FROM due WHERE tasks.id = due.id
         RETURNING tasks.*
     )",
    claims!()
);

/// Claims what may be claimed.
pub(super) async fn claim(
    pool: &PgPool,
    ids: &[TaskId],
    worker: &str,
    lease: Duration,
) -> Result<Vec<Claim>, sqlx::Error> {
    let mut left: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    left.sort_unstable();
    let mut claims = run(pool, UNLIMITED, &left, worker, lease).await?;
    left.retain(|id| claims.iter().all(|claim| claim.id.0 != *id));
    if !left.is_empty() {
        // Limited, done already, or not yet due.
        let mut transaction = transaction::begin(pool).await?;
        let limited = sqlx::query(LOCK).bind(&left).execute(&mut *transaction).await?;
        if limited.rows_affected() > 0 {
            // A statement of its own, which sees what others committed before the lock was free.
            claims.extend(run(&mut *transaction, LIMITED, &left, worker, lease).await?);
        }
        transaction.commit().await?;
    }
    Ok(claims)
}

async fn run(
    database: impl PgExecutor<'_>,
    statement: &'static str,
    ids: &[Uuid],
    worker: &str,
    lease: Duration,
) -> Result<Vec<Claim>, sqlx::Error> {
    sqlx::query_as(statement)
        .bind(ids)
        .bind(worker)
        .bind(lease.as_secs_f64())
        .fetch_all(database)
        .await
}
