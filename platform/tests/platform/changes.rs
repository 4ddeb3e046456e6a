//! The change feed loses nothing and repeats nothing old.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use selextract_platform::ledger::{Ledger, UserId, claims::Ending};
use selextract_task::feed::{Changes, RunState};
use sqlx::Connection;

use crate::support::{LEASE, Room, page, upsert};

/// Follows the feed until `count` uids have been seen; other tests' transactions may hold it back for a moment.
pub async fn follow(ledger: &Ledger, mut after: i64, count: usize) -> (BTreeMap<String, RunState>, i64) {
    let mut seen = BTreeMap::new();
    for _ in 0..200 {
        let Changes { changes, next } = ledger.changes(after).await.unwrap();
        assert!(next >= after);
        after = next;
        seen.extend(changes.into_iter().map(|change| (change.uid, change.run.state)));
        if seen.len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(seen.len(), count, "{seen:?}");
    (seen, after)
}

fn insert(uid: &str) -> String {
    format!(
        "WITH made AS (
             INSERT INTO tasks (id, user_id, created_at, due_at, spec, spec_version, host, max_attempts, source_uid, spec_hash)
             VALUES ('{}', '{}', now(), now(), '{{}}', 1, 'h', 1, '{uid}', 'a') RETURNING id
         ) INSERT INTO changes (uid, task_id) SELECT '{uid}', id FROM made",
        selextract_platform::ledger::TaskId::new(),
        UserId::new()
    )
}

async fn run(connection: &mut sqlx::PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_change_that_commits_late_is_not_lost() {
    let room = Room::new().await;
    let mut early = sqlx::PgConnection::connect(&room.database.direct_url).await.unwrap();
    let mut late = sqlx::PgConnection::connect(&room.database.direct_url).await.unwrap();
    // The older transaction inserts after the younger one, and commits before it.
    run(&mut early, "BEGIN; SELECT pg_current_xact_id()").await;
    run(&mut late, "BEGIN").await;
    run(&mut late, &insert("late")).await;
    run(&mut early, &insert("early")).await;
    run(&mut early, "COMMIT").await;
    let (seen, after) = follow(&room.ledger, 0, 1).await;
    assert!(seen.contains_key("early"));
    assert!(
        room.ledger.changes(after).await.unwrap().changes.is_empty(),
        "what is not committed is not told"
    );
    // One that is begun and committed meanwhile waits for the older one.
    room.sql(&insert("meanwhile")).await;
    assert_eq!(room.ledger.changes(after).await.unwrap().next, after);
    run(&mut late, "COMMIT").await;
    let (seen, after) = follow(&room.ledger, after, 2).await;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["late", "meanwhile"]);
    assert!(
        room.ledger.changes(after).await.unwrap().changes.is_empty(),
        "each is told once"
    );
}

#[tokio::test]
async fn a_transaction_is_never_split_over_two_answers() {
    let room = Room::new().await;
    let many: Vec<String> = (0..620).map(|n| insert(&format!("uid-{n}"))).collect();
    room.sql(&format!("BEGIN; {}; COMMIT", many.join(";"))).await;
    room.sql(&insert("after")).await;
    let (seen, after) = follow(&room.ledger, 0, 620).await;
    assert!(!seen.contains_key("after"));
    assert_eq!(
        follow(&room.ledger, after, 1).await.0.keys().collect::<Vec<_>>(),
        ["after"]
    );
}

#[tokio::test]
async fn a_cursor_of_another_database_starts_from_the_beginning() {
    let room = Room::new().await;
    room.sql(&insert("one")).await;
    let (_, after) = follow(&room.ledger, 0, 1).await;
    for foreign in [i64::MAX, after + 1_000_000_000, -1] {
        let answer = room.ledger.changes(foreign).await.unwrap();
        assert_eq!((answer.changes.len(), answer.next), (1, after), "{foreign}");
    }
}

#[tokio::test]
async fn the_feed_names_the_newest_run_with_its_first_records() {
    let room = Room::new().await;
    let now = Timestamp::now();
    let first = room.upsert(&upsert("uid", "a"), now).await;
    let old = first.started.unwrap().id;
    let lease = room.claim(old).await.unwrap().lease();
    let (_, after) = follow(&room.ledger, 0, 1).await;
    let second = room.upsert(&upsert("uid", "b"), now).await;
    let new = second.started.unwrap().id;
    let claim = room.claim(new).await.unwrap();
    for number in 1..=5 {
        room.ledger
            .commit_page(claim.lease(), &page(number), LEASE)
            .await
            .unwrap()
            .unwrap();
    }
    room.ledger
        .finish(claim.lease(), &Ending::Succeeded, 1)
        .await
        .unwrap()
        .unwrap();
    let (seen, after) = follow(&room.ledger, after, 1).await;
    assert_eq!(seen["uid"], RunState::Succeeded);
    // The end of the run that was replaced comes last, and says nothing about it.
    room.ledger.finish(lease, &Ending::Canceled, 1).await.unwrap().unwrap();
    for _ in 0..100 {
        let answer = room.ledger.changes(after).await.unwrap();
        if let [change] = answer.changes.as_slice() {
            assert_eq!(
                (change.run.id.as_str(), change.run.state),
                (new.to_string().as_str(), RunState::Succeeded)
            );
            assert_eq!((change.run.pages, change.run.preview.len()), (5, 3));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the feed told nothing");
}
