//! Places at hosts that a claim was taken with and that no page begins with: they come back at once, and do not wait to expire.

use selextract_platform::ledger::crawl::{CrawlKind, CrawlStart, FoundPage};

use super::*;

impl Bench {
    /// Pages under way at a host, and entries that were taken for it.
    async fn occupied(&self, host: &str) -> u64 {
        let client = redis::Client::open(self.redis.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut ask = redis::cmd("ZCARD");
        ask.arg(format!("sx:s:{host}"))
            .query_async(&mut connection)
            .await
            .unwrap()
    }

    /// Whether a host's places are free within two seconds: they are given back just after the ledger says so, and expire after ten.
    async fn is_vacated(&self, host: &str) -> bool {
        for _ in 0..40 {
            if self.occupied(host).await == 0 {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// A task whose place its own host gets back by the end of its run.
    async fn ends(&self, more: Value) -> TaskDetail {
        let mut spec = json!({ "url": "http://site.test/wares/1", "pagination": null, "maxRetries": 0 });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = self.accept(spec).await;
        self.until(id, "it ends", |task| task.finished_at.is_some()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_nobody_may_claim_give_their_places_back() {
    let bench = Bench::new().await;
    let lease = Duration::from_secs(30);
    let claims = Claims::new(bench.ledger.clone(), bench.frontier.clone(), "w1".to_owned(), lease);
    for keeps in ["pause", "cancel"] {
        let host = format!("{keeps}.test");
        let id = bench.accept(json!({ "pagination": null, "crawl": {} })).await;
        let held = loop {
            if let Some(claim) = claims.claim(1).await.unwrap().claims.pop() {
                break claim;
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(held.id, id);
        let start = CrawlStart {
            found: vec![FoundPage {
                kind: CrawlKind::Page,
                url: format!("http://{host}/"),
                host: host.clone(),
                depth: 0,
            }],
            max_pages: 1,
            ..CrawlStart::default()
        };
        claims.begin_crawl(&held, &start).await.unwrap().unwrap();
        if keeps == "pause" {
            bench.ledger.pause(None, id).await.unwrap();
        } else {
            bench.ledger.cancel(None, id).await.unwrap();
        }
        // Until the frontier has given it out, which it does once.
        while claims.claim(10).await.unwrap().next != Some(Duration::ZERO) {
            sleep(Duration::from_millis(50)).await;
        }
        assert!(bench.is_vacated(&host).await, "{keeps}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_and_pages_that_visit_nobody_give_their_places_back() {
    let bench = Bench::new().await;
    let stop = CancellationToken::new();
    let worker = bench.worker("w1", pace(), &stop);
    for (more, class) in [
        (json!({ "credentials": "none" }), "CredentialsMissing"),
        (json!({ "credentials": "none", "crawl": {} }), "CredentialsMissing"),
        (
            json!({ "crawl": {}, "maxDuration": "1s", "politeness": { "minDelay": "2s" } }),
            "MaxDuration",
        ),
    ] {
        let task = bench.ends(more.clone()).await;
        assert_eq!(task.error_class.as_deref(), Some(class), "{more}");
        assert!(bench.is_vacated("site.test").await, "{more}");
    }
    let task = bench
        .ends(json!({ "crawl": { "maxDepth": 0 }, "watch": { "key": ["t"] } }))
        .await;
    assert_eq!(task.status, "succeeded");
    assert!(bench.is_vacated(&format!("{}.invalid", task.id)).await);
    stop.cancel();
    worker.await.unwrap();
}
