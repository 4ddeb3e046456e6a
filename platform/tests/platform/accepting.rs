//! Accepting, listing, canceling and deleting tasks.

use std::time::Duration;

use selextract_platform::ledger::{LedgerError, TaskId, UserId, idempotency::Idempotency};

use crate::support::{Room, new_task, page, small_ledger};

fn key(body: u8) -> Idempotency {
    Idempotency {
        key: "once".to_owned(),
        body_hash: [body; 32],
    }
}

#[tokio::test]
async fn the_same_key_with_the_same_body_is_the_same_task() {
    let (room, owner) = (Room::new().await, UserId::new());
    let first = room.ledger.accept(owner, &new_task(), Some(&key(1))).await.unwrap();
    let again = room.ledger.accept(owner, &new_task(), Some(&key(1))).await.unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.id, again.id);
    let other = room
        .ledger
        .accept(UserId::new(), &new_task(), Some(&key(1)))
        .await
        .unwrap();
    assert!(!other.replayed, "a key is its owner's alone");
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().total, 1);
}

#[tokio::test]
async fn the_same_key_with_another_body_conflicts_and_changes_nothing() {
    let (room, owner) = (Room::new().await, UserId::new());
    let first = room.ledger.accept(owner, &new_task(), Some(&key(1))).await.unwrap();
    let refused = room.ledger.accept(owner, &new_task(), Some(&key(2))).await;
    assert!(matches!(refused, Err(LedgerError::IdempotencyConflict)), "{refused:?}");
    let again = room.ledger.accept(owner, &new_task(), Some(&key(1))).await.unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 1);
}

#[tokio::test]
async fn concurrent_requests_with_one_key_make_one_task() {
    let (room, owner) = (Room::new().await, UserId::new());
    let (task, once) = (new_task(), key(1));
    let requests = (0..8).map(|_| room.ledger.accept(owner, &task, Some(&once)));
    let answers = futures::future::try_join_all(requests).await.unwrap();
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(answers.iter().all(|answer| answer.id == answers[0].id));
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 1);
}

#[tokio::test]
async fn a_key_that_has_expired_makes_a_new_task() {
    let (room, owner) = (Room::new().await, UserId::new());
    let first = room.ledger.accept(owner, &new_task(), Some(&key(1))).await.unwrap();
    room.sql("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'")
        .await;
    let next = room.ledger.accept(owner, &new_task(), Some(&key(2))).await.unwrap();
    assert!(!next.replayed);
    assert_ne!(next.id, first.id);
    room.keeper.purge().await.unwrap();
    assert!(
        room.ledger
            .accept(owner, &new_task(), Some(&key(2)))
            .await
            .unwrap()
            .replayed
    );
}

#[tokio::test]
async fn a_task_that_waits_is_canceled_at_once() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    assert_eq!(
        room.ledger.cancel(Some(UserId::new()), id).await.unwrap(),
        None,
        "somebody else's"
    );
    assert_eq!(room.ledger.cancel(Some(owner), id).await.unwrap(), Some(true));
    assert_eq!(room.ledger.cancel(Some(owner), id).await.unwrap(), Some(false));
    let task = room.task(id).await;
    assert_eq!(task.status, "canceled");
    assert!(task.finished_at.is_some());
    assert!(room.claim(id).await.is_none());
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().canceled, 1);
}

#[tokio::test]
async fn only_a_task_that_has_ended_is_deleted_and_its_pages_go_with_it() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    let claim = room.claim(id).await.unwrap();
    room.ledger
        .commit_page(claim.lease(), &page(1), crate::support::LEASE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(room.ledger.delete(Some(owner), id).await.unwrap(), Some(false));
    let canceled = selextract_platform::ledger::claims::Ending::Canceled;
    room.ledger.finish(claim.lease(), &canceled, 1).await.unwrap().unwrap();
    assert_eq!(room.ledger.delete(Some(UserId::new()), id).await.unwrap(), None);
    assert_eq!(room.ledger.delete(Some(owner), id).await.unwrap(), Some(true));
    assert_eq!(room.ledger.delete(Some(owner), id).await.unwrap(), None);
    assert_eq!(room.number("SELECT count(*) FROM pages").await, 0);
}

#[tokio::test]
async fn the_list_goes_through_every_task_once_newest_first() {
    let (room, owner) = (Room::new().await, UserId::new());
    let mut accepted = Vec::new();
    for _ in 0..45 {
        accepted.push(room.accept(owner).await);
    }
    room.accept(UserId::new()).await;
    accepted.sort_unstable();
    accepted.reverse();
    let mut listed: Vec<TaskId> = Vec::new();
    loop {
        let rows = room.ledger.list(owner, listed.last().copied(), None).await.unwrap();
        if rows.is_empty() {
            break;
        }
        assert!(rows.len() <= 20);
        listed.extend(rows.iter().map(|row| row.id));
    }
    assert_eq!(listed, accepted);
}

/// A client that hangs up has its request dropped wherever that is, and its connection goes to the next one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_takes_nothing_along_that_is_acknowledged_later() {
    let (room, owner) = (Room::new().await, UserId::new());
    let ledger = small_ledger(&room.database.url, 1);
    let mut lost = 0;
    for round in 0..300_u16 {
        let once = Idempotency {
            key: round.to_string(),
            ..key(1)
        };
        let (task, patience) = (new_task(), Duration::from_micros(u64::from(round) * 10));
        let given_up = ledger.accept(owner, &task, Some(&once));
        drop(tokio::time::timeout(patience, given_up).await);
        let id = ledger.accept(owner, &task, None).await.unwrap().id;
        // Another connection sees what is committed.
        lost += usize::from(room.keeper.task(None, id).await.unwrap().is_none());
    }
    assert_eq!(lost, 0, "acknowledged and not committed");
}
