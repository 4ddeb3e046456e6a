//! The worker as it is shipped, in front of real stores: what it waits for is measured.

use std::{
    net::TcpListener,
    process::Stdio,
    time::{Duration, Instant},
};

use selextract_platform::{bootstrap, ledger::Secret};
use selextract_test_services::start;
use tokio::{process::Command, time::sleep};

#[tokio::test]
async fn a_worker_that_is_asked_whether_it_is_ready_has_measured_its_ways() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let database = start().database().unwrap();
    bootstrap::migrate(&Secret(database.direct_url.clone()), jiff::Timestamp::now())
        .await
        .unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _worker = Command::new(env!("CARGO_BIN_EXE_selextract-worker"))
        .env("SELEXTRACT_DATABASE_URL", &database.url)
        .env("SELEXTRACT_REDIS_QUEUE_URL", start().redis_url().unwrap())
        .env("SELEXTRACT_EGRESS_PROXY", "http://127.0.0.1:9")
        .env("SELEXTRACT_WORKER_NAME", "a-worker")
        .env("SELEXTRACT_TELEMETRY_ADDR", format!("127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        let request = client.get(format!("http://127.0.0.1:{port}{path}"));
        let answer = request.timeout(Duration::from_secs(5)).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    };
    let started = Instant::now();
    while get("/readyz").await.is_none() {
        assert!(started.elapsed() < Duration::from_secs(30), "the worker is not ready");
        sleep(Duration::from_millis(100)).await;
    }
    let metrics = get("/metrics").await.unwrap();
    for series in [
        "selextract_round_trip_seconds_count{to=\"postgres\"}",
        "selextract_round_trip_seconds_count{to=\"redis-queue\"}",
        "selextract_redis_operation_duration_seconds_count{operation=\"take\",redis=\"queue\"}",
        "selextract_database_acquire_duration_seconds_count",
        "selextract_database_pool_limit{pool=\"primary\"}",
    ] {
        let told = metrics
            .lines()
            .any(|line| line.starts_with(series) && !line.ends_with(" 0"));
        assert!(told, "{series} in {metrics}");
    }
}
