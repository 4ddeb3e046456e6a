//! Figures for people: an owner's counters (O(1), whatever the owner has done) and the platform's analytics.

use serde::{Deserialize, Serialize};
use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Ledger, LedgerError, UserId, error::DatabaseSnafu};

/// What an owner has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow, Serialize, Deserialize)]
pub struct OwnerStats {
    /// Tasks accepted.
    pub total: i64,
    /// Tasks that wait or run.
    pub open: i64,
    /// Tasks that read every page.
    pub succeeded: i64,
    /// Tasks that ended with an error.
    pub failed: i64,
    /// Tasks that somebody ended.
    pub canceled: i64,
    /// Records of ended tasks.
    pub records: i64,
    /// Pages of ended tasks.
    pub pages: i64,
    /// Compute units of ended tasks.
    pub compute_units: i64,
}

/// What the platform did in a period.
#[derive(Clone, Debug, Default, PartialEq, FromRow, Serialize, Deserialize)]
pub struct Analytics {
    /// Tasks accepted in the period.
    pub tasks: i64,
    /// Of them, how many succeeded so far.
    pub succeeded: i64,
    /// Of them, how many failed so far.
    pub failed: i64,
    /// Pages read.
    pub pages: i64,
    /// Records extracted.
    pub records: i64,
    /// Compute units used.
    pub compute_units: i64,
    /// Owners with a task.
    pub owners: i64,
    /// Half of the ended tasks took at most this long from acceptance to end, in seconds.
    pub p50_seconds: Option<f64>,
    /// 95 of 100 ended tasks took at most this long, in seconds.
    pub p95_seconds: Option<f64>,
}

impl Ledger {
    /// An owner's counters: one folded row and the deltas that the keeper has not folded yet.
    pub async fn owner_stats(&self, owner: UserId) -> Result<OwnerStats, LedgerError> {
        sqlx::query_as(
            "SELECT coalesce(sum(total), 0)::bigint AS total,
                    coalesce(sum(total - succeeded - failed - canceled), 0)::bigint AS open,
                    coalesce(sum(succeeded), 0)::bigint AS succeeded, coalesce(sum(failed), 0)::bigint AS failed,
                    coalesce(sum(canceled), 0)::bigint AS canceled, coalesce(sum(records), 0)::bigint AS records,
                    coalesce(sum(pages), 0)::bigint AS pages, coalesce(sum(compute_units), 0)::bigint AS compute_units
             FROM (SELECT total, succeeded, failed, canceled, records, pages, compute_units FROM owner_counters WHERE user_id = $1
                   UNION ALL
                   SELECT total, succeeded, failed, canceled, records, pages, compute_units FROM owner_counter_deltas WHERE user_id = $1) c",
        )
        .bind(owner)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading an owner's statistics" })
    }

    /// The platform's figures for tasks accepted in the last `seconds`.
    pub async fn analytics(&self, seconds: i64) -> Result<Analytics, LedgerError> {
        // An id begins with its moment: months before the period are not looked at. A minute more, as clocks differ.
        let since = jiff::Timestamp::now().as_millisecond() - seconds.saturating_add(60).saturating_mul(1000);
        let first_id = Uuid::from_u128(u128::try_from(since).unwrap_or_default() << 80);
        sqlx::query_as(
            "SELECT count(*) AS tasks, count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
                    count(*) FILTER (WHERE status = 'failed') AS failed, coalesce(sum(pages), 0)::bigint AS pages,
                    coalesce(sum(records), 0)::bigint AS records, coalesce(sum(compute_units_used), 0)::bigint AS compute_units,
                    count(DISTINCT user_id) AS owners,
                    percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)::double precision)
                        FILTER (WHERE finished_at IS NOT NULL) AS p50_seconds,
                    percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)::double precision)
                        FILTER (WHERE finished_at IS NOT NULL) AS p95_seconds
             FROM tasks WHERE id >= $2 AND created_at > now() - make_interval(secs => $1::double precision)",
        )
        .bind(seconds)
        .bind(first_id)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading analytics" })
    }
}
