//! What the ends of pages mean for their run: its counters, and its own end with the last of them.

use selextract_task::feed::RunError;
use sqlx::PgConnection;

use crate::ledger::TaskId;

/// What changes in a run.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// Pages committed.
    pub(super) pages: i32,
    pub(super) records: i64,
    pub(super) warnings: i64,
    /// Rows that were found, less those that ended.
    pub(super) open: i32,
    /// Pages found.
    pub(super) found: i32,
    pub(super) failed: i32,
    pub(super) skipped: i32,
    /// Millionths of compute units.
    pub(super) micros: i64,
    /// Why the run ends here, whatever is left of it.
    pub(super) fails: Option<RunError>,
}

/// Writes it, and ends the run when nothing of it is open any more: it has failed when not one page was read, or when none gave a record
/// and one was expected. The caller has locked the task. Returns whether the run has ended.
pub(super) async fn settle(connection: &mut PgConnection, task: TaskId, delta: &Delta) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "WITH was AS (
             SELECT *, crawl_open + $5 = 0 AND $10::text IS NULL AS done,
                 ceil((crawl_micros + $9)::numeric / 1000000)::bigint - ceil(crawl_micros::numeric / 1000000)::bigint AS units,
                 source_uid IS NOT NULL AND (crawl_told_at IS NULL OR crawl_told_at < now() - interval '15 seconds') AS tells
             FROM tasks WHERE id = $1
         ), cause AS (
             SELECT error_class, error_message, url FROM crawl_pages c
             WHERE c.id BETWEEN crawl_first($1) AND crawl_last($1) AND c.task_id = $1 AND c.status IN ('failed', 'skipped')
             ORDER BY c.kind <> 'page', c.depth, c.ended_at LIMIT 1
         ), judged AS (
             SELECT was.*, CASE WHEN $10::text IS NOT NULL THEN 'failed' WHEN NOT done THEN 'running'
                     WHEN pages + $2 = 0 OR (records + $3 = 0 AND crawl_nothing IS NOT NULL) THEN 'failed' ELSE 'succeeded' END AS becomes,
                 CASE WHEN $10::text IS NOT NULL THEN $10 WHEN NOT done THEN NULL
                     WHEN pages + $2 = 0 THEN coalesce((SELECT error_class FROM cause), 'NoPages')
                     WHEN records + $3 = 0 AND crawl_nothing IS NOT NULL THEN 'NoRecords' END AS class,
                 CASE WHEN $10::text IS NOT NULL THEN $11 WHEN NOT done THEN NULL
                     WHEN pages + $2 = 0 THEN coalesce((SELECT format('no page of the crawl was read; %s: %s', url, error_message) FROM cause),
                         'no page of the crawl was read')
                     WHEN records + $3 = 0 THEN crawl_nothing END AS message
             FROM was
         ), changed AS (
             UPDATE tasks SET pages = tasks.pages + $2, records = tasks.records + $3, warnings = tasks.warnings + $4,
                 crawl_open = tasks.crawl_open + $5, crawl_found = tasks.crawl_found + $6, crawl_failed = tasks.crawl_failed + $7,
                 crawl_skipped = tasks.crawl_skipped + $8, crawl_micros = tasks.crawl_micros + $9,
                 compute_units_used = tasks.compute_units_used + judged.units,
                 status = judged.becomes, error_class = judged.class, error_message = judged.message,
                 finished_at = CASE WHEN judged.becomes <> 'running' THEN now() END,
                 crawl_told_at = CASE WHEN judged.tells THEN now() ELSE tasks.crawl_told_at END
             FROM judged WHERE tasks.id = judged.id
             RETURNING tasks.id, tasks.user_id, tasks.source_uid, tasks.status, judged.units, judged.tells
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, succeeded, failed, pages, records, compute_units)
             SELECT user_id, (status = 'succeeded')::int, (status = 'failed')::int, $2, $3, units FROM changed
         ), told AS (
             INSERT INTO changes (uid, task_id)
             SELECT source_uid, id FROM changed WHERE source_uid IS NOT NULL AND (tells OR status <> 'running')
         )
         SELECT status <> 'running' FROM changed",
    )
    .bind(task)
    .bind(delta.pages)
    .bind(delta.records)
    .bind(delta.warnings)
    .bind(delta.open)
    .bind(delta.found)
    .bind(delta.failed)
    .bind(delta.skipped)
    .bind(delta.micros)
    .bind(delta.fails.as_ref().map(|error| error.class.as_str()))
    .bind(delta.fails.as_ref().map(|error| error.message.as_str()))
    .fetch_one(connection)
    .await
}
