//! `ScrapeTask`s as their operator writes them.

use jiff::Timestamp;
use selextract_platform::ledger::claims::Ending;
use selextract_task::feed::{OnChange, RunState};

use crate::support::{Room, hourly, upsert};

#[tokio::test]
async fn the_same_item_twice_changes_nothing() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let first = room.ledger.upsert_scrape_task(&upsert("uid", "a"), now).await.unwrap();
    let run = first.answer.run.unwrap();
    assert_eq!((run.state, run.spec_hash.as_str()), (RunState::Pending, "a"));
    assert_eq!(first.started.unwrap().id.to_string(), run.id);
    let again = room.ledger.upsert_scrape_task(&upsert("uid", "a"), now).await.unwrap();
    assert!(again.started.is_none());
    assert_eq!(again.answer.run.unwrap(), run);
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 1);
    assert_eq!(room.number("SELECT count(*) FROM changes").await, 1);
}

#[tokio::test]
async fn the_same_item_from_many_at_once_starts_one_run() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let item = upsert("uid", "a");
    let writers = (0..6).map(|_| room.ledger.upsert_scrape_task(&item, now));
    let answers = futures::future::try_join_all(writers).await.unwrap();
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
    let old = room
        .ledger
        .upsert_scrape_task(&upsert("uid", "a"), now)
        .await
        .unwrap()
        .started
        .unwrap();
    let new = room
        .ledger
        .upsert_scrape_task(&upsert("uid", "b"), now)
        .await
        .unwrap()
        .started
        .unwrap();
    assert_eq!(
        room.task(old.id).await.status,
        "canceled",
        "it waited, so it ends at once"
    );
    room.claim(new.id).await.unwrap();
    let newest = room
        .ledger
        .upsert_scrape_task(&upsert("uid", "c"), now)
        .await
        .unwrap()
        .started
        .unwrap();
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
    let first = room
        .ledger
        .upsert_scrape_task(&item, now)
        .await
        .unwrap()
        .started
        .unwrap();
    item.item.spec_hash = "b".to_owned();
    let refused = room.ledger.upsert_scrape_task(&item, now).await.unwrap();
    assert!(refused.started.is_none() && refused.answer.refused.unwrap().contains("onChange"));
    assert_eq!(room.task(first.id).await.status, "pending");
    let lease = room.claim(first.id).await.unwrap().lease();
    room.ledger.finish(lease, &Ending::Succeeded, 0).await.unwrap().unwrap();
    let next = room.ledger.upsert_scrape_task(&item, now).await.unwrap();
    assert!(next.started.is_some() && next.answer.refused.is_none());
}

#[tokio::test]
async fn nothing_starts_while_it_is_suspended_and_a_run_under_way_goes_on() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let mut item = upsert("uid", "a");
    item.item.suspend = true;
    let answer = room.ledger.upsert_scrape_task(&item, now).await.unwrap();
    assert!(answer.started.is_none() && answer.answer.run.is_none() && answer.answer.refused.is_none());
    item.item.suspend = false;
    let run = room
        .ledger
        .upsert_scrape_task(&item, now)
        .await
        .unwrap()
        .started
        .unwrap();
    item.item.suspend = true;
    item.item.spec_hash = "b".to_owned();
    assert!(
        room.ledger
            .upsert_scrape_task(&item, now)
            .await
            .unwrap()
            .started
            .is_none()
    );
    assert_eq!(room.task(run.id).await.status, "pending");
}

#[tokio::test]
async fn a_changed_priority_reaches_the_run_that_waits() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let mut item = upsert("uid", "a");
    let run = room
        .ledger
        .upsert_scrape_task(&item, now)
        .await
        .unwrap()
        .started
        .unwrap();
    item.item.priority = 9;
    assert!(
        room.ledger
            .upsert_scrape_task(&item, now)
            .await
            .unwrap()
            .started
            .is_none()
    );
    assert_eq!(room.task(run.id).await.priority, 9);
}

#[tokio::test]
async fn a_removed_scrape_task_ends_its_runs_and_its_schedule_and_keeps_its_results() {
    let (room, now) = (Room::new().await, Timestamp::now());
    let waits = room
        .ledger
        .upsert_scrape_task(&upsert("waits", "a"), now)
        .await
        .unwrap()
        .started
        .unwrap();
    let runs = room
        .ledger
        .upsert_scrape_task(&upsert("runs", "a"), now)
        .await
        .unwrap()
        .started
        .unwrap();
    let stays = room
        .ledger
        .upsert_scrape_task(&upsert("stays", "a"), now)
        .await
        .unwrap()
        .started
        .unwrap();
    room.ledger.upsert_scrape_task(&hourly("hourly"), now).await.unwrap();
    room.claim(runs.id).await.unwrap();
    let gone = ["waits", "runs", "hourly", "unknown"].map(str::to_owned);
    room.ledger.remove_scrape_tasks(&gone).await.unwrap();
    room.ledger.remove_scrape_tasks(&gone).await.unwrap();
    assert_eq!(room.task(waits.id).await.status, "canceled");
    assert!(room.task(runs.id).await.cancel_requested);
    assert_eq!(room.task(stays.id).await.status, "pending");
    assert_eq!(room.texts("SELECT uid FROM scrape_tasks").await, ["stays"]);
}
