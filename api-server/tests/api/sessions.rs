//! Signing in and out, keys, and who is locked out.

use http::StatusCode;
use serde_json::json;

use crate::support::{self, Api};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_api_key_is_refused_at_once() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let made = api
        .post("/api/v1/api-keys", Some(&admin), &json!({ "name": "ci" }))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let (key, id) = (
        made.json()["key"].as_str().unwrap().to_owned(),
        made.json()["id"].as_str().unwrap().to_owned(),
    );
    assert_eq!(api.get("/api/v1/auth/me", Some(&key)).await.json()["username"], "admin");
    let listed = api.get("/api/v1/api-keys", Some(&admin)).await;
    assert!(
        listed.text.contains(&id) && !listed.text.contains(&key),
        "{}",
        listed.text
    );
    assert_eq!(
        api.delete(&format!("/api/v1/api-keys/{id}"), &admin).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        api.get("/api/v1/auth/me", Some(&key)).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_used_twice_ends_the_session() {
    let api = Api::start().await;
    let login = json!({ "username": "admin", "password": support::ADMIN_PASSWORD });
    let first = api.post("/api/v1/auth/login", None, &login).await.json();
    let refresh = |token: &serde_json::Value| json!({ "refresh_token": token });
    let second = api
        .post("/api/v1/auth/refresh", None, &refresh(&first["refresh_token"]))
        .await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.text);
    let stolen = api
        .post("/api/v1/auth/refresh", None, &refresh(&first["refresh_token"]))
        .await;
    assert_eq!(stolen.status, StatusCode::UNAUTHORIZED);
    let owner = api
        .post("/api/v1/auth/refresh", None, &refresh(&second.json()["refresh_token"]))
        .await;
    assert_eq!(owner.status, StatusCode::UNAUTHORIZED, "reuse ends the whole family");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_lock_a_name_out_known_or_not_and_the_answers_do_not_differ() {
    let api = Api::start().await;
    for name in ["admin", "nobody"] {
        let wrong = json!({ "username": name, "password": "wrong" });
        for _ in 0..5 {
            let answer = api.post("/api/v1/auth/login", None, &wrong).await;
            assert_eq!(answer.json()["type"], "urn:selextract:problem:wrong-credentials");
        }
        let locked = api.post("/api/v1/auth/login", None, &wrong).await;
        assert_eq!(locked.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
        assert!(locked.header("retry-after").parse::<u32>().unwrap() <= 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_token_of_a_disabled_user_is_refused_at_once_here_and_within_seconds_elsewhere() {
    let api = Api::start().await;
    let other = api.another_replica();
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let me = api.get("/api/v1/auth/me", Some(&ann)).await.json();
    assert_eq!(other.get("/api/v1/auth/me", Some(&ann)).await.status, StatusCode::OK);
    let path = format!("/api/v1/users/{}/disable", me["id"].as_str().unwrap());
    api.post(&path, Some(&admin), &json!({})).await;
    assert_eq!(
        api.get("/api/v1/auth/me", Some(&ann)).await.status,
        StatusCode::UNAUTHORIZED
    );
    let started = std::time::Instant::now();
    while other.get("/api/v1/auth/me", Some(&ann)).await.status == StatusCode::OK {
        assert!(started.elapsed() < std::time::Duration::from_secs(5));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_user_cannot_log_in_refresh_or_use_its_keys() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let id = api.get("/api/v1/auth/me", Some(&ann)).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let key = api
        .post("/api/v1/api-keys", Some(&ann), &json!({ "name": "k" }))
        .await
        .json()["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let login = json!({ "username": "ann", "password": support::USER_PASSWORD });
    let tokens = api.post("/api/v1/auth/login", None, &login).await.json();
    let disabled = api
        .post(&format!("/api/v1/users/{id}/disable"), Some(&admin), &json!({}))
        .await;
    assert_eq!(disabled.status, StatusCode::NO_CONTENT, "{}", disabled.text);
    let refresh = json!({ "refresh_token": tokens["refresh_token"] });
    for status in [
        api.post("/api/v1/auth/login", None, &login).await.status,
        api.post("/api/v1/auth/refresh", None, &refresh).await.status,
        api.get("/api/v1/auth/me", Some(&key)).await.status,
    ] {
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
}
