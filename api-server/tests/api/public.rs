//! What clients do.

use http::StatusCode;
use serde_json::json;

use crate::support::{self, Api, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_logs_in_creates_a_task_and_reads_its_results() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let created = api
        .post("/api/v1/tasks", Some(&admin), &spec("https://example.com/list"))
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), format!("/api/v1/tasks/{id}"));

    let listed = api.get("/api/v1/tasks", Some(&admin)).await.json();
    assert_eq!(listed["tasks"][0]["id"], id.as_str());
    assert_eq!(listed["tasks"][0]["status"], "pending");

    api.run(&id, &[json!({ "title": "=1+1" }), json!({ "title": "two" })])
        .await;
    let path = format!("/api/v1/tasks/{id}/results");
    let results = api.get(&path, Some(&admin)).await.json();
    assert_eq!(results["status"], "succeeded");
    assert_eq!(results["records"], json!([{ "title": "=1+1" }, { "title": "two" }]));
    assert_eq!(results["pages"].as_array().unwrap().len(), 1);

    let csv = api.get(&format!("{path}?format=csv"), Some(&admin)).await;
    assert_eq!(csv.text, "title\r\n'=1+1\r\ntwo\r\n");
    assert_eq!(csv.header("x-content-type-options"), "nosniff");
    assert!(csv.header("content-disposition").starts_with("attachment"));
    let lines = api.get(&format!("{path}?format=ndjson"), Some(&admin)).await;
    assert_eq!(lines.text, "{\"title\":\"=1+1\"}\n{\"title\":\"two\"}\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_idempotency_key_gives_the_same_task_and_another_body_is_refused() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let body = spec("https://example.com/a");
    let first = api.post_once("/api/v1/tasks", &admin, "key-1", &body).await;
    let again = api.post_once("/api/v1/tasks", &admin, "key-1", &body).await;
    assert_eq!((first.status, again.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = api
        .post_once("/api/v1/tasks", &admin, "key-1", &spec("https://example.com/b"))
        .await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.json()["type"], "urn:selextract:problem:idempotency-mismatch");
    let listed = api.get("/api/v1/tasks", Some(&admin)).await.json();
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_with_one_key_make_one_task() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let body = spec("https://example.com/a");
    let all = (0..8).map(|_| api.post_once("/api/v1/tasks", &admin, "race", &body));
    let answers = futures::future::join_all(all).await;
    let ids: std::collections::HashSet<_> = answers.iter().map(|a| a.json()["id"].to_string()).collect();
    assert_eq!(
        ids.len(),
        1,
        "{:?}",
        answers.iter().map(|a| &a.text).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_somebody_else_is_not_there_but_an_admin_sees_it() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let bob = api.user(&admin, "bob").await;
    let created = api
        .post("/api/v1/tasks", Some(&ann), &spec("https://example.com/a"))
        .await
        .json();
    let path = format!("/api/v1/tasks/{}", created["id"].as_str().unwrap());
    for path in [path.clone(), format!("{path}/results")] {
        assert_eq!(api.get(&path, Some(&bob)).await.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(api.get(&path, Some(&admin)).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(api.delete(&path, &bob).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        api.post(&format!("{path}/cancel"), Some(&bob), &json!({})).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        api.get("/api/v1/tasks?owner=k8s:team", Some(&bob)).await.status,
        StatusCode::NOT_FOUND
    );
    let listed = api.get("/api/v1/tasks?owner=ann", Some(&admin)).await;
    assert_eq!(listed.json()["tasks"].as_array().unwrap().len(), 1, "{}", listed.text);
    assert_eq!(api.get("/api/v1/users", Some(&bob)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(api.get(&path, None).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_canceled_and_deleted() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let created = api
        .post("/api/v1/tasks", Some(&admin), &spec("https://example.com/a"))
        .await
        .json();
    let path = format!("/api/v1/tasks/{}", created["id"].as_str().unwrap());
    assert_eq!(
        api.delete(&path, &admin).await.status,
        StatusCode::CONFLICT,
        "it has not ended"
    );
    let canceled = api.post(&format!("{path}/cancel"), Some(&admin), &json!({})).await;
    assert_eq!(
        (canceled.status, canceled.json()["status"].clone()),
        (StatusCode::OK, json!("canceled"))
    );
    assert_eq!(api.delete(&path, &admin).await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.get(&path, Some(&admin)).await.status, StatusCode::NOT_FOUND);
}

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
async fn a_task_is_accepted_while_redis_is_down() {
    let api = Api::start_without_redis().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let created = api
        .post("/api/v1/tasks", Some(&admin), &spec("https://example.com/a"))
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    assert_eq!(
        api.get("/api/v1/dashboard/stats", Some(&admin)).await.status,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_counts_the_callers_tasks_and_analytics_are_for_admins() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    api.post("/api/v1/tasks", Some(&ann), &spec("https://example.com/a"))
        .await;
    let stats = api.get("/api/v1/dashboard/stats", Some(&ann)).await;
    assert_eq!(stats.status, StatusCode::OK, "{}", stats.text);
    assert_eq!(
        (&stats.json()["tasks"], &stats.json()["open"]),
        (&json!(1), &json!(1)),
        "{}",
        stats.text
    );
    for period in ["24h", "7d", "30d"] {
        let path = format!("/api/v1/analytics?period={period}");
        assert_eq!(api.get(&path, Some(&ann)).await.status, StatusCode::FORBIDDEN);
        let answer = api.get(&path, Some(&admin)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    assert_eq!(
        api.get("/api/v1/analytics?period=1y", Some(&admin)).await.status,
        StatusCode::BAD_REQUEST
    );
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_is_a_problem_with_a_stable_type_and_safe_headers() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let large = json!({ "url": "x".repeat(2_000_000) });
    for (answer, status, kind) in [
        (api.get("/nowhere", None).await, 404, "not-found"),
        (api.delete("/api/v1/health", &admin).await, 405, "method-not-allowed"),
        (
            api.get("/api/v1/tasks", Some("not.a.token")).await,
            401,
            "unauthenticated",
        ),
        (
            api.get("/api/v1/tasks?colour=red", Some(&admin)).await,
            400,
            "malformed-request",
        ),
        (api.get("/api/v1/tasks/17", Some(&admin)).await, 404, "not-found"),
        (
            api.post("/api/v1/tasks", Some(&admin), &json!([1])).await,
            400,
            "malformed-request",
        ),
        (
            api.post("/api/v1/tasks", Some(&admin), &json!({ "colour": 1 })).await,
            422,
            "invalid-fields",
        ),
        (
            api.post("/api/v1/tasks", Some(&admin), &large).await,
            413,
            "body-too-large",
        ),
    ] {
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert_eq!(answer.json()["type"], format!("urn:selextract:problem:{kind}"));
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_page_is_served_from_here_alone() {
    let api = Api::start().await;
    let page = api.get("/docs/", None).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(
        !page.text.contains("//unpkg.com") && !page.text.contains("//cdn"),
        "{}",
        page.text
    );
    let document = api.get("/api/v1/openapi.json", None).await;
    assert_eq!(document.json()["openapi"], "3.1.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_goes_on_by_its_cursor_without_a_gap_or_a_repeat() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    for number in 0..45 {
        api.post(
            "/api/v1/tasks",
            Some(&admin),
            &spec(&format!("https://example.com/{number}")),
        )
        .await;
    }
    let (mut seen, mut path) = (Vec::new(), "/api/v1/tasks".to_owned());
    loop {
        let page = api.get(&path, Some(&admin)).await.json();
        let ids = page["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/tasks?cursor={next}");
    }
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (45, 45));
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
}
