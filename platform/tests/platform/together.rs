//! What comes at the same time is written together, and everybody gets the own answer.

use std::time::Duration;

use futures::future::join_all;
use selextract_platform::ledger::{
    UserId,
    claims::{Ending, Fenced, NewPage},
    tasks::NewTask,
};

use crate::support::{LEASE, Room, new_task, page};

#[tokio::test]
async fn tasks_that_come_at_the_same_time_are_all_there_and_each_owner_is_counted() {
    let room = Room::new().await;
    let owners = [UserId::new(), UserId::new()];
    let task = new_task();
    let accepted = join_all((0..300).map(|n| room.ledger.accept(owners[n % 2], &task, None))).await;
    for (n, accepted) in accepted.into_iter().enumerate() {
        let accepted = accepted.unwrap();
        let stored = accepted.task.unwrap();
        assert_eq!((stored.id, stored.user_id), (accepted.id, owners[n % 2]));
        assert_eq!(
            room.task(accepted.id).await.spec.0,
            serde_json::to_value(&task.spec).unwrap()
        );
    }
    for owner in owners {
        assert_eq!(room.ledger.owner_stats(owner).await.unwrap().total, 150);
    }
    let deltas = room.number("SELECT count(*) FROM owner_counter_deltas").await;
    assert!(deltas < 300, "they were written in batches, with {deltas} deltas");
}

#[tokio::test]
async fn a_task_that_the_database_refuses_takes_no_other_with_it() {
    let room = Room::new().await;
    let owner = UserId::new();
    // PostgreSQL has no text with a NUL.
    let refused = NewTask {
        host: "a\0b".to_owned(),
        ..new_task()
    };
    let task = new_task();
    let all = join_all((0..50).map(|n| room.ledger.accept(owner, if n == 25 { &refused } else { &task }, None))).await;
    for (n, accepted) in all.iter().enumerate() {
        assert_eq!(accepted.is_err(), n == 25, "{n}: {accepted:?}");
    }
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 49);
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().total, 49);
}

#[tokio::test]
async fn pages_and_ends_that_come_at_the_same_time_are_written_once_and_foreign_leases_write_nothing() {
    let room = Room::new().await;
    let owner = UserId::new();
    let task = new_task();
    let accepted = join_all((0..60).map(|_| room.ledger.accept(owner, &task, None))).await;
    let ids: Vec<_> = accepted.into_iter().map(|accepted| accepted.unwrap().id).collect();
    let claims = room.ledger.claim(&ids, "a-worker", LEASE).await.unwrap();
    assert_eq!(claims.len(), 60);
    let lost = |n: usize| n.is_multiple_of(10);
    for (n, claim) in claims.iter().enumerate() {
        if lost(n) {
            room.sql(&format!(
                "UPDATE tasks SET lease_token = gen_random_uuid() WHERE id = '{}'",
                claim.id
            ))
            .await;
        }
    }
    let first = page(1);
    let pages = join_all(
        claims
            .iter()
            .map(|claim| room.ledger.commit_page(claim.lease(), &first, LEASE)),
    )
    .await;
    for (n, written) in pages.into_iter().enumerate() {
        match written.unwrap() {
            Ok(renewed) => assert!(!lost(n) && renewed.id == claims[n].id),
            Err(Fenced) => assert!(lost(n), "{n}"),
        }
    }
    let again = join_all(
        claims
            .iter()
            .map(|claim| room.ledger.commit_page(claim.lease(), &first, LEASE)),
    )
    .await;
    assert!(again.into_iter().all(|written| written.unwrap() == Err(Fenced)));
    let ends = join_all(
        claims
            .iter()
            .map(|claim| room.ledger.finish(claim.lease(), &Ending::Succeeded, 2)),
    )
    .await;
    for (n, ended) in ends.into_iter().enumerate() {
        assert_eq!(ended.unwrap().is_err(), lost(n), "{n}");
    }
    let stats = room.ledger.owner_stats(owner).await.unwrap();
    assert_eq!(
        (stats.succeeded, stats.pages, stats.records, stats.compute_units),
        (54, 54, 54, 108)
    );
    assert_eq!(room.number("SELECT count(*) FROM pages").await, 54);
    assert_eq!(
        room.number("SELECT count(*) FROM tasks WHERE status = 'running'").await,
        6
    );
}

#[tokio::test]
async fn a_page_that_may_wait_commits_with_one_that_may_not() {
    let room = Room::new().await;
    let (owner, task) = (UserId::new(), new_task());
    let accepted = join_all((0..2).map(|_| room.ledger.accept(owner, &task, None))).await;
    let ids: Vec<_> = accepted.into_iter().map(|accepted| accepted.unwrap().id).collect();
    let claims = room.ledger.claim(&ids, "a-worker", LEASE).await.unwrap();
    let patient = NewPage {
        spare: Duration::from_mins(1),
        ..page(1)
    };
    let waits = room.ledger.commit_page(claims[0].lease(), &patient, LEASE);
    let hasty = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(room.number("SELECT count(*) FROM pages").await, 0);
        room.ledger.commit_page(claims[1].lease(), &page(1), LEASE).await
    };
    let both = async { tokio::join!(waits, hasty) };
    let (patient, hasty) = tokio::time::timeout(Duration::from_secs(30), Box::pin(both))
        .await
        .unwrap();
    assert!(patient.unwrap().is_ok() && hasty.unwrap().is_ok());
    assert_eq!(room.number("SELECT count(*) FROM pages").await, 2);
}
