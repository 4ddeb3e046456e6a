//! The change feed: runs of `ScrapeTask`s that were accepted, started or finished, for the operator.

use std::collections::BTreeSet;

use selextract_task::feed::{Change, Changes, MAX_ITEMS, PREVIEW_RECORDS, Run, RunError, RunState};
use snafu::ResultExt;
use sqlx::FromRow;

use super::{Ledger, LedgerError, TaskId, error::DatabaseSnafu, error::StoredSnafu, watching::Report};
use crate::drift;

#[derive(FromRow)]
pub(crate) struct RunRow {
    pub(crate) id: TaskId,
    pub(crate) uid: String,
    spec_hash: Option<String>,
    status: String,
    pages: i32,
    records: i64,
    error_class: Option<String>,
    error_message: Option<String>,
    created_at: String,
    started_at: Option<String>,
    finished_at: Option<String>,
    pub(crate) next_run_at: Option<String>,
    held: Option<String>,
    waiting: Option<String>,
    reported: bool,
}

pub(crate) const RUN_COLUMNS: &str =
    "t.id, t.source_uid AS uid, t.spec_hash, t.status, t.pages, t.records, t.error_class, t.error_message,
    rfc3339(t.created_at) AS created_at, rfc3339(t.started_at) AS started_at, rfc3339(t.finished_at) AS finished_at,
    CASE WHEN NOT s.suspend THEN rfc3339(s.next_run_at) END AS next_run_at, s.held,
    CASE WHEN t.status IN ('pending', 'running') THEN (SELECT w.told FROM run_waits w WHERE w.task_id = t.id) END AS waiting, t.reported";

impl Ledger {
    /// What changed after `after`, at most one change (the newest run) for each `ScrapeTask`.
    ///
    /// The cursor is a transaction's id, and only transactions below every open one are read, so one that commits late is never skipped.
    /// A transaction is never split over two answers. A cursor that this database never gave out counts as 0: it was restored elsewhere.
    pub async fn changes(&self, after: i64) -> Result<Changes, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "reading the change feed",
        };
        let after: i64 = sqlx::query_scalar(
            "SELECT CASE WHEN $1 < pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN greatest($1, 0) ELSE 0 END",
        )
        .bind(after)
        .fetch_one(&self.pool)
        .await
        .context(doing)?;
        let seen: Vec<(i64, String)> = sqlx::query_as(
            "SELECT xid::text::bigint, uid FROM changes
             WHERE xid > $1::bigint::text::xid8 AND xid < pg_snapshot_xmin(pg_current_snapshot())
             ORDER BY changes.xid FETCH FIRST $2 ROWS WITH TIES",
        )
        .bind(after)
        .bind(i64::try_from(MAX_ITEMS).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        let next = seen.last().map_or(after, |(xid, _)| *xid);
        let uids: BTreeSet<String> = seen.into_iter().map(|(_, uid)| uid).collect();
        let changes = self.runs(&self.newest_runs(uids).await?).await?;
        Ok(Changes { changes, next })
    }

    /// The end of a run that was replaced comes after its successor's start, and says nothing new.
    async fn newest_runs(&self, uids: BTreeSet<String>) -> Result<Vec<uuid::Uuid>, LedgerError> {
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        sqlx::query_scalar(
            "SELECT newest.id FROM unnest($1::text[]) AS u (uid) CROSS JOIN LATERAL (
                 SELECT id FROM tasks WHERE source_uid = u.uid ORDER BY id DESC LIMIT 1
             ) newest",
        )
        .bind(uids.into_iter().collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "finding the newest runs",
        })
    }

    /// Runs of `ScrapeTask`s by the ids of their tasks, with what their schedules do next.
    pub(crate) async fn runs(&self, ids: &[uuid::Uuid]) -> Result<Vec<Change>, LedgerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<RunRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {RUN_COLUMNS} FROM tasks t LEFT JOIN scrape_tasks s ON s.uid = t.source_uid
             WHERE t.id = ANY($1) AND t.source_uid IS NOT NULL"
        )))
        .bind(ids)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading runs" })?;
        let mut runs = Vec::with_capacity(rows.len());
        for row in rows {
            let (uid, next_run_at, held) = (row.uid.clone(), row.next_run_at.clone(), row.held.clone());
            runs.push(Change {
                uid,
                run: self.run(row).await?,
                next_run_at,
                held,
            });
        }
        Ok(runs)
    }

    async fn run(&self, row: RunRow) -> Result<Run, LedgerError> {
        let state = RunState::from_ledger(&row.status).ok_or_else(|| {
            StoredSnafu {
                what: "a task's status",
                message: row.status.clone(),
            }
            .build()
        })?;
        let report = if row.reported && !state.is_open() {
            self.run_report(row.id).await?
        } else {
            None
        };
        let preview = if state.is_open() || row.records == 0 {
            Vec::new()
        } else {
            let mut pages = self.pages(row.id, 0, 3).await?;
            if report.as_ref().is_some_and(Report::leaves_out_the_same) {
                self.keep_changes(row.id, &mut pages).await?;
            }
            pages
                .into_iter()
                .flat_map(|page| page.records)
                .take(PREVIEW_RECORDS)
                .collect()
        };
        Ok(Run {
            id: row.id.to_string(),
            spec_hash: row.spec_hash.unwrap_or_default(),
            state,
            pages: u64::try_from(row.pages).unwrap_or_default(),
            records: u64::try_from(row.records).unwrap_or_default(),
            error: row.error_class.map(|class| RunError {
                class,
                message: row.error_message.unwrap_or_default(),
            }),
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            preview,
            waiting: row.waiting,
            drift: report
                .and_then(|report| report.drift)
                .map(|drift| drift::names(&drift.0)),
        })
    }
}
