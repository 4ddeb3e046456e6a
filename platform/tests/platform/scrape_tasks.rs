//! `ScrapeTask`s as their operator writes them.

use jiff::Timestamp;
use selextract_platform::ledger::{TaskId, claims::Ending, scrape_tasks::CheckedUpsert};
use selextract_task::feed::{OnChange, RunState};

use crate::support::{Room, hourly, upsert};

#[tokio::test]
async fn the_same_item_twice_changes_nothing() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let first = room.upsert(&upsert("uid", "a"), now).await;
    let run = first.answer.run.unwrap();
    assert_eq!((run.state, run.spec_hash.as_str()), (RunState::Pending, "a"));
    assert_eq!(first.started.unwrap().id.to_string(), run.id);
    let again = room.upsert(&upsert("uid", "a"), now).await;
    assert!(again.started.is_none());
    assert_eq!(again.answer.run.unwrap(), run);
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 1);
    assert_eq!(room.number("SELECT count(*) FROM changes").await, 1);
}

#[tokio::test]
async fn the_same_item_from_many_at_once_starts_one_run() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let item = upsert("uid", "a");
    let writers = (0..6).map(|_| room.upsert(&item, now));
    let answers = futures::future::join_all(writers).await;
    assert_eq!(answers.iter().filter(|answer| answer.started.is_some()).count(), 1);
    assert_eq!(
        room.number("SELECT count(*) FROM users").await,
        1,
        "a namespace is one owner"
    );
}

#[tokio::test]
async fn a_changed_spec_replaces_the_run_that_is_under_way() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let old = room.upsert(&upsert("uid", "a"), now).await.started.unwrap();
    let new = room.upsert(&upsert("uid", "b"), now).await.started.unwrap();
    assert_eq!(
        room.task(old.id).await.status,
        "canceled",
        "it waited, so it ends at once"
    );
    room.claim(new.id).await.unwrap();
    let newest = room.upsert(&upsert("uid", "c"), now).await.started.unwrap();
    assert!(
        room.task(new.id).await.cancel_requested,
        "it runs, so it ends at its next page"
    );
    assert_eq!(room.task(newest.id).await.status, "pending");
}

#[tokio::test]
async fn a_changed_spec_is_refused_while_a_run_is_under_way_where_that_is_asked() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let mut item = upsert("uid", "a");
    item.item.on_change = OnChange::Forbid;
    let first = room.upsert(&item, now).await.started.unwrap();
    item.item.spec_hash = "b".to_owned();
    let refused = room.upsert(&item, now).await;
    assert!(refused.started.is_none() && refused.answer.refused.unwrap().contains("onChange"));
    assert_eq!(room.task(first.id).await.status, "pending");
    let lease = room.claim(first.id).await.unwrap().lease();
    room.ledger.finish(lease, &Ending::Succeeded, 0).await.unwrap().unwrap();
    let next = room.upsert(&item, now).await;
    assert!(next.started.is_some() && next.answer.refused.is_none());
}

#[tokio::test]
async fn a_changed_spec_replaces_the_scheduled_run_that_is_under_way_and_only_once() {
    let room = Room::new().await;
    let (item, ticked) = ticked(&room).await;
    room.claim(ticked).await.unwrap();
    let mut changed = item;
    changed.item.spec_hash = "b".to_owned();
    let now = Timestamp::now();
    let answer = room.upsert(&changed, now).await;
    let new = answer.started.unwrap();
    assert_eq!(answer.answer.run.unwrap().spec_hash, "b");
    assert!(answer.answer.next_run_at.is_some(), "the schedule goes on");
    assert!(
        room.task(ticked).await.cancel_requested,
        "it runs, so it ends at its next page"
    );
    assert_eq!(room.task(new.id).await.status, "pending");
    // The old run has not ended yet: the same item again must not take it for one to replace.
    let again = room.upsert(&changed, now).await;
    assert!(again.started.is_none());
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 2);
}

#[tokio::test]
async fn a_changed_spec_of_a_schedule_at_rest_waits_for_the_next_tick() {
    let room = Room::new().await;
    let (mut item, ticked) = ticked(&room).await;
    let lease = room.claim(ticked).await.unwrap().lease();
    room.ledger.finish(lease, &Ending::Succeeded, 0).await.unwrap().unwrap();
    item.item.spec_hash = "b".to_owned();
    let answer = room.upsert(&item, Timestamp::now()).await;
    assert!(answer.started.is_none() && answer.answer.refused.is_none());
    room.make_due("uid").await;
    assert_eq!(room.keeper.tick_schedules(Timestamp::now()).await.unwrap().started, 1);
    assert_eq!(
        room.texts("SELECT spec_hash FROM tasks ORDER BY id").await,
        ["a", "b"],
        "the next tick runs the new spec"
    );
}

#[tokio::test]
async fn a_changed_spec_of_a_schedule_is_refused_while_a_run_is_under_way_where_that_is_asked() {
    let room = Room::new().await;
    let (mut item, ticked) = ticked(&room).await;
    item.item.on_change = OnChange::Forbid;
    item.item.spec_hash = "b".to_owned();
    let refused = room.upsert(&item, Timestamp::now()).await;
    assert!(refused.started.is_none() && refused.answer.refused.unwrap().contains("onChange"));
    assert_eq!(room.task(ticked).await.status, "pending");
    assert_eq!(
        room.texts("SELECT spec_hash FROM scrape_tasks").await,
        ["a"],
        "a refused change is not half written"
    );
}

/// An hourly schedule with the run of a tick under way.
async fn ticked(room: &Room) -> (CheckedUpsert, TaskId) {
    let item = hourly("uid");
    room.upsert(&item, Timestamp::now()).await;
    room.make_due("uid").await;
    assert_eq!(room.keeper.tick_schedules(Timestamp::now()).await.unwrap().started, 1);
    let newest = room.upsert(&item, Timestamp::now()).await;
    let run = newest.answer.run.unwrap().id.parse().unwrap();
    (item, TaskId(run))
}

#[tokio::test]
async fn nothing_starts_while_it_is_suspended_and_a_run_under_way_goes_on() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let mut item = upsert("uid", "a");
    item.item.suspend = true;
    let answer = room.upsert(&item, now).await;
    assert!(answer.started.is_none() && answer.answer.run.is_none() && answer.answer.refused.is_none());
    item.item.suspend = false;
    let run = room.upsert(&item, now).await.started.unwrap();
    item.item.suspend = true;
    item.item.spec_hash = "b".to_owned();
    assert!(room.upsert(&item, now).await.started.is_none());
    assert_eq!(room.task(run.id).await.status, "pending");
}

#[tokio::test]
async fn a_changed_priority_reaches_the_run_that_waits() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let mut item = upsert("uid", "a");
    let run = room.upsert(&item, now).await.started.unwrap();
    item.item.priority = 9;
    assert!(room.upsert(&item, now).await.started.is_none());
    assert_eq!(room.task(run.id).await.priority, 9);
}

#[tokio::test]
async fn a_removed_scrape_task_ends_its_runs_and_its_schedule_and_keeps_its_results() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let waits = room.upsert(&upsert("waits", "a"), now).await.started.unwrap();
    let runs = room.upsert(&upsert("runs", "a"), now).await.started.unwrap();
    let stays = room.upsert(&upsert("stays", "a"), now).await.started.unwrap();
    room.upsert(&hourly("hourly"), now).await;
    room.claim(runs.id).await.unwrap();
    let gone = ["waits", "runs", "hourly", "unknown"].map(str::to_owned);
    room.ledger.remove_scrape_tasks(&gone).await.unwrap();
    room.ledger.remove_scrape_tasks(&gone).await.unwrap();
    assert_eq!(room.task(waits.id).await.status, "canceled");
    assert!(room.task(runs.id).await.cancel_requested);
    assert_eq!(room.task(stays.id).await.status, "pending");
    assert_eq!(room.texts("SELECT uid FROM scrape_tasks").await, ["stays"]);
}
