//! The change feed: runs of `ScrapeTask`s that were accepted, started or finished, for the operator.

use selextract_task::feed::{Change, Changes, MAX_ITEMS, PREVIEW_RECORDS, Run, RunError, RunState};
use snafu::ResultExt;
use sqlx::FromRow;

use super::{Ledger, LedgerError, TaskId, error::DatabaseSnafu, error::StoredSnafu};

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
}

pub(crate) const RUN_COLUMNS: &str =
    "t.id, t.source_uid AS uid, t.spec_hash, t.status, t.pages, t.records, t.error_class, t.error_message,
    rfc3339(t.created_at) AS created_at, rfc3339(t.started_at) AS started_at, rfc3339(t.finished_at) AS finished_at,
    CASE WHEN NOT s.suspend THEN rfc3339(s.next_run_at) END AS next_run_at";

impl Ledger {
    /// What changed after `after`, at most one change (the newest) for each `ScrapeTask`.
    ///
    /// Only rows of transactions that ended before every open one are read, so a change that commits late is never skipped.
    pub async fn changes(&self, after: i64) -> Result<Changes, LedgerError> {
        let seen: Vec<(i64, String, TaskId)> = sqlx::query_as(
            "SELECT id, uid, task_id FROM changes WHERE id > $1 AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(i64::try_from(MAX_ITEMS).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading the change feed" })?;
        let next = seen.last().map_or(after, |(id, ..)| *id);
        let mut newest = std::collections::HashMap::new();
        for (_, uid, task) in &seen {
            // A run that is older than one that the feed named before says nothing new.
            let entry = newest.entry(uid.clone()).or_insert(*task);
            *entry = (*entry).max(*task);
        }
        let ids: Vec<uuid::Uuid> = newest.values().map(|id| id.0).collect();
        let runs = self.runs(&ids).await?;
        let changes = runs
            .into_iter()
            .map(|(uid, run, next_run_at)| Change { uid, run, next_run_at })
            .collect();
        Ok(Changes { changes, next })
    }

    /// Runs of `ScrapeTask`s by the ids of their tasks: uid, run and when the schedule runs next.
    pub(crate) async fn runs(&self, ids: &[uuid::Uuid]) -> Result<Vec<(String, Run, Option<String>)>, LedgerError> {
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
            let (uid, next_run_at) = (row.uid.clone(), row.next_run_at.clone());
            runs.push((uid, self.run(row).await?, next_run_at));
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
        let preview = if state.is_open() || row.records == 0 {
            Vec::new()
        } else {
            let pages = self.pages(row.id, 0, 3).await?;
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
        })
    }
}
