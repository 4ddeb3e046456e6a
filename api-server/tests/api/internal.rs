//! What the operator says to the API, on a real ledger behind PgBouncer.

use std::{sync::Arc, time::Instant};

use axum::{Router, body::Body};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use selextract_api_server::{
    internal::{
        self,
        tokens::{Expected, OperatorTokens},
    },
    metrics::{HttpMetrics, Listener},
};
use selextract_task::feed::{Changes, RunState, UpsertAnswers};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{self, Api, spec};

pub struct Operator {
    pub api: Api,
    router: Router,
    token: String,
}

impl Operator {
    pub async fn start() -> Self {
        let api = Api::start().await;
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let (x, y) = pair.der_bytes()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let key = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": x, "y": y });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        std::fs::write(&path, json!({ "keys": [key] }).to_string()).unwrap();
        let [audience, subject, issuer] = ["cluster", "operator", "https://k8s"].map(str::to_owned);
        let tokens = OperatorTokens::read(
            path,
            Expected {
                audience,
                subject,
                issuer,
            },
        )
        .await
        .unwrap();
        let metrics = HttpMetrics::register(&prometheus::Registry::new(), Listener::Internal, &[]).unwrap();
        let exp = jsonwebtoken::get_current_timestamp() + 600;
        let claims = json!({ "aud": ["cluster"], "sub": "operator", "iss": "https://k8s", "exp": exp });
        let header = Header {
            kid: Some("k".to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&pair.serialize_der())).unwrap();
        let router = internal::router(api.state.clone(), Arc::new(tokens), metrics);
        Self { api, router, token }
    }

    pub async fn call(&self, method: &str, path: &str, body: &Value) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/internal/v1/{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    async fn upsert(&self, items: &[Value]) -> UpsertAnswers {
        let (status, text) = self.call("PUT", "scrape-tasks", &json!({ "items": items })).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn changes(&self, after: i64, wait: u64) -> Changes {
        let path = format!("changes?after={after}&waitSeconds={wait}");
        let (status, text) = self.call("GET", &path, &Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

fn item(uid: &str, url: &str) -> Value {
    json!({
        "uid": uid, "namespace": "team", "name": "prices", "specHash": "h1", "priority": 5, "suspend": false,
        "onChange": "Replace", "task": spec(url),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_task_is_accepted_once_followed_by_the_feed_and_its_results_are_an_admins_to_read() {
    let operator = Operator::start().await;
    let items = [
        item("uid-1", "https://example.com/"),
        item("uid-2", "ftp://example.com/"),
    ];
    let answers = operator.upsert(&items).await.items;
    let run = answers[0].run.clone().unwrap();
    assert_eq!(run.state, RunState::Pending);
    assert!(
        answers[1].refused.as_ref().unwrap().contains("ftp://example.com/"),
        "{answers:?}"
    );
    let again = operator.upsert(&items[..1]).await.items;
    assert_eq!(
        again[0].run.as_ref().unwrap().id,
        run.id,
        "the same item twice changes nothing"
    );

    let seen = operator.changes(0, 5).await;
    assert_eq!(seen.changes[0].uid, "uid-1");
    operator.api.run(&run.id, &[json!({ "title": "one" })]).await;
    let ended = operator.changes(seen.next, 5).await;
    assert_eq!(
        (ended.changes[0].run.state, ended.changes[0].run.records),
        (RunState::Succeeded, 1)
    );

    let admin = operator.api.login("admin", support::ADMIN_PASSWORD).await;
    let listed = operator
        .api
        .get("/api/v1/tasks?owner=k8s:team", Some(&admin))
        .await
        .json();
    assert_eq!(listed["tasks"][0]["id"], run.id.as_str());
    let results = operator
        .api
        .get(&format!("/api/v1/tasks/{}/results", run.id), Some(&admin))
        .await
        .json();
    assert_eq!(results["records"], json!([{ "title": "one" }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_the_database_does_not_take_stands_in_no_others_way() {
    let operator = Operator::start().await;
    let mut poison = item("uid-1", "https://example.com/");
    poison["name"] = "a\0b".into();
    let mut nowhere = item("uid-0", "https://example.com/");
    nowhere["namespace"] = "a\0b".into();
    let answers = operator
        .upsert(&[nowhere, poison, item("uid-2", "https://example.com/")])
        .await
        .items;
    assert_eq!(answers.len(), 1);
    assert!(answers[0].uid == "uid-2" && answers[0].run.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_changes_is_held_until_there_is_one_or_the_wait_is_over() {
    let operator = Operator::start().await;
    let started = Instant::now();
    assert!(operator.changes(0, 1).await.changes.is_empty());
    assert!(started.elapsed().as_millis() >= 500);
    let items = [item("uid-1", "https://example.com/")];
    let (seen, _) = tokio::join!(operator.changes(0, 20), operator.upsert(&items));
    assert_eq!(seen.changes.len(), 1);
    assert!(started.elapsed().as_secs() < 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_scrape_task_is_canceled_and_a_stranger_is_not_let_in() {
    let mut operator = Operator::start().await;
    let run = operator.upsert(&[item("uid-1", "https://example.com/")]).await.items[0]
        .run
        .clone()
        .unwrap();
    let (_, known) = operator.call("GET", "scrape-tasks?after=uid-0", &Value::Null).await;
    let item = json!({ "uid": "uid-1", "namespace": "team", "name": "prices" });
    assert_eq!(
        serde_json::from_str::<Value>(&known).unwrap(),
        json!({ "items": [item] })
    );
    let removed = operator
        .call("POST", "scrape-tasks/remove", &json!({ "uids": ["uid-1", "unknown"] }))
        .await;
    assert_eq!(removed.0, StatusCode::NO_CONTENT, "{}", removed.1);
    for after in ["", "uid-1"] {
        let (_, known) = operator
            .call("GET", &format!("scrape-tasks?after={after}"), &Value::Null)
            .await;
        assert_eq!(known, r#"{"items":[]}"#);
    }
    let admin = operator.api.login("admin", support::ADMIN_PASSWORD).await;
    let task = operator
        .api
        .get(&format!("/api/v1/tasks/{}", run.id), Some(&admin))
        .await
        .json();
    assert_eq!(task["status"], "canceled");
    operator.token = admin;
    assert_eq!(
        operator.call("GET", "changes", &Value::Null).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_task_beyond_its_namespaces_quota_is_refused_until_there_is_room() {
    let operator = Operator::start().await;
    let first = operator.upsert(&[item("uid-1", "https://example.com/")]).await.items;
    let admin = operator.api.login("admin", support::ADMIN_PASSWORD).await;
    let limits = json!({ "queued": 1 });
    let set = operator.api.put("/api/v1/quotas?owner=k8s:team", &admin, &limits).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    let second = [item("uid-2", "https://example.com/")];
    let refused = operator.upsert(&second).await.items.remove(0);
    assert!(refused.quota_exceeded && refused.run.is_none());
    let why = refused.refused.unwrap();
    assert!(why.starts_with("the quota queued is 1 and 1 are used"), "{why}");
    let same = operator
        .upsert(&[item("uid-1", "https://example.com/")])
        .await
        .items
        .remove(0);
    assert!(same.refused.is_none(), "it needs no further run");
    let mut changed = item("uid-1", "https://example.com/other");
    changed["specHash"] = "h2".into();
    let replaced = operator.upsert(&[changed]).await.items.remove(0);
    let run = replaced.run.unwrap().id;
    assert_ne!(
        run,
        first[0].run.as_ref().unwrap().id,
        "what makes room for its successor is as many as before"
    );
    operator.api.run(&run, &[]).await;
    operator
        .api
        .state
        .quotas
        .forget(operator.api.state.ledger.namespace_owner("team").await.unwrap())
        .await;
    let accepted = operator.upsert(&second).await.items.remove(0);
    assert!(accepted.run.is_some() && !accepted.quota_exceeded);
}
