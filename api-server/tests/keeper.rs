//! Two keepers against a real PostgreSQL and a real Valkey: one works, the other takes over.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, net::TcpListener, time::Duration};

use anyhow::Result;
use jiff::Timestamp;
use selextract_api_server::keeper::{self, KeeperSettings};
use selextract_platform::{
    bootstrap,
    frontier::Frontier,
    ledger::{Ledger, PoolSettings, Secret, TaskId, UserId, scrape_tasks::CheckedUpsert, tasks::NewTask},
};
use selextract_task::{
    TaskSpec,
    feed::{OnChange, Schedule, Upsert},
};
use selextract_test_services::{Database, start};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_mins(1);

/// A platform without API and worker.
struct Platform {
    database: Database,
    redis: String,
    ledger: Ledger,
    frontier: Frontier,
}

/// A keeper that runs.
struct Keeper {
    metrics: String,
    end: CancellationToken,
    run: JoinHandle<Result<()>>,
}

impl Platform {
    async fn new() -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = start().database().unwrap();
        let redis = start().redis_url().unwrap();
        bootstrap::migrate(&Secret(database.direct_url.clone()), Timestamp::now())
            .await
            .unwrap();
        let ledger = Ledger::connect_lazy(&PoolSettings {
            url: Secret(database.url.clone()),
            max_connections: 4,
            min_connections: 0,
            acquire_timeout: Duration::from_secs(10),
            max_lifetime: LEASE,
            application_name: "a-test",
        });
        Self {
            ledger: ledger.unwrap(),
            frontier: Frontier::connect_lazy(&Secret(redis.clone())).unwrap(),
            database,
            redis,
        }
    }

    fn keeper(&self, name: &str) -> Keeper {
        self.keeper_with_redis(name, &self.redis)
    }

    fn keeper_with_redis(&self, name: &str, redis: &str) -> Keeper {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = KeeperSettings {
            database_direct_url: self.database.direct_url.clone(),
            redis_queue_url: redis.to_owned(),
            name: name.to_owned(),
            telemetry_addr: ([127, 0, 0, 1], port).into(),
            refill_interval: "1s".parse().unwrap(),
            sweep_interval: "1s".parse().unwrap(),
            retention: "90d".parse().unwrap(),
            partitions_ahead: 3,
        };
        let end = CancellationToken::new();
        Keeper {
            metrics: format!("http://127.0.0.1:{port}"),
            run: tokio::spawn(keeper::run(settings, end.clone())),
            end,
        }
    }

    async fn accept(&self) -> TaskId {
        let task = NewTask {
            spec: spec(),
            host: "site.test".to_owned(),
            priority: 5,
            ttl: None,
        };
        self.ledger.accept(UserId::new(), &task, None).await.unwrap().id
    }

    /// Takes from the frontier until `count` tasks came.
    async fn take(&self, count: usize) -> HashSet<TaskId> {
        let mut taken = HashSet::new();
        wait_for("the tasks to come to the frontier", async || {
            taken.extend(self.frontier.take(100).await.unwrap().ids);
            taken.len() >= count
        })
        .await;
        taken
    }

    fn sql(&self, sql: &str) -> String {
        start().sql(&self.database.name, sql).unwrap()
    }
}

impl Keeper {
    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("{}{path}", self.metrics)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// The value of a metric.
    async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    async fn is_active(&self) -> bool {
        self.metric("selextract_keeper_active ").await == Some(1.0)
    }

    async fn end(self) {
        self.end.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.run)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

async fn wait_for(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    for _ in 0..300 {
        if reached().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(reached().await, "waited 30 s for {what}");
}

fn spec() -> TaskSpec {
    serde_json::from_value(serde_json::json!({
        "url": "http://site.test/list", "items": "li", "fields": [{ "name": "title", "selector": "a" }],
    }))
    .unwrap()
}

#[tokio::test]
async fn one_of_two_keepers_works_and_the_other_takes_over_when_it_ends() {
    let platform = Platform::new().await;
    let (first, second) = (platform.keeper("first"), platform.keeper("second"));
    wait_for("one keeper to be active", async || {
        first.is_active().await || second.is_active().await
    })
    .await;
    // Some turns later it is the same one, and the other is ready to take over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_ne!(first.is_active().await, second.is_active().await);
    for keeper in [&first, &second] {
        assert_eq!(keeper.get("/readyz").await.unwrap().0, 200);
        assert_eq!(keeper.get("/healthz").await.unwrap().0, 200);
    }
    let (active, waiting) = if first.is_active().await {
        (first, second)
    } else {
        (second, first)
    };
    active.end().await;
    let id = platform.accept().await;
    wait_for("the other keeper to take over", async || waiting.is_active().await).await;
    assert_eq!(platform.take(1).await, HashSet::from([id]));
    waiting.end().await;
}

#[tokio::test]
async fn a_keeper_that_dies_without_a_word_is_replaced_when_its_lease_expires() {
    let platform = Platform::new().await;
    let dead = platform.keeper("dead");
    wait_for("the keeper to be active", async || dead.is_active().await).await;
    dead.run.abort();
    let heir = platform.keeper("heir");
    wait_for("the heir to be ready", async || {
        heir.get("/readyz").await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    assert!(!heir.is_active().await, "the lease has not expired");
    wait_for("the heir to take over", async || heir.is_active().await).await;
    heir.end().await;
}

#[tokio::test]
async fn a_lost_offer_and_an_expired_lease_come_back() {
    let platform = Platform::new().await;
    let (lost, held) = (platform.accept().await, platform.accept().await);
    platform
        .ledger
        .claim(&[held], "a-worker", Duration::ZERO)
        .await
        .unwrap();
    let keeper = platform.keeper("keeper");
    assert_eq!(platform.take(2).await, HashSet::from([lost, held]));
    let claims = platform.ledger.claim(&[lost, held], "another", LEASE).await.unwrap();
    assert_eq!(claims.len(), 2);
    wait_for("the gauges to say so", async || {
        keeper.metric("selextract_tasks{state=\"running\"}").await == Some(2.0)
            && keeper
                .metric("selextract_leases_expired_total{outcome=\"returned\"}")
                .await
                == Some(1.0)
    })
    .await;
    assert_eq!(
        platform.sql("SELECT sum(total) FROM owner_counters"),
        "2",
        "counters are folded"
    );
    keeper.end().await;
}

#[tokio::test]
async fn a_due_tick_reaches_the_frontier_once_with_two_keepers() {
    let platform = Platform::new().await;
    let item = Upsert {
        uid: "uid".to_owned(),
        namespace: "shop".to_owned(),
        name: "prices".to_owned(),
        spec_hash: "a".to_owned(),
        task: spec(),
        priority: 5,
        suspend: false,
        schedule: Some(Schedule {
            cron: "* * * * *".to_owned(),
            time_zone: "UTC".to_owned(),
        }),
        on_change: OnChange::Replace,
        ttl_after_finished: None,
        successful_runs_history_limit: None,
        failed_runs_history_limit: None,
    };
    let checked = CheckedUpsert {
        item,
        host: "site.test".to_owned(),
    };
    let minute_ago = Timestamp::now() - jiff::SignedDuration::from_mins(1);
    platform.ledger.upsert_scrape_task(&checked, minute_ago).await.unwrap();
    let keepers = [platform.keeper("first"), platform.keeper("second")];
    let taken = platform.take(1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let runs: i64 = platform.sql("SELECT count(*) FROM tasks").parse().unwrap();
    let ticks: i64 = platform.sql("SELECT count(*) FROM schedule_ticks").parse().unwrap();
    // The clock may have gone on to the next minute meanwhile.
    assert!((1..=2).contains(&runs) && runs == ticks, "{runs} runs, {ticks} ticks");
    assert!(!taken.is_empty());
    for keeper in keepers {
        keeper.end().await;
    }
}

#[tokio::test]
async fn without_redis_the_keeper_still_makes_partitions_and_takes_leases_back() {
    let platform = Platform::new().await;
    let id = platform.accept().await;
    platform.ledger.claim(&[id], "a-worker", Duration::ZERO).await.unwrap();
    let keeper = platform.keeper_with_redis("keeper", "redis://127.0.0.1:1/0");
    wait_for("the lease to be taken back", async || {
        platform.ledger.task(None, id).await.unwrap().unwrap().status == "pending"
    })
    .await;
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'tasks'::regclass";
    assert_eq!(platform.sql(months), "4");
    keeper.end().await;
}
