//! Schedules: each tick once, late ones within their deadline.

use jiff::{SignedDuration, Timestamp};
use selextract_task::feed::Schedule;

use crate::support::{Room, hourly, ledger};

/// A full hour of this month, some hours ago or in some hours.
fn hour(offset: i64) -> Timestamp {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now - now % 3600 + offset * 3600).unwrap()
}

#[tokio::test]
async fn a_tick_starts_one_run_with_two_keepers_at_once() {
    let room = Room::new().await;
    let (tick, before) = (hour(0), hour(0) - SignedDuration::from_mins(1));
    for n in 0..10 {
        room.ledger
            .upsert_scrape_task(&hourly(&format!("uid-{n}")), before)
            .await
            .unwrap();
    }
    assert_eq!(room.keeper.tick_schedules(before).await.unwrap(), 0, "nothing is due");
    let other = ledger(&room.database.direct_url);
    let started = tokio::join!(room.keeper.tick_schedules(tick), other.tick_schedules(tick));
    assert_eq!(started.0.unwrap() + started.1.unwrap(), 10);
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 10);
    assert_eq!(room.keeper.tick_schedules(tick).await.unwrap(), 0);
    let again = room.ledger.upsert_scrape_task(&hourly("uid-0"), tick).await.unwrap();
    assert_eq!(again.answer.next_run_at.unwrap(), format!("{:.3}", hour(1)));
    assert_eq!(again.answer.run.unwrap().created_at, format!("{tick:.3}"));
}

#[tokio::test]
async fn a_missed_tick_runs_within_its_deadline_and_is_skipped_beyond_it() {
    let room = Room::new().await;
    let before = hour(0) - SignedDuration::from_mins(1);
    room.ledger.upsert_scrape_task(&hourly("uid"), before).await.unwrap();
    let late = hour(0) + SignedDuration::from_mins(9);
    assert_eq!(room.keeper.tick_schedules(late).await.unwrap(), 1);
    let too_late = hour(1) + SignedDuration::from_mins(11);
    assert_eq!(room.keeper.tick_schedules(too_late).await.unwrap(), 0);
    assert_eq!(
        room.keeper.tick_schedules(hour(2)).await.unwrap(),
        1,
        "the next one runs"
    );
}

#[tokio::test]
async fn a_suspended_schedule_does_not_tick_and_a_reapplied_one_keeps_its_tick() {
    let room = Room::new().await;
    let before = hour(0) - SignedDuration::from_mins(1);
    let mut item = hourly("uid");
    room.ledger.upsert_scrape_task(&item, before).await.unwrap();
    // The operator writes it again when the tick is due already.
    let again = room.ledger.upsert_scrape_task(&item, hour(0)).await.unwrap();
    assert_eq!(again.answer.next_run_at.unwrap(), format!("{:.3}", hour(0)));
    item.item.suspend = true;
    assert!(
        room.ledger
            .upsert_scrape_task(&item, before)
            .await
            .unwrap()
            .answer
            .next_run_at
            .is_none()
    );
    assert_eq!(room.keeper.tick_schedules(hour(0)).await.unwrap(), 0);
    item.item.suspend = false;
    room.ledger.upsert_scrape_task(&item, before).await.unwrap();
    assert_eq!(room.keeper.tick_schedules(hour(0)).await.unwrap(), 1);
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_is_refused() {
    let room = Room::new().await;
    let mut item = hourly("uid");
    item.item.schedule = Some(Schedule {
        cron: "now and then".to_owned(),
        time_zone: "UTC".to_owned(),
    });
    let answer = room
        .ledger
        .upsert_scrape_task(&item, Timestamp::now())
        .await
        .unwrap()
        .answer;
    assert!(answer.refused.unwrap().starts_with("schedule.cron"));
    assert_eq!(room.number("SELECT count(*) FROM scrape_tasks").await, 0);
}

#[tokio::test]
async fn a_schedule_that_cannot_start_stands_in_no_others_way() {
    let room = Room::new().await;
    let before = hour(0) - SignedDuration::from_mins(1);
    for uid in ["a-broken", "b-well"] {
        room.ledger.upsert_scrape_task(&hourly(uid), before).await.unwrap();
    }
    room.sql("UPDATE scrape_tasks SET priority = 77 WHERE uid = 'a-broken'")
        .await;
    assert_eq!(room.keeper.tick_schedules(hour(0)).await.unwrap(), 1);
    assert_eq!(room.texts("SELECT source_uid FROM tasks").await, ["b-well"]);
}
