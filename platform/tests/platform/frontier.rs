//! The frontier: fair, ordered, bounded, and rebuilt from the ledger.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures::StreamExt;
use jiff::Timestamp;
use selextract_platform::{
    frontier::{
        Entry, Frontier, QUEUE_WINDOW, Size, Taken, WINDOW,
        hosts::{Admission, GivesWay, Outcome, Visit},
    },
    ledger::{Secret, TaskId, UserId},
};
use selextract_test_services::start;
use tokio::sync::Notify;

use crate::support::{Room, frontier, knows_all_hosts, redis};

fn entry(owner: UserId, host: &str, priority: u8) -> Entry {
    Entry {
        id: TaskId::new(),
        owner,
        host: host.to_owned(),
        priority,
        due_milliseconds: Timestamp::now().as_millisecond(),
    }
}

fn size(runnable: u64, limited: u64, later: u64) -> Size {
    Size {
        runnable,
        limited,
        later,
        ..Size::default()
    }
}

fn entries(owner: UserId, count: usize) -> Vec<Entry> {
    (0..count).map(|_| entry(owner, "site.test", 5)).collect()
}

/// Entries of so many hosts, so that none waits for its host.
fn spread(owner: UserId, count: usize) -> Vec<Entry> {
    (0..count).map(|n| entry(owner, &format!("site-{n}.test"), 5)).collect()
}

/// The host has been visited by a task that asks for no rest, so that its entries follow each other at once.
async fn restless(frontier: &Frontier, host: &str) {
    let (id, owner) = (TaskId::new(), UserId::new());
    let visit = Visit {
        host,
        id,
        owner,
        max_concurrent: 64,
        delay: Duration::ZERO,
        takes: Duration::from_secs(30),
        patience: Duration::ZERO,
        gives_way: GivesWay::ToNobody,
    };
    assert_eq!(
        frontier.begin(&visit, None).await.unwrap(),
        Admission::Start(Duration::ZERO)
    );
    frontier.end(host, id, owner, Outcome::Answered).await.unwrap();
}

#[tokio::test]
async fn an_owner_with_a_thousand_entries_does_not_delay_another() {
    let frontier = frontier().await;
    frontier.offer(&spread(UserId::new(), 1_000)).await.unwrap();
    assert_eq!(frontier.take(100).await.unwrap().ids.len(), 100);
    let small = spread(UserId::new(), 1_003).split_off(1_000);
    frontier.offer(&small).await.unwrap();
    let taken = frontier.take(8).await.unwrap().ids;
    for entry in &small {
        assert!(
            taken.contains(&entry.id),
            "three of the next eight are the other owner's"
        );
    }
}

#[tokio::test]
async fn owners_take_turns_even_with_one_that_offers_one_at_a_time() {
    let frontier = frontier().await;
    let (many, one) = (UserId::new(), UserId::new());
    let waiting = spread(many, 50);
    frontier.offer(&waiting).await.unwrap();
    restless(&frontier, "other.test").await;
    let mut of_many = 0;
    for _ in 0..40 {
        frontier.offer(&[entry(one, "other.test", 9)]).await.unwrap();
        let taken = frontier.take(1).await.unwrap().ids;
        of_many += usize::from(waiting.iter().any(|entry| taken.contains(&entry.id)));
    }
    assert!((15..=25).contains(&of_many), "{of_many} of 40 turns");
}

#[tokio::test]
async fn an_owners_hosts_take_turns() {
    let frontier = frontier().await;
    let owner = UserId::new();
    restless(&frontier, "site.test").await;
    frontier.offer(&entries(owner, 100)).await.unwrap();
    let other = entry(owner, "other.test", 0);
    frontier.offer(std::slice::from_ref(&other)).await.unwrap();
    assert!(frontier.take(3).await.unwrap().ids.contains(&other.id));
}

#[tokio::test]
async fn within_an_owner_and_host_priority_comes_first_then_the_due_time() {
    let frontier = frontier().await;
    let owner = UserId::new();
    let now = Timestamp::now().as_millisecond();
    let mut queue = Vec::new();
    for (priority, due) in [(9, now - 1), (9, now), (5, now - 60_000), (5, now), (0, 0)] {
        let mut entry = entry(owner, "site.test", priority);
        entry.due_milliseconds = due;
        queue.push(entry);
    }
    let expected: Vec<TaskId> = queue.iter().map(|entry| entry.id).collect();
    queue.reverse();
    restless(&frontier, "site.test").await;
    assert_eq!(frontier.offer(&queue).await.unwrap(), 5);
    assert_eq!(frontier.take(10).await.unwrap().ids, expected);
    assert_eq!(frontier.size().await.unwrap(), size(0, 0, 0));
}

#[tokio::test]
async fn what_is_due_later_comes_when_it_is_due() {
    let frontier = frontier().await;
    let mut later = entry(UserId::new(), "site.test", 5);
    later.due_milliseconds += 400;
    frontier.offer(std::slice::from_ref(&later)).await.unwrap();
    let Taken { ids, next } = frontier.take(1).await.unwrap();
    assert!(ids.is_empty());
    let next = next.unwrap();
    assert!(next <= Duration::from_millis(400), "{next:?}");
    assert_eq!(frontier.size().await.unwrap(), size(0, 0, 1));
    tokio::time::sleep(next).await;
    assert_eq!(frontier.take(1).await.unwrap().ids, [later.id]);
}

#[tokio::test]
async fn an_entry_that_is_offered_twice_is_there_once() {
    let frontier = frontier().await;
    let offered = spread(UserId::new(), 10);
    assert_eq!(frontier.offer(&offered).await.unwrap(), 10);
    assert_eq!(frontier.offer(&offered).await.unwrap(), 0);
    assert_eq!(frontier.take(100).await.unwrap().ids.len(), 10);
    assert_eq!(frontier.take(100).await.unwrap(), Taken::default());
    assert_eq!(
        frontier.offer(&offered).await.unwrap(),
        10,
        "what was taken may be offered again"
    );
}

#[tokio::test]
async fn the_window_of_a_queue_is_bounded() {
    let frontier = frontier().await;
    let taken = frontier
        .offer(&entries(UserId::new(), QUEUE_WINDOW + 200))
        .await
        .unwrap();
    assert_eq!(taken, u64::try_from(QUEUE_WINDOW).unwrap());
    assert_eq!(
        frontier.offer(&entries(UserId::new(), 1)).await.unwrap(),
        1,
        "another owner's queue has room"
    );
}

#[tokio::test]
async fn a_full_queue_takes_what_comes_before_its_last_entry() {
    let url = start().redis_url().unwrap();
    knows_all_hosts(&url).await;
    let (frontier, owner) = (Frontier::connect_lazy(&Secret(url.clone())).unwrap(), UserId::new());
    frontier.offer(&entries(owner, QUEUE_WINDOW)).await.unwrap();
    let urgent = entry(owner, "site.test", 9);
    assert_eq!(frontier.offer(std::slice::from_ref(&urgent)).await.unwrap(), 1);
    assert_eq!(
        frontier.offer(std::slice::from_ref(&urgent)).await.unwrap(),
        0,
        "it is there"
    );
    assert_eq!(frontier.offer(&[entry(owner, "site.test", 4)]).await.unwrap(), 0);
    assert_eq!(held(&url).await, QUEUE_WINDOW, "its last entry made room");
    assert_eq!(frontier.take(1).await.unwrap().ids, [urgent.id]);
}

#[tokio::test]
async fn the_owner_with_the_most_entries_makes_room_for_others_and_nothing_is_there_twice() {
    let url = start().redis_url().unwrap();
    knows_all_hosts(&url).await;
    let frontier = Frontier::connect_lazy(&Secret(url.clone())).unwrap();
    let (many, few, third) = (UserId::new(), UserId::new(), UserId::new());
    let of_many: Vec<Entry> = (0..WINDOW)
        .map(|n| entry(many, &format!("host-{}.test", n / QUEUE_WINDOW), 5))
        .collect();
    frontier.offer(&of_many).await.unwrap();
    assert_eq!(held(&url).await, WINDOW);
    let of_few = entries(few, 10);
    assert_eq!(frontier.offer(&of_few).await.unwrap(), 10);
    assert_eq!(frontier.offer(&of_few).await.unwrap(), 0, "they are there");
    assert_eq!(held(&url).await, WINDOW, "ten others made room");
    // What was driven away comes again and again, and drives nobody away.
    for again in of_many.chunks(20_000) {
        assert_eq!(frontier.offer(again).await.unwrap(), 0);
    }
    let urgent = entry(many, "another.test", 9);
    assert_eq!(frontier.offer(&[urgent]).await.unwrap(), 1, "its owner's last one goes");
    let much = spread(third, 2_000);
    assert_eq!(frontier.offer(&much).await.unwrap(), 2_000);
    for of in [many, few, third] {
        let counted: f64 = ::redis::cmd("ZSCORE")
            .arg("sx:held")
            .arg(of.to_string())
            .query_async(&mut redis(&url).await)
            .await
            .unwrap();
        let expected = if of == many {
            WINDOW - 2_010
        } else if of == few {
            10
        } else {
            2_000
        };
        assert!(
            (counted - f64::from(u32::try_from(expected).unwrap())).abs() < 0.5,
            "{counted} of {expected}"
        );
    }
    let taken = frontier.take(30).await.unwrap().ids;
    assert!(of_few.iter().any(|entry| taken.contains(&entry.id)));
}

#[tokio::test]
async fn what_is_due_later_makes_room_for_what_may_run_now() {
    let url = start().redis_url().unwrap();
    knows_all_hosts(&url).await;
    let frontier = Frontier::connect_lazy(&Secret(url.clone())).unwrap();
    let owner = UserId::new();
    let mut later = spread(owner, WINDOW);
    for entry in &mut later {
        entry.due_milliseconds += 3_600_000;
    }
    frontier.offer(&later).await.unwrap();
    assert_eq!(held(&url).await, WINDOW);
    let now = entry(owner, "site.test", 0);
    assert_eq!(frontier.offer(std::slice::from_ref(&now)).await.unwrap(), 1);
    assert_eq!(held(&url).await, WINDOW);
    assert_eq!(frontier.take(1).await.unwrap().ids, [now.id]);
}

#[tokio::test]
async fn a_frontier_that_was_filled_by_a_version_that_did_not_count_is_counted() {
    let url = start().redis_url().unwrap();
    let frontier = Frontier::connect_lazy(&Secret(url.clone())).unwrap();
    let (many, few) = (UserId::new(), UserId::new());
    frontier.offer(&spread(many, 3_000)).await.unwrap();
    frontier.offer(&spread(few, 2)).await.unwrap();
    let mut connection = redis(&url).await;
    ::redis::cmd("DEL")
        .arg("sx:held")
        .exec_async(&mut connection)
        .await
        .unwrap();
    frontier.count_owners().await.unwrap();
    let counted: Vec<(String, u64)> = ::redis::cmd("ZRANGE")
        .arg(&["sx:held", "0", "-1", "WITHSCORES"])
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(counted, [(few.to_string(), 2), (many.to_string(), 3_000)]);
}

/// How many entries a frontier holds.
async fn held(url: &str) -> usize {
    ::redis::cmd("HLEN")
        .arg("sx:entries")
        .query_async(&mut redis(url).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn concurrent_takers_never_get_the_same_entry() {
    let frontier = frontier().await;
    let offered = spread(UserId::new(), 900);
    frontier.offer(&offered).await.unwrap();
    let takers: Vec<_> = (0..6)
        .map(|_| {
            let frontier = frontier.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let taken = frontier.take(7).await.unwrap().ids;
                    if taken.is_empty() {
                        return mine;
                    }
                    mine.extend(taken);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    assert_eq!(all.len(), 900);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 900);
}

#[tokio::test]
async fn a_wiped_frontier_is_refilled_from_the_ledger() {
    let room = Room::new().await;
    let url = start().redis_url().unwrap();
    let frontier = Frontier::connect_lazy(&Secret(url.clone())).unwrap();
    let owner = UserId::new();
    let mut waiting = HashSet::new();
    for _ in 0..3 {
        waiting.insert(room.accept(owner).await);
    }
    let (claimed, retried) = (room.accept(owner).await, room.accept(owner).await);
    room.claim(claimed).await.unwrap();
    room.sql(&format!(
        "UPDATE tasks SET due_at = now() + interval '1 hour' WHERE id = '{retried}'"
    ))
    .await;
    let (entries, next) = room.keeper.refill(None).await.unwrap();
    assert_eq!((entries.len(), next), (4, None));
    frontier.offer(&entries).await.unwrap();
    frontier.take(5).await.unwrap();
    ::redis::cmd("FLUSHDB")
        .exec_async(&mut redis(&url).await)
        .await
        .unwrap();
    assert_eq!(frontier.offer(&entries).await.unwrap(), 4);
    let mut taken = HashSet::new();
    let started = Instant::now();
    while taken.len() < 3 {
        assert!(started.elapsed() < Duration::from_secs(10), "{taken:?}");
        let Taken { ids, next } = frontier.take(100).await.unwrap();
        taken.extend(ids);
        tokio::time::sleep(next.unwrap().min(Duration::from_millis(300))).await;
    }
    assert_eq!(taken, waiting);
    assert_eq!(frontier.size().await.unwrap(), size(0, 0, 1));
}

#[tokio::test]
async fn a_refill_goes_through_a_long_backlog_in_stretches() {
    let room = Room::new().await;
    room.sql(
        "INSERT INTO tasks (id, user_id, created_at, due_at, spec, spec_version, host, max_attempts)
         SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint + n / 4000), 12, '0') || '7' || lpad(to_hex(n % 4000), 3, '0')
                 || '8' || substr(md5(n::text), 1, 15))::uuid, gen_random_uuid(), now(), now(), '{}', 1, 'h', 1
         FROM generate_series(0, 7999) n",
    )
    .await;
    let (mut seen, mut after) = (HashSet::new(), None);
    loop {
        let (entries, next) = room.keeper.refill(after).await.unwrap();
        for entry in entries {
            assert!(seen.insert(entry.id), "no entry twice in a circle");
        }
        let Some(next) = next else { break };
        after = Some(next);
    }
    assert_eq!(seen.len(), 8_000);
}

#[tokio::test]
async fn a_refill_begins_with_what_comes_first_of_every_owner() {
    let room = Room::new().await;
    let (many, few) = (UserId::new(), UserId::new());
    room.sql(&format!(
        "INSERT INTO tasks (id, user_id, created_at, due_at, spec, spec_version, host, max_attempts, priority)
         SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - 10000 + n / 4000), 12, '0') || '7' || lpad(to_hex(n % 4000), 3, '0')
                 || '8' || substr(md5(n::text), 1, 15))::uuid, '{many}', now(), now() + n % 7 * interval '1 second', '{{}}', 1, 'h', 1,
                CASE WHEN n = 11111 THEN 9 ELSE n % 6 END
         FROM generate_series(0, 11999) n"
    ))
    .await;
    let mut of_few = HashSet::new();
    for _ in 0..3 {
        of_few.insert(room.accept(few).await);
    }
    let (first, mut next) = room.keeper.refill(None).await.unwrap();
    assert!(first.len() < 1_000, "{}", first.len());
    assert!(of_few.iter().all(|id| first.iter().any(|entry| entry.id == *id)));
    let urgent = first.iter().find(|entry| entry.owner == many).unwrap();
    assert_eq!(urgent.priority, 9, "and of each what comes first");
    let mut seen: HashSet<TaskId> = first.iter().map(|entry| entry.id).collect();
    let mut order: Vec<(u8, i64)> = first
        .iter()
        .filter(|entry| entry.owner == many)
        .map(|entry| (9 - entry.priority, entry.due_milliseconds))
        .collect();
    while let Some(from) = next {
        let (entries, then) = room.keeper.refill(Some(from)).await.unwrap();
        for entry in entries {
            order.push((9 - entry.priority, entry.due_milliseconds));
            assert!(seen.insert(entry.id), "no entry twice in a circle");
        }
        next = then;
    }
    assert_eq!(seen.len(), 12_003);
    assert!(order.is_sorted(), "in the order of an owner's queue");
}

#[tokio::test]
async fn an_offer_wakes_a_listener_within_milliseconds() {
    let own = start().valkey().unwrap();
    let frontier = Frontier::connect_lazy(&Secret(own.url(0))).unwrap();
    let wake = std::sync::Arc::new(Notify::new());
    let listener = {
        let (frontier, wake) = (frontier.clone(), wake.clone());
        tokio::spawn(async move { frontier.listen(&wake).await })
    };
    frontier.ping().await.unwrap();
    let mut waits = Vec::new();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        while !frontier.take(8).await.unwrap().ids.is_empty() {}
        let started = Instant::now();
        frontier.offer(&entries(UserId::new(), 1)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(2), wake.notified())
            .await
            .unwrap();
        waits.push(started.elapsed());
    }
    waits.sort_unstable();
    assert!(waits[2] < Duration::from_millis(50), "{waits:?}");
    listener.abort();
}

#[tokio::test]
async fn workers_that_find_enough_are_not_told_of_every_offer() {
    let own = start().valkey().unwrap();
    let frontier = Frontier::connect_lazy(&Secret(own.url(0))).unwrap();
    let mut client = ::redis::Client::open(own.url(0))
        .unwrap()
        .get_async_pubsub()
        .await
        .unwrap();
    client.subscribe("sx:wake").await.unwrap();
    let mut told = client.on_message();
    assert!(frontier.take(1).await.unwrap().ids.is_empty());
    for _ in 0..3 {
        frontier.offer(&spread(UserId::new(), 2)).await.unwrap();
    }
    let first = tokio::time::timeout(Duration::from_secs(2), told.next()).await;
    assert!(first.unwrap().is_some(), "somebody found nothing and is told");
    let more = tokio::time::timeout(Duration::from_millis(200), told.next()).await;
    assert!(more.is_err(), "once is enough until somebody finds nothing again");
}

#[tokio::test]
async fn a_frozen_frontier_is_an_error_in_time_and_works_again_afterwards() {
    let own = start().valkey().unwrap();
    let frontier = Frontier::connect_lazy(&Secret(own.url(0))).unwrap();
    frontier.ping().await.unwrap();
    own.process().freeze().unwrap();
    let started = Instant::now();
    assert!(frontier.take(1).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    own.process().thaw().unwrap();
    for _ in 0..40 {
        if frontier.offer(&entries(UserId::new(), 1)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it did not come back");
}

#[tokio::test]
async fn what_may_run_now_at_a_host_is_bounded_by_its_places_whoever_waits_for_it() {
    let frontier = frontier().await;
    let owners: Vec<_> = (0..3).map(|_| UserId::new()).collect();
    let all: Vec<_> = owners.iter().flat_map(|owner| entries(*owner, 30)).collect();
    frontier.offer(&all).await.unwrap();
    let resting = frontier.size().await.unwrap();
    assert_eq!(
        (resting.runnable, resting.limited),
        (1, 89),
        "a host that rests between its pages"
    );
    assert_eq!(frontier.take(90).await.unwrap().ids.len(), 1);

    let frontier = crate::support::frontier().await;
    restless(&frontier, "site.test").await;
    frontier.offer(&all).await.unwrap();
    let restless = frontier.size().await.unwrap();
    assert_eq!((restless.runnable, restless.limited), (64, 26), "its places");
    assert_eq!(frontier.take(90).await.unwrap().ids.len(), 64);

    // Other hosts have places of their own.
    frontier.offer(&spread(owners[0], 5)).await.unwrap();
    assert_eq!(frontier.size().await.unwrap().runnable, 5);
}
