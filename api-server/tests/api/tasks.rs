//! Tasks as clients make, see, pause, cancel and list them.

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
    // Workers that sleep are woken by what could run.
    assert_eq!(api.state.frontier.size().await.unwrap().runnable, 1);
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
