//! What changed between runs, and how well fields were filled, as clients see it.

use std::time::Duration;

use http::StatusCode;
use selextract_platform::ledger::claims::{Ending, NewPage};
use serde_json::{Value, json};

use crate::support::{self, Api, spec};

impl Api {
    /// Accepts a watched task and runs it as a worker does: one page with these prices by id.
    async fn watched(&self, token: &str, report: &str, prices: &[(u32, u32)]) -> String {
        let mut body = spec("https://example.com/list");
        body["fields"] = json!([{ "name": "id", "selector": "b" }, { "name": "price", "selector": "i" }]);
        body["watch"] = json!({ "key": ["id"], "report": report });
        let made = self.post("/api/v1/tasks", Some(token), &body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let (ledger, lease) = (&self.state.ledger, Duration::from_secs(30));
        let claims = ledger.claim(&[id.parse().unwrap()], "a-worker", lease).await.unwrap();
        let records: Vec<Value> = prices
            .iter()
            .map(|(id, price)| json!({ "id": id, "price": price }))
            .collect();
        let count = i32::try_from(records.len()).unwrap();
        let page = NewPage {
            number: 1,
            url: "https://example.com/list".to_owned(),
            records: records
                .iter()
                .map(|record| record.as_object().unwrap().clone())
                .collect(),
            fill: vec![count, count, count - 1],
            ..NewPage::default()
        };
        ledger
            .commit_page(claims[0].lease(), &page, lease)
            .await
            .unwrap()
            .unwrap();
        ledger.report(&claims[0]).await.unwrap().unwrap();
        ledger
            .finish(claims[0].lease(), &Ending::Succeeded, 1)
            .await
            .unwrap()
            .unwrap();
        format!("/api/v1/tasks/{id}")
    }
}

#[tokio::test]
async fn the_same_task_again_tells_what_is_new_changed_and_gone() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let first = api.watched(&admin, "Changes", &[(1, 10), (2, 20), (3, 30)]).await;
    let second = api.watched(&admin, "Changes", &[(1, 10), (2, 22), (4, 40)]).await;
    let task = api.get(&first, Some(&admin)).await.json();
    assert_eq!(
        (&task["changes"]["baseline"], &task["changes"]["new"]),
        (&json!(true), &json!(3))
    );
    let task = api.get(&second, Some(&admin)).await.json();
    let counts = |name: &str| task["changes"][name].as_i64().unwrap();
    assert_eq!(
        (counts("new"), counts("changed"), counts("gone"), counts("same")),
        (1, 1, 1, 1)
    );
    assert_eq!(
        task["fill_rates"][1],
        json!({ "field": "price", "found": 2, "items": 3 })
    );
    assert!(task.get("drift").is_none(), "there is too little to tell");
    let (mut told, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api
            .get(&format!("{second}/changes?limit=2{cursor}"), Some(&admin))
            .await
            .json();
        told.extend(page["changes"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(
        told,
        [
            json!({ "kind": "new", "key": { "id": 4 }, "record": { "id": 4, "price": 40 } }),
            json!({
                "kind": "changed", "key": { "id": 2 }, "record": { "id": 2, "price": 22 }, "before": { "id": 2, "price": 20 },
                "fields": ["price"],
            }),
            json!({ "kind": "gone", "key": { "id": 3 }, "before": { "id": 3, "price": 30 } }),
        ]
    );
    let gone = api
        .get(&format!("{second}/changes?kind=gone"), Some(&admin))
        .await
        .json();
    assert_eq!(gone["changes"].as_array().unwrap().len(), 1);
    let results = api.get(&format!("{second}/results"), Some(&admin)).await.json();
    assert_eq!(
        results["records"],
        json!([{ "id": 2, "price": 22 }, { "id": 4, "price": 40 }])
    );
    let lines = api
        .get(&format!("{second}/results?format=ndjson"), Some(&admin))
        .await
        .text;
    assert_eq!(lines.lines().count(), 2);
    let whole = api.get(&format!("{first}/results?format=csv"), Some(&admin)).await.text;
    assert_eq!(whole.lines().count(), 4, "of a first run everything is new");
}

#[tokio::test]
async fn changes_are_the_owners_and_only_of_watched_tasks_that_succeeded() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let (ann, bob) = (api.user(&admin, "ann").await, api.user(&admin, "bob").await);
    let watched = api.watched(&ann, "All", &[(1, 10)]).await;
    assert_eq!(
        api.get(&format!("{watched}/changes"), Some(&bob)).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        api.get(&format!("{watched}/changes?cursor=x"), Some(&ann)).await.status,
        StatusCode::BAD_REQUEST
    );
    let others = api.watched(&bob, "All", &[(2, 20)]).await;
    let task = api.get(&others, Some(&bob)).await.json();
    assert_eq!(
        task["changes"]["baseline"], true,
        "another owner's runs are not compared with"
    );
    let plain = api
        .post("/api/v1/tasks", Some(&ann), &spec("https://example.com/"))
        .await
        .header("location");
    let refused = api.get(&format!("{plain}/changes"), Some(&ann)).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    assert!(refused.text.contains("watch.key"));
    let wrong = json!({ "url": "https://e.com/", "fields": [{ "name": "a" }], "watch": { "key": ["b"] } });
    let refused = api.post("/api/v1/tasks", Some(&ann), &wrong).await;
    assert_eq!(refused.json()["errors"][0]["field"], "watch.key[0]");
}
