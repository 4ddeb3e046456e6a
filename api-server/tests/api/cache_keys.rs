//! What the API leaves in the cache.

use http::StatusCode;
use redis::AsyncCommands;
use serde_json::json;

use crate::support::{ADMIN_PASSWORD, Api, spec};

#[tokio::test]
async fn every_key_in_the_cache_has_an_end() {
    let api = Api::start().await;
    let admin = api.login("admin", ADMIN_PASSWORD).await;
    let anna = api.user(&admin, "anna").await;
    let wrong = json!({ "username": "anna", "password": "not-her-password" });
    let refused = api.post("/api/v1/auth/login", None, &wrong).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        api.get("/api/v1/tasks", Some("nonsense")).await.status,
        StatusCode::UNAUTHORIZED
    );
    for _ in 0..3 {
        let created = api
            .post("/api/v1/tasks", Some(&anna), &spec("https://example.com/"))
            .await;
        assert_eq!(created.status, StatusCode::CREATED);
    }
    for path in [
        "/api/v1/dashboard/stats",
        "/api/v1/analytics",
        "/api/v1/tasks",
        "/api/v1/quotas",
        "/api/v1/auth/me",
    ] {
        let answer = api.get(path, Some(&admin)).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.status);
    }
    let key = api
        .post("/api/v1/api-keys", Some(&anna), &json!({ "name": "a script" }))
        .await;
    assert!(key.status.is_success(), "{}", key.text);

    let client = redis::Client::open(api.cache_url()).unwrap();
    let mut cache = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = cache.keys("*").await.unwrap();
    assert!(keys.len() >= 4, "there was traffic: {keys:?}");
    for key in keys {
        let lives: i64 = cache.ttl(&key).await.unwrap();
        assert!((0..=86_400).contains(&lives), "{key} lives for {lives} s");
    }
}
