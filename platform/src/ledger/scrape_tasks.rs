//! `ScrapeTask`s as their operator writes them, and the runs that follow from them.

use jiff::Timestamp;
use selextract_task::{
    Clock, ConcurrencyPolicy, SPEC_VERSION, TaskSpec,
    feed::{KnownTask, MAX_ITEMS, OnChange, Schedule, Upsert, UpsertAnswer},
};
use snafu::ResultExt;
use sqlx::{FromRow, PgConnection, types::Json};

use super::{Ledger, LedgerError, TaskId, UserId, error::DatabaseSnafu, transaction};
use crate::frontier::Entry;

/// An item to write, with what its plan says.
#[derive(Clone, Debug)]
pub struct CheckedUpsert {
    /// The item; its spec compiles.
    pub item: Upsert,
    /// The host of its first page.
    pub host: String,
    /// Why no further run of its owner's may start now, as one sentence, where a quota is used up.
    pub no_room: Option<String>,
}

/// Who wrote an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An operator, for a `ScrapeTask`.
    Operator,
    /// A user of the API.
    Api,
}

/// What became of an item.
#[derive(Clone, Debug)]
pub struct Upserted {
    /// For the operator.
    pub answer: UpsertAnswer,
    /// The run that started, to offer to the frontier.
    pub started: Option<Entry>,
}

#[derive(FromRow)]
pub(crate) struct Newest {
    pub(crate) id: TaskId,
    spec_hash: Option<String>,
    pub(crate) open: bool,
}

/// A run of a `ScrapeTask` to accept.
pub(crate) struct NewRun<'a> {
    pub(crate) uid: &'a str,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a TaskSpec,
    pub(crate) spec_hash: &'a str,
    pub(crate) ttl_seconds: Option<i64>,
}

impl Ledger {
    /// Writes one item of this namespace's owner in one transaction and answers with its newest run. The same item twice changes nothing.
    pub async fn upsert_scrape_task(
        &self,
        checked: &CheckedUpsert,
        owner: UserId,
        now: Timestamp,
    ) -> Result<Upserted, LedgerError> {
        self.upsert_owned(checked, owner, Origin::Operator, now).await
    }

    /// Writes one item of this owner in one transaction. What somebody else wrote under its uid is refused.
    pub(crate) async fn upsert_owned(
        &self,
        checked: &CheckedUpsert,
        owner: UserId,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Upserted, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "writing a ScrapeTask",
        };
        let item = &checked.item;
        let next = match item.schedule.as_ref().map(clock) {
            None => None,
            Some(Ok(clock)) => clock.next_after(now),
            Some(Err(refused)) => return Ok(refuse(item, refused)),
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        let newest = lock(&mut transaction, &item.uid).await?;
        // The row first: from now on no tick starts a run of the old spec, and the runs that one started are seen below.
        write(&mut transaction, item, owner, origin, next).await?;
        let outdated = outdated_runs(&mut transaction, item).await?;
        let ran = match &newest {
            Some(newest) => newest.spec_hash.clone(),
            None => ran_before(&mut transaction, &item.uid).await?,
        };
        let changed = ran.as_deref() != Some(item.spec_hash.as_str());
        // A schedule's changed spec waits for the next tick, unless a run of the old one has to make room for it now.
        let wants_run = !item.suspend && changed && (item.schedule.is_none() || !outdated.is_empty());
        if wants_run && !outdated.is_empty() && item.on_change == OnChange::Forbid {
            // Nothing is committed: the old spec stays.
            let refused = "spec.task changed while a run is under way and onChange is Forbid; wait for its end, or set onChange to Replace";
            return Ok(refuse(item, refused.to_owned()));
        }
        // One that makes room for its successor is as many tasks as before.
        if let Some(why) = checked.no_room.as_ref().filter(|_| wants_run && outdated.is_empty()) {
            let mut refused = refuse(item, why.clone());
            refused.answer.quota_exceeded = true;
            return Ok(refused);
        }
        let mut run = newest.map(|n| n.id);
        let mut started = None;
        if wants_run {
            for old in outdated {
                cancel(&mut transaction, old).await?;
            }
            let entry = entry(TaskId::new(), owner, checked);
            let new = NewRun {
                uid: &item.uid,
                name: &item.name,
                spec: &item.task,
                spec_hash: &item.spec_hash,
                ttl_seconds: ttl(item),
            };
            insert_run(&mut transaction, &entry, &new).await?;
            run = Some(entry.id);
            started = Some(entry);
        }
        transaction.commit().await.context(doing)?;
        let answer = self.answer(item.uid.clone(), run, item).await?;
        Ok(Upserted { answer, started })
    }

    /// Removes `ScrapeTask`s: their schedules end and their open runs are canceled. Unknown ones are no error; results stay.
    pub async fn remove_scrape_tasks(&self, uids: &[String]) -> Result<(), LedgerError> {
        let doing = DatabaseSnafu {
            doing: "removing ScrapeTasks",
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        // In order, so that two removals cannot wait for each other; an upsert under way ends first.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended(uid, 0)) FROM (SELECT unnest($1::text[]) AS uid ORDER BY 1) AS sorted")
            .bind(uids)
            .execute(&mut *transaction)
            .await
            .context(doing)?;
        sqlx::query("DELETE FROM scrape_tasks WHERE uid = ANY($1)")
            .bind(uids)
            .execute(&mut *transaction)
            .await
            .context(doing)?;
        let open: Vec<TaskId> = sqlx::query_scalar(
            "SELECT id FROM tasks WHERE source_uid = ANY($1) AND status IN ('pending', 'running') ORDER BY id",
        )
        .bind(uids)
        .fetch_all(&mut *transaction)
        .await
        .context(doing)?;
        for id in open {
            cancel(&mut transaction, id).await?;
        }
        transaction.commit().await.context(doing)
    }

    /// The `ScrapeTask`s after this uid, in its order, at most [`MAX_ITEMS`].
    pub async fn known_scrape_tasks(&self, after: &str) -> Result<Vec<KnownTask>, LedgerError> {
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT s.uid, substr(u.name, 5), s.name FROM scrape_tasks s JOIN users u ON u.id = s.user_id
             WHERE s.uid > $1 AND u.name LIKE 'k8s:%' ORDER BY s.uid LIMIT $2",
        )
        .bind(after)
        .bind(i64::try_from(MAX_ITEMS).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "listing ScrapeTasks",
        })?;
        let known = rows
            .into_iter()
            .map(|(uid, namespace, name)| KnownTask { uid, namespace, name });
        Ok(known.collect())
    }

    async fn answer(&self, uid: String, run: Option<TaskId>, item: &Upsert) -> Result<UpsertAnswer, LedgerError> {
        let found = match run {
            Some(id) => self.runs(&[id.0]).await?.pop(),
            None => None,
        };
        let (run, mut next_run_at, mut held) = match found {
            Some(change) => (Some(change.run), change.next_run_at, change.held),
            None => (None, None, None),
        };
        if next_run_at.is_none() && item.schedule.is_some() && !item.suspend {
            let schedule: Option<(Option<String>, Option<String>)> =
                sqlx::query_as("SELECT rfc3339(next_run_at), held FROM scrape_tasks WHERE uid = $1")
                    .bind(&uid)
                    .fetch_optional(&self.pool)
                    .await
                    .context(DatabaseSnafu {
                        doing: "reading a schedule",
                    })?;
            (next_run_at, held) = schedule.unwrap_or_default();
        }
        Ok(UpsertAnswer {
            uid,
            run,
            next_run_at,
            held,
            refused: None,
            quota_exceeded: false,
        })
    }
}

fn refuse(item: &Upsert, refused: String) -> Upserted {
    let answer = UpsertAnswer {
        uid: item.uid.clone(),
        run: None,
        next_run_at: None,
        held: None,
        refused: Some(refused),
        quota_exceeded: false,
    };
    Upserted { answer, started: None }
}

fn entry(id: TaskId, owner: UserId, checked: &CheckedUpsert) -> Entry {
    Entry {
        id,
        owner,
        host: checked.host.clone(),
        priority: checked.item.priority,
        due_milliseconds: id.unix_milliseconds(),
    }
}

/// The newest run. Two upserts of one uid wait for each other: the advisory lock ends with the transaction, so it may go through the
/// pooler.
pub(crate) async fn lock(connection: &mut PgConnection, uid: &str) -> Result<Option<Newest>, LedgerError> {
    let doing = DatabaseSnafu {
        doing: "reading a ScrapeTask",
    };
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(uid)
        .execute(&mut *connection)
        .await
        .context(doing)?;
    sqlx::query_as(
        "SELECT id, spec_hash, status IN ('pending', 'running') AS open FROM tasks WHERE source_uid = $1 ORDER BY id DESC LIMIT 1",
    )
    .bind(uid)
    .fetch_optional(connection)
    .await
    .context(doing)
}

/// The runs of another spec that are under way. One that was told to end is none of them: it makes room already.
async fn outdated_runs(connection: &mut PgConnection, item: &Upsert) -> Result<Vec<TaskId>, LedgerError> {
    sqlx::query_scalar(
        "SELECT id FROM tasks WHERE source_uid = $1 AND status IN ('pending', 'running') AND NOT cancel_requested
             AND spec_hash IS DISTINCT FROM $2 ORDER BY id",
    )
    .bind(&item.uid)
    .bind(&item.spec_hash)
    .fetch_all(connection)
    .await
    .context(DatabaseSnafu {
        doing: "reading the runs of a ScrapeTask",
    })
}

async fn write(
    connection: &mut PgConnection,
    item: &Upsert,
    owner: UserId,
    origin: Origin,
    next: Option<Timestamp>,
) -> Result<(), LedgerError> {
    // A schedule that did not change keeps its next tick, and why that waits: a re-apply must not skip one that is due.
    sqlx::query(
        "INSERT INTO scrape_tasks AS s (uid, user_id, name, spec, spec_hash, priority, suspend, cron, time_zone, next_run_at,
             ttl_seconds, keep_succeeded, keep_failed, concurrency_policy, starting_deadline_seconds, from_api, on_change)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, to_timestamp($10::double precision / 1000), $11, $12, $13, $14, $15, $16, $17)
         ON CONFLICT (uid) DO UPDATE SET name = excluded.name, spec = excluded.spec, spec_hash = excluded.spec_hash,
             priority = excluded.priority, suspend = excluded.suspend, cron = excluded.cron, time_zone = excluded.time_zone,
             next_run_at = CASE WHEN (s.cron, s.time_zone, s.suspend) IS NOT DISTINCT FROM (excluded.cron, excluded.time_zone, excluded.suspend)
                                THEN s.next_run_at ELSE excluded.next_run_at END,
             ttl_seconds = excluded.ttl_seconds, keep_succeeded = excluded.keep_succeeded, keep_failed = excluded.keep_failed,
             concurrency_policy = excluded.concurrency_policy, starting_deadline_seconds = excluded.starting_deadline_seconds,
             on_change = excluded.on_change, updated_at = now(),
             held = CASE WHEN (s.cron, s.time_zone, s.suspend) IS NOT DISTINCT FROM (excluded.cron, excluded.time_zone, excluded.suspend)
                         THEN s.held END",
    )
    .bind(&item.uid)
    .bind(owner)
    .bind(&item.name)
    .bind(Json(&item.task))
    .bind(&item.spec_hash)
    .bind(i16::from(item.priority))
    .bind(item.suspend)
    .bind(item.schedule.as_ref().map(|s| s.cron.as_str()))
    .bind(item.schedule.as_ref().map(|s| s.time_zone.as_str()))
    .bind(next.map(Timestamp::as_millisecond))
    .bind(ttl(item))
    .bind(item.successful_runs_history_limit.map(|n| i32::try_from(n).unwrap_or(i32::MAX)))
    .bind(item.failed_runs_history_limit.map(|n| i32::try_from(n).unwrap_or(i32::MAX)))
    .bind(item.schedule.as_ref().map_or_else(ConcurrencyPolicy::default, |s| s.concurrency_policy).as_str())
    .bind(item.schedule.as_ref().and_then(|s| s.starting_deadline).and_then(|d| i64::try_from(d.get().as_secs()).ok()))
    .bind(origin == Origin::Api)
    .bind(match item.on_change {
        OnChange::Replace => "Replace",
        OnChange::Forbid => "Forbid",
    })
    .execute(&mut *connection)
    .await
    .context(DatabaseSnafu { doing: "writing a ScrapeTask" })?;
    sqlx::query(
        "UPDATE tasks SET ttl_seconds = $2, expires_at = NULL WHERE source_uid = $1 AND ttl_seconds IS DISTINCT FROM $2",
    )
    .bind(&item.uid)
    .bind(ttl(item))
    .execute(&mut *connection)
    .await
    .context(DatabaseSnafu {
        doing: "writing how long runs are kept",
    })?;
    sqlx::query("UPDATE tasks SET priority = $2 WHERE source_uid = $1 AND status = 'pending' AND priority <> $2")
        .bind(&item.uid)
        .bind(i16::from(item.priority))
        .execute(connection)
        .await
        .context(DatabaseSnafu {
            doing: "writing a priority",
        })?;
    Ok(())
}

/// Accepts a run. The entry says when and where, and is offered to the frontier after the commit.
pub(crate) async fn insert_run(
    connection: &mut PgConnection,
    entry: &Entry,
    run: &NewRun<'_>,
) -> Result<(), LedgerError> {
    sqlx::query(
        "WITH accepted AS (
             INSERT INTO tasks (id, user_id, name, priority, created_at, due_at, spec, spec_version, host, max_attempts, source_uid, spec_hash,
                 ttl_seconds)
             VALUES ($1, $2, $3, $4, to_timestamp($5::double precision / 1000), least(to_timestamp($5::double precision / 1000), now()), $6, $7,
                 $8, $9, $10, $11, $12)
         ), remembered AS (
             UPDATE scrape_tasks SET ran_spec_hash = $11 WHERE uid = $10
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, total) VALUES ($2, 1)
         )
         INSERT INTO changes (uid, task_id) VALUES ($10, $1)",
    )
    .bind(entry.id)
    .bind(entry.owner)
    .bind(run.spec.name.as_deref().unwrap_or(run.name))
    .bind(i16::from(entry.priority))
    .bind(entry.id.unix_milliseconds())
    .bind(Json(run.spec))
    .bind(SPEC_VERSION)
    .bind(&entry.host)
    .bind(i16::from(run.spec.max_retries) + 1)
    .bind(run.uid)
    .bind(run.spec_hash)
    .bind(run.ttl_seconds)
    .execute(connection)
    .await
    .context(DatabaseSnafu { doing: "accepting a run" })?;
    Ok(())
}

/// The spec that ran last, when no run of it is left.
async fn ran_before(connection: &mut PgConnection, uid: &str) -> Result<Option<String>, LedgerError> {
    let found: Option<Option<String>> = sqlx::query_scalar("SELECT ran_spec_hash FROM scrape_tasks WHERE uid = $1")
        .bind(uid)
        .fetch_optional(connection)
        .await
        .context(DatabaseSnafu {
            doing: "reading a ScrapeTask",
        })?;
    Ok(found.flatten())
}

fn ttl(item: &Upsert) -> Option<i64> {
    let ttl = item.ttl_after_finished?;
    Some(i64::try_from(ttl.get().as_secs()).unwrap_or(i64::MAX))
}

pub(crate) async fn cancel(connection: &mut PgConnection, id: TaskId) -> Result<(), LedgerError> {
    sqlx::query(super::tasks::CANCEL)
        .bind(id)
        .bind(None::<UserId>)
        .execute(connection)
        .await
        .context(DatabaseSnafu {
            doing: "canceling a run",
        })?;
    Ok(())
}

/// When a schedule runs; or one sentence with the field, the value and the cure.
fn clock(schedule: &Schedule) -> Result<Clock, String> {
    Clock::parse(&schedule.cron, &schedule.time_zone)
        .map_err(|wrong| format!("schedule.{} = {:?}: {}", wrong.field, wrong.value, wrong.message))
}
