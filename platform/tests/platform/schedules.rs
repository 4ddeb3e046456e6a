//! Schedules: each tick once, late ones within their deadline.

use jiff::{SignedDuration, Timestamp};
use selextract_platform::ledger::{quotas::Quotas, ticks::Ticked};
use selextract_task::{ConcurrencyPolicy, Duration, feed::Schedule};

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
        room.upsert(&hourly(&format!("uid-{n}")), before).await;
    }
    assert_eq!(
        room.keeper.tick_schedules(before).await.unwrap().started,
        0,
        "nothing is due"
    );
    let other = ledger(&room.database.direct_url);
    let started = tokio::join!(room.keeper.tick_schedules(tick), other.tick_schedules(tick));
    assert_eq!(started.0.unwrap().started + started.1.unwrap().started, 10);
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 10);
    assert_eq!(room.keeper.tick_schedules(tick).await.unwrap().started, 0);
    let again = room.upsert(&hourly("uid-0"), tick).await;
    assert_eq!(again.answer.next_run_at.unwrap(), format!("{:.3}", hour(1)));
    assert_eq!(again.answer.run.unwrap().created_at, format!("{tick:.3}"));
}

#[tokio::test]
async fn a_missed_tick_runs_within_its_deadline_and_is_skipped_beyond_it() {
    let room = Room::new().await;
    let before = hour(0) - SignedDuration::from_mins(1);
    room.upsert(&hourly("uid"), before).await;
    let late = hour(0) + SignedDuration::from_mins(9);
    assert_eq!(room.keeper.tick_schedules(late).await.unwrap().started, 1);
    room.sql("UPDATE tasks SET status = 'succeeded'").await;
    let too_late = hour(1) + SignedDuration::from_mins(11);
    assert_eq!(room.keeper.tick_schedules(too_late).await.unwrap().started, 0);
    assert_eq!(
        room.keeper.tick_schedules(hour(2)).await.unwrap().started,
        1,
        "the next one runs"
    );
}

#[tokio::test]
async fn a_suspended_schedule_does_not_tick_and_a_reapplied_one_keeps_its_tick() {
    let room = Room::new().await;
    let before = hour(0) - SignedDuration::from_mins(1);
    let mut item = hourly("uid");
    room.upsert(&item, before).await;
    // The operator writes it again when the tick is due already.
    let again = room.upsert(&item, hour(0)).await;
    assert_eq!(again.answer.next_run_at.unwrap(), format!("{:.3}", hour(0)));
    item.item.suspend = true;
    assert!(room.upsert(&item, before).await.answer.next_run_at.is_none());
    assert_eq!(room.keeper.tick_schedules(hour(0)).await.unwrap().started, 0);
    item.item.suspend = false;
    room.upsert(&item, before).await;
    assert_eq!(room.keeper.tick_schedules(hour(0)).await.unwrap().started, 1);
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_is_refused() {
    let room = Room::new().await;
    let mut item = hourly("uid");
    item.item.schedule = Some(Schedule {
        cron: "now and then".to_owned(),
        time_zone: "UTC".to_owned(),
        ..Schedule::default()
    });
    let answer = room.upsert(&item, Timestamp::now()).await.answer;
    assert!(answer.refused.unwrap().starts_with("schedule.cron"));
    assert_eq!(room.number("SELECT count(*) FROM scrape_tasks").await, 0);
}

#[tokio::test]
async fn a_schedule_that_cannot_start_stands_in_no_others_way() {
    let room = Room::new().await;
    let before = hour(0) - SignedDuration::from_mins(1);
    for uid in ["a-broken", "b-well"] {
        room.upsert(&hourly(uid), before).await;
    }
    room.sql("UPDATE scrape_tasks SET priority = 77 WHERE uid = 'a-broken'")
        .await;
    assert_eq!(room.keeper.tick_schedules(hour(0)).await.unwrap().started, 1);
    assert_eq!(room.texts("SELECT source_uid FROM tasks").await, ["b-well"]);
}

/// An hourly schedule that has ticked once, and whose run is under way.
async fn under_way(policy: ConcurrencyPolicy, deadline: Option<Duration>) -> Room {
    let room = Room::new().await;
    let mut item = hourly("uid");
    let schedule = item.item.schedule.as_mut().unwrap();
    (schedule.concurrency_policy, schedule.starting_deadline) = (policy, deadline);
    let before = hour(-3) - SignedDuration::from_mins(1);
    room.upsert(&item, before).await;
    assert_eq!(room.keeper.tick_schedules(hour(-3)).await.unwrap().started, 1);
    room
}

fn ticked(started: u64, missed: u64) -> Ticked {
    Ticked { started, missed }
}

#[tokio::test]
async fn a_forbidden_tick_waits_for_the_runs_end_and_is_missed_beyond_its_deadline() {
    let room = under_way(ConcurrencyPolicy::Forbid, None).await;
    let minutes = SignedDuration::from_mins;
    assert_eq!(room.keeper.tick_schedules(hour(-2)).await.unwrap(), ticked(0, 0));
    room.sql("UPDATE tasks SET status = 'succeeded'").await;
    let ended = hour(-2) + minutes(9);
    assert_eq!(
        room.keeper.tick_schedules(ended).await.unwrap(),
        ticked(1, 0),
        "it starts when the run has ended"
    );
    let late = hour(-1) + minutes(11);
    assert_eq!(room.keeper.tick_schedules(late).await.unwrap(), ticked(0, 1));
    assert_eq!(
        room.number("SELECT missed_ticks FROM scrape_tasks WHERE last_missed_at IS NOT NULL")
            .await,
        1
    );
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 2);
}

#[tokio::test]
async fn of_the_ticks_that_wait_for_a_run_the_newest_starts() {
    let room = under_way(ConcurrencyPolicy::Forbid, Some(Duration::from_secs(2 * 3600))).await;
    for moment in [hour(-2), hour(-1), hour(0)] {
        assert_eq!(room.keeper.tick_schedules(moment).await.unwrap().started, 0);
    }
    room.sql("UPDATE tasks SET status = 'failed'").await;
    let ended = hour(0) + SignedDuration::from_secs(1);
    assert_eq!(room.keeper.tick_schedules(ended).await.unwrap(), ticked(1, 2));
    assert_eq!(
        room.texts("SELECT rfc3339(max(created_at)) FROM tasks").await,
        [format!("{:.3}", hour(0))]
    );
    assert_eq!(room.keeper.tick_schedules(ended).await.unwrap(), ticked(0, 0));
}

#[tokio::test]
async fn a_tick_replaces_the_run_that_is_under_way_or_runs_beside_it_where_that_is_asked() {
    let room = under_way(ConcurrencyPolicy::Replace, None).await;
    assert_eq!(room.keeper.tick_schedules(hour(-2)).await.unwrap(), ticked(1, 0));
    assert_eq!(
        room.texts("SELECT status FROM tasks ORDER BY id").await,
        ["canceled", "pending"]
    );
    let room = under_way(ConcurrencyPolicy::Allow, None).await;
    assert_eq!(room.keeper.tick_schedules(hour(-2)).await.unwrap(), ticked(1, 0));
    assert_eq!(
        room.texts("SELECT status FROM tasks ORDER BY id").await,
        ["pending", "pending"]
    );
}

#[tokio::test]
async fn after_a_pause_of_the_platform_one_run_catches_up_for_each_schedule() {
    let room = under_way(ConcurrencyPolicy::Allow, None).await;
    let back = hour(0) + SignedDuration::from_mins(5);
    assert_eq!(room.keeper.tick_schedules(back).await.unwrap(), ticked(1, 2));
    assert_eq!(room.number("SELECT count(*) FROM tasks").await, 2);
}

#[tokio::test]
async fn a_tick_of_an_owner_who_may_have_no_further_task_waits_within_its_deadline_and_is_told() {
    let room = Room::new().await;
    let (tick, before) = (hour(0), hour(0) - SignedDuration::from_mins(1));
    for uid in ["one", "two"] {
        room.upsert(&hourly(uid), before).await;
    }
    let mut other = hourly("other");
    other.item.namespace = "library".to_owned();
    room.upsert(&other, before).await;
    let owner = room.ledger.namespace_owner("shop").await.unwrap();
    let quotas = Quotas {
        queued: Some(1),
        ..Quotas::default()
    };
    room.ledger.set_quotas(owner, quotas).await.unwrap();
    assert_eq!(
        room.keeper.tick_schedules(tick).await.unwrap(),
        ticked(2, 0),
        "one of his two, and the other's"
    );
    let minute = tick + SignedDuration::from_mins(1);
    assert_eq!(room.keeper.tick_schedules(minute).await.unwrap(), ticked(0, 0));
    let held = async || {
        let all = room.ledger.schedules(owner, None).await.unwrap();
        all.into_iter().filter_map(|schedule| schedule.held).collect::<Vec<_>>()
    };
    let told = held().await;
    assert!(
        told.len() == 1 && told[0].starts_with("the quota queued is 1 and 1 are used"),
        "{told:?}"
    );
    // There is room again.
    let run = room
        .texts(&format!("SELECT id::text FROM tasks WHERE user_id = '{owner}'"))
        .await;
    room.ledger.cancel(None, run[0].parse().unwrap()).await.unwrap();
    assert_eq!(room.keeper.tick_schedules(minute).await.unwrap(), ticked(1, 0));
    assert!(held().await.is_empty());
    // And never in time.
    assert_eq!(room.keeper.tick_schedules(hour(1)).await.unwrap(), ticked(0, 0));
    room.sql(&format!(
        "UPDATE tasks SET status = 'succeeded' WHERE user_id <> '{owner}'"
    ))
    .await;
    assert_eq!(room.keeper.tick_schedules(hour(1)).await.unwrap(), ticked(1, 0));
    let late = hour(1) + SignedDuration::from_mins(11);
    assert_eq!(
        room.keeper.tick_schedules(late).await.unwrap(),
        ticked(0, 2),
        "missed, and counted"
    );
    assert!(held().await.is_empty());
}

#[tokio::test]
async fn an_operator_hears_when_a_tick_begins_and_when_it_ends_to_wait_for_a_quota() {
    let room = Room::new().await;
    room.upsert(&hourly("uid"), hour(0) - SignedDuration::from_mins(1))
        .await;
    assert_eq!(room.keeper.tick_schedules(hour(0)).await.unwrap(), ticked(1, 0));
    room.sql("UPDATE tasks SET status = 'succeeded'").await;
    let owner = room.ledger.namespace_owner("shop").await.unwrap();
    let quotas = Quotas {
        queued: Some(1),
        ..Quotas::default()
    };
    room.ledger.set_quotas(owner, quotas).await.unwrap();
    room.accept(owner).await;
    let hears = async |after| {
        for _ in 0..200 {
            let mut changes = room.ledger.changes(after).await.unwrap();
            if let Some(change) = changes.changes.pop() {
                return (change.held, changes.next);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("nothing is told");
    };
    let (held, after) = hears(0).await;
    assert_eq!(held, None, "the run has started");
    let told = async || room.number("SELECT count(*) FROM changes").await;
    let before = told().await;
    assert_eq!(room.keeper.tick_schedules(hour(1)).await.unwrap(), ticked(0, 0));
    let (held, after) = hears(after).await;
    assert!(held.as_ref().unwrap().starts_with("the quota queued is 1"), "{held:?}");
    let minute = hour(1) + SignedDuration::from_mins(1);
    assert_eq!(room.keeper.tick_schedules(minute).await.unwrap(), ticked(0, 0));
    assert_eq!(
        room.upsert(&hourly("uid"), minute).await.answer.held,
        held,
        "written again"
    );
    assert_eq!(told().await, before + 1, "once");
    let late = hour(1) + SignedDuration::from_mins(11);
    assert_eq!(room.keeper.tick_schedules(late).await.unwrap(), ticked(0, 1));
    assert_eq!(hears(after).await.0, None, "it is missed");
}
