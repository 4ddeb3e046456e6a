//! `ScrapeTask`s and users' schedules as the API shows them, and their runs out of turn.

use selextract_task::TaskSpec;
use snafu::ResultExt;
use sqlx::{FromRow, types::Json};

use super::{
    Ledger, LedgerError, TaskId, UserId,
    error::DatabaseSnafu,
    scrape_tasks::{NewRun, insert_run, lock},
    transaction,
};
use crate::frontier::Entry;

/// The most that are listed at once.
pub const LISTED: i64 = 100;

/// A `ScrapeTask`, or a schedule that a user of the API made.
#[derive(Clone, Debug, FromRow)]
pub struct Scheduled {
    /// `metadata.uid`, or what the API gave it.
    pub uid: String,
    /// `metadata.name`.
    pub name: String,
    /// A cron expression; `None` for one that runs once.
    pub cron: Option<String>,
    /// An IANA time zone.
    pub time_zone: Option<String>,
    /// No new run starts by itself.
    pub suspend: bool,
    /// RFC 3339.
    pub next_run_at: Option<String>,
    /// The newest run.
    pub task_id: Option<TaskId>,
    /// Where that stands.
    pub status: Option<String>,
    /// 0 to 9.
    pub priority: i16,
    /// As in [`selextract_task::ConcurrencyPolicy`].
    pub concurrency_policy: String,
    /// How late a tick may start its run; `None` is the default.
    pub starting_deadline_seconds: Option<i64>,
    /// Ticks that started no run.
    pub missed_ticks: i64,
    /// RFC 3339; when one was missed last.
    pub last_missed_at: Option<String>,
    /// Why the tick that is due waits, where a quota holds it.
    pub held: Option<String>,
    /// A user of the API made it.
    pub from_api: bool,
    /// What a changed task does to a run that is under way.
    pub on_change: String,
    /// How long a finished run is kept.
    pub ttl_seconds: Option<i64>,
    /// How many succeeded runs are kept.
    pub keep_succeeded: Option<i32>,
    /// How many failed and canceled runs are kept.
    pub keep_failed: Option<i32>,
    /// What is extracted, where one schedule alone is asked for.
    pub spec: Option<Json<serde_json::Value>>,
}

/// The columns of a [`Scheduled`] but for its spec.
macro_rules! scheduled_columns {
    () => {
        "s.uid, s.name, s.cron, s.time_zone, s.suspend, CASE WHEN NOT s.suspend THEN rfc3339(s.next_run_at) END AS next_run_at,
         newest.id AS task_id, newest.status, s.priority, s.concurrency_policy, s.starting_deadline_seconds, s.missed_ticks,
         rfc3339(s.last_missed_at) AS last_missed_at, s.held, s.from_api, s.on_change, s.ttl_seconds, s.keep_succeeded, s.keep_failed"
    };
}

/// Where they come from.
macro_rules! scheduled_tables {
    () => {
        "FROM scrape_tasks s LEFT JOIN LATERAL (
             SELECT id, status FROM tasks WHERE source_uid = s.uid ORDER BY id DESC LIMIT 1
         ) newest ON true"
    };
}

/// What became of a run out of turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunNow {
    /// There is no such `ScrapeTask`.
    Missing,
    /// A run of it is under way.
    UnderWay(TaskId),
    /// It was accepted; to be offered to the frontier.
    Started(Entry),
}

#[derive(FromRow)]
struct Row {
    user_id: UserId,
    name: String,
    spec: Json<TaskSpec>,
    spec_hash: String,
    priority: i16,
    ttl_seconds: Option<i64>,
}

impl Ledger {
    /// An owner's `ScrapeTask`s by their uid, [`LISTED`] at most after `after`.
    pub async fn schedules(&self, owner: UserId, after: Option<&str>) -> Result<Vec<Scheduled>, LedgerError> {
        sqlx::query_as(concat!(
            "SELECT ",
            scheduled_columns!(),
            ", NULL::jsonb AS spec ",
            scheduled_tables!(),
            " WHERE s.user_id = $1 AND ($2::text IS NULL OR s.uid > $2) ORDER BY s.uid LIMIT $3",
        ))
        .bind(owner)
        .bind(after)
        .bind(LISTED)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "listing ScrapeTasks",
        })
    }

    /// One schedule with its spec, of this owner, or of anybody when `owner` is `None`.
    pub async fn schedule(&self, owner: Option<UserId>, uid: &str) -> Result<Option<Scheduled>, LedgerError> {
        sqlx::query_as(concat!(
            "SELECT ",
            scheduled_columns!(),
            ", s.spec ",
            scheduled_tables!(),
            " WHERE s.uid = $1 AND ($2::uuid IS NULL OR s.user_id = $2)",
        ))
        .bind(uid)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading a schedule",
        })
    }

    /// Whose a schedule is, of this owner, or of anybody when `owner` is `None`.
    pub async fn schedule_owner(&self, owner: Option<UserId>, uid: &str) -> Result<Option<UserId>, LedgerError> {
        sqlx::query_scalar("SELECT user_id FROM scrape_tasks WHERE uid = $1 AND ($2::uuid IS NULL OR user_id = $2)")
            .bind(uid)
            .bind(owner)
            .fetch_optional(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "looking whose a schedule is",
            })
    }

    /// Starts a run of a `ScrapeTask` now, whatever its schedule says and also while it is suspended. One at a time.
    pub async fn run_now(&self, owner: Option<UserId>, uid: &str) -> Result<RunNow, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "starting a run out of turn",
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        let newest = lock(&mut transaction, uid).await?;
        let found: Option<Row> = sqlx::query_as(
            "SELECT user_id, name, spec, spec_hash, priority, ttl_seconds FROM scrape_tasks
             WHERE uid = $1 AND ($2::uuid IS NULL OR user_id = $2)",
        )
        .bind(uid)
        .bind(owner)
        .fetch_optional(&mut *transaction)
        .await
        .context(doing)?;
        let Some(row) = found else {
            return Ok(RunNow::Missing);
        };
        if let Some(open) = newest.filter(|newest| newest.open) {
            return Ok(RunNow::UnderWay(open.id));
        }
        // It was accepted by a version that understood it.
        let host = row
            .spec
            .compile()
            .ok()
            .and_then(|plan| plan.url.host_str().map(str::to_owned));
        let Some(host) = host else {
            return Ok(RunNow::Missing);
        };
        let entry = Entry {
            id: TaskId::new(),
            owner: row.user_id,
            host,
            priority: u8::try_from(row.priority).unwrap_or_default(),
            due_milliseconds: jiff::Timestamp::now().as_millisecond(),
        };
        let run = NewRun {
            uid,
            name: &row.name,
            spec: &row.spec.0,
            spec_hash: &row.spec_hash,
            ttl_seconds: row.ttl_seconds,
        };
        insert_run(&mut transaction, &entry, &run).await?;
        transaction.commit().await.context(doing)?;
        Ok(RunNow::Started(entry))
    }
}
