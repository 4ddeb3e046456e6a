//! What an owner may use, and what he uses.
//!
//! Queued tasks are checked where they are accepted, and with a schedule's tick; running ones at the claim, pages as they are read: the keeper
//! holds an owner who has read a day's until the next day begins (UTC), bytes of artifacts when one is written: what does not fit is left out, and the run goes on.

use std::{collections::HashMap, fmt};

use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Ledger, LedgerError, TaskId, UserId, error::DatabaseSnafu, waiting::EntryRow};
use crate::frontier::Entry;

/// The most tasks that wait, for an owner about whom nobody said anything.
pub const DEFAULT_QUEUED: i64 = 1_000_000;
/// The most pages of a day, for an owner about whom nobody said anything.
pub const DEFAULT_PAGES_PER_DAY: i64 = 10_000_000;

/// What an owner may use, as an administrator said; `None` is the platform's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Tasks that run at the same time; not limited by default, the workers bound them.
    pub running: Option<i32>,
    /// Tasks that wait; [`DEFAULT_QUEUED`] by default.
    pub queued: Option<i64>,
    /// Pages that are read on a day (UTC); [`DEFAULT_PAGES_PER_DAY`] by default.
    pub pages_per_day: Option<i64>,
    /// Bytes of artifacts; what the cluster's spec says by default.
    pub artifact_bytes: Option<i64>,
}

/// What an owner may use and uses.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Usage {
    /// Tasks that run.
    pub running: i64,
    /// The most of them, if there is a limit.
    pub running_limit: Option<i32>,
    /// Tasks that wait.
    pub queued: i64,
    /// The most of them.
    pub queued_limit: i64,
    /// Pages that were read today.
    pub pages_today: i64,
    /// The most of them.
    pub pages_limit: i64,
    /// Bytes of artifacts, those that are being written included.
    pub artifact_bytes: i64,
    /// The most of them.
    pub artifact_limit: i64,
    /// Milliseconds since the epoch until which his tasks are not begun, as he has read a day's pages.
    pub held_until: Option<i64>,
}

/// How many tasks of an owner have not ended, as `count`.
macro_rules! open_tasks {
    ($owner:literal) => {
        concat!(
            "(SELECT coalesce(sum(total - succeeded - failed - canceled), 0)::bigint AS count
              FROM (SELECT total, succeeded, failed, canceled FROM owner_counters c WHERE c.user_id = ",
            $owner,
            " UNION ALL SELECT total, succeeded, failed, canceled FROM owner_counter_deltas d WHERE d.user_id = ",
            $owner,
            ") c) "
        )
    };
}

/// How many tasks of an owner wait, and the most of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct QueueRoom {
    /// Tasks that wait.
    pub used: i64,
    /// The most of them.
    pub limit: i64,
}

impl QueueRoom {
    /// How many more may wait.
    pub fn free(self) -> i64 {
        (self.limit - self.used).max(0)
    }
}

/// As a person is told why nothing starts.
impl fmt::Display for QueueRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { used, limit } = self;
        write!(
            f,
            "the quota queued is {limit} and {used} are used: it starts when tasks have ended, or an administrator allows more"
        )
    }
}

#[derive(FromRow)]
struct RoomRow {
    user_id: UserId,
    #[sqlx(flatten)]
    room: QueueRoom,
}

impl Ledger {
    /// How many tasks these owners may have more.
    pub(super) async fn queue_room(&self, owners: &[UserId]) -> Result<HashMap<UserId, QueueRoom>, LedgerError> {
        if owners.is_empty() {
            return Ok(HashMap::new());
        }
        let rows: Vec<RoomRow> = sqlx::query_as(concat!(
            "SELECT o.user_id, greatest(open.count - running.count, 0) AS used, coalesce(q.queued, $2) AS limit
             FROM unnest($1::uuid[]) AS o (user_id) LEFT JOIN owner_quotas q ON q.user_id = o.user_id
                 CROSS JOIN LATERAL (SELECT count(*) FROM tasks t WHERE t.status = 'running' AND t.user_id = o.user_id) running
                 CROSS JOIN LATERAL ",
            open_tasks!("o.user_id"),
            " open"
        ))
        .bind(owners.iter().map(|owner| owner.0).collect::<Vec<Uuid>>())
        .bind(DEFAULT_QUEUED)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading what owners may have more" })?;
        Ok(rows.into_iter().map(|row| (row.user_id, row.room)).collect())
    }

    /// What an owner may use and uses now.
    pub async fn usage(&self, owner: UserId) -> Result<Usage, LedgerError> {
        sqlx::query_as(concat!(
            "WITH running AS (
                 SELECT count(*) AS count FROM tasks WHERE status = 'running' AND user_id = $1
             ), open AS ",
            open_tasks!("$1"),
            "SELECT running.count AS running, q.running AS running_limit, greatest(open.count - running.count, 0) AS queued,
                    coalesce(q.queued, $2) AS queued_limit, coalesce(d.pages, 0) AS pages_today, coalesce(q.pages_per_day, $3) AS pages_limit,
                    coalesce(a.bytes, 0) AS artifact_bytes, coalesce(q.artifact_bytes, $4) AS artifact_limit,
                    (extract(epoch FROM h.until) * 1000)::bigint AS held_until
             FROM running CROSS JOIN open LEFT JOIN owner_quotas q ON q.user_id = $1
                  LEFT JOIN owner_days d ON d.user_id = $1 AND d.day = (now() AT TIME ZONE 'UTC')::date
                  LEFT JOIN owner_holds h ON h.user_id = $1 AND h.until > now() LEFT JOIN artifact_usage a ON a.user_id = $1"
        ))
        .bind(owner)
        .bind(DEFAULT_QUEUED)
        .bind(DEFAULT_PAGES_PER_DAY)
        .bind(self.artifacts.bytes_per_owner)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading an owner's usage" })
    }

    /// Sets what an owner may use.
    pub async fn set_quotas(&self, owner: UserId, quotas: Quotas) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO owner_quotas (user_id, running, queued, pages_per_day, artifact_bytes) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (user_id) DO UPDATE SET running = excluded.running, queued = excluded.queued,
                 pages_per_day = excluded.pages_per_day, artifact_bytes = excluded.artifact_bytes, updated_at = now()",
        )
        .bind(owner)
        .bind(quotas.running)
        .bind(quotas.queued)
        .bind(quotas.pages_per_day)
        .bind(quotas.artifact_bytes)
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "setting an owner's quotas",
        })?;
        Ok(())
    }

    /// Holds the owners who have read a day's pages, and lets the others go. Returns how many are held.
    pub async fn hold_owners(&self) -> Result<i64, LedgerError> {
        sqlx::query_scalar(
            "WITH over AS (
                 SELECT d.user_id, d.pages AS used, coalesce(q.pages_per_day, $1) AS most
                 FROM owner_days d LEFT JOIN owner_quotas q USING (user_id)
                 WHERE d.day = (now() AT TIME ZONE 'UTC')::date AND d.pages >= coalesce(q.pages_per_day, $1)
             ), gone AS (
                 DELETE FROM owner_holds h WHERE NOT EXISTS (SELECT FROM over WHERE over.user_id = h.user_id)
             ), held AS (
                 INSERT INTO owner_holds AS h (user_id, used, most, until)
                 SELECT user_id, used, most, (date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC' FROM over
                 ON CONFLICT (user_id) DO UPDATE SET used = excluded.used, most = excluded.most, until = excluded.until
                 WHERE (h.used, h.most, h.until) IS DISTINCT FROM (excluded.used, excluded.most, excluded.until)
             )
             SELECT count(*) FROM over",
        )
        .bind(DEFAULT_PAGES_PER_DAY)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "holding owners" })
    }

    /// Of tasks that were taken and not claimed, for which host they were taken; and whether one may run but for its owner's limit of running
    /// ones, so that it is to be offered again a moment later.
    pub async fn unclaimed(&self, ids: &[TaskId]) -> Result<Vec<(Entry, bool)>, LedgerError> {
        let rows: Vec<UnclaimedRow> = sqlx::query_as(
            "SELECT id, tasks.user_id, host, priority, ceil(extract(epoch FROM due_at) * 1000)::bigint AS due_milliseconds,
                    status = 'pending' AND NOT paused AND due_at <= now() + interval '100 milliseconds'
                    AND EXISTS (SELECT FROM owner_quotas q WHERE q.user_id = tasks.user_id AND q.running IS NOT NULL)
                    AND NOT EXISTS (SELECT FROM owner_holds h WHERE h.user_id = tasks.user_id AND h.until > now()) AS crowded
             FROM tasks WHERE id = ANY($1)",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<Uuid>>())
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading tasks that were not claimed" })?;
        Ok(rows.into_iter().map(|row| (row.entry.into(), row.crowded)).collect())
    }
}

#[derive(FromRow)]
struct UnclaimedRow {
    #[sqlx(flatten)]
    entry: EntryRow,
    crowded: bool,
}
