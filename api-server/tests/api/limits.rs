//! What a client may have and send, and what it is told beyond that.

use http::StatusCode;
use serde_json::json;

use crate::support::{self, Api, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_is_named_with_what_is_used_and_its_limit() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let limits = json!({ "queued": 3, "running": 0 });
    assert_eq!(
        api.put("/api/v1/quotas?owner=ann", &ann, &limits).await.status,
        StatusCode::FORBIDDEN
    );
    let set = api.put("/api/v1/quotas?owner=ann", &admin, &limits).await;
    assert_eq!(set.json()["queued"], json!({ "used": 0, "limit": 3 }), "{}", set.text);
    let batch = |n| json!({ "tasks": vec![spec("https://example.com/"); n] });
    let refused = api.post("/api/v1/tasks:batch", Some(&ann), &batch(4)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text);
    let problem = refused.json();
    assert_eq!(
        (&problem["type"], &problem["quota"]),
        (
            &json!("urn:selextract:problem:quota-exceeded"),
            &json!({ "name": "queued", "used": 0, "limit": 3 })
        )
    );
    let accepted = api.post_once("/api/v1/tasks:batch", &ann, "three", &batch(3)).await;
    assert_eq!(accepted.status, StatusCode::CREATED, "{}", accepted.text);
    let repeated = api.post_once("/api/v1/tasks:batch", &ann, "three", &batch(3)).await;
    assert_eq!(
        repeated.json(),
        accepted.json(),
        "a repeated request makes no new tasks"
    );
    let single = api
        .post("/api/v1/tasks", Some(&ann), &spec("https://example.com/"))
        .await;
    assert_eq!(
        (single.status, single.json()["quota"]["used"].clone()),
        (StatusCode::TOO_MANY_REQUESTS, json!(3))
    );
    let id = accepted.json()["ids"][0].as_str().unwrap().to_owned();
    let task = api
        .another_replica()
        .get(&format!("/api/v1/tasks/{id}"), Some(&ann))
        .await
        .json();
    let waiting = json!({ "reason": "QuotaExceeded", "quota": { "name": "running", "used": 0, "limit": 0 } });
    assert_eq!(task["waiting"], waiting, "none of his may run");
    let wrong = api
        .put("/api/v1/quotas?owner=ann", &admin, &json!({ "queued": -1 }))
        .await;
    assert_eq!(wrong.json()["errors"][0]["field"], "queued", "{}", wrong.text);
    assert_eq!(
        api.put("/api/v1/quotas?owner=nobody", &admin, &limits).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_answers_503_in_time_and_recovers() {
    let api = Api::start_with_pool(1).await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let lock = api.lock_tasks(std::time::Duration::from_secs(5));
    let held = api.get("/api/v1/tasks", Some(&admin));
    let started = std::time::Instant::now();
    let refused = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        api.get("/api/v1/tasks", Some(&admin)).await
    };
    let (held, refused) = tokio::join!(held, refused);
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.text);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(held.status, StatusCode::OK, "{}", held.text);
    assert!(started.elapsed() >= std::time::Duration::from_secs(2));
    lock.join().unwrap();
    assert_eq!(api.get("/api/v1/tasks", Some(&admin)).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_sends_too_much_gets_429_and_is_told_when_to_come_back_while_others_go_on() {
    let api = Api::start_with_limits("10/10s", "50/10s").await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let first = api.get("/api/v1/auth/me", Some(&ann)).await;
    assert_eq!(first.header("ratelimit-policy"), "\"user\";q=10;w=10");
    assert_eq!(first.header("ratelimit"), "\"user\";r=9;t=1");
    let all = (0..20).map(|_| api.get("/api/v1/auth/me", Some(&ann)));
    let answers = futures::future::join_all(all).await;
    let refused: Vec<_> = answers
        .iter()
        .filter(|a| a.status == StatusCode::TOO_MANY_REQUESTS)
        .collect();
    assert!((10..=11).contains(&refused.len()), "{}", refused.len());
    assert_eq!(refused[0].json()["type"], "urn:selextract:problem:too-many-requests");
    assert_eq!(refused[0].header("retry-after"), "1");
    assert_eq!(api.get("/api/v1/auth/me", Some(&admin)).await.status, StatusCode::OK);
    assert_eq!(api.get("/api/v1/health", None).await.status, StatusCode::OK, "nobody's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_guesses_keys_or_logs_in_too_often_gets_429_even_while_redis_is_down() {
    let api = Api::start_without_redis_and_limits("10/10s", "5/1h").await;
    let guess = |n: u32| format!("sxk_guess.{n}");
    for n in 0..5 {
        let answer = api.get("/api/v1/tasks", Some(&guess(n))).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let login = json!({ "username": "admin", "password": support::ADMIN_PASSWORD });
    for answer in [
        api.get("/api/v1/tasks", Some(&guess(9))).await,
        api.post("/api/v1/auth/login", None, &login).await,
    ] {
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text);
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 600);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_and_a_run_out_of_turn_are_new_tasks_for_the_quota() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let mut failed = Vec::new();
    for _ in 0..2 {
        let created = api
            .post("/api/v1/tasks", Some(&ann), &spec("https://example.com/"))
            .await
            .json();
        failed.push(created["id"].as_str().unwrap().to_owned());
        api.fail(&failed[failed.len() - 1], "Timeout").await;
    }
    let schedule = json!({ "name": "s", "cron": "0 0 1 1 *", "task": spec("https://example.com/") });
    let schedule = api.post("/api/v1/schedules", Some(&ann), &schedule).await;
    let uid = schedule.json()["uid"].as_str().unwrap().to_owned();
    let limit = async |queued| {
        let set = api
            .put("/api/v1/quotas?owner=ann", &admin, &json!({ "queued": queued }))
            .await;
        assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    };
    limit(0).await;
    for path in [
        format!("/api/v1/tasks/{}/replay", failed[0]),
        format!("/api/v1/schedules/{uid}/run"),
        "/api/v1/dead-letters/replay".to_owned(),
    ] {
        let refused = api.post(&path, Some(&ann), &json!({})).await;
        assert_eq!(
            refused.status,
            StatusCode::TOO_MANY_REQUESTS,
            "{path}: {}",
            refused.text
        );
        assert_eq!(
            refused.json()["quota"],
            json!({ "name": "queued", "used": 0, "limit": 0 })
        );
    }
    limit(1).await;
    let some = api.post("/api/v1/dead-letters/replay", Some(&ann), &json!({})).await;
    assert_eq!(
        some.json(),
        json!({ "replayed": 1, "more": true }),
        "as many as there is room for"
    );
}
