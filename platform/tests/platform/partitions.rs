//! Months: partitions with their indexes, the list's plan over them, and retention.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use selextract_platform::ledger::{TaskId, UserId, tasks};
use sqlx::Connection;

use crate::support::Room;

const DAY: Duration = Duration::from_hours(24);

fn days_ago(days: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(24 * days)
}

fn month(moment: Timestamp) -> String {
    moment.strftime("%Y_%m").to_string()
}

/// `count` tasks of `owner`, accepted one a minute up to `last`.
async fn insert(room: &Room, owner: UserId, count: i64, last: Timestamp, status: &str) {
    room.sql(&format!(
        "INSERT INTO tasks (id, user_id, status, created_at, due_at, spec, spec_version, host, max_attempts)
         SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(ms::text), 1, 3) || '8' || substr(md5('{owner}' || ms), 1, 15))::uuid,
                '{owner}', '{status}', to_timestamp(ms / 1000.0), to_timestamp(ms / 1000.0), '{{}}', 1, 'h', 1
         FROM generate_series({} - {count} * 60000 + 60000, {}, 60000) AS ms",
        last.as_millisecond(),
        last.as_millisecond(),
    ))
    .await;
}

async fn plan(room: &Room, before: &str, mode: &str) -> String {
    let mut connection = sqlx::PgConnection::connect(&room.database.direct_url).await.unwrap();
    let types = "uuid, uuid, text, bigint, bigint";
    let setup = format!(
        "SET plan_cache_mode = {mode}; PREPARE list ({types}) AS {}",
        tasks::LIST
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(setup))
        .execute(&mut connection)
        .await
        .unwrap();
    let explain = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE list ({before})");
    let rows: Vec<sqlx::postgres::PgRow> = sqlx::raw_sql(sqlx::AssertSqlSafe(explain))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    rows.iter()
        .map(|row| sqlx::Row::get::<String, _>(row, 0) + "\n")
        .collect()
}

#[tokio::test]
async fn the_list_of_twenty_goes_by_the_guides_index_over_every_month() {
    let room = Room::new().await;
    room.keeper.make_partitions(days_ago(95), 3).await.unwrap();
    let (owner, other) = (UserId::new(), UserId::new());
    for days in [0, 31, 62, 93] {
        insert(&room, owner, 2_000, days_ago(days), "succeeded").await;
        insert(&room, other, 2_000, days_ago(days), "succeeded").await;
    }
    room.sql("ANALYZE tasks").await;
    let newest = room.ledger.list(owner, None, None).await.unwrap();
    assert_eq!(newest.len(), 20);
    let deep = TaskId::of_tick("any", days_ago(62).as_millisecond());
    let arguments = [
        format!("'{owner}', NULL, NULL, 20, NULL"),
        format!("'{owner}', '{deep}', NULL, 20, {}", deep.unix_milliseconds()),
    ];
    for arguments in arguments {
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let plan = plan(&room, &arguments, mode).await;
            assert!(
                !plan.contains("Seq Scan") && !plan.contains("Bitmap"),
                "{mode}:\n{plan}"
            );
            assert!(plan.contains("user_id_created_at_idx"), "{mode}:\n{plan}");
            let read: u64 = plan
                .lines()
                .filter(|line| line.contains("Index Scan"))
                .filter_map(|line| {
                    line.split("rows=")
                        .nth(1)?
                        .split_whitespace()
                        .next()?
                        .parse::<u64>()
                        .ok()
                })
                .sum();
            assert!(read < 100, "{read} rows were read for twenty:\n{plan}");
        }
    }
}

#[tokio::test]
async fn every_partition_carries_every_index() {
    let room = Room::new().await;
    room.keeper.make_partitions(Timestamp::now(), 3).await.unwrap();
    let partitions = room
        .number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'tasks'::regclass")
        .await;
    assert_eq!(partitions, 4);
    for index in [
        "idx_tasks_user_created",
        "idx_tasks_status_priority",
        "idx_tasks_active",
        "tasks_source_pending",
        "tasks_pkey",
    ] {
        let sql = format!(
            "SELECT count(*) FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid AND x.indisvalid
                           WHERE i.inhparent = '{index}'::regclass"
        );
        assert_eq!(room.number(&sql).await, partitions, "{index}");
    }
}

#[tokio::test]
async fn partitions_are_made_once_with_two_at_once() {
    let room = Room::new().await;
    let now = Timestamp::now();
    let made = tokio::join!(room.keeper.make_partitions(now, 5), room.keeper.make_partitions(now, 5));
    // The migration made two of the six months.
    assert_eq!(made.0.unwrap().len() + made.1.unwrap().len(), 28);
}

#[tokio::test]
async fn retention_drops_old_months_and_keeps_one_with_an_open_task() {
    let room = Room::new().await;
    room.keeper.make_partitions(days_ago(220), 7).await.unwrap();
    let (gone, open, kept) = (days_ago(215), days_ago(150), days_ago(80));
    let owner = UserId::new();
    for moment in [gone, open, kept] {
        insert(&room, owner, 1, moment, "succeeded").await;
    }
    insert(&room, UserId::new(), 1, open, "pending").await;
    let dropped = room.keeper.drop_partitions(Timestamp::now(), 90 * DAY).await.unwrap();
    for table in ["tasks", "pages", "crawl_pages"] {
        assert!(dropped.contains(&format!("{table}_{}", month(gone))), "{table}");
    }
    for kept in [open, kept, Timestamp::now()] {
        assert!(!dropped.contains(&format!("tasks_{}", month(kept))));
        assert!(!dropped.contains(&format!("pages_{}", month(kept))));
        assert!(!dropped.contains(&format!("crawl_pages_{}", month(kept))));
    }
    assert_eq!(
        room.number(&format!("SELECT count(*) FROM tasks WHERE user_id = '{owner}'"))
            .await,
        2
    );
    assert!(
        room.keeper
            .drop_partitions(Timestamp::now(), 90 * DAY)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        room.keeper
            .drop_partitions(Timestamp::now(), Duration::MAX)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_interrupted_removal_of_a_month_is_finished_by_the_next() {
    let room = Room::new().await;
    room.keeper.make_partitions(days_ago(150), 0).await.unwrap();
    let name = format!("tasks_{}", month(days_ago(150)));
    let mut reader = sqlx::PgConnection::connect(&room.database.direct_url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM tasks")
        .execute(&mut reader)
        .await
        .unwrap();
    // A reader is in the way, and the keeper ends before it.
    let mut keeper = sqlx::PgConnection::connect(&room.database.direct_url).await.unwrap();
    sqlx::raw_sql("SET lock_timeout = '200ms'")
        .execute(&mut keeper)
        .await
        .unwrap();
    let detach = format!("ALTER TABLE tasks DETACH PARTITION {name} CONCURRENTLY");
    sqlx::raw_sql(sqlx::AssertSqlSafe(detach))
        .execute(&mut keeper)
        .await
        .unwrap_err();
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
    let dropped = room.keeper.drop_partitions(Timestamp::now(), 90 * DAY).await.unwrap();
    assert!(dropped.contains(&name), "{dropped:?}");
    // One that was detached and not dropped.
    room.keeper.make_partitions(days_ago(150), 0).await.unwrap();
    room.sql(&format!("ALTER TABLE tasks DETACH PARTITION {name}")).await;
    assert!(
        room.keeper
            .drop_partitions(Timestamp::now(), 90 * DAY)
            .await
            .unwrap()
            .contains(&name)
    );
    assert_eq!(
        room.number(&format!("SELECT count(*) FROM pg_class WHERE relname = '{name}'"))
            .await,
        0
    );
}
