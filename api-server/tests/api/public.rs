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
async fn a_task_is_paused_and_resumed_and_says_why_it_waits() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let body = json!({ "url": "https://example.com/", "fields": [{ "name": "t" }], "ttlAfterFinished": "24h" });
    let created = api.post("/api/v1/tasks", Some(&ann), &body).await.json();
    assert_eq!(created["waiting"], json!({ "reason": "NoWorker" }), "{created}");
    let path = format!("/api/v1/tasks/{}", created["id"].as_str().unwrap());
    let paused = api.post(&format!("{path}/pause"), Some(&ann), &json!({})).await.json();
    assert_eq!(
        (&paused["paused"], &paused["waiting"]["reason"]),
        (&json!(true), &json!("Paused"))
    );
    let resumed = api.post(&format!("{path}/resume"), Some(&ann), &json!({})).await;
    assert_eq!(resumed.json()["paused"], false, "{}", resumed.text);
    assert_eq!(
        api.post(&format!("{path}/replay"), Some(&ann), &json!({})).await.status,
        StatusCode::CONFLICT,
        "it has not failed"
    );
    api.post(&format!("{path}/cancel"), Some(&ann), &json!({})).await;
    let ended = api.post(&format!("{path}/pause"), Some(&ann), &json!({})).await;
    assert_eq!(ended.status, StatusCode::CONFLICT, "{}", ended.text);
    let task = api.get(&path, Some(&ann)).await.json();
    assert!(task["expires_at"].is_string() && task["waiting"].is_null(), "{task}");
    let wrong = json!({ "url": "https://example.com/", "fields": [{ "name": "t" }], "ttlAfterFinished": "soon" });
    let refused = api.post("/api/v1/tasks", Some(&ann), &wrong).await;
    assert_eq!(
        refused.json()["errors"][0]["field"],
        "ttlAfterFinished",
        "{}",
        refused.text
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_is_read_by_a_worker_stored_nowhere_and_limited() {
    let api = Api::start_with_previews("2/1h").await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let mut body = spec("https://example.com/");
    let nobody = api.post("/api/v1/tasks:preview", Some(&admin), &body).await;
    assert_eq!(nobody.status, StatusCode::SERVICE_UNAVAILABLE, "{}", nobody.text);
    assert!(nobody.text.contains("no worker is there"), "{}", nobody.text);
    let other = api.another_replica();
    let worker = api.state.previews.clone();
    let frontier = api.state.frontier.clone();
    let listening = tokio::spawn(async move { frontier.listen(&tokio::sync::Notify::new()).await });
    while !matches!(api.state.frontier.workers().await, Ok(1)) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let work = async {
        let request = worker.listen().await.unwrap().next().await.unwrap().unwrap();
        let answer = json!({ "url": request.spec.url, "records": [{ "title": "one" }], "found": 1, "warnings": 0 });
        worker
            .answer(request.id, &serde_json::from_value(answer).unwrap())
            .await
            .unwrap();
    };
    let (preview, ()) = tokio::join!(other.post("/api/v1/tasks:preview", Some(&admin), &body), work);
    assert_eq!(preview.status, StatusCode::OK, "{}", preview.text);
    assert_eq!(preview.json()["records"], json!([{ "title": "one" }]));
    let limited = other.post("/api/v1/tasks:preview", Some(&admin), &body).await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS, "{}", limited.text);
    body["colour"] = json!("red");
    let wrong = other.post("/api/v1/tasks:preview", Some(&admin), &body).await;
    assert_eq!(wrong.json()["errors"][0]["field"], "colour", "{}", wrong.text);
    let listed = api.get("/api/v1/tasks", Some(&admin)).await.json();
    assert_eq!(listed["tasks"], json!([]));
    listening.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_accepted_whole_or_not_at_all_and_once_for_its_key() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let tasks: Vec<_> = (0..600).map(|n| spec(&format!("https://example.com/{n}"))).collect();
    let batch = json!({ "tasks": tasks });
    let first = api.post_once("/api/v1/tasks:batch", &admin, "all", &batch).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    let ids = first.json()["ids"].as_array().unwrap().clone();
    assert_eq!(ids.len(), 600);
    let again = api.post_once("/api/v1/tasks:batch", &admin, "all", &batch).await;
    assert_eq!(again.json(), first.json(), "the same tasks in the same order");
    let other = api
        .post_once(
            "/api/v1/tasks:batch",
            &admin,
            "all",
            &json!({ "tasks": [spec("https://e.com")] }),
        )
        .await;
    assert_eq!(other.json()["type"], "urn:selextract:problem:idempotency-mismatch");
    let task = api
        .get(&format!("/api/v1/tasks/{}", ids[599].as_str().unwrap()), Some(&admin))
        .await
        .json();
    assert_eq!(task["spec"]["url"], "https://example.com/599");
    let mut wrong = tasks[..10].to_vec();
    wrong[7] = json!({ "url": "ftp://example.com", "fields": [{ "name": "a" }] });
    let refused = api
        .post("/api/v1/tasks:batch", Some(&admin), &json!({ "tasks": wrong }))
        .await;
    assert_eq!(refused.json()["errors"][0]["field"], "tasks[7].url", "{}", refused.text);
    let large = json!({ "tasks": [{ "url": "x".repeat(2_000_000) }] });
    let refused = api.post("/api/v1/tasks:batch", Some(&admin), &large).await;
    assert_eq!(
        refused.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "a batch may be larger than a task"
    );
    let used = api.get("/api/v1/quotas", Some(&admin)).await.json();
    assert_eq!(used["queued"]["used"], 600, "{used}");
}

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
async fn a_task_is_followed_by_events_to_its_end() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let created = api
        .post("/api/v1/tasks", Some(&admin), &spec("https://example.com/"))
        .await
        .json();
    let id = created["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/tasks/{id}/events");
    let run = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        api.run(&id, &[json!({ "title": "one" })]).await;
    };
    let (events, ()) = tokio::join!(api.get(&path, Some(&admin)), run);
    assert_eq!(events.header("content-type"), "text/event-stream");
    let first = events.text.split("\n\n").next().unwrap();
    assert!(
        first.starts_with("event: task\ndata: {") && first.contains("\"status\":\"pending\""),
        "{first}"
    );
    let last = events.text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(
        last.starts_with("event: end\n") && last.contains("\"status\":\"succeeded\""),
        "{last}"
    );
    let stranger = api.user(&admin, "ann").await;
    assert_eq!(api.get(&path, Some(&stranger)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_shows_its_secret_once_and_lists_what_it_was_told() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let bob = api.user(&admin, "bob").await;
    let hook = json!({ "url": "https://hook.example.com/in", "events": ["task.failed"] });
    let made = api.post("/api/v1/webhooks", Some(&ann), &hook).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_"));
    let listed = api.get("/api/v1/webhooks", Some(&ann)).await;
    assert_eq!(listed.json()["webhooks"][0]["events"], json!(["task.failed"]));
    assert!(!listed.text.contains(&secret));
    for _ in 0..2 {
        let created = api
            .post("/api/v1/tasks", Some(&ann), &spec("https://example.com/a"))
            .await
            .json();
        api.fail(created["id"].as_str().unwrap(), "Timeout").await;
    }
    let done = api
        .post("/api/v1/tasks", Some(&ann), &spec("https://example.com/a"))
        .await
        .json();
    api.run(done["id"].as_str().unwrap(), &[json!({ "title": "x" })]).await;
    let path = format!("/api/v1/webhooks/{}", made.json()["id"].as_str().unwrap());
    let told = api.get(&format!("{path}/deliveries"), Some(&ann)).await.json();
    assert_eq!(told["deliveries"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(told["deliveries"][0]["status"], "pending");
    let again = format!(
        "/api/v1/deliveries/{}/resend",
        told["deliveries"][0]["id"].as_str().unwrap()
    );
    assert_eq!(
        api.post(&again, Some(&ann), &json!({})).await.status,
        StatusCode::NO_CONTENT
    );
    for (path, token) in [(format!("{path}/deliveries"), &bob), (again, &bob)] {
        let answer = if path.ends_with("resend") {
            api.post(&path, Some(token), &json!({})).await
        } else {
            api.get(&path, Some(token)).await
        };
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    let listed = api.get("/api/v1/webhooks?owner=ann", Some(&admin)).await;
    assert_eq!(
        listed.json()["webhooks"].as_array().unwrap().len(),
        1,
        "{}",
        listed.text
    );
    let for_bob = json!({ "url": "https://hook.example.com/", "owner": "bob" });
    assert_eq!(
        api.post("/api/v1/webhooks", Some(&ann), &for_bob).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        api.post("/api/v1/webhooks", Some(&admin), &for_bob).await.status,
        StatusCode::CREATED
    );
    for url in ["ftp://e.com", "https://u:p@e.com", "nowhere"] {
        let refused = api.post("/api/v1/webhooks", Some(&ann), &json!({ "url": url })).await;
        assert_eq!(refused.json()["errors"][0]["field"], "url", "{}", refused.text);
        assert!(!refused.text.contains("u:p"));
    }
    assert_eq!(api.delete(&path, &bob).await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.delete(&path, &ann).await.status, StatusCode::NO_CONTENT);
    assert_eq!(
        api.get(&format!("{path}/deliveries"), Some(&ann)).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_with_their_cause_and_replayed() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    for class in ["Timeout", "NoRecords", "Timeout"] {
        let created = api
            .post("/api/v1/tasks", Some(&ann), &spec("https://example.com/a"))
            .await
            .json();
        api.fail(created["id"].as_str().unwrap(), class).await;
    }
    let letters = api.get("/api/v1/dead-letters?cause=Timeout", Some(&ann)).await.json();
    assert_eq!(letters["dead_letters"].as_array().unwrap().len(), 2, "{letters}");
    let one = &letters["dead_letters"][0];
    assert_eq!(
        (&one["cause"], &one["url"]),
        (&json!("Timeout"), &json!("https://example.com/a"))
    );
    let causes = api
        .get("/api/v1/dead-letters/causes?owner=ann", Some(&admin))
        .await
        .json();
    assert_eq!(causes["causes"][0], json!({ "cause": "Timeout", "count": 2 }));
    let path = format!("/api/v1/tasks/{}/replay", one["id"].as_str().unwrap());
    let replayed = api.post(&path, Some(&ann), &json!({})).await.json();
    assert_eq!(
        (&replayed["status"], &replayed["replays"]),
        (&json!("pending"), &json!(1))
    );
    let by_cause = json!({ "cause": "Timeout" });
    let answer = api
        .post("/api/v1/dead-letters/replay", Some(&ann), &by_cause)
        .await
        .json();
    assert_eq!(answer, json!({ "replayed": 1, "more": false }));
    let all = api
        .post("/api/v1/dead-letters/replay", Some(&ann), &json!({}))
        .await
        .json();
    assert_eq!(all["replayed"], 1, "{all}");
    let none = api
        .post("/api/v1/dead-letters/replay", Some(&admin), &json!({}))
        .await
        .json();
    assert_eq!(none["replayed"], 0, "an admin's are his own unless he names an owner");
    let unknown = api
        .post("/api/v1/dead-letters/replay", Some(&ann), &json!({ "couse": "x" }))
        .await;
    assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
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
