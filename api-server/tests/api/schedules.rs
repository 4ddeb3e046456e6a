//! Schedules that users make: written, run, suspended and removed, each by whose they are.

use http::StatusCode;
use jiff::Timestamp;
use selextract_platform::ledger::scrape_tasks::CheckedUpsert;
use serde_json::{Value, json};

use crate::support::{self, Api, spec};

fn schedule(more: &Value) -> Value {
    let mut body = json!({ "name": "prices", "cron": "0 6 * * *", "timeZone": "Europe/Berlin", "task": spec("https://example.com/") });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_user_makes_changes_suspends_and_removes_a_schedule() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let made = api.post("/api/v1/schedules", Some(&ann), &schedule(&json!({}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let path = made.header("location");
    let view = made.json();
    assert_eq!(
        (&view["made_by"], &view["concurrency_policy"]),
        (&json!("api"), &json!("Forbid"))
    );
    assert_eq!(
        (&view["starting_deadline"], &view["missed_ticks"]),
        (&json!("10m"), &json!(0))
    );
    assert_eq!(view["task"]["url"], "https://example.com/");
    assert!(
        view["next_run_at"].is_string() && view.get("task_id").is_none(),
        "it runs at its tick"
    );
    let changed =
        schedule(&json!({ "suspend": true, "concurrencyPolicy": "Replace", "startingDeadline": "1h", "priority": 9 }));
    let view = api.put(&path, &ann, &changed).await.json();
    assert_eq!(
        (&view["suspend"], &view["concurrency_policy"]),
        (&json!(true), &json!("Replace"))
    );
    assert!(
        view["starting_deadline"] == "1h" && view.get("next_run_at").is_none(),
        "{view}"
    );
    let listed = api.get("/api/v1/schedules", Some(&ann)).await.json();
    assert_eq!(listed["schedules"].as_array().unwrap().len(), 1);
    assert!(listed["schedules"][0].get("task").is_none());
    let run = api.post(&format!("{path}/run"), Some(&ann), &json!({})).await;
    assert_eq!(run.status, StatusCode::CREATED, "{}", run.text);
    let run = format!("/api/v1/tasks/{}", run.json()["id"].as_str().unwrap());
    assert_eq!(api.delete(&path, &ann).await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.get(&path, Some(&ann)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.get(&run, Some(&ann)).await.json()["status"], "canceled");
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_schedule_is_told_at_once() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let wrong =
        json!({ "cron": "every day", "colour": "red", "task": { "url": "ftp://e.com/", "fields": [{ "name": "a" }] } });
    let answer = api.post("/api/v1/schedules", Some(&admin), &schedule(&wrong)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields: Vec<_> = answer.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["field"].clone())
        .collect();
    assert_eq!(fields, ["colour", "cron", "task.url"]);
}

#[tokio::test]
async fn a_schedule_of_somebody_else_is_not_there_and_a_scrape_tasks_is_changed_in_kubernetes() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let (ann, bob) = (api.user(&admin, "ann").await, api.user(&admin, "bob").await);
    let path = api
        .post("/api/v1/schedules", Some(&ann), &schedule(&json!({})))
        .await
        .header("location");
    for status in [
        api.get(&path, Some(&bob)).await.status,
        api.put(&path, &bob, &schedule(&json!({}))).await.status,
        api.delete(&path, &bob).await.status,
    ] {
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    let item = json!({
        "uid": "a-uid", "namespace": "shop", "name": "prices", "specHash": "h", "priority": 5, "suspend": false, "onChange": "Replace",
        "task": spec("https://example.com/"),
    });
    let item = CheckedUpsert {
        item: serde_json::from_value(item).unwrap(),
        host: "example.com".to_owned(),
        no_room: None,
    };
    let ledger = &api.state.ledger;
    let shop = ledger.namespace_owner("shop").await.unwrap();
    ledger.upsert_scrape_task(&item, shop, Timestamp::now()).await.unwrap();
    let path = "/api/v1/schedules/a-uid";
    assert_eq!(api.get(path, Some(&admin)).await.json()["made_by"], "ScrapeTask");
    assert_eq!(
        api.put(path, &admin, &schedule(&json!({}))).await.status,
        StatusCode::CONFLICT
    );
    assert_eq!(api.delete(path, &admin).await.status, StatusCode::CONFLICT);
    assert_eq!(api.get(path, Some(&ann)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_schedules_of_a_disabled_user_rest() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let every_minute = schedule(&json!({ "cron": "* * * * *" }));
    api.post("/api/v1/schedules", Some(&ann), &every_minute).await;
    let users = api.get("/api/v1/users", Some(&admin)).await.json();
    let user = users["users"]
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["username"] == "ann")
        .unwrap();
    let path = format!("/api/v1/users/{}/disable", user["id"].as_str().unwrap());
    let in_a_minute = Timestamp::now() + jiff::SignedDuration::from_secs(61);
    assert_eq!(
        api.post(&path, Some(&admin), &json!({})).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(api.state.ledger.tick_schedules(in_a_minute).await.unwrap().started, 0);
}
