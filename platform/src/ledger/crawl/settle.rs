//! What the ends of pages mean for their run: its counters, and its own end with the last of them, or with the report that comes then.

use selextract_task::feed::RunError;
use sqlx::{FromRow, PgConnection};

use super::{CrawlKind, report};
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
    /// The run was compared when it had so many pages.
    pub(super) reported: Option<i32>,
}

/// What became of the run.
#[derive(Debug, FromRow)]
pub(super) struct Settled {
    /// It has ended.
    pub(super) ended: bool,
    /// It is to be compared now: when its report is due, in milliseconds since the epoch.
    pub(super) report: Option<i64>,
}

/// Writes it, and ends the run when nothing of it is open any more: it has failed when not one page was read, or when none gave a record
/// and one was expected. One that would succeed and is to be compared ends with its report instead, which is a row like its pages; a report
/// that was made before a page came is made again. The caller has locked the task.
pub(super) async fn settle(connection: &mut PgConnection, task: TaskId, delta: &Delta) -> Result<Settled, sqlx::Error> {
    sqlx::query_as(
        "WITH was AS (
             SELECT *, crawl_open + $5 = 0 AND $10::text IS NULL AS done,
                 ceil((crawl_micros + $9)::numeric / 1000000)::bigint - ceil(crawl_micros::numeric / 1000000)::bigint AS units,
                 source_uid IS NOT NULL AND (crawl_told_at IS NULL OR crawl_told_at < now() - interval '15 seconds') AS tells
             FROM tasks WHERE id = $1
         ), cause AS (
             SELECT error_class, error_message, url FROM crawl_pages c
             WHERE c.id BETWEEN crawl_first($1) AND crawl_last($1) AND c.task_id = $1 AND c.status IN ('failed', 'skipped')
             ORDER BY c.kind <> 'page', c.depth, c.ended_at LIMIT 1
         ), ends AS (
             SELECT was.*, done AND crawl_reports AND pages + $2 IS DISTINCT FROM $12 AND pages + $2 > 0
                     AND (records + $3 > 0 OR crawl_nothing IS NULL) AS reports
             FROM was
         ), judged AS (
             SELECT ends.*, CASE WHEN $10::text IS NOT NULL THEN 'failed' WHEN NOT done OR reports THEN 'running'
                     WHEN pages + $2 = 0 OR (records + $3 = 0 AND crawl_nothing IS NOT NULL) THEN 'failed' ELSE 'succeeded' END AS becomes,
                 CASE WHEN $10::text IS NOT NULL THEN $10 WHEN NOT done OR reports THEN NULL
                     WHEN pages + $2 = 0 THEN coalesce((SELECT error_class FROM cause), 'NoPages')
                     WHEN records + $3 = 0 AND crawl_nothing IS NOT NULL THEN 'NoRecords' END AS class,
                 CASE WHEN $10::text IS NOT NULL THEN $11 WHEN NOT done OR reports THEN NULL
                     WHEN pages + $2 = 0 THEN coalesce((SELECT format('no page of the crawl was read; %s: %s', url, error_message) FROM cause),
                         'no page of the crawl was read')
                     WHEN records + $3 = 0 THEN crawl_nothing END AS message
             FROM ends
         ), changed AS (
             UPDATE tasks SET pages = tasks.pages + $2, records = tasks.records + $3, warnings = tasks.warnings + $4,
                 crawl_open = tasks.crawl_open + $5 + reports::int, crawl_found = tasks.crawl_found + $6, crawl_failed = tasks.crawl_failed + $7,
                 crawl_skipped = tasks.crawl_skipped + $8, crawl_micros = tasks.crawl_micros + $9,
                 compute_units_used = tasks.compute_units_used + judged.units,
                 status = judged.becomes, error_class = judged.class, error_message = judged.message,
                 lease_token = CASE WHEN judged.becomes = 'running' THEN tasks.lease_token END,
                 finished_at = CASE WHEN judged.becomes <> 'running' THEN now() END,
                 crawl_told_at = CASE WHEN judged.tells THEN now() ELSE tasks.crawl_told_at END
             FROM judged WHERE tasks.id = judged.id
             RETURNING tasks.id, tasks.user_id, tasks.source_uid, tasks.status, judged.units, judged.tells, judged.reports
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, succeeded, failed, pages, pages_read, records, compute_units)
             SELECT user_id, (status = 'succeeded')::int, (status = 'failed')::int, $2, $2, $3, units FROM changed
         ), told AS (
             INSERT INTO changes (uid, task_id)
             SELECT source_uid, id FROM changed WHERE source_uid IS NOT NULL AND (tells OR status <> 'running')
         ), report AS (
             INSERT INTO crawl_pages (id, task_id, kind, url, host, depth) SELECT $13, id, $14, 'http://' || $15 || '/', $15, 0 FROM changed WHERE reports
             ON CONFLICT (id) DO UPDATE SET status = 'pending', attempts = 0, due_at = now(), ended_at = NULL
             RETURNING ceil(extract(epoch FROM due_at) * 1000)::bigint AS due_milliseconds
         )
         SELECT status <> 'running' AS ended, (SELECT due_milliseconds FROM report) AS report FROM changed",
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
    .bind(delta.reported)
    .bind(report::id(task))
    .bind(CrawlKind::Report.as_str())
    .bind(report::host(task))
    .fetch_one(connection)
    .await
}
