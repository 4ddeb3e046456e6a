//! Starting the runs of schedules: each tick at most once, whoever else does the same, and after a pause of the platform at most one run
//! for each schedule. What a tick does is decided purely.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use selextract_task::{Clock, ConcurrencyPolicy, DEFAULT_STARTING_DEADLINE, TaskSpec};
use snafu::ResultExt;
use sqlx::{FromRow, PgConnection, types::Json};
use tracing::warn;
use uuid::Uuid;

use super::{
    Ledger, LedgerError, TaskId, UserId,
    error::DatabaseSnafu,
    quotas::QueueRoom,
    scrape_tasks::{cancel, lock},
    transaction,
};

/// How many schedules one round looks at.
const BATCH: i64 = 500;
/// How many ticks are gone through one by one to find the newest; a schedule that missed more is looked at from a day ago.
const STEPS: u32 = 2_000;
/// How many stretches of due ticks one round looks at, where ticks that wait for a quota stand before others.
const ROUNDS: usize = 3;
const DOING: &str = "starting a scheduled run";

/// What a round of ticks did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Runs that started.
    pub started: u64,
    /// Ticks that started none: too late, or overtaken by the next one.
    pub missed: u64,
}

/// The ticks of a schedule that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// The newest of them, the only one that may still start a run.
    newest: Timestamp,
    /// How many came before it.
    earlier: i64,
}

/// What a due tick does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Start,
    /// Runs that are under way end first.
    Replace,
    /// A run is under way; the tick stays due.
    Wait,
    /// Its owner may have no further task; the tick stays due.
    Hold,
    /// It is too late.
    Skip,
}

/// The ticks from the oldest that is due up to now.
fn span(clock: &Clock, oldest: Timestamp, now: Timestamp) -> Span {
    let lately = || {
        // So many ticks are closer together than a day, and fewer than the steps lie between there and now.
        let span = walk(clock, clock.next_after(now - SignedDuration::from_hours(24))?, now)?;
        let earlier = span.earlier + i64::from(STEPS);
        Some(Span { earlier, ..span })
    };
    let only = Span {
        newest: oldest,
        earlier: 0,
    };
    walk(clock, oldest, now).or_else(lately).unwrap_or(only)
}

/// Goes from tick to tick; `None` when that takes too many steps.
fn walk(clock: &Clock, from: Timestamp, now: Timestamp) -> Option<Span> {
    let (mut newest, mut earlier) = (from, 0);
    for _ in 0..STEPS {
        match clock.next_after(newest).filter(|next| *next <= now) {
            Some(next) => (newest, earlier) = (next, earlier + 1),
            None => return Some(Span { newest, earlier }),
        }
    }
    None
}

fn decide(policy: ConcurrencyPolicy, under_way: bool, has_room: bool, late: SignedDuration, deadline: Duration) -> Act {
    if SignedDuration::try_from(deadline).is_ok_and(|deadline| late > deadline) {
        return Act::Skip;
    }
    match policy {
        ConcurrencyPolicy::Forbid if under_way => Act::Wait,
        // As many tasks as before.
        ConcurrencyPolicy::Replace if under_way => Act::Replace,
        _ if has_room => Act::Start,
        _ => Act::Hold,
    }
}

/// The owners of due ticks, and how many tasks each may have more.
#[derive(Debug)]
struct Rooms {
    rooms: HashMap<UserId, QueueRoom>,
    /// How many ticks were found to wait for room.
    held: usize,
}

impl Rooms {
    /// Those who may have none.
    fn full(&self) -> Vec<Uuid> {
        let full = self.rooms.iter().filter(|(_, room)| room.free() == 0);
        full.map(|(owner, _)| owner.0).collect()
    }

    fn of(&self, owner: UserId) -> Option<QueueRoom> {
        self.rooms.get(&owner).copied()
    }

    fn started(&mut self, owner: UserId) {
        if let Some(room) = self.rooms.get_mut(&owner) {
            room.used += 1;
        }
    }
}

#[derive(FromRow)]
struct Due {
    uid: String,
    user_id: UserId,
    name: String,
    spec: Json<TaskSpec>,
    spec_hash: String,
    priority: i16,
    cron: String,
    time_zone: String,
    tick_milliseconds: i64,
    ttl_seconds: Option<i64>,
    concurrency_policy: String,
    starting_deadline_seconds: Option<i64>,
    was_held: bool,
}

impl Due {
    fn deadline(&self) -> Duration {
        let seconds = self
            .starting_deadline_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map_or(DEFAULT_STARTING_DEADLINE.get(), Duration::from_secs)
    }

    fn clock(&self) -> Option<Clock> {
        Clock::parse(&self.cron, &self.time_zone).ok()
    }
}

impl Ledger {
    /// Starts the runs of schedules that are due, each tick once, whoever else does the same. Ticks of an owner who may have no further task
    /// wait, and stand in nobody else's way.
    pub async fn tick_schedules(&self, now: Timestamp) -> Result<Ticked, LedgerError> {
        let mut ticked = Ticked::default();
        let mut rooms = Rooms {
            rooms: self.queue_room(&self.held_owners().await?).await?,
            held: 0,
        };
        for _ in 0..ROUNDS {
            let held = rooms.held;
            let due = self.due_ticks(now, &rooms.full()).await?;
            let owners: BTreeSet<UserId> = due.iter().map(|due| due.user_id).collect();
            let new: Vec<UserId> = owners.into_iter().filter(|owner| rooms.of(*owner).is_none()).collect();
            if !new.is_empty() {
                rooms.rooms.extend(self.queue_room(&new).await?);
            }
            for schedule in &due {
                match self.tick(schedule, &mut rooms, now).await {
                    Ok(did) => {
                        ticked.started += did.started;
                        ticked.missed += did.missed;
                    }
                    Err(error) if error.is_unavailable() => return Err(error),
                    // One schedule that cannot be started stands in no other's way.
                    Err(error) => {
                        warn!(uid = schedule.uid, %error, "A scheduled run could not be started; trying again.");
                    }
                }
            }
            // Behind ticks that were found to wait others may stand.
            if i64::try_from(due.len()) != Ok(BATCH) || rooms.held == held {
                break;
            }
        }
        Ok(ticked)
    }

    /// Whose ticks waited for a quota when they were looked at last.
    async fn held_owners(&self) -> Result<Vec<UserId>, LedgerError> {
        sqlx::query_scalar("SELECT DISTINCT user_id FROM scrape_tasks WHERE held IS NOT NULL")
            .fetch_all(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "reading whose schedules wait",
            })
    }

    /// The oldest ticks that are due. One that waits, for a run's end or for room and its owner is one of the `full`, is looked at when that has
    /// ended, or when its deadline is over.
    async fn due_ticks(&self, now: Timestamp, full: &[Uuid]) -> Result<Vec<Due>, LedgerError> {
        sqlx::query_as(
            "SELECT uid, user_id, name, spec, spec_hash, priority, cron, time_zone, ttl_seconds, concurrency_policy,
                    starting_deadline_seconds, held IS NOT NULL AS was_held,
                    (extract(epoch FROM next_run_at) * 1000)::bigint AS tick_milliseconds
             FROM scrape_tasks s
             WHERE NOT suspend AND cron IS NOT NULL AND next_run_at <= to_timestamp($1::double precision / 1000)
                 AND NOT (next_run_at + make_interval(secs => coalesce(starting_deadline_seconds, $2)::double precision)
                         >= to_timestamp($1::double precision / 1000)
                     AND (held IS NOT NULL AND user_id = ANY($4)
                         OR concurrency_policy = 'Forbid'
                             AND EXISTS (SELECT FROM tasks t WHERE t.source_uid = s.uid AND t.status IN ('pending', 'running'))))
                 AND NOT EXISTS (SELECT FROM users u WHERE u.id = s.user_id AND u.disabled_at IS NOT NULL)
             ORDER BY next_run_at LIMIT $3",
        )
        .bind(now.as_millisecond())
        .bind(i64::try_from(DEFAULT_STARTING_DEADLINE.get().as_secs()).unwrap_or(i64::MAX))
        .bind(BATCH)
        .bind(full)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading schedules",
        })
    }

    async fn tick(&self, due: &Due, rooms: &mut Rooms, now: Timestamp) -> Result<Ticked, LedgerError> {
        let doing = DatabaseSnafu { doing: DOING };
        let oldest = Timestamp::from_millisecond(due.tick_milliseconds).unwrap_or(now);
        let clock = due.clock();
        let span = clock.as_ref().map_or(
            Span {
                newest: oldest,
                earlier: 0,
            },
            |clock| span(clock, oldest, now),
        );
        // It was accepted by a version that understood it.
        let plan = due.spec.compile().ok();
        let host = plan.and_then(|plan| plan.url.host_str().map(str::to_owned));
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        lock(&mut transaction, &due.uid).await?;
        let open = open_runs(&mut transaction, &due.uid).await?;
        let policy = ConcurrencyPolicy::read(&due.concurrency_policy);
        let room = rooms.of(due.user_id);
        let act = match host {
            None => Act::Skip,
            Some(_) => decide(
                policy,
                !open.is_empty(),
                room.is_none_or(|room| room.free() > 0),
                now.duration_since(span.newest),
                due.deadline(),
            ),
        };
        let next = match act {
            Act::Wait | Act::Hold => Some(span.newest),
            Act::Start | Act::Replace | Act::Skip => clock.and_then(|clock| clock.next_after(now)),
        };
        let missed = span.earlier + i64::from(act == Act::Skip);
        let held = room.filter(|_| act == Act::Hold).map(|room| room.to_string());
        rooms.held += usize::from(held.is_some());
        if let Some(why) = held.as_ref().filter(|_| !due.was_held) {
            warn!(uid = due.uid, %why, "A scheduled run waits for a quota.");
        }
        if !advance(&mut transaction, due, (next, held.as_deref()), missed).await? {
            return Ok(Ticked::default());
        }
        let mut ticked = Ticked {
            started: 0,
            missed: u64::try_from(missed).unwrap_or_default(),
        };
        if let (Act::Start | Act::Replace, Some(host)) = (act, host) {
            for run in open.into_iter().filter(|_| act == Act::Replace) {
                cancel(&mut transaction, run).await?;
            }
            ticked.started += u64::from(insert_tick(&mut transaction, due, span.newest, &host).await?);
        }
        if due.was_held != held.is_some() && ticked.started == 0 {
            tell_waiting(&mut transaction, &due.uid).await?;
        }
        transaction.commit().await.context(doing)?;
        if act == Act::Start && ticked.started > 0 {
            rooms.started(due.user_id);
        }
        Ok(ticked)
    }
}

/// The runs of a task that are under way.
async fn open_runs(connection: &mut PgConnection, uid: &str) -> Result<Vec<TaskId>, LedgerError> {
    sqlx::query_scalar("SELECT id FROM tasks WHERE source_uid = $1 AND status IN ('pending', 'running') ORDER BY id")
        .bind(uid)
        .fetch_all(connection)
        .await
        .context(DatabaseSnafu { doing: DOING })
}

/// Moves the schedule on, unless somebody else did, or changed it since it was read: then it is read again.
async fn advance(
    connection: &mut PgConnection,
    due: &Due,
    (next, held): (Option<Timestamp>, Option<&str>),
    missed: i64,
) -> Result<bool, LedgerError> {
    let advanced = sqlx::query(
        "UPDATE scrape_tasks SET next_run_at = to_timestamp($3::double precision / 1000), missed_ticks = missed_ticks + $5,
             last_missed_at = CASE WHEN $5 > 0 THEN now() ELSE last_missed_at END, held = $6
         WHERE uid = $1 AND NOT suspend AND next_run_at = to_timestamp($2::double precision / 1000) AND spec_hash = $4",
    )
    .bind(&due.uid)
    .bind(due.tick_milliseconds)
    .bind(next.map(Timestamp::as_millisecond))
    .bind(&due.spec_hash)
    .bind(missed)
    .bind(held)
    .execute(connection)
    .await
    .context(DatabaseSnafu { doing: DOING })?;
    Ok(advanced.rows_affected() > 0)
}

/// Has the operator hear that a tick begins or ends to wait. It hears of a schedule with its newest run, so not before there is one.
async fn tell_waiting(connection: &mut PgConnection, uid: &str) -> Result<(), LedgerError> {
    sqlx::query(
        "INSERT INTO changes (uid, task_id) SELECT $1, id FROM tasks WHERE source_uid = $1 ORDER BY id DESC LIMIT 1",
    )
    .bind(uid)
    .execute(connection)
    .await
    .context(DatabaseSnafu { doing: DOING })
    .map(drop)
}

async fn insert_tick(
    connection: &mut PgConnection,
    due: &Due,
    tick: Timestamp,
    host: &str,
) -> Result<bool, LedgerError> {
    let id = TaskId::of_tick(&due.uid, tick.as_millisecond());
    let done: Option<TaskId> = sqlx::query_scalar(
        "WITH ticked AS (
             INSERT INTO schedule_ticks (uid, tick, task_id) VALUES ($1, to_timestamp($2::double precision / 1000), $3)
             ON CONFLICT DO NOTHING RETURNING task_id
         ), accepted AS (
             INSERT INTO tasks (id, user_id, name, priority, created_at, due_at, spec, spec_version, host, max_attempts, source_uid, spec_hash, ttl_seconds)
             SELECT task_id, $4, $5, $6, to_timestamp($2::double precision / 1000),
                    least(to_timestamp($2::double precision / 1000), now()), $7, $8, $9, $10, $1, $11, $12
             FROM ticked RETURNING id
         ), remembered AS (
             UPDATE scrape_tasks SET ran_spec_hash = $11 FROM accepted WHERE uid = $1
         ), counted AS (
             INSERT INTO owner_counter_deltas (user_id, total) SELECT $4, 1 FROM accepted
         ), told AS (
             INSERT INTO changes (uid, task_id) SELECT $1, id FROM accepted
         )
         SELECT id FROM accepted",
    )
    .bind(&due.uid)
    .bind(tick.as_millisecond())
    .bind(id)
    .bind(due.user_id)
    .bind(due.spec.name.as_deref().unwrap_or(&due.name))
    .bind(due.priority)
    .bind(&due.spec)
    .bind(selextract_task::SPEC_VERSION)
    .bind(host)
    .bind(i16::from(due.spec.max_retries) + 1)
    .bind(&due.spec_hash)
    .bind(due.ttl_seconds)
    .fetch_optional(connection)
    .await
    .context(DatabaseSnafu { doing: DOING })?;
    Ok(done.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(cron: &str) -> Clock {
        Clock::parse(cron, "UTC").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn of_the_ticks_that_are_due_the_newest_counts_and_the_others_are_told() {
        let hourly = clock("0 * * * *");
        for (oldest, now, newest, earlier) in [
            (
                "2026-11-25T10:00:00Z",
                "2026-11-25T10:00:00Z",
                "2026-11-25T10:00:00Z",
                0,
            ),
            (
                "2026-11-25T10:00:00Z",
                "2026-11-25T10:59:59Z",
                "2026-11-25T10:00:00Z",
                0,
            ),
            (
                "2026-11-25T10:00:00Z",
                "2026-11-25T13:07:00Z",
                "2026-11-25T13:00:00Z",
                3,
            ),
        ] {
            assert_eq!(
                span(&hourly, at(oldest), at(now)),
                Span {
                    newest: at(newest),
                    earlier
                },
                "{now}"
            );
        }
    }

    #[test]
    fn months_of_missed_minutes_are_found_quickly() {
        let started = std::time::Instant::now();
        let found = span(
            &clock("* * * * *"),
            at("2026-01-01T00:00:00Z"),
            at("2026-11-25T10:00:30Z"),
        );
        assert_eq!(found.newest, at("2026-11-25T10:00:00Z"));
        assert!(found.earlier > 1000, "{found:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[test]
    fn a_tick_follows_its_policy_within_its_deadline() {
        use ConcurrencyPolicy::{Allow, Forbid, Replace};
        let deadline = Duration::from_mins(1);
        for (policy, under_way, has_room, late, act) in [
            (Forbid, false, true, 0, Act::Start),
            (Forbid, true, true, 60, Act::Wait),
            (Forbid, true, true, 61, Act::Skip),
            (Allow, true, true, 0, Act::Start),
            (Replace, true, true, 0, Act::Replace),
            (Replace, false, true, 0, Act::Start),
            (Allow, false, true, 61, Act::Skip),
            (Forbid, false, false, 60, Act::Hold),
            (Forbid, true, false, 60, Act::Wait),
            (Replace, true, false, 0, Act::Replace),
            (Allow, true, false, 0, Act::Hold),
            (Allow, true, false, 61, Act::Skip),
        ] {
            let decided = decide(policy, under_way, has_room, SignedDuration::from_secs(late), deadline);
            assert_eq!(decided, act, "{policy:?} {under_way} {has_room} {late}");
        }
    }
}
