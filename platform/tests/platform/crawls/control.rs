//! Crawls that are canceled, paused, ended by a limit, run again, and followed.

use super::*;

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

/// A crawl of which 5,003 pages wait.
async fn large_crawl(room: &Room, owner: UserId) {
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
}

#[tokio::test]
async fn the_refill_of_crawls_begins_with_pages_of_every_owner_and_with_his_most_urgent_run() {
    let (room, many, few) = (Room::new().await, UserId::new(), UserId::new());
    large_crawl(&room, many).await;
    let urgent = room.crawl(many, &["now"]).await;
    room.sql(&format!("UPDATE tasks SET priority = 9 WHERE id = '{urgent}'"))
        .await;
    room.crawl(few, &["x", "y"]).await;
    let (first, next) = room.keeper.refill_crawls(CrawlCursor::default()).await.unwrap();
    let of = |owner| first.iter().filter(move |entry| entry.owner == owner);
    assert_eq!(
        (of(few).count(), of(many).count()),
        (2, 100),
        "a stretch of each owner's"
    );
    assert_eq!(of(many).next().unwrap().priority, 9);
    let mut seen: HashSet<_> = first.iter().map(|entry| entry.id).collect();
    let mut next = next.map(CrawlCursor::heads_first);
    let mut rounds = 0;
    while let Some(from) = next {
        let (entries, then) = room.keeper.refill_crawls(from).await.unwrap();
        seen.extend(entries.into_iter().map(|entry| entry.id));
        (next, rounds) = (then, rounds + 1);
    }
    assert_eq!(
        (seen.len(), rounds),
        (5_006, 2),
        "the heads again, and then where it was"
    );
}

#[tokio::test]
async fn the_refill_goes_through_all_open_crawls_in_a_circle() {
    let (room, owner) = (Room::new().await, UserId::new());
    large_crawl(&room, owner).await;
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
    assert_eq!(
        (seen.len(), steps),
        (5_005, 2),
        "what comes first, and what lies deeper"
    );
    let of_small = room.ledger.crawl_pages(small, None, None, 10).await.unwrap();
    assert!(of_small.iter().all(|page| seen.contains(&page.id)));
}

#[tokio::test]
async fn an_operator_hears_of_a_crawls_progress_and_of_its_end() {
    let room = Room::new().await;
    let answer = room.upsert(&upsert("uid", "a"), jiff::Timestamp::now()).await;
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
