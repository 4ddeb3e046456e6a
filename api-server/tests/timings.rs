//! The programs as they are shipped, in front of real stores: what they wait for is measured, and nothing of it is printed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::{fs, net::TcpListener, process::Stdio, time::Duration};

use reqwest::Client;
use selextract_api_server::auth::password::hash_once;
use selextract_platform::{bootstrap, ledger::Secret};
use selextract_test_services::start;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const PASSWORD: &str = "the-admin-of-a-test";
const KEYS: &str = r#"{ "current": "a", "keys": { "a": "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=" } }"#;

/// A program that runs until it is dropped.
struct Program {
    _child: Child,
    folder: TempDir,
    telemetry: u16,
    client: Client,
}

impl Program {
    fn start(path: &str, telemetry: u16, environment: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(path)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("SELEXTRACT_TELEMETRY_ADDR", format!("127.0.0.1:{telemetry}"))
            .stdout(Stdio::from(fs::File::create(folder.path().join("log")).unwrap()))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            _child: child,
            folder,
            telemetry,
            client: Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap(),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    async fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", self.telemetry);
        let Ok(answer) = self.client.get(url).send().await else {
            return String::new();
        };
        answer.text().await.unwrap_or_default()
    }

    /// Waits until each of the series has a value above 0; returns all of the metrics.
    async fn counts(&self, series: &[&str]) -> String {
        let mut metrics = String::new();
        for _ in 0..150 {
            metrics = self.metrics().await;
            if series.iter().all(|series| value(&metrics, series) > Some(0.0)) {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let missing: Vec<_> = series
            .iter()
            .filter(|series| value(&metrics, series).unwrap_or_default() <= 0.0)
            .collect();
        panic!("waited 30 s for {missing:#?} in {metrics}; the log: {}", self.log());
    }
}

fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line?.parse().ok()
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_request_leaves_its_statements_and_commands_in_the_histograms_and_none_in_the_log() {
    let database = start().database().unwrap();
    let owner = Secret(database.direct_url.clone());
    bootstrap::migrate(&owner, jiff::Timestamp::now()).await.unwrap();
    bootstrap::ensure_admin(&owner, &hash_once(PASSWORD).unwrap())
        .await
        .unwrap();
    let public = port();
    let environment = [
        ("SELEXTRACT_DATABASE_URL", database.url),
        ("SELEXTRACT_REDIS_QUEUE_URL", start().redis_url().unwrap()),
        ("SELEXTRACT_REDIS_CACHE_URL", start().redis_url().unwrap()),
        ("SELEXTRACT_TOKEN_KEYS", KEYS.to_owned()),
        ("SELEXTRACT_PUBLIC_ADDR", format!("127.0.0.1:{public}")),
    ];
    let api = Program::start(env!("CARGO_BIN_EXE_selextract-api"), port(), &environment);
    let probes = ["postgres", "redis-queue", "redis-cache"]
        .map(|to| format!("selextract_round_trip_seconds_count{{to=\"{to}\"}}"));
    api.counts(&probes.each_ref().map(String::as_str)).await;

    let url = |path: &str| format!("http://127.0.0.1:{public}/api/v1{path}");
    let login = json!({ "username": "admin", "password": PASSWORD });
    let answer = api.client.post(url("/auth/login")).json(&login).send().await.unwrap();
    let answer: serde_json::Value = answer.error_for_status().unwrap().json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap();
    let task = json!({ "url": "http://site.test/", "items": "li", "fields": [{ "name": "title", "selector": "a" }] });
    let accepted = api
        .client
        .post(url("/tasks"))
        .bearer_auth(token)
        .json(&task)
        .send()
        .await;
    accepted.unwrap().error_for_status().unwrap();

    let metrics = api
        .counts(&[
            "selextract_database_query_duration_seconds_count{operation=\"select\"}",
            "selextract_database_query_duration_seconds_count{operation=\"with\"}",
            "selextract_database_acquire_duration_seconds_count",
            "selextract_redis_operation_duration_seconds_count{operation=\"offer\",redis=\"queue\"}",
            "selextract_redis_operation_duration_seconds_count{operation=\"take_tokens\",redis=\"cache\"}",
            "selextract_database_pool_connections{pool=\"primary\",state=\"idle\"}",
            "selextract_database_pool_limit{pool=\"replica\"}",
        ])
        .await;
    assert_eq!(
        value(&metrics, "selextract_database_pool_limit{pool=\"primary\"}"),
        Some(50.0)
    );
    assert!(!metrics.contains("operation=\"other\""), "a probe is no statement");
    let log = api.log();
    assert!(log.contains("The API listens."), "{log}");
    assert!(!log.contains("sqlx"), "{log}");
}

#[tokio::test]
async fn the_keeper_measures_what_it_waits_for() {
    let database = start().database().unwrap();
    let owner = Secret(database.direct_url.clone());
    bootstrap::migrate(&owner, jiff::Timestamp::now()).await.unwrap();
    let environment = [
        ("SELEXTRACT_DATABASE_DIRECT_URL", database.direct_url),
        ("SELEXTRACT_DATABASE_URL", database.url),
        ("SELEXTRACT_REDIS_QUEUE_URL", start().redis_url().unwrap()),
        ("SELEXTRACT_REDIS_CACHE_URL", start().redis_url().unwrap()),
    ];
    let keeper = Program::start(env!("CARGO_BIN_EXE_selextract-keeper"), port(), &environment);
    keeper
        .counts(&[
            "selextract_database_query_duration_seconds_count{operation=\"select\"}",
            "selextract_redis_operation_duration_seconds_count{operation=\"size\",redis=\"queue\"}",
            "selextract_round_trip_seconds_count{to=\"postgres\"}",
            "selextract_round_trip_seconds_count{to=\"redis-cache\"}",
            "selextract_database_pool_connections{pool=\"direct\",state=\"idle\"}",
            "selextract_database_pool_limit{pool=\"pooler\"}",
        ])
        .await;
}
