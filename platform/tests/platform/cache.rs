//! The cache: a value or a miss, never an error and never a long wait.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use selextract_platform::{
    cache::{Cache, Limit},
    ledger::Secret,
};
use selextract_test_services::start;

const LIVES: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_value_reads_back_and_ends() {
    let url = start().redis_url().unwrap();
    let cache = Cache::connect_lazy(&Secret(url.clone())).unwrap();
    let (small, large) = (vec![7_u64; 3], vec![7_u64; 50_000]);
    cache.set("small", &small, LIVES).await;
    cache.set("large", &large, LIVES).await;
    assert_eq!(cache.get::<Vec<u64>>("small").await.unwrap(), small);
    assert_eq!(cache.get::<Vec<u64>>("large").await.unwrap(), large);
    assert_eq!(
        cache.get::<Vec<String>>("small").await,
        None,
        "a value of another form is a miss"
    );
    assert_eq!(cache.get::<u64>("unknown").await, None);
    let mut redis = redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    for key in ["small", "large"] {
        let lives: i64 = redis.ttl(key).await.unwrap();
        assert!((50..=60).contains(&lives), "{key}: {lives}");
    }
    let stored: usize = redis.strlen("large").await.unwrap();
    assert!(stored < 10_000, "a large value is compressed");
    cache.remove("small").await;
    assert_eq!(cache.get::<Vec<u64>>("small").await, None);
}

#[tokio::test]
async fn a_counter_ends_by_its_first_use() {
    let url = start().redis_url().unwrap();
    let cache = Cache::connect_lazy(&Secret(url.clone())).unwrap();
    assert_eq!(cache.increment("count", Duration::from_secs(30)).await, Some(1));
    assert_eq!(cache.increment("count", Duration::from_mins(50)).await, Some(2));
    let mut redis = redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let lives: i64 = redis.ttl("count").await.unwrap();
    assert!((20..=30).contains(&lives), "{lives}");
}

#[tokio::test]
async fn takers_of_one_bucket_never_get_more_than_its_burst_and_its_rate_and_it_ends_by_itself() {
    let url = start().redis_url().unwrap();
    let limit: Limit = "100/100s".parse().unwrap();
    let takers: Vec<_> = (0..5)
        .map(|_| Cache::connect_lazy(&Secret(url.clone())).unwrap())
        .collect();
    let taken = (0..50).map(|n| takers[n % 5].take_tokens("rate", limit, 7));
    let grants: Vec<_> = futures::future::join_all(taken)
        .await
        .into_iter()
        .map(Option::unwrap)
        .collect();
    let given: u32 = grants.iter().map(|grant| grant.given).sum();
    assert!((100..=102).contains(&given), "a token comes back each second: {given}");
    let last = takers[0].take_tokens("rate", limit, 7).await.unwrap();
    if last.given == 0 {
        assert!(last.wait <= Duration::from_secs(1) && !last.wait.is_zero(), "{last:?}");
    }
    let mut redis = redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let lives: i64 = redis.ttl("rate").await.unwrap();
    assert!((90..=101).contains(&lives), "{lives}");
}

#[tokio::test]
async fn a_frozen_cache_is_a_miss_in_a_tenth_of_a_second() {
    let own = start().valkey().unwrap();
    let cache = Cache::connect_lazy(&Secret(own.url(0))).unwrap();
    cache.set("key", &1_u8, LIVES).await;
    assert_eq!(cache.get::<u8>("key").await, Some(1));
    own.process().freeze().unwrap();
    let connecting = Cache::connect_lazy(&Secret(own.url(0))).unwrap();
    for cache in [&cache, &connecting, &cache] {
        let started = Instant::now();
        assert_eq!(cache.get::<u8>("key").await, None);
        assert!(
            started.elapsed() < Duration::from_millis(300),
            "{:?}",
            started.elapsed()
        );
    }
    own.process().thaw().unwrap();
    for _ in 0..50 {
        if cache.get::<u8>("key").await == Some(1) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the cache did not come back");
}
