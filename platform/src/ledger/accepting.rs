//! Tasks that come at the same time are accepted in one transaction: a commit is made durable once for all of them.

use std::{collections::HashMap, sync::Arc};

use selextract_task::SPEC_VERSION;
use snafu::{IntoError, ResultExt};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    Ledger, LedgerError, TaskId, UserId,
    error::{DatabaseSnafu, StoredSnafu},
    tasks::{NewTask, TaskDetail, detail_columns},
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

impl Ledger {
    /// Accepts a task with those that come at the same time. It is committed when this returns.
    pub(super) async fn accept_together(
        &self,
        id: TaskId,
        owner: UserId,
        task: &NewTask,
    ) -> Result<TaskDetail, LedgerError> {
        let spec = serde_json::to_string(&task.spec).map_err(|error| {
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
            spec,
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

async fn insert(pool: &PgPool, rows: Vec<Arc<NewRow>>) -> Result<Vec<TaskDetail>, sqlx::Error> {
    fn column<'r, T: 'r>(rows: &'r [Arc<NewRow>], read: impl Fn(&'r NewRow) -> T) -> Vec<T> {
        rows.iter().map(|row| read(row)).collect()
    }
    let accepted: Vec<TaskDetail> = sqlx::query_as(concat!(
        "WITH new AS (
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::bigint[], $6::text[], $7::text[], $8::smallint[],
                     $10::bigint[])
                 AS new (id, user_id, name, priority, milliseconds, spec, host, max_attempts, ttl_seconds)
         ), accepted AS (
             INSERT INTO tasks (id, user_id, name, priority, created_at, due_at, spec, spec_version, host, max_attempts, ttl_seconds)
             SELECT id, user_id, name, priority, moment, least(moment, now()), spec::jsonb, $9, host, max_attempts, ttl_seconds
             FROM new, LATERAL to_timestamp(milliseconds::double precision / 1000) AS moment
             RETURNING *
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, total) SELECT user_id, count(*) FROM new GROUP BY user_id
         )
         SELECT ",
        detail_columns!(),
        " FROM accepted"
    ))
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
    let mut found: HashMap<Uuid, TaskDetail> = accepted.into_iter().map(|task| (task.id.0, task)).collect();
    Ok(rows.iter().filter_map(|row| found.remove(&row.id.0)).collect())
}
