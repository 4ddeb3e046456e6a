//! Crawls in the ledger: pages that are claimed, leased and tried again each by itself, and runs that end with the last of them.

use std::{collections::HashSet, time::Duration};

use selextract_platform::{
    frontier::Entry,
    ledger::{
        TaskId, UserId,
        claims::{Claim, Fenced, Record},
        crawl::{
            Begun, CrawlCursor, CrawlEnd, CrawlEnded, CrawlKind, CrawlProgress, CrawlStart, FoundPage, PageStatus,
            ReadPage,
        },
        maintenance::Swept,
        run_control::Changed,
        tasks::NewTask,
    },
};
use selextract_task::feed::{RunError, RunState};

use crate::{
    artifacts::{artifact, content},
    changes::follow,
    support::{LEASE, Room, error, new_task, upsert},
};

const MOST: u32 = 1_000;

pub(crate) fn found(path: &str) -> FoundPage {
    FoundPage {
        kind: CrawlKind::Page,
        url: format!("http://site.test/{path}"),
        host: "site.test".to_owned(),
        depth: 1,
    }
}

fn start(paths: &[&str]) -> CrawlStart {
    CrawlStart {
        found: paths.iter().map(|path| found(path)).collect(),
        max_pages: MOST,
        nothing: Some("nothing matched".to_owned()),
        units: 1,
        ..CrawlStart::default()
    }
}

/// A page that was read, with one record, and leads to others.
fn read(claim: &Claim, leads_to: &[&str]) -> CrawlEnd {
    let url = claim.page.as_ref().unwrap().url.clone();
    CrawlEnd::Done(ReadPage {
        records: vec![Record::from_iter([("url".to_owned(), url.clone().into())])],
        url,
        found: leads_to.iter().map(|path| found(path)).collect(),
        ..ReadPage::default()
    })
}

/// A page that was read, with an artifact.
fn shot(claim: &Claim, byte: u8, moved: Option<FoundPage>) -> CrawlEnd {
    let CrawlEnd::Done(page) = read(claim, &[]) else {
        unreachable!("it was read")
    };
    CrawlEnd::Done(ReadPage {
        artifacts: vec![artifact("front", "image/png", vec![byte; 100])],
        moved,
        ..page
    })
}

pub(crate) fn entries(begun: Begun) -> Vec<Entry> {
    match begun {
        Begun::Open(entries) => entries,
        Begun::Canceled => unreachable!("nobody canceled it"),
    }
}

impl Room {
    /// A crawl that has begun at these pages.
    async fn crawl(&self, owner: UserId, paths: &[&str]) -> TaskId {
        let spec = serde_json::json!({
            "url": "http://site.test/", "items": "li", "fields": [{ "name": "title" }], "maxRetries": 1, "crawl": {},
        });
        let task = NewTask {
            spec: serde_json::from_value(spec).unwrap(),
            ..new_task()
        };
        let id = self.ledger.accept(owner, &task, None).await.unwrap().id;
        self.begin(id, paths).await;
        id
    }

    async fn begin(&self, id: TaskId, paths: &[&str]) -> Vec<Entry> {
        let claim = self.claim(id).await.unwrap();
        entries(
            self.ledger
                .begin_crawl(claim.lease(), &start(paths))
                .await
                .unwrap()
                .unwrap(),
        )
    }

    /// Claims whatever of a crawl waits.
    pub(crate) async fn claim_pages(&self, id: TaskId) -> Vec<Claim> {
        let waiting = self
            .ledger
            .crawl_pages(id, None, Some(PageStatus::Pending), 1_000)
            .await
            .unwrap();
        let ids: Vec<TaskId> = waiting.into_iter().map(|page| page.id).collect();
        self.ledger.claim_crawl_pages(&ids, "a-worker", LEASE).await.unwrap()
    }

    pub(crate) async fn end_page(&self, claim: &Claim, end: CrawlEnd) -> Result<CrawlEnded, Fenced> {
        let task = claim.page.as_ref().unwrap().task;
        let ended = self
            .ledger
            .end_crawl_page(claim.lease(), task, end, 300_000, MOST)
            .await;
        ended.unwrap()
    }

    pub(crate) async fn progress(&self, id: TaskId) -> CrawlProgress {
        self.ledger.crawl_progress(id).await.unwrap().unwrap()
    }

    async fn read_urls(&self, id: TaskId) -> Vec<String> {
        let pages = self.ledger.pages(id, 0, 10_000).await.unwrap();
        let numbers: Vec<i32> = pages.iter().map(|page| page.number).collect();
        assert_eq!(
            numbers,
            (1..=i32::try_from(pages.len()).unwrap()).collect::<Vec<_>>(),
            "no gap"
        );
        pages.into_iter().map(|page| page.url).collect()
    }

    pub(crate) async fn expire_page(&self, claim: &Claim) {
        let sql = format!(
            "UPDATE crawl_pages SET lease_until = now() - interval '1 second' WHERE id = '{}'",
            claim.id
        );
        self.sql(&sql).await;
    }

    pub(crate) async fn status(&self, id: TaskId) -> String {
        self.task(id).await.status
    }
}

#[tokio::test]
async fn a_crawl_reads_each_page_once_and_ends_with_the_last_of_them() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.crawl(owner, &["a", "b", "a"]).await;
    assert!(room.claim(id).await.is_none(), "the run itself is claimed once");
    let pages = room.claim_pages(id).await;
    assert_eq!(pages.len(), 2, "a URL is there once");
    let ended = room
        .end_page(&pages[0], read(&pages[0], &["a", "b", "c", "c"]))
        .await
        .unwrap();
    assert_eq!(ended.entries.len(), 1);
    assert_eq!(
        (ended.entries[0].owner, ended.entries[0].host.as_str()),
        (owner, "site.test")
    );
    let ended = room.end_page(&pages[1], read(&pages[1], &["c"])).await.unwrap();
    assert_eq!(ended, CrawlEnded::default());
    let progress = room.progress(id).await;
    assert_eq!((progress.found, progress.pending, progress.done), (3, 1, 2));
    let last = room.claim_pages(id).await.pop().unwrap();
    assert_eq!(last.page.as_ref().unwrap().depth, 1);
    let ended = room.end_page(&last, read(&last, &[])).await.unwrap();
    assert!(ended.run_ended);
    let task = room.task(id).await;
    assert_eq!((task.status.as_str(), task.pages, task.records), ("succeeded", 3, 3));
    assert!(task.finished_at.is_some());
    // One for the beginning, and three times 0.3.
    assert_eq!(task.compute_units_used, 2);
    let urls: HashSet<_> = room.read_urls(id).await.into_iter().collect();
    assert_eq!(urls.len(), 3);
    room.keeper.fold_counters().await.unwrap();
    let stats = room.ledger.owner_stats(owner).await.unwrap();
    assert_eq!(
        (
            stats.succeeded,
            stats.pages,
            stats.records,
            stats.compute_units,
            stats.open
        ),
        (1, 3, 3, 2, 0)
    );
}

#[tokio::test]
async fn the_most_pages_hold_exactly_however_many_find_at_once() {
    let room = Room::new().await;
    let seeds: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    let seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
    let id = room.crawl(UserId::new(), &seeds).await;
    let pages = room.claim_pages(id).await;
    let ends = pages.iter().enumerate().map(|(n, claim)| {
        let paths: Vec<String> = (0..20).map(|k| format!("p{}", (n * 7 + k) % 60)).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let (end, task) = (read(claim, &paths), claim.page.as_ref().unwrap().task);
        room.ledger.end_crawl_page(claim.lease(), task, end, 0, 30)
    });
    for ended in futures::future::try_join_all(ends).await.unwrap() {
        ended.unwrap();
    }
    let progress = room.progress(id).await;
    assert_eq!((progress.found, progress.pending, progress.done), (30, 22, 8));
    assert_eq!(room.number("SELECT count(*) FROM crawl_pages").await, 30);
}

#[tokio::test]
async fn two_ledgers_that_end_pages_at_once_lose_and_double_nothing() {
    let room = Room::new().await;
    let other = crate::support::ledger(&room.database.url);
    let id = room.crawl(UserId::new(), &["0"]).await;
    let mut next = 1;
    while room.status(id).await == "running" {
        let claims = room.claim_pages(id).await;
        assert!(!claims.is_empty());
        let ends = claims.iter().enumerate().map(|(n, claim)| {
            let paths: Vec<String> = (next..next + 5).map(|k| format!("{}", k % 200)).collect();
            next += 3;
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            let ledger = if n % 2 == 0 { &room.ledger } else { &other };
            let (end, task) = (read(claim, &paths), claim.page.as_ref().unwrap().task);
            ledger.end_crawl_page(claim.lease(), task, end, 0, MOST)
        });
        for ended in futures::future::try_join_all(ends).await.unwrap() {
            ended.unwrap();
        }
    }
    let urls = room.read_urls(id).await;
    let different: HashSet<_> = urls.iter().collect();
    assert_eq!((urls.len(), different.len()), (200, 200));
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.pages, task.records),
        ("succeeded", 200, 200)
    );
    assert_eq!(room.progress(id).await.found, 200);
}

#[tokio::test]
async fn concurrent_claimers_never_share_a_page() {
    let room = Room::new().await;
    let paths: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let id = room
        .crawl(UserId::new(), &paths.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let claims: Vec<Claim> = futures::future::join_all((0..5).map(|_| room.claim_pages(id)))
        .await
        .concat();
    let ids: HashSet<TaskId> = claims.iter().map(|claim| claim.id).collect();
    assert_eq!(ids.len(), claims.len());
    assert_eq!(claims.len() + room.claim_pages(id).await.len(), 40);
}

#[tokio::test]
async fn a_page_whose_lease_was_lost_writes_nothing_and_is_read_by_another() {
    let room = Room::new().await;
    let id = room.crawl(UserId::new(), &["a"]).await;
    let lost = room.claim_pages(id).await.pop().unwrap();
    assert_eq!(
        room.ledger
            .renew_crawl_pages(&[lost.lease()], LEASE)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        room.keeper.sweep_crawls().await.unwrap(),
        Swept::default(),
        "a lease that holds stays"
    );
    room.expire_page(&lost).await;
    assert_eq!(
        room.keeper.sweep_crawls().await.unwrap(),
        Swept {
            returned: 1,
            exhausted: 0
        }
    );
    let second = room.claim_pages(id).await.pop().unwrap();
    assert_eq!(second.attempts, 2);
    assert_eq!(room.end_page(&lost, read(&lost, &["b"])).await, Err(Fenced));
    assert!(
        room.ledger
            .renew_crawl_pages(&[lost.lease()], LEASE)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(room.progress(id).await.found, 1);
    assert!(room.end_page(&second, read(&second, &[])).await.unwrap().run_ended);
    assert_eq!(
        room.end_page(&second, read(&second, &[])).await,
        Err(Fenced),
        "it ends once"
    );
    assert_eq!(room.read_urls(id).await.len(), 1);
}

#[tokio::test]
async fn a_page_that_is_lost_too_often_fails_and_ends_its_run() {
    let room = Room::new().await;
    let id = room.crawl(UserId::new(), &["a"]).await;
    for attempt in 1..=2 {
        let claim = room.claim_pages(id).await.pop().unwrap();
        assert_eq!((claim.attempts, claim.max_attempts), (attempt, 2));
        room.expire_page(&claim).await;
        room.keeper.sweep_crawls().await.unwrap();
    }
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.error_class.as_deref()),
        ("failed", Some("AttemptsExhausted"))
    );
    assert!(task.error_message.unwrap().contains("http://site.test/a"));
    assert_eq!(room.progress(id).await.failed, 1);
}

#[tokio::test]
async fn a_retry_waits_and_counts_and_what_is_given_back_does_not() {
    let room = Room::new().await;
    let id = room.crawl(UserId::new(), &["a"]).await;
    let claim = room.claim_pages(id).await.pop().unwrap();
    let waits = CrawlEnd::Waits {
        after: Duration::ZERO,
        reason: None,
    };
    let offered = room.end_page(&claim, waits).await.unwrap();
    assert_eq!(offered.entries[0].id, claim.id);
    let claim = room.claim_pages(id).await.pop().unwrap();
    assert_eq!(claim.attempts, 1);
    let retry = CrawlEnd::Retry {
        after: Duration::from_hours(1),
        error: error(),
    };
    assert!(!room.end_page(&claim, retry).await.unwrap().run_ended);
    assert!(room.claim_pages(id).await.is_empty(), "it is not due");
    let page = room
        .ledger
        .crawl_pages(id, None, None, 10)
        .await
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(
        (page.status.as_str(), page.error_class.as_deref(), page.attempts),
        ("pending", Some("Timeout"), 1)
    );
    assert!(page.due_at.is_some());
    let (waiting, _) = room.keeper.refill_crawls(CrawlCursor::default()).await.unwrap();
    assert_eq!(waiting.len(), 1, "the refill knows when it is due");
    assert!(waiting[0].due_milliseconds > jiff::Timestamp::now().as_millisecond() + 3_000_000);
}

#[tokio::test]
async fn failed_pages_do_not_fail_a_run_and_run_again_by_themselves() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.crawl(owner, &["a", "b", "c"]).await;
    let pages = room.claim_pages(id).await;
    room.end_page(&pages[0], read(&pages[0], &[])).await.unwrap();
    room.end_page(&pages[1], CrawlEnd::Failed(error())).await.unwrap();
    assert!(
        room.end_page(&pages[2], CrawlEnd::Failed(error()))
            .await
            .unwrap()
            .run_ended
    );
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.pages, task.error_class),
        ("succeeded", 1, None)
    );
    let failed = room
        .ledger
        .crawl_pages(id, None, Some(PageStatus::Failed), 10)
        .await
        .unwrap();
    assert_eq!(failed.len(), 2);
    assert_eq!(
        room.ledger.retry_failed_pages(Some(UserId::new()), id).await.unwrap(),
        Changed::Missing
    );
    assert_eq!(
        room.ledger.retry_failed_pages(Some(owner), id).await.unwrap(),
        Changed::Done(None)
    );
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.finished_at, task.replays),
        ("running", None, 1)
    );
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().succeeded, 0);
    let again = room.claim_pages(id).await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|claim| claim.attempts == 1));
    for claim in &again {
        room.end_page(claim, read(claim, &[])).await.unwrap();
    }
    let task = room.task(id).await;
    assert_eq!((task.status.as_str(), task.pages, task.records), ("succeeded", 3, 3));
    assert_eq!(room.progress(id).await.failed, 0);
    assert_eq!(
        room.ledger.retry_failed_pages(Some(owner), id).await.unwrap(),
        Changed::Unfit
    );
    let stats = room.ledger.owner_stats(owner).await.unwrap();
    assert_eq!((stats.succeeded, stats.pages, stats.records), (1, 3, 3));
}

#[tokio::test]
async fn a_crawl_without_a_page_fails_with_its_pages_cause_and_a_replay_runs_them_again() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.crawl(owner, &["a", "b"]).await;
    let pages = room.claim_pages(id).await;
    for claim in &pages {
        room.end_page(claim, CrawlEnd::Failed(error())).await.unwrap();
    }
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.error_class.as_deref()),
        ("failed", Some("Timeout"))
    );
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().failed, 1);
    let letters = room.ledger.dead_letters(owner, Some("Timeout"), None).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(room.ledger.replay(Some(owner), id).await.unwrap(), Changed::Done(None));
    let pages = room.claim_pages(id).await;
    assert_eq!(pages.len(), 2);
    for claim in &pages {
        room.end_page(claim, CrawlEnd::Failed(error())).await.unwrap();
    }
    let all = room.ledger.replay_dead_letters(owner, None, None).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(room.claim_pages(id).await.len(), 2);
    assert_eq!(room.task(id).await.replays, 2);
    assert_eq!(room.ledger.owner_stats(owner).await.unwrap().failed, 0);
}

#[tokio::test]
async fn a_crawl_without_a_record_says_what_matched_nothing() {
    let room = Room::new().await;
    let id = room.crawl(UserId::new(), &["a"]).await;
    let claim = room.claim_pages(id).await.pop().unwrap();
    let CrawlEnd::Done(page) = read(&claim, &[]) else {
        panic!()
    };
    let empty = ReadPage {
        records: Vec::new(),
        ..page
    };
    room.end_page(&claim, CrawlEnd::Done(empty)).await.unwrap();
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.error_class.as_deref()),
        ("failed", Some("NoRecords"))
    );
    assert_eq!(task.error_message.as_deref(), Some("nothing matched"));
    assert_eq!(
        room.ledger.replay(None, id).await.unwrap(),
        Changed::Unfit,
        "there is nothing to run again"
    );
}

#[tokio::test]
async fn a_page_that_leads_to_another_is_read_in_its_place_and_once() {
    let room = Room::new().await;
    let id = room.crawl(UserId::new(), &["old", "older", "new"]).await;
    let pages = room.claim_pages(id).await;
    let of = |path: &str| {
        let url = format!("http://site.test/{path}");
        pages
            .iter()
            .find(|claim| claim.page.as_ref().unwrap().url == url)
            .unwrap()
    };
    let moved = |claim: &Claim, to: &str| {
        let CrawlEnd::Done(page) = read(claim, &["x"]) else {
            panic!()
        };
        CrawlEnd::Done(ReadPage {
            moved: Some(found(to)),
            ..page
        })
    };
    room.end_page(of("old"), moved(of("old"), "target")).await.unwrap();
    let ended = room.end_page(of("older"), moved(of("older"), "new")).await.unwrap();
    assert!(ended.entries.is_empty(), "what the other page leads to is found there");
    room.end_page(of("new"), read(of("new"), &["target"])).await.unwrap();
    let task = room.task(id).await;
    assert_eq!((task.pages, task.records), (2, 2));
    let skipped = room
        .ledger
        .crawl_pages(id, None, Some(PageStatus::Skipped), 10)
        .await
        .unwrap();
    let mut classes: Vec<_> = skipped.into_iter().filter_map(|page| page.error_class).collect();
    classes.sort();
    assert_eq!(classes, ["Duplicate", "Redirected"]);
    let last = room.claim_pages(id).await;
    assert_eq!(last.len(), 1, "only x is left, as the target was read");
}

#[tokio::test]
async fn a_canceled_crawl_ends_at_once_and_what_was_under_way_is_dropped() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.crawl(owner, &["a", "b", "c"]).await;
    let pages = room.claim_pages(id).await;
    room.end_page(&pages[0], read(&pages[0], &[])).await.unwrap();
    assert_eq!(room.ledger.cancel(Some(owner), id).await.unwrap(), Some(true));
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.pages),
        ("canceled", 1),
        "what was read stays"
    );
    assert_eq!(room.end_page(&pages[1], read(&pages[1], &[])).await, Err(Fenced));
    assert!(
        room.ledger
            .renew_crawl_pages(&[pages[2].lease()], LEASE)
            .await
            .unwrap()
            .is_empty()
    );
    room.expire_page(&pages[2]).await;
    assert_eq!(room.keeper.sweep_crawls().await.unwrap(), Swept::default());
    assert!(room.claim_pages(id).await.is_empty());
    assert_eq!(
        room.keeper.refill_crawls(CrawlCursor::default()).await.unwrap(),
        (Vec::new(), None)
    );
    let stats = room.ledger.owner_stats(owner).await.unwrap();
    assert_eq!((stats.canceled, stats.pages, stats.records), (1, 1, 1));
    assert_eq!(room.ledger.retry_failed_pages(None, id).await.unwrap(), Changed::Unfit);
    assert_eq!(room.ledger.delete(None, id).await.unwrap(), Some(true));
    assert_eq!(room.number("SELECT count(*) FROM crawl_pages").await, 0);
}

#[tokio::test]
async fn a_crawl_that_is_canceled_before_it_begins_does_not_begin() {
    let room = Room::new().await;
    let id = room.accept(UserId::new()).await;
    let claim = room.claim(id).await.unwrap();
    room.ledger.cancel(None, id).await.unwrap();
    let begun = room.ledger.begin_crawl(claim.lease(), &start(&["a"])).await.unwrap();
    assert_eq!(begun, Ok(Begun::Canceled));
    assert_eq!(room.number("SELECT count(*) FROM crawl_pages").await, 0);
}

#[tokio::test]
async fn a_paused_crawl_begins_no_page_and_goes_on_when_it_is_resumed() {
    let room = Room::new().await;
    let id = room.crawl(UserId::new(), &["a", "b"]).await;
    let first = room.ledger.crawl_pages(id, None, None, 1).await.unwrap()[0].id;
    let under_way = room
        .ledger
        .claim_crawl_pages(&[first], "a-worker", LEASE)
        .await
        .unwrap();
    assert_eq!(room.ledger.pause(None, id).await.unwrap(), Changed::Done(None));
    assert!(room.claim_pages(id).await.is_empty());
    assert!(
        room.keeper
            .refill_crawls(CrawlCursor::default())
            .await
            .unwrap()
            .0
            .is_empty()
    );
    room.end_page(&under_way[0], read(&under_way[0], &[])).await.unwrap();
    assert_eq!(room.task(id).await.pages, 1, "what was under way is kept");
    assert_eq!(room.ledger.resume(None, id).await.unwrap(), Changed::Done(None));
    let last = room.claim_pages(id).await;
    assert!(room.end_page(&last[0], read(&last[0], &[])).await.unwrap().run_ended);
}

#[tokio::test]
async fn a_run_that_may_not_go_on_fails_and_keeps_what_waits_for_a_replay() {
    let room = Room::new().await;
    let id = room.crawl(UserId::new(), &["a", "b", "c"]).await;
    let pages = room.claim_pages(id).await;
    room.end_page(&pages[0], read(&pages[0], &[])).await.unwrap();
    let over = RunError {
        class: "MaxDuration".to_owned(),
        message: "the run took longer than its maxDuration of 1s".to_owned(),
    };
    assert!(
        room.end_page(&pages[1], CrawlEnd::FailsRun(over))
            .await
            .unwrap()
            .run_ended
    );
    let task = room.task(id).await;
    assert_eq!(
        (task.status.as_str(), task.error_class.as_deref()),
        ("failed", Some("MaxDuration"))
    );
    assert_eq!(room.end_page(&pages[2], read(&pages[2], &[])).await, Err(Fenced));
    room.expire_page(&pages[2]).await;
    room.keeper.sweep_crawls().await.unwrap();
    assert_eq!(room.ledger.replay(None, id).await.unwrap(), Changed::Done(None));
    let again = room.claim_pages(id).await;
    assert_eq!(again.iter().map(|claim| claim.attempts).collect::<Vec<_>>(), [1, 1]);
    for claim in &again {
        room.end_page(claim, read(claim, &[])).await.unwrap();
    }
    assert_eq!(
        (room.status(id).await.as_str(), room.task(id).await.pages),
        ("succeeded", 3)
    );
}

#[tokio::test]
async fn the_refill_goes_through_all_open_crawls_in_a_circle() {
    let (room, owner) = (Room::new().await, UserId::new());
    let paths: Vec<String> = (0..5_003).map(|n| n.to_string()).collect();
    let large = room.crawl(owner, &["a"]).await;
    let claim = room.claim_pages(large).await.pop().unwrap();
    let leads_to: Vec<&str> = paths.iter().map(String::as_str).collect();
    let task = claim.page.as_ref().unwrap().task;
    let end = read(&claim, &leads_to);
    let ended = room
        .ledger
        .end_crawl_page(claim.lease(), task, end, 0, 100_000)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.entries.len(), 5_003, "very many are written down in steps");
    let small = room.crawl(owner, &["x", "y"]).await;
    let (mut seen, mut from, mut steps) = (HashSet::new(), CrawlCursor::default(), 0);
    loop {
        let (entries, next) = room.keeper.refill_crawls(from).await.unwrap();
        seen.extend(entries.into_iter().map(|entry| entry.id));
        steps += 1;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!((seen.len(), steps), (5_005, 4));
    let of_small = room.ledger.crawl_pages(small, None, None, 10).await.unwrap();
    assert!(of_small.iter().all(|page| seen.contains(&page.id)));
}

#[tokio::test]
async fn sitemaps_are_claimed_like_pages_and_fifty_at_most() {
    let room = Room::new().await;
    let id = room.accept(UserId::new()).await;
    let sitemap = |n: usize| FoundPage {
        kind: CrawlKind::Sitemap,
        ..found(&format!("map{n}.xml"))
    };
    let start = CrawlStart {
        found: vec![found("a"), sitemap(0)],
        nothing: None,
        ..start(&[])
    };
    let claim = room.claim(id).await.unwrap();
    assert_eq!(
        entries(room.ledger.begin_crawl(claim.lease(), &start).await.unwrap().unwrap()).len(),
        2
    );
    assert_eq!(room.progress(id).await.found, 1, "a sitemap is no page");
    let pages = room.claim_pages(id).await;
    let map = pages
        .iter()
        .find(|claim| claim.page.as_ref().unwrap().kind == CrawlKind::Sitemap)
        .unwrap();
    let further: Vec<FoundPage> = (0..60).map(sitemap).chain([found("b")]).collect();
    let ended = room.end_page(map, CrawlEnd::Mapped(further)).await.unwrap();
    assert_eq!(ended.entries.len(), 50);
    let progress = room.progress(id).await;
    assert_eq!(
        (progress.found, progress.pending, progress.running, progress.done),
        (2, 50, 1, 0)
    );
}

#[tokio::test]
async fn an_operator_hears_of_a_crawls_progress_and_of_its_end() {
    let room = Room::new().await;
    let answer = room
        .ledger
        .upsert_scrape_task(&upsert("uid", "a"), jiff::Timestamp::now())
        .await
        .unwrap();
    let id = answer.started.unwrap().id;
    room.begin(id, &["a", "b"]).await;
    let (seen, mut cursor) = follow(&room.ledger, 0, 1).await;
    assert_eq!(seen["uid"], RunState::Running);
    // What is told of the acceptance and of the start may still come.
    let before = room.number("SELECT count(*) FROM changes").await;
    let pages = room.claim_pages(id).await;
    room.end_page(&pages[0], read(&pages[0], &[])).await.unwrap();
    assert_eq!(
        room.number("SELECT count(*) FROM changes").await,
        before + 1,
        "its progress"
    );
    room.end_page(&pages[1], read(&pages[1], &[])).await.unwrap();
    assert_eq!(room.number("SELECT count(*) FROM changes").await, before + 2, "its end");
    loop {
        let (seen, next) = follow(&room.ledger, cursor, 1).await;
        cursor = next;
        if seen["uid"] == RunState::Succeeded {
            break;
        }
    }
    assert_eq!(room.task(id).await.pages, 2);
}

#[tokio::test]
async fn an_owner_who_has_read_a_days_pages_waits_with_his_crawls_too() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.crawl(owner, &["a", "b"]).await;
    let claim = room.ledger.crawl_pages(id, None, None, 1).await.unwrap()[0].id;
    let claim = room
        .ledger
        .claim_crawl_pages(&[claim], "a-worker", LEASE)
        .await
        .unwrap()
        .pop()
        .unwrap();
    room.end_page(&claim, read(&claim, &[])).await.unwrap();
    room.sql("INSERT INTO owner_holds (user_id, used, most, until) SELECT user_id, 1, 1, now() + interval '1 hour' FROM tasks").await;
    assert!(room.claim_pages(id).await.is_empty());
    assert!(
        room.keeper
            .refill_crawls(CrawlCursor::default())
            .await
            .unwrap()
            .0
            .is_empty()
    );
    room.keeper.fold_counters().await.unwrap();
    assert_eq!(
        room.number("SELECT pages FROM owner_days").await,
        1,
        "pages count as they are read, not at the run's end"
    );
}

#[tokio::test]
async fn an_artifact_of_a_crawls_page_is_seen_with_its_page_and_with_no_other() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.crawl(owner, &["a", "b", "c"]).await;
    let pages = room.claim_pages(id).await;
    let lost = &pages[2];
    room.sql(&format!(
        "UPDATE crawl_pages SET lease_token = gen_random_uuid() WHERE id = '{}'",
        lost.id
    ))
    .await;
    room.end_page(&pages[0], shot(&pages[0], 1, None)).await.unwrap();
    assert_eq!(room.end_page(lost, shot(lost, 3, None)).await, Err(Fenced));
    // What another page of the crawl is has its own artifacts.
    let a = pages[0].page.as_ref().unwrap().url.rsplit('/').next().unwrap();
    room.end_page(&pages[1], shot(&pages[1], 2, Some(found(a))))
        .await
        .unwrap();
    let kept = room.artifacts(id).await;
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].page, content(&room.ledger, &kept[0]).await), (1, vec![1; 100]));
    let rows = "SELECT (SELECT count(*) FROM artifact_chunks) + (SELECT count(*) FROM artifact_uploads)";
    assert_eq!(room.number(rows).await, 1, "what is not seen is not kept");
    assert_eq!(room.ledger.usage(owner).await.unwrap().artifact_bytes, 100);
}
