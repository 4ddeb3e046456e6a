//! Two keepers against a real PostgreSQL and a real Valkey: one works, the other takes over.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod poolers;

use std::{
    collections::HashSet,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use axum::Router;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use selextract_api_server::{
    keeper::{self, KeeperSettings},
    routes::webhooks,
    sealed::Seal,
};
use selextract_platform::{
    artifacts::ArtifactSettings,
    bootstrap,
    frontier::{Entry, Frontier, QUEUE_WINDOW, WINDOW},
    ledger::{
        Ledger, PoolSettings, Secret, TaskId, UserId,
        claims::Ending,
        crawl::{Begun, CrawlKind, CrawlStart, FoundPage},
        scrape_tasks::{CheckedUpsert, Upserted},
        tasks::NewTask,
        webhooks::PER_OWNER,
    },
    timings::Timings,
};
use selextract_task::{
    TaskSpec,
    feed::{OnChange, RunError, Schedule, Upsert},
};
use selextract_test_services::{Database, ObjectStore, PASSWORD, start};
use sqlx::Connection;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

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

    async fn upsert(&self, item: &CheckedUpsert, now: Timestamp) -> Upserted {
        let owner = self.ledger.namespace_owner(&item.item.namespace).await.unwrap();
        self.ledger.upsert_scrape_task(item, owner, now).await.unwrap()
    }

    fn keeper(&self, name: &str) -> Keeper {
        self.keeper_with_redis(name, &self.redis)
    }

    fn keeper_with_redis(&self, name: &str, redis: &str) -> Keeper {
        self.keeper_with(name, |settings| redis.clone_into(&mut settings.redis_queue_url))
    }

    fn keeper_with(&self, name: &str, change: impl FnOnce(&mut KeeperSettings)) -> Keeper {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut settings = KeeperSettings {
            database_direct_url: self.database.direct_url.clone(),
            redis_queue_url: self.redis.clone(),
            database_url: None,
            poolers: Vec::new(),
            postgres_storage: None,
            redis_queue_storage: None,
            redis_cache_url: None,
            data_key: None,
            egress_proxy: None,
            name: name.to_owned(),
            telemetry_addr: ([127, 0, 0, 1], port).into(),
            refill_interval: "1s".parse().unwrap(),
            sweep_interval: "1s".parse().unwrap(),
            retention: "90d".parse().unwrap(),
            partitions_ahead: 3,
            artifacts: ArtifactSettings::default(),
        };
        change(&mut settings);
        let end = CancellationToken::new();
        Keeper {
            metrics: format!("http://127.0.0.1:{port}"),
            run: tokio::spawn(keeper::run(settings, Timings::new().unwrap(), end.clone())),
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
async fn a_few_tasks_come_to_a_frontier_that_another_owners_backlog_fills() {
    let platform = Platform::new().await;
    let many = UserId::new();
    let of_many: Vec<Entry> = (0..WINDOW)
        .map(|n| Entry {
            id: TaskId::new(),
            owner: many,
            host: format!("host-{}.test", n / QUEUE_WINDOW),
            priority: 5,
            due_milliseconds: 0,
        })
        .collect();
    for some in of_many.chunks(10_000) {
        // A busy machine may not answer in time; what is there already stays.
        wait_for("the frontier to take them", async || {
            platform.frontier.offer(some).await.is_ok()
        })
        .await;
    }
    // And more of it waits, older than what the other one has.
    platform.sql(&format!(
        "INSERT INTO tasks (id, user_id, created_at, due_at, spec, spec_version, host, max_attempts)
         SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - 10000 + n / 4000), 12, '0') || '7' || lpad(to_hex(n % 4000), 3, '0')
                 || '8' || substr(md5(n::text), 1, 15))::uuid, '{many}', now(), now(), '{{}}', 1, 'host-' || n % 300 || '.test', 1
         FROM generate_series(0, 29999) n"
    ));
    let mut few = HashSet::new();
    for _ in 0..10 {
        few.insert(platform.accept().await.to_string());
    }
    let client = redis::Client::open(platform.redis.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keeper = platform.keeper("a");
    wait_for("the few tasks to come to the frontier", async || {
        let mut there = 0;
        for id in &few {
            there += redis::cmd("HEXISTS")
                .arg("sx:entries")
                .arg(id)
                .query_async::<usize>(&mut connection)
                .await
                .unwrap();
        }
        there == few.len()
    })
    .await;
    let held: usize = redis::cmd("HLEN")
        .arg("sx:entries")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(held, WINDOW);
    keeper.end().await;
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
async fn a_crawls_lost_offers_and_its_pages_of_a_lost_worker_come_back() {
    let platform = Platform::new().await;
    let id = platform.accept().await;
    let claims = platform.ledger.claim(&[id], "a-worker", LEASE).await.unwrap();
    let start = CrawlStart {
        found: ["a", "b"]
            .map(|path| FoundPage {
                kind: CrawlKind::Page,
                url: format!("http://site.test/{path}"),
                host: "site.test".to_owned(),
                depth: 0,
            })
            .to_vec(),
        max_pages: 10,
        ..CrawlStart::default()
    };
    let begun = platform.ledger.begin_crawl(claims[0].lease(), &start).await.unwrap();
    let Ok(Begun::Open(entries)) = begun else {
        panic!("{begun:?}")
    };
    let pages: HashSet<TaskId> = entries.iter().map(|entry| entry.id).collect();
    let held = platform
        .ledger
        .claim_crawl_pages(&[entries[0].id], "a-worker", Duration::ZERO)
        .await;
    assert_eq!(held.unwrap().len(), 1);
    let keeper = platform.keeper("keeper");
    assert_eq!(platform.take(2).await, pages);
    let ids: Vec<TaskId> = pages.into_iter().collect();
    let claims = platform.ledger.claim_crawl_pages(&ids, "another", LEASE).await.unwrap();
    assert_eq!(claims.len(), 2);
    keeper.end().await;
}

fn scrape_task(schedule: Option<Schedule>) -> CheckedUpsert {
    let item = Upsert {
        uid: "uid".to_owned(),
        namespace: "shop".to_owned(),
        name: "prices".to_owned(),
        spec_hash: "a".to_owned(),
        task: spec(),
        priority: 5,
        suspend: false,
        schedule,
        on_change: OnChange::Replace,
        ttl_after_finished: None,
        successful_runs_history_limit: None,
        failed_runs_history_limit: None,
    };
    CheckedUpsert {
        item,
        host: "site.test".to_owned(),
        no_room: None,
    }
}

#[tokio::test]
async fn a_run_that_no_worker_takes_says_so_when_it_has_waited_for_a_minute() {
    let platform = Platform::new().await;
    let item = scrape_task(None);
    platform.upsert(&item, Timestamp::now()).await;
    platform.sql("UPDATE tasks SET created_at = now() - interval '1 minute'");
    let keeper = platform.keeper("keeper");
    wait_for("the keeper to see why it waits", async || {
        platform.sql("SELECT reason FROM run_waits") == "NoWorker"
    })
    .await;
    let told = async || {
        let answer = platform.upsert(&item, Timestamp::now()).await;
        answer.answer.run.unwrap().waiting
    };
    assert_eq!(told().await, None, "it may pass");
    platform.sql("UPDATE run_waits SET since = since - interval '1 minute'");
    wait_for("the feed to tell", async || told().await.as_deref() == Some("NoWorker")).await;
    keeper.end().await;
}

#[tokio::test]
async fn a_due_tick_reaches_the_frontier_once_with_two_keepers() {
    let platform = Platform::new().await;
    let checked = scrape_task(Some(Schedule {
        cron: "* * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        ..Schedule::default()
    }));
    let minute_ago = Timestamp::now() - jiff::SignedDuration::from_mins(1);
    platform.upsert(&checked, minute_ago).await;
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

/// What stands behind the egress proxy: it refuses the first time and takes the second.
async fn receiver() -> (Url, mpsc::UnboundedReceiver<(HeaderMap, String)>) {
    let (sender, received) = mpsc::unbounded_channel();
    let refused = Arc::new(AtomicBool::new(false));
    let take = move |headers: HeaderMap, body: String| {
        sender.send((headers, body)).unwrap();
        let status = if refused.swap(true, Ordering::Relaxed) {
            StatusCode::NO_CONTENT
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        async move { status }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().fallback(take)).into_future());
    (format!("http://{address}").parse().unwrap(), received)
}

#[tokio::test]
async fn a_webhook_hears_of_a_failed_run_through_the_proxy_again_until_it_takes_it() {
    let platform = Platform::new().await;
    let (proxy, mut received) = receiver().await;
    let keys = r#"{"current":"d","keys":{"d":"bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE="}}"#;
    let (owner, hook) = (UserId::new(), Uuid::now_v7());
    let secret = Seal::parse(keys)
        .unwrap()
        .seal(&webhooks::place(hook), "whsec_a2V5")
        .unwrap();
    let events = ["task.finished".to_owned(), "task.failed".to_owned()];
    let ledger = &platform.ledger;
    ledger
        .create_webhook(owner, hook, "http://hook.test/in", &events, &secret)
        .await
        .unwrap();
    let task = NewTask {
        spec: spec(),
        host: "site.test".to_owned(),
        priority: 5,
        ttl: None,
    };
    let id = ledger.accept(owner, &task, None).await.unwrap().id;
    let claim = ledger.claim(&[id], "a-worker", LEASE).await.unwrap().remove(0);
    let error = RunError {
        class: "Timeout".to_owned(),
        message: "it took too long".to_owned(),
    };
    ledger
        .finish(claim.lease(), &Ending::Failed(error), 0)
        .await
        .unwrap()
        .unwrap();
    let keeper = platform.keeper_with("keeper", |settings| {
        settings.data_key = Some(keys.to_owned());
        settings.egress_proxy = Some(proxy);
    });
    let mut ids = HashSet::new();
    for _ in 0..2 {
        let told = tokio::time::timeout(Duration::from_secs(30), received.recv()).await;
        let (headers, body) = told.unwrap().unwrap();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("host"), "hook.test");
        ids.insert(header("webhook-id"));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"key");
        let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
        let tag = BASE64_STANDARD
            .decode(header("webhook-signature").strip_prefix("v1,").unwrap())
            .unwrap();
        assert!(ring::hmac::verify(&key, signed.as_bytes(), &tag).is_ok());
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&body["type"], &body["data"]["id"]),
            (&"task.failed".into(), &id.to_string().into())
        );
        assert_eq!(body["data"]["error"]["class"], "Timeout");
    }
    assert_eq!(ids.len(), 1, "every attempt has the same id");
    wait_for("the delivery to be noted", async || {
        let told = platform.ledger.deliveries(Some(owner), hook).await.unwrap().unwrap();
        told[0].status == "delivered" && told[0].attempts == 2 && told[0].answer.as_deref() == Some("204")
    })
    .await;
    keeper.end().await;
}

const KEYS: &str = r#"{"current":"d","keys":{"d":"bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE="}}"#;

impl Platform {
    /// A webhook of a new owner with so many deliveries that are due.
    async fn webhook(&self, host: &str, deliveries: usize) -> (UserId, Uuid) {
        let (owner, hook) = (UserId::new(), Uuid::now_v7());
        let secret = Seal::parse(KEYS)
            .unwrap()
            .seal(&webhooks::place(hook), "whsec_a2V5")
            .unwrap();
        let events = ["task.finished".to_owned()];
        self.ledger
            .create_webhook(owner, hook, &format!("http://{host}/in"), &events, &secret)
            .await
            .unwrap();
        self.deliver(hook, deliveries);
        (owner, hook)
    }

    fn deliver(&self, hook: Uuid, deliveries: usize) {
        self.sql(&format!(
            "INSERT INTO webhook_deliveries (id, webhook_id, task_id, event, body)
             SELECT gen_random_uuid(), '{hook}', gen_random_uuid(), 'task.finished', '{{}}' FROM generate_series(1, {deliveries})"
        ));
    }

    fn telling_keeper(&self, proxy: &Url) -> Keeper {
        self.keeper_with("keeper", |settings| {
            settings.data_key = Some(KEYS.to_owned());
            settings.egress_proxy = Some(proxy.clone());
        })
    }
}

/// What stands behind the egress proxy: each host answers as its name says.
async fn receivers() -> Url {
    let answer = async |headers: HeaderMap| match headers["host"].to_str().unwrap() {
        "hangs.test" => std::future::pending().await,
        "gone.test" => StatusCode::GONE,
        _ => StatusCode::NO_CONTENT,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    format!("http://{address}").parse().unwrap()
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_delays_nobody_elses_deliveries() {
    let platform = Platform::new().await;
    platform.webhook("hangs.test", 200).await;
    let (_, hook) = platform.webhook("answers.test", 0).await;
    let keeper = platform.telling_keeper(&receivers().await);
    wait_for("the slow ones to be under way", async || {
        platform.sql("SELECT count(*) > 0 FROM webhook_deliveries WHERE attempts > 0") == "t"
    })
    .await;
    for round in 1..=3 {
        platform.deliver(hook, 2);
        let told =
            format!("SELECT count(*) FROM webhook_deliveries WHERE webhook_id = '{hook}' AND status = 'delivered'");
        let delivered = async {
            while platform.sql(&told) != (2 * round).to_string() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        // Far less than the slow ones take, one round after the other.
        tokio::time::timeout(Duration::from_secs(30), delivered).await.unwrap();
    }
    let tried: usize = platform
        .sql("SELECT count(*) FROM webhook_deliveries WHERE attempts > 0 AND status = 'pending'")
        .parse()
        .unwrap();
    assert!(tried <= 2 * PER_OWNER, "{tried}");
    keeper.end().await;
}

#[tokio::test]
async fn a_delivery_that_is_sent_again_reaches_a_receiver_that_had_gone() {
    let platform = Platform::new().await;
    let (owner, hook) = platform.webhook("gone.test", 1).await;
    let keeper = platform.telling_keeper(&receivers().await);
    let ledger = &platform.ledger;
    wait_for("the webhook to be disabled", async || {
        ledger.webhooks(owner).await.unwrap()[0].disabled_at.is_some()
    })
    .await;
    platform.sql(&format!(
        "UPDATE webhooks SET url = 'http://answers.test/in' WHERE id = '{hook}'"
    ));
    let id = ledger.deliveries(Some(owner), hook).await.unwrap().unwrap()[0].id;
    assert!(ledger.resend(Some(owner), id).await.unwrap());
    wait_for("the delivery", async || {
        ledger.deliveries(Some(owner), hook).await.unwrap().unwrap()[0].status == "delivered"
    })
    .await;
    assert!(ledger.webhooks(owner).await.unwrap()[0].disabled_at.is_none());
    keeper.end().await;
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

#[tokio::test]
async fn the_keeper_removes_objects_that_nothing_refers_to() {
    let platform = Platform::new().await;
    let store = ObjectStore::start(None).unwrap();
    let artifacts = ArtifactSettings {
        s3_bucket: Some(ObjectStore::BUCKET.to_owned()),
        s3_endpoint: Some(store.endpoint()),
        s3_force_path_style: true,
        s3_access_key_id: Some(Secret(ObjectStore::ACCESS_KEY_ID.to_owned())),
        s3_secret_access_key: Some(Secret(PASSWORD.to_owned())),
        ..ArtifactSettings::default()
    };
    let mut orphan = sqlx::PgConnection::connect(&platform.database.direct_url)
        .await
        .unwrap();
    sqlx::raw_sql(
        "INSERT INTO artifact_removals (object) VALUES ('selextract/a');
         INSERT INTO artifact_uploads VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 'selextract/b', now() - interval '1 day')",
    )
    .execute(&mut orphan)
    .await
    .unwrap();
    let keeper = platform.keeper_with("a", |settings| settings.artifacts = artifacts);
    wait_for("the outbox to be empty", async || {
        let left = "SELECT (SELECT count(*) FROM artifact_removals) + (SELECT count(*) FROM artifact_uploads)";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&mut orphan).await.unwrap();
        left == 0
    })
    .await;
    keeper.end().await;
}
