//! A preview's way from the API to a worker and back.

use std::time::Duration;

use redis::AsyncCommands;
use selextract_platform::{
    ledger::Secret,
    previews::{Answer, Asked, Previews, Request},
};
use selextract_test_services::start;
use uuid::Uuid;

use crate::support::spec;

fn request() -> Request {
    Request {
        id: Uuid::now_v7(),
        deadline_milliseconds: i64::MAX,
        owner: None,
        spec: spec(),
    }
}

fn answer() -> Answer {
    Answer {
        url: "http://site.test/".to_owned(),
        records: Vec::new(),
        found: 0,
        warnings: 0,
        next_url: None,
        error: None,
    }
}

#[tokio::test]
async fn a_request_reaches_one_worker_and_its_answer_comes_back() {
    let previews = Previews::connect_lazy(&Secret(start().redis_url().unwrap())).unwrap();
    let request = request();
    let work = async {
        let taken = previews.listen().await.unwrap().next().await.unwrap().unwrap();
        assert_eq!(taken, request);
        previews.answer(taken.id, &answer()).await.unwrap();
    };
    let (asked, ()) = tokio::join!(previews.ask(&request, Duration::from_secs(5)), work);
    assert_eq!(asked.unwrap(), Asked::Answered(Box::new(answer())));
}

#[tokio::test]
async fn without_a_worker_the_caller_is_told_in_time_and_what_waits_is_bounded_and_ends() {
    let url = start().redis_url().unwrap();
    let previews = Previews::connect_lazy(&Secret(url.clone())).unwrap();
    let requests: Vec<_> = (0..70).map(|_| request()).collect();
    let asked = requests
        .iter()
        .map(|request| previews.ask(request, Duration::from_millis(300)));
    let asked = futures::future::join_all(asked).await;
    let full = asked.iter().filter(|asked| matches!(asked, Ok(Asked::Full))).count();
    assert_eq!(full, 6);
    assert!(
        asked
            .iter()
            .all(|asked| matches!(asked, Ok(Asked::Full | Asked::Unanswered)))
    );
    let mut redis = redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let lives: i64 = redis.ttl("sx:previews").await.unwrap();
    assert!((1..=30).contains(&lives), "{lives}");
}
