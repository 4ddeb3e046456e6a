//! Pools of upstream proxies: a task that names one which the cluster does not declare is refused, wherever it comes in.

use http::StatusCode;
use serde_json::json;

use crate::support::{self, Api, spec};

#[tokio::test]
async fn a_pool_that_the_cluster_does_not_declare_is_refused_with_those_that_there_are() {
    let api = Api::with(|settings, _| settings.limits.proxy_pools = Some("eu,us".to_owned())).await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let task = |pool: &str| {
        let mut task = spec("https://example.com/");
        task["proxyPool"] = json!(pool);
        task
    };
    for (path, body, field) in [
        ("/api/v1/tasks", task("asia"), "proxyPool"),
        ("/api/v1/tasks:preview", task("asia"), "proxyPool"),
        (
            "/api/v1/tasks:batch",
            json!({ "tasks": [task("eu"), task("asia")] }),
            "tasks[1].proxyPool",
        ),
        (
            "/api/v1/schedules",
            json!({ "name": "daily", "cron": "0 6 * * *", "task": task("asia") }),
            "task.proxyPool",
        ),
    ] {
        let answer = api.post(path, Some(&admin), &body).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{path}: {}",
            answer.text
        );
        let error = &answer.json()["errors"][0];
        assert_eq!(
            (&error["field"], &error["value"]),
            (&json!(field), &json!("asia")),
            "{path}"
        );
        assert!(error["message"].as_str().unwrap().contains("write eu or us"), "{error}");
    }
    let accepted = api.post("/api/v1/tasks", Some(&admin), &task("us")).await;
    assert_eq!(accepted.status, StatusCode::CREATED, "{}", accepted.text);
}
