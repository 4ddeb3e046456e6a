//! Crawls compared with the crawl before: over the whole run, by key, and without telling what could not be seen to be gone.

use std::collections::BTreeMap;

use selextract_platform::ledger::{
    TaskId, UserId,
    claims::{Claim, Fenced},
    conditional::{PageState, Validators},
    crawl::{CrawlEnd, CrawlKind, CrawlReport, CrawlStart, PageStatus, ReadPage},
    maintenance::Swept,
    record_changes::{Kind, RecordChange},
    run_control::Changed,
    tasks::NewTask,
    watching::Report,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    crawls::{entries, found},
    support::{LEASE, Room, error, new_task},
};

/// What a page of the site answers.
#[derive(Clone, Copy)]
enum Page {
    /// Records: an id and a price each.
    Has(&'static [(i32, i32)]),
    /// The server fails.
    Fails,
    /// There is no such page.
    Absent,
}
use Page::{Absent, Fails, Has};

const MOST: u32 = 1_000;

fn records(of: &[(i32, i32)]) -> Vec<selextract_platform::ledger::claims::Record> {
    of.iter()
        .map(|(id, price)| json!({ "id": id, "price": price }).as_object().unwrap().clone())
        .collect()
}

impl Page {
    fn end(self, claim: &Claim) -> CrawlEnd {
        match self {
            Has(of) => CrawlEnd::Done(ReadPage {
                url: claim.page.as_ref().unwrap().url.clone(),
                records: records(of),
                fill: vec![i32::try_from(of.len()).unwrap(); 3],
                ..ReadPage::default()
            }),
            Fails => CrawlEnd::Failed(error()),
            Absent => CrawlEnd::Absent(error()),
        }
    }
}

/// An owner's crawl that is watched.
struct Watched {
    room: Room,
    owner: UserId,
}

impl Watched {
    async fn new() -> Self {
        Self {
            room: Room::new().await,
            owner: UserId::new(),
        }
    }

    /// A crawl that has begun at these pages.
    async fn begin(&self, paths: &[&str]) -> TaskId {
        let spec = json!({
            "url": "http://site.test/", "items": "li", "fields": [{ "name": "id" }, { "name": "price" }], "maxRetries": 1, "crawl": {},
            "watch": { "key": ["id"] },
        });
        let task = NewTask {
            spec: serde_json::from_value(spec).unwrap(),
            ..new_task()
        };
        let id = self.room.ledger.accept(self.owner, &task, None).await.unwrap().id;
        let claim = self.room.claim(id).await.unwrap();
        let start = CrawlStart {
            found: paths.iter().map(|path| found(path)).collect(),
            max_pages: MOST,
            reports: true,
            ..CrawlStart::default()
        };
        let begun = self.room.ledger.begin_crawl(claim.lease(), &start).await.unwrap();
        entries(begun.unwrap());
        id
    }

    /// Ends whatever of the crawl waits as the site says; returns the claim of the report, when it comes.
    async fn read(&self, id: TaskId, site: &[(&str, Page)]) -> Claim {
        let site: BTreeMap<String, Page> = site
            .iter()
            .map(|(path, page)| (format!("http://site.test/{path}"), *page))
            .collect();
        let mut offered = Vec::new();
        for claim in self.room.claim_pages(id).await {
            let end = site[&claim.page.as_ref().unwrap().url].end(&claim);
            offered.extend(self.room.end_page(&claim, end).await.unwrap().entries);
        }
        assert_eq!(
            offered.len(),
            1,
            "the report is offered when the last page has ended: {offered:?}"
        );
        let report = &offered[0];
        assert_eq!(report.host, format!("{id}.invalid"));
        self.claim_report(report.id).await
    }

    async fn claim_report(&self, id: TaskId) -> Claim {
        let claims = self.room.ledger.claim_crawl_pages(&[id], "a-worker", LEASE).await;
        let claim = claims.unwrap().pop().unwrap();
        assert_eq!(claim.page.as_ref().unwrap().kind, CrawlKind::Report);
        claim
    }

    async fn report(&self, claim: &Claim) -> Result<CrawlReport, Fenced> {
        let page = claim.page.as_ref().unwrap();
        self.room.ledger.report_crawl(claim, page).await.unwrap()
    }

    async fn conclude(&self, claim: &Claim) -> Report {
        let report = self.report(claim).await.unwrap();
        let ended = self.room.end_page(claim, CrawlEnd::Reported(report.pages)).await;
        assert!(ended.unwrap().run_ended);
        let id = claim.page.as_ref().unwrap().task;
        assert_eq!(self.room.status(id).await, "succeeded");
        self.room.ledger.run_report(id).await.unwrap().unwrap()
    }

    /// A whole crawl of a site; with its report.
    async fn run(&self, site: &[(&str, Page)]) -> (TaskId, Report) {
        let paths: Vec<&str> = site.iter().map(|(path, _)| *path).collect();
        let id = self.begin(&paths).await;
        let claim = self.read(id, site).await;
        let report = self.conclude(&claim).await;
        (id, report)
    }

    async fn changes(&self, (id, report): &(TaskId, Report)) -> Vec<RecordChange> {
        let watch = serde_json::from_value(json!({ "key": ["id"] })).unwrap();
        let ledger = &self.room.ledger;
        ledger
            .record_changes((*id, report.compared_with), None, None, 100, &watch)
            .await
            .unwrap()
    }
}

/// New, changed, gone, the same, unseen.
fn counts(report: &Report) -> [i64; 5] {
    let counts = report.counts;
    [counts.new, counts.changed, counts.gone, counts.same, counts.unseen]
}

fn told(changes: &[RecordChange]) -> Vec<(Kind, Value, Value)> {
    let plain = |record: &Option<_>| record.clone().map_or(Value::Null, Value::Object);
    let told = changes.iter();
    told.map(|change| (change.kind, plain(&change.before), plain(&change.record)))
        .collect()
}

fn record(id: i32, price: i32) -> Value {
    json!({ "id": id, "price": price })
}

#[tokio::test]
async fn a_crawl_is_compared_over_all_its_pages_before_it_ends() {
    let watched = Watched::new().await;
    let id = watched.begin(&["a", "b"]).await;
    let site = [("a", Has(&[(1, 10), (2, 20)])), ("b", Has(&[(3, 30)]))];
    let claim = watched.read(id, &site).await;
    assert_eq!(watched.room.status(id).await, "running");
    let listed = watched.room.ledger.crawl_pages(id, None, None, 100).await.unwrap();
    assert_eq!(listed.len(), 2, "nobody sees the report among the pages");
    let first = watched.conclude(&claim).await;
    assert_eq!((counts(&first), first.compared_with), ([3, 0, 0, 0, 0], None));
    assert_eq!(first.fill.0[0].found, 3);
    // A record that stands on another page is the same one; one that is nowhere is gone.
    let second = watched
        .run(&[("a", Has(&[(1, 10)])), ("b", Has(&[(2, 21)])), ("c", Has(&[(4, 40)]))])
        .await;
    assert_eq!(counts(&second.1), [1, 1, 1, 1, 0]);
    assert_eq!(
        told(&watched.changes(&second).await),
        [
            (Kind::New, Value::Null, record(4, 40)),
            (Kind::Changed, record(2, 20), record(2, 21)),
            (Kind::Gone, record(3, 30), Value::Null),
        ]
    );
}

#[tokio::test]
async fn of_records_with_one_key_the_same_counts_in_whatever_order_the_pages_came() {
    let watched = Watched::new().await;
    let site = [("list", Has(&[(1, 10)])), ("wares/1", Has(&[(1, 11)]))];
    watched.run(&site).await;
    for order in [[0, 1], [1, 0]] {
        let id = watched.begin(&["list", "wares/1"]).await;
        let mut claims = watched.room.claim_pages(id).await;
        claims.sort_by_key(|claim| claim.page.as_ref().unwrap().url.clone());
        let mut last = Vec::new();
        for place in order {
            let end = site[place].1.end(&claims[place]);
            last = watched.room.end_page(&claims[place], end).await.unwrap().entries;
        }
        let claim = watched.claim_report(last[0].id).await;
        let report = watched.conclude(&claim).await;
        assert_eq!(counts(&report), [0, 0, 0, 1, 0], "{order:?}");
        assert_eq!(report.counts.duplicates, 1);
    }
}

#[tokio::test]
async fn what_stood_on_a_page_that_failed_is_not_gone_and_is_known_when_it_is_back() {
    let watched = Watched::new().await;
    watched
        .run(&[
            ("a", Has(&[(1, 10)])),
            ("b", Has(&[(2, 20), (3, 30)])),
            ("c", Has(&[(4, 40)])),
        ])
        .await;
    let site = [("a", Has(&[(1, 10)])), ("b", Fails), ("c", Absent)];
    let missed = watched.run(&site).await;
    assert_eq!(
        counts(&missed.1),
        [0, 0, 1, 1, 2],
        "a page that is not there is an answer"
    );
    assert_eq!(
        told(&watched.changes(&missed).await),
        [(Kind::Gone, record(4, 40), Value::Null)]
    );
    let missed = watched.run(&[("a", Has(&[(1, 10)])), ("b", Fails)]).await;
    assert_eq!(counts(&missed.1), [0, 0, 0, 1, 2]);
    let back = watched.run(&[("a", Has(&[(1, 10)])), ("b", Has(&[(2, 22)]))]).await;
    assert_eq!(counts(&back.1), [0, 1, 1, 1, 0]);
    assert_eq!(
        told(&watched.changes(&back).await),
        [
            (Kind::Changed, record(2, 20), record(2, 22)),
            (Kind::Gone, record(3, 30), Value::Null),
        ],
        "what they were is read from the run that saw them"
    );
}

#[tokio::test]
async fn what_was_not_seen_in_ten_runs_is_gone_all_the_same() {
    let watched = Watched::new().await;
    watched.run(&[("a", Has(&[(1, 10)])), ("b", Has(&[(2, 20)]))]).await;
    let site = [("a", Has(&[(1, 10)])), ("b", Fails)];
    for _ in 0..10 {
        assert_eq!(counts(&watched.run(&site).await.1), [0, 0, 0, 1, 1]);
    }
    assert_eq!(counts(&watched.run(&site).await.1), [0, 0, 1, 1, 0]);
    assert_eq!(counts(&watched.run(&site).await.1), [0, 0, 0, 1, 0], "it is told once");
}

#[tokio::test]
async fn a_crawl_whose_failed_pages_run_again_is_compared_again() {
    let watched = Watched::new().await;
    watched.run(&[("a", Has(&[(1, 10)])), ("b", Has(&[(2, 20)]))]).await;
    let (id, report) = watched.run(&[("a", Has(&[(1, 10)])), ("b", Fails)]).await;
    assert_eq!(counts(&report), [0, 0, 0, 1, 1]);
    let ledger = &watched.room.ledger;
    assert_eq!(ledger.retry_failed_pages(None, id).await.unwrap(), Changed::Done(None));
    let claim = watched.read(id, &[("b", Has(&[(2, 21)]))]).await;
    assert_eq!(counts(&watched.conclude(&claim).await), [0, 1, 0, 1, 0]);
}

#[tokio::test]
async fn a_report_that_was_made_before_the_last_page_came_is_made_again() {
    let watched = Watched::new().await;
    let id = watched.begin(&["a", "b"]).await;
    let early = watched.read(id, &[("a", Has(&[(1, 10)])), ("b", Fails)]).await;
    let report = watched.report(&early).await.unwrap();
    // Somebody has the failed page read again meanwhile.
    watched.room.ledger.retry_failed_pages(None, id).await.unwrap();
    let waiting = watched
        .room
        .ledger
        .crawl_pages(id, None, Some(PageStatus::Pending), 10)
        .await;
    let waiting: Vec<TaskId> = waiting.unwrap().iter().map(|page| page.id).collect();
    let claims = watched.room.ledger.claim_crawl_pages(&waiting, "a-worker", LEASE).await;
    let claim = claims.unwrap().pop().unwrap();
    let end = Has(&[(2, 20)]).end(&claim);
    assert!(!watched.room.end_page(&claim, end).await.unwrap().run_ended);
    let ended = watched
        .room
        .end_page(&early, CrawlEnd::Reported(report.pages))
        .await
        .unwrap();
    assert!(!ended.run_ended);
    let claim = watched.claim_report(ended.entries[0].id).await;
    assert_eq!(counts(&watched.conclude(&claim).await), [2, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_worker_that_is_lost_while_it_compares_writes_nothing_more() {
    let watched = Watched::new().await;
    let id = watched.begin(&["a"]).await;
    let lost = watched.read(id, &[("a", Has(&[(1, 10)]))]).await;
    let early = watched.report(&lost).await.unwrap();
    watched.room.expire_page(&lost).await;
    let swept = watched.room.keeper.sweep_crawls().await.unwrap();
    assert_eq!((swept.returned, swept.exhausted), (1, 0));
    let second = watched.claim_report(lost.id).await;
    watched.report(&second).await.unwrap();
    assert_eq!(watched.report(&lost).await, Err(Fenced));
    let ended = watched.room.end_page(&lost, CrawlEnd::Reported(early.pages)).await;
    assert_eq!(ended, Err(Fenced));
    assert_eq!(counts(&watched.conclude(&second).await), [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_crawl_whose_comparison_is_lost_too_often_fails_and_a_replay_makes_it() {
    let watched = Watched::new().await;
    let id = watched.begin(&["a"]).await;
    let mut claim = watched.read(id, &[("a", Has(&[(1, 10)]))]).await;
    let mut swept = Swept::default();
    for _ in 0..2 {
        watched.room.expire_page(&claim).await;
        swept = swept + watched.room.keeper.sweep_crawls().await.unwrap();
        if watched.room.status(id).await == "running" {
            claim = watched.claim_report(claim.id).await;
        }
    }
    assert_eq!((swept.returned, swept.exhausted), (1, 1));
    let task = watched.room.task(id).await;
    assert_eq!(task.error_class.as_deref(), Some("AttemptsExhausted"));
    assert_eq!(watched.room.ledger.replay(None, id).await.unwrap(), Changed::Done(None));
    let claim = watched.claim_report(claim.id).await;
    assert_eq!(counts(&watched.conclude(&claim).await), [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn the_links_of_a_page_are_kept_for_the_run_that_is_told_that_it_is_as_it_was() {
    let watched = Watched::new().await;
    let id = watched.begin(&["a", "b"]).await;
    let claims = watched.room.claim_pages(id).await;
    let mut keys = Vec::new();
    for (claim, keeps_links) in claims.iter().zip([true, false]) {
        let url = claim.page.as_ref().unwrap().url.clone();
        let state = PageState {
            key: Uuid::new_v4(),
            url: url.clone(),
            validators: Validators {
                etag: Some("\"1\"".to_owned()),
                last_modified: None,
            },
        };
        keys.push(state.key);
        let page = ReadPage {
            url,
            records: records(&[(1, 10)]),
            found: vec![found("a"), found("x")],
            state: Some(Box::new(state)),
            keeps_links,
            ..ReadPage::default()
        };
        watched.room.end_page(claim, CrawlEnd::Done(page)).await.unwrap();
    }
    let ledger = &watched.room.ledger;
    let known = async |at: usize, links| ledger.known_page(watched.owner, keys[at], links).await.unwrap();
    let first = known(0, true).await.unwrap();
    assert_eq!(
        (first.task_id, first.url.as_str()),
        (id, claims[0].page.as_ref().unwrap().url.as_str())
    );
    let former = ledger.former_page(&first).await.unwrap().unwrap();
    assert_eq!(former.links, ["http://site.test/a", "http://site.test/x"]);
    assert!(known(1, false).await.is_some());
    assert_eq!(known(1, true).await, None, "a page whose links are needed is fetched");
}
