//! What workers do under a lease.

use std::{collections::HashSet, time::Duration};

use selextract_platform::ledger::{
    UserId,
    claims::{Ending, Fenced},
    maintenance::Swept,
};

use crate::support::{LEASE, Room, error, page};

#[tokio::test]
async fn concurrent_claimers_never_share_a_task() {
    let (room, owner) = (Room::new().await, UserId::new());
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(room.accept(owner).await);
    }
    let backwards: Vec<_> = ids.iter().rev().copied().collect();
    let claimers = (0..6).map(|n| {
        let ids = if n % 2 == 0 { &ids } else { &backwards };
        room.ledger.claim(ids, "a-worker", LEASE)
    });
    let claims: Vec<_> = futures::future::try_join_all(claimers).await.unwrap().concat();
    let mut claimed: HashSet<_> = claims.iter().map(|claim| claim.id).collect();
    assert_eq!(claimed.len(), claims.len(), "no task was claimed twice");
    // A row that another claimer had locked at that moment was skipped; it is not lost.
    claimed.extend(
        room.ledger
            .claim(&ids, "a-worker", LEASE)
            .await
            .unwrap()
            .iter()
            .map(|claim| claim.id),
    );
    assert_eq!(claimed.len(), ids.len());
    let tokens: HashSet<_> = claims.iter().map(|claim| claim.lease_token).collect();
    assert_eq!(tokens.len(), claims.len(), "each claim has a token of its own");
}

#[tokio::test]
async fn a_lost_lease_writes_nothing() {
    let room = Room::new().await;
    let id = room.accept(UserId::new()).await;
    let lost = room.claim(id).await.unwrap().lease();
    room.expire_lease(id).await;
    room.keeper.sweep().await.unwrap();
    let second = room.claim(id).await.unwrap();
    assert_eq!(second.attempts, 2);
    assert_eq!(
        room.ledger.commit_page(lost, &page(1), LEASE).await.unwrap(),
        Err(Fenced)
    );
    assert_eq!(
        room.ledger.finish(lost, &Ending::Succeeded, 1).await.unwrap(),
        Err(Fenced)
    );
    let renewed = room.ledger.renew(&[lost, second.lease()], LEASE).await.unwrap();
    assert_eq!(renewed.len(), 1, "only the lease that is held");
    assert_eq!(room.number("SELECT count(*) FROM pages").await, 0);
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.pages, task.compute_units_used),
        ("running", 0, 0)
    );
}

#[tokio::test]
async fn a_page_commits_once_however_often_it_is_tried() {
    let room = Room::new().await;
    let id = room.accept(UserId::new()).await;
    let lease = room.claim(id).await.unwrap().lease();
    let tries = [page(1), page(1), page(1)];
    let tries = futures::future::try_join_all(tries.iter().map(|page| room.ledger.commit_page(lease, page, LEASE)));
    assert_eq!(tries.await.unwrap().iter().filter(|done| done.is_ok()).count(), 1);
    assert_eq!(
        room.ledger.commit_page(lease, &page(3), LEASE).await.unwrap(),
        Err(Fenced),
        "no gap"
    );
    room.ledger.commit_page(lease, &page(2), LEASE).await.unwrap().unwrap();
    let pages = room.ledger.pages(id, 0, 10).await.unwrap();
    assert_eq!(pages.iter().map(|page| page.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(pages[1].records, page(2).records);
    let task = room.task(id).await;
    assert_eq!((task.pages, task.records), (2, 2));
}

#[tokio::test]
async fn a_task_that_is_handed_back_costs_no_attempt_and_may_run_at_once() {
    let room = Room::new().await;
    let id = room.accept(UserId::new()).await;
    for _ in 0..3 {
        let claim = room.claim(id).await.unwrap();
        assert_eq!(claim.attempts, 1);
        let offered = room.ledger.finish(claim.lease(), &Ending::HandedBack, 1).await;
        let offered = offered.unwrap().unwrap().unwrap();
        assert_eq!(
            (offered.id, offered.host.as_str(), offered.priority),
            (id, "site.test", 5)
        );
    }
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.attempts, task.compute_units_used),
        ("pending", 0, 3)
    );
}

#[tokio::test]
async fn a_retry_waits_for_its_time_and_counts() {
    let room = Room::new().await;
    let id = room.accept(UserId::new()).await;
    let claim = room.claim(id).await.unwrap();
    let retry = Ending::Retry {
        after: Duration::from_hours(1),
        error: error(),
    };
    let offered = room.ledger.finish(claim.lease(), &retry, 0).await.unwrap().unwrap();
    let waits = offered.unwrap().due_milliseconds - jiff::Timestamp::now().as_millisecond();
    assert!((3_500_000..=3_600_001).contains(&waits), "{waits}");
    assert!(room.claim(id).await.is_none(), "it is not due");
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.error_class.as_deref()),
        ("pending", Some("Timeout"))
    );
    room.sql("UPDATE tasks SET due_at = now()").await;
    assert_eq!(room.claim(id).await.unwrap().attempts, 2);
}

#[tokio::test]
async fn an_expired_lease_comes_back_and_fails_when_its_attempts_are_used_up() {
    let (room, owner) = (Room::new().await, UserId::new());
    let (id, held) = (room.accept(owner).await, room.accept(owner).await);
    room.claim(held).await.unwrap();
    room.claim(id).await.unwrap();
    room.expire_lease(id).await;
    assert_eq!(
        room.keeper.sweep().await.unwrap(),
        Swept {
            returned: 1,
            exhausted: 0
        }
    );
    assert_eq!(room.keeper.sweep().await.unwrap(), Swept::default());
    // The spec has one retry, so two attempts.
    assert_eq!(room.claim(id).await.unwrap().max_attempts, 2);
    room.expire_lease(id).await;
    assert_eq!(
        room.keeper.sweep().await.unwrap(),
        Swept {
            returned: 0,
            exhausted: 1
        }
    );
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.error_class.as_deref()),
        ("failed", Some("AttemptsExhausted"))
    );
    assert!(task.finished_at.is_some() && task.error_message.is_some());
    assert_eq!(room.task(held).await.status, "running", "a lease that is held stays");
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().failed, 1);
}

#[tokio::test]
async fn a_second_worker_goes_on_behind_the_last_committed_page() {
    let room = Room::new().await;
    let id = room.accept(UserId::new()).await;
    let first = room.claim(id).await.unwrap();
    assert_eq!((first.pages, first.next_url.as_deref()), (0, None));
    for number in 1..=2 {
        room.ledger
            .commit_page(first.lease(), &page(number), LEASE)
            .await
            .unwrap()
            .unwrap();
    }
    room.expire_lease(id).await;
    room.keeper.sweep().await.unwrap();
    let second = room.claim(id).await.unwrap();
    assert_eq!(
        (second.pages, second.next_url.as_deref()),
        (2, Some("http://site.test/list/3"))
    );
    assert_eq!(
        second.attempts, 2,
        "a committed page starts the count again: one claim for page 3 was lost"
    );
}

#[tokio::test]
async fn a_running_task_hears_of_its_cancellation_at_its_next_page() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    let lease = room.claim(id).await.unwrap().lease();
    assert!(
        !room
            .ledger
            .commit_page(lease, &page(1), LEASE)
            .await
            .unwrap()
            .unwrap()
            .cancel_requested
    );
    assert_eq!(room.ledger.cancel(Some(owner), id).await.unwrap(), Some(true));
    assert_eq!(room.task(id).await.status, "running");
    assert!(room.ledger.renew(&[lease], LEASE).await.unwrap()[0].cancel_requested);
    assert!(
        room.ledger
            .commit_page(lease, &page(2), LEASE)
            .await
            .unwrap()
            .unwrap()
            .cancel_requested
    );
    room.ledger.finish(lease, &Ending::Canceled, 0).await.unwrap().unwrap();
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.pages),
        ("canceled", 2),
        "what was committed stays"
    );
}

#[tokio::test]
async fn a_canceled_task_does_not_wait_again_whoever_gives_it_back() {
    let (room, owner) = (Room::new().await, UserId::new());
    let (by_worker, by_sweep) = (room.accept(owner).await, room.accept(owner).await);
    let lease = room.claim(by_worker).await.unwrap().lease();
    room.claim(by_sweep).await.unwrap();
    for id in [by_worker, by_sweep] {
        room.ledger.cancel(None, id).await.unwrap();
    }
    let offered = room.ledger.finish(lease, &Ending::HandedBack, 0).await;
    assert_eq!(offered.unwrap(), Ok(None), "there is nothing to offer");
    room.expire_lease(by_sweep).await;
    room.keeper.sweep().await.unwrap();
    for id in [by_worker, by_sweep] {
        let task = room.task(id).await;
        assert_eq!(task.status, "canceled");
        assert!(task.finished_at.is_some());
    }
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().canceled, 2);
}
