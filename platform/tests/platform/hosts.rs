//! What hosts allow, against a real Valkey: rests, concurrency, complaints, the breaker, and turns between owners.

use std::time::Duration;

use selextract_platform::{
    frontier::{
        Entry, Frontier, QUEUE_WINDOW, Size, Unvisited, WINDOW,
        hosts::{Admission, GivesWay, HostState, Outcome, Visit},
    },
    ledger::{Secret, TaskId, UserId},
};
use selextract_test_services::start;
use tokio::time::{Instant, sleep};

use crate::support::{frontier, knows_all_hosts, redis};

const HOST: &str = "site.test";

/// One run of an owner's.
#[derive(Clone, Copy)]
struct Run {
    id: TaskId,
    owner: UserId,
}

fn run() -> Run {
    Run {
        id: TaskId::new(),
        owner: UserId::new(),
    }
}

impl Run {
    fn visit(self, delay: u64) -> Visit<'static> {
        Visit {
            host: HOST,
            id: self.id,
            owner: self.owner,
            max_concurrent: 4,
            delay: Duration::from_millis(delay),
            takes: Duration::from_secs(30),
            patience: Duration::from_secs(2),
            gives_way: GivesWay::ToNobody,
        }
    }

    fn entry(self) -> Entry {
        Entry {
            id: self.id,
            owner: self.owner,
            host: HOST.to_owned(),
            priority: 5,
            due_milliseconds: 0,
        }
    }

    async fn ends(self, frontier: &Frontier, outcome: Outcome) {
        frontier.end(HOST, self.id, self.owner, outcome).await.unwrap();
    }

    /// Visits the host once, with this outcome.
    async fn visits(self, frontier: &Frontier, outcome: Outcome) {
        let admission = frontier.begin(&self.visit(0), None).await.unwrap();
        assert!(matches!(admission, Admission::Start(_)), "{admission:?}");
        self.ends(frontier, outcome).await;
    }
}

async fn starts_after(frontier: &Frontier, run: Run, delay: u64) -> u128 {
    let admission = frontier.begin(&run.visit(delay), None).await.unwrap();
    assert!(matches!(admission, Admission::Start(_)), "{admission:?}");
    match admission {
        Admission::Start(wait) => wait.as_millis(),
        _ => 0,
    }
}

async fn state(frontier: &Frontier) -> HostState {
    frontier.host_states(&[HOST]).await.unwrap().remove(0)
}

/// Lets the clock of the host's closing run out, as if the time had passed.
async fn pass(frontier_url: &str, milliseconds: i64) {
    let mut connection = redis(frontier_url).await;
    for field in ["n", "t", "b", "o", "e"] {
        ::redis::Script::new(
            "local at = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
             if at > 0 then redis.call('HSET', KEYS[1], ARGV[1], math.max(1, at - ARGV[2])) end",
        )
        .key(format!("sx:host:{HOST}"))
        .arg(field)
        .arg(milliseconds)
        .invoke_async::<()>(&mut connection)
        .await
        .unwrap();
    }
}

/// A frontier whose Redis the test may look into.
async fn open_frontier() -> (Frontier, String) {
    let url = start().redis_url().unwrap();
    knows_all_hosts(&url).await;
    (Frontier::connect_lazy(&Secret(url.clone())).unwrap(), url)
}

#[tokio::test]
async fn pages_of_all_workers_start_a_rest_apart() {
    let frontier = frontier().await;
    let other_worker = frontier.clone();
    assert_eq!(starts_after(&frontier, run(), 400).await, 0);
    let second = starts_after(&other_worker, run(), 400).await;
    let third = starts_after(&frontier, run(), 400).await;
    assert!(
        (300..=450).contains(&second) && (650..=850).contains(&third),
        "{second} {third}"
    );
}

#[tokio::test]
async fn a_longer_wait_than_the_run_is_patient_is_told_and_takes_no_place() {
    let frontier = frontier().await;
    starts_after(&frontier, run(), 60_000).await;
    let Admission::Later(first) = frontier.begin(&run().visit(60_000), None).await.unwrap() else {
        panic!("it may start");
    };
    let Admission::Later(second) = frontier.begin(&run().visit(60_000), None).await.unwrap() else {
        panic!("it may start");
    };
    assert!(first > Duration::from_secs(59) && second <= first);
    assert!(matches!(state(&frontier).await, HostState::Limited(wait) if wait > Duration::from_secs(58)));
}

#[tokio::test]
async fn only_so_many_pages_are_under_way_and_an_end_makes_room() {
    let frontier = frontier().await;
    let runs: Vec<Run> = (0..4).map(|_| run()).collect();
    for run in &runs {
        starts_after(&frontier, *run, 0).await;
    }
    let fifth = run();
    assert_eq!(frontier.begin(&fifth.visit(0), None).await.unwrap(), Admission::Full);
    assert!(matches!(state(&frontier).await, HostState::Limited(_)));
    runs[0].ends(&frontier, Outcome::Answered).await;
    assert_eq!(starts_after(&frontier, fifth, 0).await, 0);
    // A run's next page takes the place of the one before.
    assert_eq!(
        frontier.begin(&fifth.visit(0), Some(Outcome::Answered)).await.unwrap(),
        Admission::Start(Duration::ZERO)
    );
}

#[tokio::test]
async fn the_place_of_a_worker_that_died_expires() {
    let frontier = frontier().await;
    let mut dying = run().visit(0);
    (dying.max_concurrent, dying.takes) = (1, Duration::from_millis(300));
    let mut next = run().visit(0);
    next.max_concurrent = 1;
    frontier.begin(&dying, None).await.unwrap();
    assert_eq!(frontier.begin(&next, None).await.unwrap(), Admission::Full);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(
        frontier.begin(&next, None).await.unwrap(),
        Admission::Start(Duration::ZERO)
    );
}

#[tokio::test]
async fn entries_of_a_host_are_taken_a_rest_apart_and_the_moment_of_the_next_is_told() {
    let frontier = frontier().await;
    let runs: Vec<Run> = (0..6).map(|_| run()).collect();
    let entries: Vec<Entry> = runs.iter().map(|run| run.entry()).collect();
    frontier.offer(&entries).await.unwrap();
    let started = Instant::now();
    let mut all = 0;
    while all < runs.len() {
        let taken = frontier.take(8).await.unwrap();
        assert!(taken.ids.len() <= 1, "one rest, one page");
        for id in &taken.ids {
            let visit = Visit {
                id: *id,
                ..run().visit(100)
            };
            frontier.begin(&visit, None).await.unwrap();
            frontier.end(HOST, *id, visit.owner, Outcome::Answered).await.unwrap();
        }
        all += taken.ids.len();
        assert!(started.elapsed() < Duration::from_secs(10));
        sleep(taken.next.unwrap_or_default()).await;
    }
    assert!(
        started.elapsed() >= Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn an_entry_whose_page_never_begins_keeps_its_host_from_nobody_once_it_is_given_back() {
    let (frontier, url) = open_frontier().await;
    let mut visit = run().visit(200);
    visit.max_concurrent = 1;
    frontier.begin(&visit, None).await.unwrap();
    frontier
        .end(HOST, visit.id, visit.owner, Outcome::Answered)
        .await
        .unwrap();
    pass(&url, 1_000).await;
    let (first, second) = (run(), run());
    frontier.offer(&[first.entry(), second.entry()]).await.unwrap();
    let taken = frontier.take(2).await.unwrap().ids;
    assert_eq!(taken.len(), 1, "one page at a time");
    assert!(frontier.take(2).await.unwrap().ids.is_empty());
    let (given, other) = if taken[0] == first.id {
        (first, second)
    } else {
        (second, first)
    };
    let unvisited = Unvisited {
        id: given.id,
        owner: given.owner,
        host: HOST,
    };
    frontier.release(&[unvisited]).await.unwrap();
    assert_eq!(
        frontier.take(2).await.unwrap().ids,
        [other.id],
        "nobody visited the host"
    );
    frontier.release(&[unvisited]).await.unwrap();
    assert!(
        frontier.offer(&[run().entry()]).await.is_ok() && frontier.take(2).await.unwrap().ids.is_empty(),
        "what was given back twice frees nobody else's place"
    );
}

#[tokio::test]
async fn pages_that_wait_start_together_with_those_of_other_hosts() {
    for (delay, step) in [(250, 50), (333, 50), (249, 1)] {
        let (frontier, url) = open_frontier().await;
        // The first starts at once, whenever that is.
        starts_after(&frontier, run(), delay).await;
        starts_after(&frontier, run(), delay).await;
        let next: u64 = ::redis::cmd("HGET")
            .arg(format!("sx:host:{HOST}"))
            .arg("n")
            .query_async(&mut redis(&url).await)
            .await
            .unwrap();
        assert_eq!(
            (next - delay) % step,
            0,
            "with a delay of {delay} ms the page starts at {}",
            next - delay
        );
    }
}

#[tokio::test]
async fn after_a_wipe_every_host_rests_for_its_whole_delay() {
    let (frontier, url) = open_frontier().await;
    starts_after(&frontier, run(), 500).await;
    ::redis::cmd("FLUSHDB")
        .exec_async(&mut redis(&url).await)
        .await
        .unwrap();
    let again = starts_after(&frontier, run(), 500).await;
    assert!((400..=550).contains(&again), "{again}");
    ::redis::cmd("FLUSHDB")
        .exec_async(&mut redis(&url).await)
        .await
        .unwrap();
    frontier.offer(&[run().entry()]).await.unwrap();
    let taken = frontier.take(1).await.unwrap();
    assert!(taken.ids.is_empty(), "a host that nobody remembers rests first");
    assert!(taken.next.unwrap() > Duration::from_millis(200));
}

#[tokio::test]
async fn a_host_that_asks_for_quiet_is_left_in_peace_by_all_and_visited_less_often_afterwards() {
    let (frontier, url) = open_frontier().await;
    run().visits(&frontier, Outcome::Busy(Duration::from_secs(30))).await;
    assert!(matches!(state(&frontier).await, HostState::Limited(wait) if wait > Duration::from_secs(29)));
    assert!(matches!(
        frontier.begin(&run().visit(0), None).await.unwrap(),
        Admission::Later(wait) if wait > Duration::from_secs(29)
    ));
    pass(&url, 30_000).await;
    assert_eq!(starts_after(&frontier, run(), 0).await, 0);
    let learned = starts_after(&frontier, run(), 0).await;
    assert!((400..=550).contains(&learned), "{learned}");
}

#[tokio::test]
async fn a_host_that_asks_for_a_year_gets_an_hour() {
    let frontier = frontier().await;
    run().visits(&frontier, Outcome::Busy(Duration::from_hours(8760))).await;
    assert!(matches!(state(&frontier).await, HostState::Limited(wait) if wait <= Duration::from_hours(1)));
}

#[tokio::test]
async fn five_failures_in_a_row_open_the_breaker_and_one_probe_at_a_time_decides() {
    let (frontier, url) = open_frontier().await;
    for _ in 0..4 {
        run().visits(&frontier, Outcome::Failed).await;
    }
    run().visits(&frontier, Outcome::Answered).await;
    for _ in 0..5 {
        assert_eq!(state(&frontier).await, HostState::Ready);
        run().visits(&frontier, Outcome::Failed).await;
    }
    for opening in 0..8 {
        let HostState::Unavailable(wait) = state(&frontier).await else {
            panic!("it is closed at opening {opening}");
        };
        let expected = (60_u64 << opening).min(3600);
        assert!(
            (expected - 2..=expected).contains(&wait.as_secs()),
            "{opening}: {wait:?}"
        );
        assert!(matches!(
            frontier.begin(&run().visit(0), None).await.unwrap(),
            Admission::Unavailable(_)
        ));
        pass(&url, 3_600_000).await;
        let probe = run();
        starts_after(&frontier, probe, 0).await;
        assert!(
            matches!(
                frontier.begin(&run().visit(0), None).await.unwrap(),
                Admission::Unavailable(_)
            ),
            "one probe at a time"
        );
        probe.ends(&frontier, Outcome::Failed).await;
    }
    pass(&url, 3_600_000).await;
    run().visits(&frontier, Outcome::Answered).await;
    assert_eq!(state(&frontier).await, HostState::Ready);
    starts_after(&frontier, run(), 0).await;
    starts_after(&frontier, run(), 0).await;
}

#[tokio::test]
async fn half_of_the_last_twenty_open_the_breaker() {
    let frontier = frontier().await;
    for _ in 0..10 {
        assert_eq!(state(&frontier).await, HostState::Ready);
        run().visits(&frontier, Outcome::Answered).await;
        run().visits(&frontier, Outcome::Failed).await;
    }
    assert!(matches!(state(&frontier).await, HostState::Unavailable(_)));
}

#[tokio::test]
async fn a_probe_whose_worker_died_is_followed_by_another() {
    let (frontier, url) = open_frontier().await;
    for _ in 0..5 {
        run().visits(&frontier, Outcome::Failed).await;
    }
    pass(&url, 60_000).await;
    starts_after(&frontier, run(), 0).await;
    pass(&url, 60_000).await;
    starts_after(&frontier, run(), 0).await;
}

#[tokio::test]
async fn entries_of_an_unavailable_host_stay_where_they_are() {
    let frontier = frontier().await;
    for _ in 0..5 {
        run().visits(&frontier, Outcome::Failed).await;
    }
    frontier.offer(&[run().entry(), run().entry()]).await.unwrap();
    let taken = frontier.take(8).await.unwrap();
    assert!(taken.ids.is_empty() && taken.next.unwrap() > Duration::from_secs(50));
    let held = Size {
        runnable: 0,
        limited: 2,
        later: 0,
        ..Size::default()
    };
    assert_eq!(frontier.size().await.unwrap(), held);
}

#[tokio::test]
async fn a_full_host_that_gets_room_wakes_who_waits_for_it() {
    let frontier = frontier().await;
    let (busy, waiting) = (run(), run());
    let mut visit = busy.visit(0);
    visit.max_concurrent = 1;
    frontier.begin(&visit, None).await.unwrap();
    frontier.offer(&[waiting.entry()]).await.unwrap();
    let taken = frontier.take(1).await.unwrap();
    assert!(taken.ids.is_empty());
    busy.ends(&frontier, Outcome::Answered).await;
    assert_eq!(
        frontier.take(1).await.unwrap().ids,
        [waiting.id],
        "without waiting for its next look"
    );
}

#[tokio::test]
async fn a_long_run_gives_way_to_another_owner_at_its_host_but_not_to_its_own() {
    let frontier = frontier().await;
    let (long, other) = (run(), run());
    let own = Run {
        owner: long.owner,
        ..run()
    };
    let mut visit = long.visit(200);
    visit.gives_way = GivesWay::AtTheHost;
    frontier.begin(&visit, None).await.unwrap();
    frontier.offer(&[own.entry()]).await.unwrap();
    assert!(frontier.take(1).await.unwrap().ids.is_empty());
    assert!(matches!(
        frontier.begin(&visit, Some(Outcome::Answered)).await.unwrap(),
        Admission::Start(_)
    ));
    frontier.offer(&[other.entry()]).await.unwrap();
    assert!(frontier.take(2).await.unwrap().ids.is_empty());
    assert_eq!(
        frontier.begin(&visit, Some(Outcome::Answered)).await.unwrap(),
        Admission::GiveWay
    );
    visit.gives_way = GivesWay::ToNobody;
    assert!(matches!(
        frontier.begin(&visit, None).await.unwrap(),
        Admission::Start(_)
    ));
}

#[tokio::test]
async fn after_its_slice_a_run_gives_way_to_owners_of_other_hosts() {
    let frontier = frontier().await;
    let mut visit = run().visit(0);
    visit.gives_way = GivesWay::Everywhere;
    frontier.begin(&visit, None).await.unwrap();
    let mut elsewhere = run().entry();
    elsewhere.host = "other.test".to_owned();
    frontier.offer(&[elsewhere]).await.unwrap();
    assert_eq!(
        frontier.begin(&visit, Some(Outcome::Answered)).await.unwrap(),
        Admission::GiveWay
    );
}

#[tokio::test]
async fn after_its_slice_a_run_gives_way_to_an_owner_whose_host_has_rested_although_nobody_takes() {
    let frontier = frontier().await;
    let mut visit = run().visit(0);
    visit.host = "long.test";
    visit.gives_way = GivesWay::Everywhere;
    frontier.begin(&visit, None).await.unwrap();
    starts_after(&frontier, run(), 300).await;
    frontier.offer(&[run().entry()]).await.unwrap();
    assert!(frontier.take(1).await.unwrap().ids.is_empty(), "its host rests");
    assert!(matches!(
        frontier.begin(&visit, Some(Outcome::Answered)).await.unwrap(),
        Admission::Start(_)
    ));
    sleep(Duration::from_millis(350)).await;
    assert_eq!(
        frontier.begin(&visit, Some(Outcome::Answered)).await.unwrap(),
        Admission::GiveWay
    );
}

#[tokio::test]
async fn owners_share_a_host_in_turns() {
    let (frontier, url) = open_frontier().await;
    let (many, few) = (UserId::new(), UserId::new());
    let entries = |owner, count| -> Vec<Entry> { (0..count).map(|_| Run { owner, ..run() }.entry()).collect() };
    let (of_many, of_few) = (entries(many, 500), entries(few, 3));
    frontier.offer(&of_many).await.unwrap();
    frontier.offer(&of_few).await.unwrap();
    let mut order = Vec::new();
    while order.len() < 7 {
        order.extend(frontier.take(8).await.unwrap().ids);
        // Time passes for the host, and its pages end.
        pass(&url, 10_000).await;
        let mut connection = redis(&url).await;
        ::redis::cmd("DEL")
            .arg(format!("sx:s:{HOST}"))
            .exec_async(&mut connection)
            .await
            .unwrap();
        sleep(Duration::from_millis(260)).await;
    }
    let few_served = order
        .iter()
        .take(7)
        .filter(|id| of_few.iter().any(|e| e.id == **id))
        .count();
    assert_eq!(few_served, 3, "{order:?}");
}

#[tokio::test]
async fn a_million_offered_entries_leave_the_window_and_all_memory_comes_back() {
    let own = start().valkey().unwrap();
    let url = own.url(0);
    let frontier = Frontier::connect_lazy(&Secret(url.clone())).unwrap();
    let owner = UserId::new();
    let before = memory(&url).await;
    let mut held = 0;
    for batch in 0..200 {
        let entries: Vec<Entry> = (0..5_000)
            .map(|n| Entry {
                host: format!("host-{}.test", (batch * 5_000 + n) % 1_000),
                owner,
                ..run().entry()
            })
            .collect();
        held += frontier.offer(&entries).await.unwrap();
    }
    assert_eq!(held, u64::try_from(WINDOW).unwrap());
    let full = memory(&url).await;
    assert!(
        (full - before) / i64::try_from(WINDOW).unwrap() < 1_000,
        "{} bytes for an entry",
        (full - before) / i64::try_from(WINDOW).unwrap()
    );
    const { assert!(WINDOW / 1_000 <= QUEUE_WINDOW) };
    // A small owner who comes now is served among the first.
    knows_all_hosts(&url).await;
    let taken = frontier.take(16).await.unwrap();
    assert_eq!(taken.ids.len(), 16);
    let small = run();
    assert_eq!(frontier.offer(&[small.entry()]).await.unwrap(), 1);
    assert!(frontier.take(4).await.unwrap().ids.contains(&small.id));
}

/// Bytes that Valkey uses.
async fn memory(url: &str) -> i64 {
    let info: String = ::redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut redis(url).await)
        .await
        .unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}
