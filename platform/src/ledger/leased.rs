//! Writes under leases, many in one round trip: pages that are committed and claims that end at the same time.
//!
//! Each write carries its lease's token and stands by itself: one whose token matches no row is dropped and told so, and its neighbours
//! are written. Rows are taken in the order of their ids, so that two batches do not wait for each other in a circle.
//!
//! Each row is looked for by its id. `coalesce` hides the state from the planner, which would look through an index of all that runs, for each
//! row, and through what ran since the last vacuum: that was two thirds of what an end cost.

use std::{collections::HashMap, sync::Arc, time::Duration};

use snafu::{IntoError, ResultExt};
use sqlx::{FromRow, PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    Ledger, LedgerError, TaskId,
    claims::{Fenced, Lease, Renewed},
    error::DatabaseSnafu,
    together::all_or_each,
    waiting::EntryRow,
};
use crate::{frontier::Entry, gather::Gather};

/// A worker runs at most 64 at a time.
const MOST: usize = 128;
/// While one batch waits for the disk, the next is written.
const LANES: usize = 2;

/// A page as its row.
pub(super) struct PageRow {
    pub(super) held: Lease,
    pub(super) number: i32,
    pub(super) url: String,
    pub(super) next_url: Option<String>,
    pub(super) record_count: i32,
    pub(super) warnings: i32,
    pub(super) compressed: bool,
    pub(super) records: Vec<u8>,
    pub(super) lease_seconds: f64,
    pub(super) fill: Option<String>,
    pub(super) not_modified: bool,
}

/// The end of a claim as its row.
pub(super) struct EndRow {
    pub(super) held: Lease,
    pub(super) status: &'static str,
    pub(super) error_class: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) after_seconds: Option<f64>,
    pub(super) give_back: i32,
    pub(super) compute_units: i64,
}

type Answer<T> = Result<Result<T, Fenced>, sqlx::Error>;

/// What gathers.
#[derive(Clone, Debug)]
pub(super) struct Writes {
    pages: Gather<Arc<PageRow>, Answer<Renewed>>,
    ends: Gather<Arc<EndRow>, Answer<Option<Entry>>>,
}

pub(super) fn gather(pool: PgPool) -> Writes {
    let for_ends = pool.clone();
    Writes {
        pages: Gather::new(MOST, LANES, move |rows| {
            let pool = pool.clone();
            async move { all_or_each(rows, |rows| commit(&pool, rows)).await }
        }),
        ends: Gather::new(MOST, LANES, move |rows| {
            let pool = for_ends.clone();
            async move { all_or_each(rows, |rows| end(&pool, rows)).await }
        }),
    }
}

impl Ledger {
    pub(super) async fn commit_together(
        &self,
        page: PageRow,
        spare: Duration,
    ) -> Result<Result<Renewed, Fenced>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "committing a page",
        };
        let answer = self.writes.pages.call_within(Arc::new(page), spare).await;
        answer
            .ok_or_else(|| doing.into_error(sqlx::Error::PoolTimedOut))?
            .context(doing)
    }

    /// What waits again is given back.
    pub(super) async fn end_together(&self, end: EndRow) -> Result<Result<Option<Entry>, Fenced>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "ending a claim",
        };
        let answer = self.writes.ends.call(Arc::new(end)).await;
        answer
            .ok_or_else(|| doing.into_error(sqlx::Error::PoolTimedOut))?
            .context(doing)
    }
}

#[derive(FromRow)]
struct Written {
    token: Uuid,
    id: TaskId,
    cancel_requested: bool,
    paused: bool,
}

#[derive(FromRow)]
struct Ended {
    token: Uuid,
    waits: bool,
    #[sqlx(flatten)]
    entry: EntryRow,
}

/// Commits pages in one statement.
pub(super) async fn commit(
    database: impl PgExecutor<'_>,
    rows: Vec<Arc<PageRow>>,
) -> Result<Vec<Result<Renewed, Fenced>>, sqlx::Error> {
    let sorted = sorted(&rows, |row| row.held);
    let written: Vec<Written> = sqlx::query_as(
        "WITH new AS (
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::integer[], $7::integer[],
                     $8::boolean[], $9::bytea[], $10::double precision[], $11::text[], $12::boolean[])
                 AS new (id, token, number, url, next_url, record_count, warnings, compressed, records, lease_seconds, fill, not_modified)
         ), held AS (
             UPDATE tasks SET pages = tasks.pages + 1, records = tasks.records + new.record_count,
                 warnings = tasks.warnings + new.warnings, attempts = 1,
                 lease_until = now() + make_interval(secs => new.lease_seconds)
             FROM new
             WHERE tasks.id = new.id AND tasks.lease_token = new.token AND coalesce(tasks.status, '') = 'running'
                 AND tasks.pages = new.number - 1
             RETURNING tasks.id, tasks.user_id, new.token, tasks.cancel_requested,
                 tasks.paused OR EXISTS (SELECT FROM owner_holds h WHERE h.user_id = tasks.user_id AND h.until > now()) AS paused, new.number, new.url, new.next_url, new.record_count,
                 new.warnings, new.compressed, new.records, new.fill, new.not_modified
         ), kept AS (
             INSERT INTO pages (task_id, number, url, next_url, record_count, warnings, compressed, records, fill, not_modified)
             SELECT id, number, url, next_url, record_count, warnings, compressed, records, fill::integer[], not_modified FROM held
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, pages_read) SELECT user_id, count(*) FROM held GROUP BY user_id
         )
         SELECT token, id, cancel_requested, paused FROM held",
    )
    .bind(column(&sorted, |row| row.held.id.0))
    .bind(column(&sorted, |row| row.held.token))
    .bind(column(&sorted, |row| row.number))
    .bind(column(&sorted, |row| row.url.as_str()))
    .bind(column(&sorted, |row| row.next_url.as_deref()))
    .bind(column(&sorted, |row| row.record_count))
    .bind(column(&sorted, |row| row.warnings))
    .bind(column(&sorted, |row| row.compressed))
    .bind(column(&sorted, |row| row.records.as_slice()))
    .bind(column(&sorted, |row| row.lease_seconds))
    .bind(column(&sorted, |row| row.fill.as_deref()))
    .bind(column(&sorted, |row| row.not_modified))
    .fetch_all(database)
    .await?;
    let mut written: HashMap<Uuid, Renewed> = written
        .into_iter()
        .map(|row| {
            let renewed = Renewed {
                id: row.id,
                cancel_requested: row.cancel_requested,
                paused: row.paused,
            };
            (row.token, renewed)
        })
        .collect();
    Ok(rows
        .iter()
        .map(|row| written.remove(&row.held.token).ok_or(Fenced))
        .collect())
}

async fn end(pool: &PgPool, rows: Vec<Arc<EndRow>>) -> Result<Vec<Result<Option<Entry>, Fenced>>, sqlx::Error> {
    let sorted = sorted(&rows, |row| row.held);
    let ended: Vec<Ended> = sqlx::query_as(
        "WITH ended AS (
             UPDATE tasks SET
                 status = CASE WHEN new.status = 'pending' AND cancel_requested THEN 'canceled' ELSE new.status END,
                 finished_at = CASE WHEN new.status <> 'pending' OR cancel_requested THEN now() END,
                 due_at = CASE WHEN new.after_seconds IS NULL THEN due_at ELSE now() + make_interval(secs => new.after_seconds) END,
                 attempts = greatest(attempts - new.give_back, 0), error_class = new.error_class, error_message = new.error_message,
                 compute_units_used = compute_units_used + new.compute_units,
                 lease_token = NULL, lease_until = NULL, worker = NULL
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::double precision[], $7::integer[], $8::bigint[])
                 AS new (id, token, status, error_class, error_message, after_seconds, give_back, compute_units)
             WHERE tasks.id = new.id AND tasks.lease_token = new.token AND coalesce(tasks.status, '') = 'running'
             RETURNING new.token, tasks.id, user_id, source_uid, tasks.status, paused, host, priority, due_at, pages, records,
                 compute_units_used
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, succeeded, failed, canceled, pages, records, compute_units)
             SELECT user_id, count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'failed'),
                    count(*) FILTER (WHERE status = 'canceled'), sum(pages), sum(records), sum(compute_units_used)
             FROM ended WHERE status <> 'pending' GROUP BY user_id
         ), told AS (
             INSERT INTO changes (uid, task_id)
             SELECT source_uid, id FROM ended WHERE status <> 'pending' AND source_uid IS NOT NULL
         )
         SELECT token, status = 'pending' AND NOT paused AS waits, id, user_id, host, priority,
                ceil(extract(epoch FROM due_at) * 1000)::bigint AS due_milliseconds
         FROM ended",
    )
    .bind(column(&sorted, |row| row.held.id.0))
    .bind(column(&sorted, |row| row.held.token))
    .bind(column(&sorted, |row| row.status))
    .bind(column(&sorted, |row| row.error_class.as_deref()))
    .bind(column(&sorted, |row| row.error_message.as_deref()))
    .bind(column(&sorted, |row| row.after_seconds))
    .bind(column(&sorted, |row| row.give_back))
    .bind(column(&sorted, |row| row.compute_units))
    .fetch_all(pool)
    .await?;
    let mut ended: HashMap<Uuid, Option<Entry>> = ended
        .into_iter()
        .map(|row| (row.token, row.waits.then(|| row.entry.into())))
        .collect();
    Ok(rows
        .iter()
        .map(|row| ended.remove(&row.held.token).ok_or(Fenced))
        .collect())
}

fn sorted<R>(rows: &[Arc<R>], held: impl Fn(&R) -> Lease) -> Vec<Arc<R>> {
    let mut sorted = rows.to_vec();
    sorted.sort_unstable_by_key(|row| held(row).id);
    sorted
}

fn column<'r, R, T: 'r>(rows: &'r [Arc<R>], read: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(|row| read(row)).collect()
}
