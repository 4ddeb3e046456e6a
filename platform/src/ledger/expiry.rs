//! Removing finished runs whose time is over, and those beyond the number that their `ScrapeTask` keeps. The months that end are
//! [`super::partitions`]' affair.

use snafu::ResultExt;

use super::{Ledger, LedgerError, error::DatabaseSnafu};

/// The most runs that one statement removes.
const BATCH: i64 = 1_000;

impl Ledger {
    /// Removes runs whose time is over, with their pages, a thousand at most; returns how many. Of a `ScrapeTask`'s newest run only the
    /// pages go: its row tells the operator what became of it.
    pub async fn expire_runs(&self) -> Result<i64, LedgerError> {
        sqlx::query_scalar(
            "WITH over AS (
                 SELECT t.id, EXISTS (SELECT FROM scrape_tasks s WHERE s.uid = t.source_uid)
                     AND NOT EXISTS (SELECT FROM tasks n WHERE n.source_uid = t.source_uid AND n.id > t.id) AS newest
                 FROM tasks t WHERE t.expires_at < now() AND t.status NOT IN ('pending', 'running')
                 ORDER BY t.expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
             ), gone_pages AS (
                 DELETE FROM pages USING over WHERE pages.task_id = over.id
             ), gone_crawls AS (
                 DELETE FROM crawl_pages c USING over
                 WHERE c.id BETWEEN crawl_first(over.id) AND crawl_last(over.id) AND c.task_id = over.id
             ), kept AS (
                 UPDATE tasks SET expires_at = NULL FROM over WHERE tasks.id = over.id AND over.newest
             ), gone AS (
                 DELETE FROM tasks USING over WHERE tasks.id = over.id AND NOT over.newest
             )
             SELECT count(*) FROM over",
        )
        .bind(BATCH)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "removing expired runs",
        })
    }

    /// Removes the oldest finished runs of `ScrapeTask`s that keep fewer, a thousand at most; returns how many. The newest run stays.
    pub async fn trim_histories(&self) -> Result<i64, LedgerError> {
        sqlx::query_scalar(
            "WITH found AS (
                 SELECT beyond.id FROM scrape_tasks s CROSS JOIN LATERAL (
                     (SELECT id FROM tasks WHERE source_uid = s.uid AND status = 'succeeded'
                      ORDER BY id DESC OFFSET coalesce(s.keep_succeeded, 2147483647) LIMIT 100)
                     UNION ALL
                     (SELECT id FROM tasks WHERE source_uid = s.uid AND status IN ('failed', 'canceled')
                      ORDER BY id DESC OFFSET coalesce(s.keep_failed, 2147483647) LIMIT 100)
                 ) beyond
                 WHERE (s.keep_succeeded IS NOT NULL OR s.keep_failed IS NOT NULL)
                     AND EXISTS (SELECT FROM tasks n WHERE n.source_uid = s.uid AND n.id > beyond.id)
                 LIMIT $1
             ), over AS (
                 -- Locked, and looked at again: one that is replayed meanwhile keeps its pages.
                 SELECT t.id FROM tasks t JOIN found ON t.id = found.id WHERE t.status NOT IN ('pending', 'running')
                 FOR UPDATE OF t SKIP LOCKED
             ), gone_pages AS (
                 DELETE FROM pages USING over WHERE pages.task_id = over.id
             ), gone_crawls AS (
                 DELETE FROM crawl_pages c USING over
                 WHERE c.id BETWEEN crawl_first(over.id) AND crawl_last(over.id) AND c.task_id = over.id
             ), gone AS (
                 DELETE FROM tasks USING over WHERE tasks.id = over.id
             )
             SELECT count(*) FROM over",
        )
        .bind(BATCH)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "trimming histories",
        })
    }
}
