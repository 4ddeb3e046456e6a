//! Crawls in the ledger: pages that are claimed, leased and tried again each by itself, and runs that end with the last of them.

mod control;
mod leases;

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
    let all = room.ledger.replay_dead_letters(owner, None, None, 1_000).await.unwrap();
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
