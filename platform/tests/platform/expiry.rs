//! Finished runs go when their time is over, and when their `ScrapeTask` keeps fewer.

use std::time::Duration;

use jiff::Timestamp;
use selextract_platform::ledger::{TaskId, UserId, claims::Ending, schedules::RunNow, tasks::NewTask};
use selextract_task::feed::RunState;

use crate::support::{Room, error, hourly, new_task, upsert};

impl Room {
    async fn end(&self, id: TaskId, ending: Ending) {
        let claim = self.claim(id).await.unwrap();
        self.commit_and_let_go(&claim, 1, &ending, 1).await;
    }

    /// As if so much time had passed since the runs finished.
    async fn later(&self, hours: u32) {
        self.sql(&format!(
            "UPDATE tasks SET finished_at = finished_at - interval '{hours} hours' WHERE finished_at IS NOT NULL"
        ))
        .await;
    }
}

#[tokio::test]
async fn a_run_goes_with_its_pages_when_its_time_is_over_and_not_before() {
    let (room, owner) = (Room::new().await, UserId::new());
    let task = NewTask {
        ttl: Some(Duration::from_hours(2)),
        ..new_task()
    };
    let short = room.ledger.accept(owner, &task, None).await.unwrap().id;
    let open = room.ledger.accept(owner, &task, None).await.unwrap().id;
    let kept = room.accept(owner).await;
    for id in [short, kept] {
        room.end(id, Ending::Succeeded).await;
    }
    assert!(room.task(short).await.expires_at.is_some());
    assert_eq!(room.keeper.expire_runs().await.unwrap(), 0);
    room.later(3).await;
    assert_eq!(room.keeper.expire_runs().await.unwrap(), 1);
    assert!(room.ledger.task(None, short).await.unwrap().is_none());
    assert_eq!(room.number("SELECT count(*) FROM pages").await, 1);
    for id in [open, kept] {
        room.task(id).await;
    }
}

#[tokio::test]
async fn a_one_shot_whose_results_were_removed_does_not_run_again() {
    let room = Room::new().await;
    let mut once = upsert("once", "a");
    once.item.ttl_after_finished = Some("1h".parse().unwrap());
    let run = room.upsert(&once, Timestamp::now()).await;
    let id = run.started.unwrap().id;
    room.end(id, Ending::Succeeded).await;
    room.later(2).await;
    assert_eq!(room.keeper.expire_runs().await.unwrap(), 1);
    assert_eq!(room.keeper.expire_runs().await.unwrap(), 0);
    assert_eq!(room.number("SELECT count(*) FROM pages").await, 0);
    let again = room.upsert(&once, Timestamp::now()).await;
    assert!(again.started.is_none());
    let newest = again.answer.run.unwrap();
    assert_eq!(
        (newest.state, newest.records),
        (RunState::Succeeded, 1),
        "its operator still sees what became of it"
    );
    // As if its month were gone too.
    room.sql("DELETE FROM tasks").await;
    assert!(room.upsert(&once, Timestamp::now()).await.started.is_none());
    once.item.spec_hash = "b".to_owned();
    assert!(room.upsert(&once, Timestamp::now()).await.started.is_some());
}

#[tokio::test]
async fn a_schedule_keeps_as_many_runs_of_each_kind_as_it_says_and_always_the_newest() {
    let room = Room::new().await;
    let mut hourly = hourly("uid");
    hourly.item.successful_runs_history_limit = Some(2);
    hourly.item.failed_runs_history_limit = Some(0);
    room.upsert(&hourly, Timestamp::now()).await;
    let mut runs = Vec::new();
    for number in 0..7 {
        let RunNow::Started(entry) = room.ledger.run_now(None, "uid").await.unwrap() else {
            panic!("run {number} starts");
        };
        let ending = if number % 2 == 0 {
            Ending::Failed(error())
        } else {
            Ending::Succeeded
        };
        room.end(entry.id, ending).await;
        runs.push(entry.id);
    }
    assert_eq!(room.keeper.trim_histories().await.unwrap(), 4);
    let left = room.texts("SELECT id::text FROM tasks ORDER BY id").await;
    let expected = [runs[3], runs[5], runs[6]].map(|id| id.to_string());
    assert_eq!(left, expected, "two that succeeded, and the newest although it failed");
    assert_eq!(room.number("SELECT count(*) FROM pages").await, 3);
    hourly.item.successful_runs_history_limit = None;
    hourly.item.ttl_after_finished = Some("1h".parse().unwrap());
    room.upsert(&hourly, Timestamp::now()).await;
    assert_eq!(room.keeper.trim_histories().await.unwrap(), 0);
    room.later(2).await;
    assert_eq!(
        room.keeper.expire_runs().await.unwrap(),
        3,
        "the time holds for runs that were there before"
    );
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 1);
}

#[expect(clippy::disallowed_methods, reason = "nobody gives up what this test begins")]
#[tokio::test]
async fn a_run_that_is_replayed_while_a_history_is_trimmed_keeps_its_pages() {
    let room = Room::new().await;
    let mut hourly = hourly("uid");
    hourly.item.failed_runs_history_limit = Some(0);
    room.upsert(&hourly, Timestamp::now()).await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let RunNow::Started(entry) = room.ledger.run_now(None, "uid").await.unwrap() else {
            panic!("it starts");
        };
        room.end(entry.id, Ending::Failed(error())).await;
        runs.push(entry.id);
    }
    // A replay that is not committed yet.
    let mut replay = room.owner.begin().await.unwrap();
    sqlx::query("UPDATE tasks SET status = 'pending', finished_at = NULL WHERE id = $1")
        .bind(runs[0])
        .execute(&mut *replay)
        .await
        .unwrap();
    let (trimmed, committed) = tokio::join!(room.keeper.trim_histories(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        replay.commit().await
    });
    committed.unwrap();
    assert_eq!(room.task(runs[0]).await.status, "pending");
    let pages = format!("SELECT count(*) FROM pages WHERE task_id = '{}'", runs[0]);
    assert_eq!((room.number(&pages).await, trimmed.unwrap()), (1, 0));
}
