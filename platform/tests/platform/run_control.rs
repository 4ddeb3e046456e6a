//! Pausing, resuming, replaying; dead letters.

use selextract_platform::ledger::{
    TaskId, UserId,
    claims::Ending,
    crawl::CrawlStart,
    run_control::{Cause, Changed},
    schedules::RunNow,
};
use selextract_task::feed::{RunError, RunState};

use crate::{
    changes::follow,
    crawls::found,
    support::{LEASE, Room, error, hourly, new_task, page, upsert},
};

impl Room {
    /// Claims a task, commits pages up to `pages`, and fails it for this reason.
    async fn fail(&self, id: TaskId, pages: i32, class: &str) {
        let claim = self.claim(id).await.unwrap();
        for number in claim.pages + 1..=pages {
            let committed = self.ledger.commit_page(claim.lease(), &page(number), LEASE).await;
            committed.unwrap().unwrap();
        }
        let error = RunError {
            class: class.to_owned(),
            ..error()
        };
        let ended = self.ledger.finish(claim.lease(), &Ending::Failed(error), 3).await;
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_failed_run_is_replayed_behind_its_last_committed_page_and_counted_once() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    assert_eq!(room.ledger.replay(Some(owner), id).await.unwrap(), Changed::Unfit);
    room.fail(id, 2, "Timeout").await;
    assert_eq!(
        room.ledger.replay(Some(UserId::new()), id).await.unwrap(),
        Changed::Missing
    );
    let Changed::Done(Some(entry)) = room.ledger.replay(Some(owner), id).await.unwrap() else {
        panic!("it is replayed");
    };
    assert_eq!((entry.id, entry.owner, entry.host.as_str()), (id, owner, "site.test"));
    let stats = room.ledger.owner_stats(owner).await.unwrap();
    assert_eq!((stats.open, stats.failed, stats.pages), (1, 0, 0));
    let claim = room.claim(id).await.unwrap();
    assert_eq!((claim.pages, claim.attempts), (2, 1));
    assert_eq!(claim.next_url.as_deref(), Some("http://site.test/list/3"));
    assert_eq!(claim.units_used, 0, "its compute units count anew");
    assert!(claim.running_seconds < 5.0, "and its time");
    room.commit_and_let_go(&claim, 3, &Ending::Succeeded, 1).await;
    let task = room.task(id).await;
    assert_eq!((task.status.as_str(), task.pages, task.replays), ("succeeded", 3, 1));
    assert_eq!((task.compute_units_used, task.error_class), (4, None));
    room.keeper.fold_counters().await.unwrap();
    let stats = room.ledger.owner_stats(owner).await.unwrap();
    assert_eq!((stats.total, stats.open, stats.succeeded, stats.failed), (1, 0, 1, 0));
    assert_eq!((stats.pages, stats.records, stats.compute_units), (3, 3, 4));
}

#[tokio::test]
async fn dead_letters_are_listed_counted_and_replayed_by_cause() {
    let (room, owner) = (Room::new().await, UserId::new());
    for class in ["Timeout", "HttpStatus", "Timeout"] {
        let id = room.accept(owner).await;
        room.fail(id, 1, class).await;
    }
    let strange = room.accept(UserId::new()).await;
    room.fail(strange, 0, "Timeout").await;
    room.accept(owner).await;
    let letters = room.ledger.dead_letters(owner, None, None).await.unwrap();
    assert!(letters.is_sorted_by(|a, b| a.id > b.id) && letters.len() == 3);
    assert_eq!(
        (letters[0].cause.as_str(), letters[0].url.as_str()),
        ("Timeout", "http://site.test/list")
    );
    let older = room
        .ledger
        .dead_letters(owner, Some("Timeout"), Some(letters[0].id))
        .await
        .unwrap();
    assert_eq!(
        older.iter().map(|letter| letter.id).collect::<Vec<_>>(),
        [letters[2].id]
    );
    let causes = room.ledger.causes(owner).await.unwrap();
    let cause = |cause: &str, count| Cause {
        cause: cause.to_owned(),
        count,
    };
    assert_eq!(causes, [cause("Timeout", 2), cause("HttpStatus", 1)]);
    let replayed = room
        .ledger
        .replay_dead_letters(owner, Some("Timeout"), None, 1_000)
        .await
        .unwrap();
    assert_eq!(
        replayed.iter().map(|entry| entry.id).collect::<Vec<_>>(),
        [letters[2].id, letters[0].id]
    );
    let rest = room.ledger.replay_dead_letters(owner, None, None, 1_000).await.unwrap();
    assert_eq!(rest.iter().map(|entry| entry.id).collect::<Vec<_>>(), [letters[1].id]);
    let stats = room.ledger.owner_stats(owner).await.unwrap();
    assert_eq!(
        (stats.open, stats.failed, stats.pages, stats.compute_units),
        (4, 0, 0, 0)
    );
    assert_eq!(room.task(strange).await.status, "failed");
}

#[tokio::test]
async fn a_paused_task_is_not_begun_until_it_is_resumed() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    assert_eq!(
        room.ledger.pause(Some(UserId::new()), id).await.unwrap(),
        Changed::Missing
    );
    for _ in 0..2 {
        assert_eq!(room.ledger.pause(Some(owner), id).await.unwrap(), Changed::Done(None));
    }
    assert!(room.claim(id).await.is_none());
    assert!(room.keeper.refill(None).await.unwrap().0.is_empty());
    assert_eq!(room.keeper.backlog().await.unwrap().due, 0);
    let Changed::Done(Some(entry)) = room.ledger.resume(Some(owner), id).await.unwrap() else {
        panic!("it is resumed");
    };
    assert_eq!(entry.id, id);
    assert_eq!(
        room.ledger.resume(Some(owner), id).await.unwrap(),
        Changed::Done(None),
        "it was not paused"
    );
    assert!(room.claim(id).await.is_some());
    room.ledger.cancel(None, id).await.unwrap();
}

#[tokio::test]
async fn a_running_task_hears_of_its_pause_and_waits_where_it_stopped() {
    let (room, owner) = (Room::new().await, UserId::new());
    let id = room.accept(owner).await;
    let lease = room.claim(id).await.unwrap().lease();
    room.ledger.pause(Some(owner), id).await.unwrap();
    assert!(room.ledger.renew(&[lease], LEASE).await.unwrap()[0].paused);
    let committed = room.ledger.commit_page(lease, &page(1), LEASE).await.unwrap();
    assert!(committed.unwrap().paused);
    let offered = room.ledger.finish(lease, &Ending::HandedBack, 0).await.unwrap();
    assert_eq!(offered, Ok(None), "a paused task is not offered");
    let task = room.task(id).await;
    assert_eq!((task.status.as_str(), task.paused, task.attempts), ("pending", true, 0));
    assert!(room.claim(id).await.is_none());
    room.ledger.resume(None, id).await.unwrap();
    assert_eq!(room.claim(id).await.unwrap().pages, 1);
    let ended = room.accept(owner).await;
    room.ledger.cancel(None, ended).await.unwrap();
    assert_eq!(room.ledger.pause(None, ended).await.unwrap(), Changed::Unfit);
    assert_eq!(room.ledger.resume(None, ended).await.unwrap(), Changed::Unfit);
}

#[tokio::test]
async fn a_schedule_runs_now_one_run_at_a_time_and_its_operator_hears_of_it() {
    let room = Room::new().await;
    let mut hourly = hourly("uid");
    hourly.item.suspend = true;
    room.upsert(&hourly, jiff::Timestamp::now()).await;
    assert_eq!(room.ledger.run_now(None, "unknown").await.unwrap(), RunNow::Missing);
    assert_eq!(
        room.ledger.run_now(Some(UserId::new()), "uid").await.unwrap(),
        RunNow::Missing
    );
    let RunNow::Started(entry) = room.ledger.run_now(None, "uid").await.unwrap() else {
        panic!("it starts");
    };
    assert_eq!(
        room.ledger.run_now(None, "uid").await.unwrap(),
        RunNow::UnderWay(entry.id)
    );
    let (seen, _) = follow(&room.ledger, 0, 1).await;
    assert_eq!(seen["uid"], RunState::Pending);
    room.fail(entry.id, 0, "Timeout").await;
    assert!(matches!(
        room.ledger.run_now(None, "uid").await.unwrap(),
        RunNow::Started(_)
    ));
    let owner = room.ledger.namespace_owner("shop").await.unwrap();
    let listed = room.ledger.schedules(owner, None).await.unwrap();
    assert_eq!(
        (listed[0].uid.as_str(), listed[0].status.as_deref()),
        ("uid", Some("pending"))
    );
    assert!(room.ledger.schedules(owner, Some("uid")).await.unwrap().is_empty());
    let once = upsert("once", "a");
    room.upsert(&once, jiff::Timestamp::now()).await;
    assert_eq!(room.ledger.schedules(owner, None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_run_that_waits_ends_at_its_max_duration() {
    let room = Room::new().await;
    let owner = UserId::new();
    let bounded = |crawl: bool| {
        let mut task = new_task();
        task.spec.max_duration = Some("1h30m".parse().unwrap());
        if crawl {
            task.spec.crawl = Some(serde_json::from_value(serde_json::json!({})).unwrap());
        }
        task
    };
    let accept = async |crawl| room.ledger.accept(owner, &bounded(crawl), None).await.unwrap().id;
    let (paused, young, read, crawl) = (
        accept(false).await,
        accept(false).await,
        accept(false).await,
        accept(true).await,
    );
    for id in [paused, young] {
        let claim = room.claim(id).await.unwrap();
        room.commit_and_let_go(&claim, 1, &Ending::HandedBack, 3).await;
    }
    room.ledger.pause(None, paused).await.unwrap();
    room.claim(read).await.unwrap();
    let claim = room.claim(crawl).await.unwrap();
    let start = CrawlStart {
        found: vec![found("a")],
        max_pages: 10,
        ..CrawlStart::default()
    };
    room.ledger.begin_crawl(claim.lease(), &start).await.unwrap().unwrap();
    assert_eq!(room.keeper.end_late_runs().await.unwrap(), 0);
    let begun_ago = async |interval: &str| {
        room.sql(&format!(
            "UPDATE tasks SET started_at = now() - interval '{interval}' WHERE started_at IS NOT NULL AND id <> '{young}'"
        ))
        .await;
    };
    begun_ago("89 minutes").await;
    assert_eq!(room.keeper.end_late_runs().await.unwrap(), 0);
    begun_ago("91 minutes").await;
    assert_eq!(
        room.keeper.end_late_runs().await.unwrap(),
        2,
        "what a worker reads is that worker's to end"
    );
    for (id, pages) in [(paused, 1), (crawl, 0)] {
        let task = room.task(id).await;
        assert_eq!(
            (
                task.status.as_str(),
                task.error_class.as_deref(),
                task.error_message.as_deref(),
                task.pages
            ),
            (
                "failed",
                Some("MaxDuration"),
                Some("the run took longer than its maxDuration of 1h30m"),
                pages
            )
        );
    }
    let stats = room.ledger.owner_stats(owner).await.unwrap();
    assert_eq!((stats.failed, stats.open, stats.pages), (2, 2, 1));
    assert!(matches!(
        room.ledger.replay(None, paused).await.unwrap(),
        Changed::Done(Some(_))
    ));
    assert_eq!(
        room.keeper.end_late_runs().await.unwrap(),
        0,
        "a replay has its time anew"
    );
    assert_eq!(room.claim(paused).await.unwrap().pages, 1);
}
