//! Batches, and what an owner may use.

use std::time::Duration;

use selextract_platform::ledger::{
    TaskId, UserId, claims::Ending, idempotency::Idempotency, quotas::Quotas, tasks::NewTask,
};

use crate::support::{LEASE, Room, new_task, page};

impl Room {
    async fn owner(&self, quotas: Quotas) -> UserId {
        let owner = self.ledger.namespace_owner("shop").await.unwrap();
        self.ledger.set_quotas(owner, quotas).await.unwrap();
        owner
    }

    async fn batch(&self, owner: UserId, count: usize) -> Vec<TaskId> {
        let tasks = vec![new_task(); count];
        self.ledger.accept_batch(owner, &tasks, None).await.unwrap().ids
    }
}

#[tokio::test]
async fn ten_thousand_tasks_are_accepted_in_one_statement_and_once_for_their_key() {
    let (room, owner) = (Room::new().await, UserId::new());
    let tasks: Vec<NewTask> = (0..10_000u16)
        .map(|n| NewTask {
            host: format!("{n}.test"),
            priority: u8::try_from(n % 10).unwrap(),
            ..new_task()
        })
        .collect();
    let key = |hash| Idempotency {
        key: "all".to_owned(),
        body_hash: [hash; 32],
    };
    let first = room.ledger.accept_batch(owner, &tasks, Some(&key(1))).await.unwrap();
    assert!(first.ids.len() == 10_000 && !first.replayed);
    let again = room.ledger.accept_batch(owner, &tasks, Some(&key(1))).await.unwrap();
    assert!(again.replayed && again.ids == first.ids);
    assert!(
        room.ledger
            .accept_batch(owner, &tasks[..2], Some(&key(2)))
            .await
            .is_err()
    );
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 10_000);
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().open, 10_000);
    let host = room
        .texts(&format!("SELECT host FROM tasks WHERE id = '{}'", first.ids[77]))
        .await;
    assert_eq!(host, ["77.test"], "the ids are in the order of the tasks");
    assert_eq!(room.task(first.ids[77]).await.priority, 7);
}

#[tokio::test]
async fn no_more_of_an_owners_tasks_run_than_he_may_and_the_rest_is_put_back() {
    let room = Room::new().await;
    let owner = room
        .owner(Quotas {
            running: Some(2),
            ..Quotas::default()
        })
        .await;
    let ids = room.batch(owner, 5).await;
    let free = room.accept(UserId::new()).await;
    let all: Vec<_> = ids.iter().copied().chain([free]).collect();
    let claims = room.ledger.claim(&all, "a-worker", LEASE).await.unwrap();
    assert_eq!(claims.len(), 3, "two of his, and another owner's");
    assert!(room.ledger.claim(&ids, "a-worker", LEASE).await.unwrap().is_empty());
    let left: Vec<_> = ids
        .iter()
        .filter(|id| claims.iter().all(|c| c.id != **id))
        .copied()
        .collect();
    let mut crowded: Vec<_> = room
        .ledger
        .unclaimed(&left)
        .await
        .unwrap()
        .iter()
        .filter(|(_, crowded)| *crowded)
        .map(|(entry, _)| entry.id)
        .collect();
    crowded.sort_unstable();
    assert_eq!(crowded, left);
    let done = room.ledger.unclaimed(&[free]).await.unwrap();
    assert!(matches!(&done[..], [(entry, false)] if entry.id == free), "{done:?}");
    let ended = claims.iter().find(|claim| claim.user_id == owner).unwrap();
    room.ledger
        .finish(ended.lease(), &Ending::Succeeded, 0)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(room.ledger.claim(&left, "a-worker", LEASE).await.unwrap().len(), 1);
    let usage = room.ledger.usage(owner).await.unwrap();
    assert_eq!((usage.running, usage.running_limit, usage.queued), (2, Some(2), 2));
}

#[tokio::test]
async fn an_owner_who_has_read_a_days_pages_waits_for_the_next_day() {
    let room = Room::new().await;
    let owner = room
        .owner(Quotas {
            pages_per_day: Some(2),
            ..Quotas::default()
        })
        .await;
    let ids = room.batch(owner, 3).await;
    for id in &ids[..2] {
        assert_eq!(room.keeper.hold_owners().await.unwrap(), 0);
        let claim = room.claim(*id).await.unwrap();
        room.commit_and_let_go(&claim, 1, &Ending::Succeeded, 0).await;
        room.keeper.fold_counters().await.unwrap();
    }
    assert_eq!(room.keeper.hold_owners().await.unwrap(), 1);
    assert!(room.claim(ids[2]).await.is_none());
    assert!(room.keeper.refill(None).await.unwrap().0.is_empty());
    let usage = room.ledger.usage(owner).await.unwrap();
    assert_eq!((usage.pages_today, usage.pages_limit), (2, 2));
    let until = usage.held_until.unwrap() - jiff::Timestamp::now().as_millisecond();
    assert!((0..=86_400_000).contains(&until), "{until}");
    room.sql("UPDATE owner_days SET day = day - 1").await;
    assert_eq!(room.keeper.hold_owners().await.unwrap(), 0, "the next day");
    assert!(room.claim(ids[2]).await.is_some());
}

#[expect(clippy::disallowed_methods, reason = "nobody gives up what this test begins")]
#[tokio::test]
async fn two_workers_that_claim_together_do_not_both_take_the_last_free_place() {
    let room = Room::new().await;
    let owner = room
        .owner(Quotas {
            running: Some(1),
            ..Quotas::default()
        })
        .await;
    let ids = room.batch(owner, 2).await;
    // Another worker's claim that has counted and is not committed yet.
    let mut other = room.owner.begin().await.unwrap();
    sqlx::query("SELECT FROM owner_quotas WHERE user_id = $1 FOR UPDATE")
        .bind(owner)
        .execute(&mut *other)
        .await
        .unwrap();
    sqlx::query("UPDATE tasks SET status = 'running', lease_until = now() + interval '1 minute' WHERE id = $1")
        .bind(ids[0])
        .execute(&mut *other)
        .await
        .unwrap();
    let (claimed, committed) = tokio::join!(room.ledger.claim(&ids[1..], "a-worker", LEASE), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        other.commit().await
    });
    committed.unwrap();
    assert!(claimed.unwrap().is_empty(), "the other one took the last place");
    for _ in 0..10 {
        room.sql("UPDATE tasks SET status = 'pending', lease_token = NULL, lease_until = NULL, worker = NULL")
            .await;
        let (one, two) = tokio::join!(
            room.ledger.claim(&ids[..1], "one", LEASE),
            room.ledger.claim(&ids[1..], "two", LEASE)
        );
        assert_eq!(one.unwrap().len() + two.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn pages_count_for_the_day_as_they_are_read_and_a_run_beyond_them_goes_back() {
    let room = Room::new().await;
    let owner = room
        .owner(Quotas {
            pages_per_day: Some(2),
            ..Quotas::default()
        })
        .await;
    let id = room.batch(owner, 1).await[0];
    let claim = room.claim(id).await.unwrap();
    let commit = async |number| {
        let committed = room.ledger.commit_page(claim.lease(), &page(number), LEASE).await;
        committed.unwrap().unwrap().paused
    };
    assert!(!commit(1).await && !commit(2).await);
    room.keeper.fold_counters().await.unwrap();
    assert_eq!(room.ledger.usage(owner).await.unwrap().pages_today, 2);
    assert_eq!(
        room.keeper.hold_owners().await.unwrap(),
        1,
        "while the run is under way"
    );
    assert!(commit(3).await, "it goes back at its next page");
    room.ledger
        .finish(claim.lease(), &Ending::HandedBack, 0)
        .await
        .unwrap()
        .unwrap();
    assert!(room.claim(id).await.is_none());
    room.sql("DELETE FROM owner_holds").await;
    let claim = room.claim(id).await.unwrap();
    room.ledger
        .finish(claim.lease(), &Ending::Succeeded, 0)
        .await
        .unwrap()
        .unwrap();
    room.keeper.fold_counters().await.unwrap();
    assert_eq!(room.ledger.usage(owner).await.unwrap().pages_today, 3, "each page once");
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().pages, 3);
}
