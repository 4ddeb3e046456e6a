//! A migrated database of one test's own, and what tests put into it.

use std::time::Duration;

use jiff::Timestamp;
use selextract_platform::{
    bootstrap,
    frontier::Frontier,
    ledger::{
        Ledger, PoolSettings, Secret, TaskId, UserId,
        claims::{Claim, Ending, NewPage, Record},
        scrape_tasks::{CheckedUpsert, Upserted},
        tasks::{NewTask, TaskDetail},
    },
};
use selextract_task::{
    TaskSpec,
    feed::{OnChange, RunError, Schedule, Upsert},
};
use selextract_test_services::{Database, start};
use sqlx::{PgPool, postgres::PgPoolOptions};

/// Longer than any test; an expired lease is made by [`Room::expire_lease`].
pub const LEASE: Duration = Duration::from_mins(1);

/// A migrated database.
pub struct Room {
    pub database: Database,
    /// As API and workers have it: through `PgBouncer`, as `selextract_app`.
    pub ledger: Ledger,
    /// As the keeper has it: straight, as `selextract_owner`.
    pub keeper: Ledger,
    /// To look at what no function tells.
    pub owner: PgPool,
}

impl Room {
    pub async fn new() -> Self {
        let database = start().database().unwrap();
        bootstrap::migrate(&Secret(database.direct_url.clone()), Timestamp::now())
            .await
            .unwrap();
        let owner = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy(&database.direct_url);
        Self {
            ledger: ledger(&database.url),
            keeper: ledger(&database.direct_url),
            owner: owner.unwrap(),
            database,
        }
    }

    pub async fn accept(&self, owner: UserId) -> TaskId {
        self.ledger.accept(owner, &new_task(), None).await.unwrap().id
    }

    /// Writes a `ScrapeTask` for its namespace's owner.
    pub async fn upsert(&self, item: &CheckedUpsert, now: Timestamp) -> Upserted {
        let owner = self.ledger.namespace_owner(&item.item.namespace).await.unwrap();
        self.ledger.upsert_scrape_task(item, owner, now).await.unwrap()
    }

    /// Claims this one task.
    pub async fn claim(&self, id: TaskId) -> Option<Claim> {
        let mut claims = self.ledger.claim(&[id], "a-worker", LEASE).await.unwrap();
        assert!(claims.len() <= 1);
        claims.pop()
    }

    /// Commits page `number` of a run that was claimed, and lets the run go.
    pub async fn commit_and_let_go(&self, claim: &Claim, number: i32, ending: &Ending, units: u64) {
        let committed = self.ledger.commit_page(claim.lease(), &page(number), LEASE).await;
        committed.unwrap().unwrap();
        let ended = self.ledger.finish(claim.lease(), ending, units).await;
        ended.unwrap().unwrap();
    }

    pub async fn task(&self, id: TaskId) -> TaskDetail {
        self.ledger.task(None, id).await.unwrap().unwrap()
    }

    pub async fn expire_lease(&self, id: TaskId) {
        self.sql(&format!(
            "UPDATE tasks SET lease_until = now() - interval '1 second' WHERE id = '{id}'"
        ))
        .await;
    }

    /// Makes a schedule's next tick one of a moment ago.
    pub async fn make_due(&self, uid: &str) {
        self.sql(&format!(
            "UPDATE scrape_tasks SET next_run_at = date_trunc('milliseconds', now() - interval '1 second') WHERE uid = '{uid}'"
        ))
        .await;
    }

    pub async fn sql(&self, sql: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(&self.owner)
            .await
            .unwrap();
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.owner)
            .await
            .unwrap()
    }

    pub async fn texts(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_all(&self.owner)
            .await
            .unwrap()
    }
}

pub fn ledger(url: &str) -> Ledger {
    small_ledger(url, 8)
}

/// With this many connections at the most.
pub fn small_ledger(url: &str, max_connections: u32) -> Ledger {
    Ledger::connect_lazy(&PoolSettings {
        url: Secret(url.to_owned()),
        max_connections,
        min_connections: 0,
        acquire_timeout: Duration::from_secs(10),
        max_lifetime: Duration::from_mins(10),
        application_name: "a-test",
    })
    .unwrap()
}

/// A frontier that has known all hosts for long: one that is not in it has not been visited lately.
pub async fn frontier() -> Frontier {
    let url = start().redis_url().unwrap();
    knows_all_hosts(&url).await;
    Frontier::connect_lazy(&Secret(url)).unwrap()
}

/// As if this Redis had been there for ever, so that a host that it does not know was not visited.
pub async fn knows_all_hosts(url: &str) {
    ::redis::cmd("SET")
        .arg("sx:born")
        .arg(0)
        .exec_async(&mut redis(url).await)
        .await
        .unwrap();
}

/// A connection of a test's own, to look at what no function tells.
pub async fn redis(url: &str) -> ::redis::aio::MultiplexedConnection {
    let client = ::redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

pub fn spec() -> TaskSpec {
    serde_json::from_value(serde_json::json!({
        "url": "http://site.test/list", "items": "li", "fields": [{ "name": "title", "selector": "a" }], "maxRetries": 1,
    }))
    .unwrap()
}

pub fn new_task() -> NewTask {
    NewTask {
        spec: spec(),
        host: "site.test".to_owned(),
        priority: 5,
        ttl: None,
    }
}

/// Page `number` with one record, which goes on to the next one.
pub fn page(number: i32) -> NewPage {
    NewPage {
        number,
        url: format!("http://site.test/list/{number}"),
        next_url: Some(format!("http://site.test/list/{}", number + 1)),
        records: vec![Record::from_iter([("title".to_owned(), number.into())])],
        ..NewPage::default()
    }
}

pub fn error() -> RunError {
    RunError {
        class: "Timeout".to_owned(),
        message: "the page took too long".to_owned(),
    }
}

/// A one-shot `ScrapeTask`.
pub fn upsert(uid: &str, spec_hash: &str) -> CheckedUpsert {
    CheckedUpsert {
        item: Upsert {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            name: "prices".to_owned(),
            spec_hash: spec_hash.to_owned(),
            task: spec(),
            priority: 5,
            suspend: false,
            schedule: None,
            on_change: OnChange::Replace,
            ttl_after_finished: None,
            successful_runs_history_limit: None,
            failed_runs_history_limit: None,
        },
        host: "site.test".to_owned(),
        no_room: None,
    }
}

/// A `ScrapeTask` that runs each hour.
pub fn hourly(uid: &str) -> CheckedUpsert {
    let mut hourly = upsert(uid, "a");
    hourly.item.schedule = Some(Schedule {
        cron: "0 * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        ..Schedule::default()
    });
    hourly
}
