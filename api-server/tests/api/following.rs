//! How clients hear what became of their tasks: events, webhooks, dead letters, the dashboard.

use http::StatusCode;
use serde_json::json;

use crate::support::{self, Api, spec};

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
