//! The dangerous corner: through PgBouncer in transaction mode no client may ever see another's row.
//!
//! sqlx sends a statement's Parse and its Execute in two round trips, and the pooler may give the second one to another server. That is safe only with
//! named statements that the pooler tracks. Here many clients share a single server connection, each with statements of its own, and each
//! checks that the value which comes back is the random one that it sent.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::Rng;
use selextract_test_services::{PoolerOptions, start};
use sqlx::{AssertSqlSafe, PgPool, Row, postgres::PgPoolOptions};

const CLIENTS: usize = 4;
const CONNECTIONS: u32 = 10;
const STATEMENTS: usize = 10_000;

fn clients(options: PoolerOptions) -> Vec<PgPool> {
    let services = start();
    let database = services.database().unwrap();
    // The pooler must outlive the clients; the test program's end stops it.
    let pooler = Box::leak(Box::new(services.pooler(options).unwrap()));
    let url = pooler.url("selextract_app", &database.name);
    let connect = (0..CLIENTS).map(|_| {
        // As the product's pool: named statements, sqlx's own cache, no ping before use.
        PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_mins(1))
            .connect_lazy(&url)
            .unwrap()
    });
    connect.collect()
}

/// One of many different statements, so that what the clients and the servers have prepared differs.
async fn echo(pool: &PgPool, shape: usize) -> Result<bool, sqlx::Error> {
    let sent = i64::from(rand::rng().random::<i32>());
    let sql = format!("SELECT $1::bigint + {shape} - {shape} AS value, $2::text AS note");
    let note = format!("{shape}-{sent}");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(sent)
        .bind(&note)
        .fetch_one(pool)
        .await?;
    let (value, text): (i64, String) = (row.try_get("value")?, row.try_get("note")?);
    Ok((value, text) == (sent, note))
}

async fn work(pool: PgPool, worker: usize, count: usize) -> (usize, usize, usize) {
    let (mut right, mut foreign, mut failed) = (0, 0, 0);
    for number in 0..count {
        match echo(&pool, (worker + number) % 40).await {
            Ok(true) => right += 1,
            Ok(false) => foreign += 1,
            Err(_) => failed += 1,
        }
    }
    (right, foreign, failed)
}

/// How many statements came back right, how many with another's row, and how many failed (a panic in the driver counts as one).
async fn run(pools: &[PgPool]) -> (usize, usize, usize) {
    let workers = CLIENTS * CONNECTIONS as usize;
    let tasks =
        (0..workers).map(|worker| tokio::spawn(work(pools[worker % CLIENTS].clone(), worker, STATEMENTS / workers)));
    let totals = join_all(tasks)
        .await
        .into_iter()
        .map(|total| total.unwrap_or((0, 0, 1)));
    totals.fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_anothers_row_through_a_pooler_with_one_connection() {
    for default_pool_size in [1, 3] {
        let pools = clients(PoolerOptions {
            default_pool_size,
            max_prepared_statements: 200,
        });
        let started = Instant::now();
        let (right, foreign, failed) = run(&pools).await;
        println!(
            "pool of {default_pool_size}: {right} right, {foreign} foreign, {failed} failed in {:?}",
            started.elapsed()
        );
        assert_eq!((foreign, failed), (0, 0));
        assert_eq!(right, STATEMENTS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_would_see_a_pooler_that_does_not_track_statements() {
    let pools = clients(PoolerOptions {
        default_pool_size: 3,
        max_prepared_statements: 0,
    });
    let (right, foreign, failed) = run(&pools).await;
    println!("untracked: {right} right, {foreign} foreign, {failed} failed");
    assert!(
        foreign + failed > 0,
        "an unsafe pooler looked safe: the test above proves nothing"
    );
}
