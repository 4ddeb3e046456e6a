//! Pages that are claimed, lost, tried again and given back.

use super::*;

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
