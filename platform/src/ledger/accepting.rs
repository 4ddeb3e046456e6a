//! Tasks that come at the same time are accepted in one transaction: a commit is made durable once for all of them.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use selextract_task::{SPEC_VERSION, feed::RunState};
use snafu::{IntoError, ResultExt};
use sqlx::{FromRow, PgPool, types::Json};

use super::{
    Ledger, LedgerError, TaskId, UserId,
    error::{DatabaseSnafu, StoredSnafu},
    tasks::{NewTask, TaskDetail},
    together::all_or_each,
};
use crate::gather::Gather;

/// Enough that more would make no task cheaper, and few enough that a batch commits within milliseconds.
const MOST: usize = 128;
/// While one batch waits for the disk, the next is written.
const LANES: usize = 2;
const DOING: &str = "accepting a task";

/// A task to accept, as its row.
pub(super) struct NewRow {
    id: TaskId,
    owner: UserId,
    name: Option<String>,
    priority: i16,
    spec: String,
    value: serde_json::Value,
    host: String,
    max_attempts: i16,
    ttl_seconds: Option<i64>,
}

pub(super) type Accepts = Gather<Arc<NewRow>, Result<TaskDetail, sqlx::Error>>;

pub(super) fn gather(pool: PgPool) -> Accepts {
    Gather::new(MOST, LANES, move |rows| {
        let pool = pool.clone();
        async move { all_or_each(rows, |rows| insert(&pool, rows)).await }
    })
}

impl NewRow {
    /// The task as the ledger has it now, without asking for it again.
    fn accepted(&self, due_milliseconds: i64) -> TaskDetail {
        TaskDetail {
            id: self.id,
            user_id: self.owner,
            name: self.name.clone(),
            status: RunState::Pending.as_str().to_owned(),
            priority: self.priority,
            created_at: rfc3339(self.id.unix_milliseconds()),
            due_at: rfc3339(due_milliseconds),
            spec: Json(self.value.clone()),
            max_attempts: self.max_attempts,
            ..TaskDetail::default()
        }
    }
}

/// As the database's function of this name writes a moment.
fn rfc3339(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(
        |_| String::new(),
        |moment| moment.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

impl Ledger {
    /// Accepts a task with those that come at the same time. It is committed when this returns.
    pub(super) async fn accept_together(
        &self,
        id: TaskId,
        owner: UserId,
        task: &NewTask,
    ) -> Result<TaskDetail, LedgerError> {
        let value = serde_json::to_value(&task.spec).map_err(|error| {
            StoredSnafu {
                what: "a task's spec",
                message: error.to_string(),
            }
            .build()
        })?;
        let row = NewRow {
            id,
            owner,
            name: task.spec.name.clone(),
            priority: task.priority.into(),
            spec: value.to_string(),
            value,
            host: task.host.clone(),
            max_attempts: i16::from(task.spec.max_retries) + 1,
            ttl_seconds: task.ttl_seconds(),
        };
        let doing = DatabaseSnafu { doing: DOING };
        let answer = self.accepts.call(Arc::new(row)).await;
        answer
            .ok_or_else(|| doing.into_error(sqlx::Error::PoolTimedOut))?
            .context(doing)
    }
}

/// What of an accepted task only the database knows.
#[derive(FromRow)]
struct Inserted {
    id: TaskId,
    due_milliseconds: i64,
}

async fn insert(pool: &PgPool, rows: Vec<Arc<NewRow>>) -> Result<Vec<TaskDetail>, sqlx::Error> {
    fn column<'r, T: 'r>(rows: &'r [Arc<NewRow>], read: impl Fn(&'r NewRow) -> T) -> Vec<T> {
        rows.iter().map(|row| read(row)).collect()
    }
    let accepted: Vec<Inserted> = sqlx::query_as(
        "WITH new AS (
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::bigint[], $6::text[], $7::text[], $8::smallint[],
                     $10::bigint[])
                 AS new (id, user_id, name, priority, milliseconds, spec, host, max_attempts, ttl_seconds)
         ), accepted AS (
             INSERT INTO tasks (id, user_id, name, priority, created_at, due_at, spec, spec_version, host, max_attempts, ttl_seconds)
             SELECT id, user_id, name, priority, moment, least(moment, now()), spec::jsonb, $9, host, max_attempts, ttl_seconds
             FROM new, LATERAL to_timestamp(milliseconds::double precision / 1000) AS moment
             RETURNING id, due_at
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, total) SELECT user_id, count(*) FROM new GROUP BY user_id
         )
         SELECT id, floor(extract(epoch FROM due_at) * 1000)::bigint AS due_milliseconds FROM accepted",
    )
    .bind(column(&rows, |row| row.id.0))
    .bind(column(&rows, |row| row.owner.0))
    .bind(column(&rows, |row| row.name.as_deref()))
    .bind(column(&rows, |row| row.priority))
    .bind(column(&rows, |row| row.id.unix_milliseconds()))
    .bind(column(&rows, |row| row.spec.as_str()))
    .bind(column(&rows, |row| row.host.as_str()))
    .bind(column(&rows, |row| row.max_attempts))
    .bind(SPEC_VERSION)
    .bind(column(&rows, |row| row.ttl_seconds))
    .fetch_all(pool)
    .await?;
    // RETURNING promises no order.
    let due: HashMap<TaskId, i64> = accepted.into_iter().map(|row| (row.id, row.due_milliseconds)).collect();
    Ok(rows
        .iter()
        .filter_map(|row| Some(row.accepted(*due.get(&row.id)?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_the_database_writes_it() {
        assert_eq!(rfc3339(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
    }
}
