//! Why runs of `ScrapeTask`s wait: told once when it lasts, and its end once.

use jiff::Timestamp;
use selextract_platform::{
    ledger::{TaskId, claims::Ending, crawl::CrawlStart, waits::WaitingRun},
    waiting::Reason,
};

use crate::{
    changes::follow,
    crawls::found,
    support::{LEASE, Room, page, upsert},
};

/// A run that has waited for a while.
async fn waiting() -> (Room, TaskId) {
    let room = Room::new().await;
    let made = room.upsert(&upsert("uid", "a"), Timestamp::now()).await;
    room.sql("UPDATE tasks SET created_at = now() - interval '1 minute'")
        .await;
    (room, made.started.unwrap().id)
}

async fn only(room: &Room) -> WaitingRun {
    let (mut runs, next) = room.keeper.waiting_runs(None).await.unwrap();
    assert!(next.is_none() && runs.len() == 1);
    runs.remove(0)
}

/// A round of the keeper that sees this reason; returns how many changes it told.
async fn round(room: &Room, reason: Reason) -> u64 {
    let wait = only(room).await.wait(reason);
    room.keeper.note_waits(&[wait]).await.unwrap();
    room.keeper.tell_waits().await.unwrap()
}

async fn minutes_pass(room: &Room) {
    room.sql("UPDATE run_waits SET since = since - interval '61 seconds'")
        .await;
}

async fn told(room: &Room) -> Option<String> {
    let answer = room.upsert(&upsert("uid", "a"), Timestamp::now()).await;
    answer.answer.run.unwrap().waiting
}

#[tokio::test]
async fn a_reason_is_told_once_when_it_has_lasted_for_a_minute() {
    let (room, _) = waiting().await;
    assert_eq!(round(&room, Reason::NoWorker).await, 0, "it may pass");
    minutes_pass(&room).await;
    let (_, after) = follow(&room.ledger, 0, 1).await;
    assert_eq!(round(&room, Reason::NoWorker).await, 1);
    assert_eq!(told(&room).await.as_deref(), Some("NoWorker"));
    follow(&room.ledger, after, 1).await;
    minutes_pass(&room).await;
    assert_eq!(round(&room, Reason::NoWorker).await, 0, "it is told already");
    assert_eq!(round(&room, Reason::HostUnavailable).await, 0);
    minutes_pass(&room).await;
    assert_eq!(round(&room, Reason::HostUnavailable).await, 1);
    assert_eq!(round(&room, Reason::Queued).await, 0);
    minutes_pass(&room).await;
    assert_eq!(round(&room, Reason::Queued).await, 1, "nothing is in its way any more");
    assert_eq!(told(&room).await, None);
}

#[tokio::test]
async fn the_end_of_a_wait_is_told_when_the_run_goes_on_and_not_for_every_page() {
    let (room, id) = waiting().await;
    round(&room, Reason::DomainLimited).await;
    minutes_pass(&room).await;
    assert_eq!(round(&room, Reason::DomainLimited).await, 1);
    let claim = room.claim(id).await.unwrap();
    room.ledger
        .commit_page(claim.lease(), &page(1), LEASE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        room.keeper.tell_waits().await.unwrap(),
        0,
        "it may read one page and wait on"
    );
    let after = std::time::Duration::ZERO;
    let waits = Ending::Waits { after, reason: None };
    room.ledger.finish(claim.lease(), &waits, 0).await.unwrap().unwrap();
    assert_eq!(round(&room, Reason::DomainLimited).await, 0);
    assert_eq!(told(&room).await.as_deref(), Some("DomainLimited"));
    let claim = room.claim(id).await.unwrap();
    room.keeper.tell_waits().await.unwrap();
    minutes_pass(&room).await;
    assert_eq!(room.keeper.tell_waits().await.unwrap(), 1, "it goes on");
    assert_eq!(told(&room).await, None);
    room.ledger
        .finish(claim.lease(), &Ending::Succeeded, 0)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(room.keeper.tell_waits().await.unwrap(), 0);
    assert_eq!(room.number("SELECT count(*) FROM run_waits").await, 0);
}

#[tokio::test]
async fn a_run_that_goes_on_between_waits_anew() {
    let (room, id) = waiting().await;
    round(&room, Reason::DomainLimited).await;
    minutes_pass(&room).await;
    let claim = room.claim(id).await.unwrap();
    room.commit_and_let_go(&claim, 1, &Ending::HandedBack, 0).await;
    assert_eq!(round(&room, Reason::DomainLimited).await, 0);
}

#[tokio::test]
async fn a_run_beyond_a_quota_is_held_and_a_young_one_is_left_alone() {
    let (room, _) = waiting().await;
    assert!(!only(&room).await.held);
    room.sql("INSERT INTO owner_quotas (user_id, running) SELECT user_id, 0 FROM tasks")
        .await;
    assert!(only(&room).await.held);
    room.sql("UPDATE tasks SET created_at = now()").await;
    assert!(room.keeper.waiting_runs(None).await.unwrap().0.is_empty());
}

/// A crawl of a `ScrapeTask` that has begun at two pages, of which no worker reads one.
async fn waiting_crawl() -> (Room, TaskId) {
    let room = Room::new().await;
    let mut crawl = upsert("uid", "a");
    crawl.item.task = serde_json::from_value(serde_json::json!({
        "url": "http://site.test/", "fields": [{ "name": "title" }], "crawl": {},
    }))
    .unwrap();
    let made = room.upsert(&crawl, Timestamp::now()).await;
    let id = made.started.unwrap().id;
    let claim = room.claim(id).await.unwrap();
    let start = CrawlStart {
        found: vec![found("a"), found("b")],
        max_pages: 10,
        ..CrawlStart::default()
    };
    room.ledger.begin_crawl(claim.lease(), &start).await.unwrap().unwrap();
    room.sql("UPDATE tasks SET created_at = now() - interval '1 minute'")
        .await;
    (room, id)
}

#[tokio::test]
async fn a_begun_crawl_waits_while_no_page_of_it_is_read_and_says_so() {
    let (room, id) = waiting_crawl().await;
    room.sql(
        "UPDATE crawl_pages SET due_at = now() + interval '1 hour' WHERE url LIKE '%/a';
         UPDATE crawl_pages SET host = 'other.test', attempts = 1, error_class = 'Timeout' WHERE url LIKE '%/b'",
    )
    .await;
    let run = only(&room).await;
    assert_eq!(
        (
            run.host.as_str(),
            run.attempts,
            run.error_class.as_deref(),
            run.begun,
            run.paused,
            run.held
        ),
        ("other.test", 1, Some("Timeout"), true, false, false),
        "those of the page that is due first"
    );
    room.sql("INSERT INTO owner_quotas (user_id, running) SELECT user_id, 1 FROM tasks")
        .await;
    assert!(!only(&room).await.held, "it is the one that runs");
    room.sql("INSERT INTO owner_holds (user_id, used, most, until) SELECT user_id, 1, 1, now() + interval '1 hour' FROM tasks")
        .await;
    assert!(only(&room).await.held);
    room.sql("DELETE FROM owner_holds").await;
    room.ledger.pause(None, id).await.unwrap();
    assert!(only(&room).await.paused);

    assert_eq!(round(&room, Reason::Paused).await, 0, "it may pass");
    minutes_pass(&room).await;
    assert_eq!(round(&room, Reason::Paused).await, 1);
    assert_eq!(told(&room).await.as_deref(), Some("Paused"));
    room.ledger.resume(None, id).await.unwrap();
    let pages = room.ledger.crawl_pages(id, None, None, 10).await.unwrap();
    let ids: Vec<TaskId> = pages.into_iter().map(|page| page.id).collect();
    let claims = room.ledger.claim_crawl_pages(&ids, "a-worker", LEASE).await.unwrap();
    assert_eq!(claims.len(), 1);
    assert!(
        room.keeper.waiting_runs(None).await.unwrap().0.is_empty(),
        "a page of it is read"
    );
    assert_eq!(room.keeper.tell_waits().await.unwrap(), 0);
    minutes_pass(&room).await;
    assert_eq!(room.keeper.tell_waits().await.unwrap(), 1, "it goes on");
    assert_eq!(told(&room).await, None);
}

#[tokio::test]
async fn a_crawl_that_goes_on_does_not_wait_although_it_is_seen_between_two_pages() {
    let (room, id) = waiting_crawl().await;
    round(&room, Reason::NoWorker).await;
    minutes_pass(&room).await;
    assert_eq!(round(&room, Reason::NoWorker).await, 1);
    // Another page has ended whenever it is looked at.
    room.sql(&format!("UPDATE tasks SET pages = pages + 1 WHERE id = '{id}'"))
        .await;
    assert_eq!(round(&room, Reason::DomainLimited).await, 0);
    minutes_pass(&room).await;
    room.sql(&format!("UPDATE tasks SET pages = pages + 1 WHERE id = '{id}'"))
        .await;
    assert_eq!(round(&room, Reason::DomainLimited).await, 1, "the end of the wait");
    assert_eq!(told(&room).await, None);
}
