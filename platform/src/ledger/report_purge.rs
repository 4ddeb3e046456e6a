//! Removing what runs were compared by, when nobody will compare with it any more.

use snafu::ResultExt;

use super::{Ledger, LedgerError, TaskId, error::DatabaseSnafu};
use crate::drift::MAX_RUNS;

/// How many reports one stretch looks at.
const STRETCH: i64 = 5_000;

impl Ledger {
    /// Goes through a stretch of the reports after `after` and removes those of runs that are gone: the records when a newer run of the series
    /// was compared, the report when twenty newer ones are there, both when the series has ended. Returns where to go on, `None` at the end.
    pub async fn purge_reports(&self, after: Option<TaskId>) -> Result<Option<TaskId>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "removing reports on runs",
        };
        let gone: Vec<(TaskId, bool, bool)> = sqlx::query_as(
            "SELECT r.task_id, NOT EXISTS (SELECT FROM tasks t WHERE t.id = r.task_id) AND (ended.so
                        OR EXISTS (SELECT FROM run_reports n WHERE n.series = r.series AND n.task_id > r.task_id AND n.succeeded
                                   AND n.watch_key IS NOT NULL)) AS records,
                    NOT EXISTS (SELECT FROM tasks t WHERE t.id = r.task_id) AND (ended.so
                        OR (SELECT count(*) FROM (SELECT FROM run_reports n WHERE n.series = r.series AND n.task_id > r.task_id LIMIT $3) n) >= $3)
                        AS report
             FROM run_reports r CROSS JOIN LATERAL (
                 SELECT r.made_at < now() - interval '30 days' AND NOT EXISTS (SELECT FROM scrape_tasks s WHERE s.uid = r.series) AS so
             ) ended
             WHERE $1::uuid IS NULL OR r.task_id > $1 ORDER BY r.task_id LIMIT $2",
        )
        .bind(after)
        .bind(STRETCH)
        .bind(i64::try_from(MAX_RUNS).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        let full = i64::try_from(gone.len()) == Ok(STRETCH);
        let next = gone.last().filter(|_| full).map(|(id, ..)| *id);
        let of = |which: fn(&(TaskId, bool, bool)) -> bool| -> Vec<uuid::Uuid> {
            gone.iter().filter(|row| which(row)).map(|(id, ..)| id.0).collect()
        };
        let (records, reports) = (of(|row| row.1), of(|row| row.2));
        for (sql, ids) in [
            ("DELETE FROM watch_records WHERE task_id = ANY($1)", &records),
            ("DELETE FROM watch_records WHERE task_id = ANY($1)", &reports),
            ("DELETE FROM run_reports WHERE task_id = ANY($1)", &reports),
        ] {
            if !ids.is_empty() {
                sqlx::query(sql).bind(ids).execute(&self.pool).await.context(doing)?;
            }
        }
        Ok(next)
    }
}
