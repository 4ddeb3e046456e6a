//! Downloads of what runs keep beside their records.

use std::time::Duration;

use http::{Method, StatusCode};
use selextract_platform::{
    artifacts::Store,
    ledger::{
        Secret,
        artifacts::{CHUNK, NewArtifact},
        claims::{Claim, NewPage},
    },
};
use selextract_test_services::{ObjectStore, PASSWORD};
use serde_json::{Value, json};

use crate::support::{ADMIN_PASSWORD, Api, spec};

const LEASE: Duration = Duration::from_secs(30);

impl Api {
    /// A task of the caller with one page that has these artifacts; its path, and the list.
    async fn kept(&self, token: &str, artifacts: Vec<NewArtifact>) -> (String, Value) {
        let created = self
            .post("/api/v1/tasks", Some(token), &spec("https://example.com/"))
            .await;
        let id = created.json()["id"].as_str().unwrap().to_owned();
        let claim = self.claimed(&id).await;
        let page = NewPage {
            number: 1,
            url: "https://example.com/".to_owned(),
            artifacts,
            ..NewPage::default()
        };
        self.state
            .ledger
            .commit_page(claim.lease(), &page, LEASE)
            .await
            .unwrap()
            .unwrap();
        let path = format!("/api/v1/tasks/{id}/artifacts");
        let list = self.get(&path, Some(token)).await;
        assert_eq!(list.status, StatusCode::OK, "{}", list.text);
        (path, list.json())
    }

    async fn claimed(&self, id: &str) -> Claim {
        let id = id.parse().unwrap();
        let mut claims = self.state.ledger.claim(&[id], "a-worker", LEASE).await.unwrap();
        claims.pop().unwrap()
    }
}

fn html(name: &str, text: &str) -> NewArtifact {
    NewArtifact {
        name: name.to_owned(),
        media_type: "text/html".to_owned(),
        bytes: text.as_bytes().to_vec(),
    }
}

/// Three chunks, every line of which says where it stands.
fn long() -> String {
    let lines: Vec<_> = (0..3 * CHUNK / 8).map(|n| format!("{n:07}\n")).collect();
    lines.concat()
}

#[tokio::test]
async fn an_artifact_comes_back_whole_in_parts_and_not_at_all_when_the_client_has_it() {
    let api = Api::start().await;
    let admin = api.login("admin", ADMIN_PASSWORD).await;
    let text = long();
    let (path, list) = api.kept(&admin, vec![html("the ä", &text)]).await;
    let one = format!("{path}/{}", list["artifacts"][0]["id"].as_str().unwrap());
    let whole = api.get(&one, Some(&admin)).await;
    assert!(whole.status == StatusCode::OK && whole.text == text);
    assert_eq!(whole.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(
        whole.header("content-disposition"),
        "attachment; filename=\"the _.html\"; filename*=UTF-8''the%20%C3%A4.html"
    );
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert_eq!(whole.header("content-security-policy"), "sandbox; default-src 'none'");
    assert_eq!(whole.header("content-length"), text.len().to_string());
    let etag = whole.header("etag");
    assert_eq!(
        etag,
        format!("\"{}\"", list["artifacts"][0]["sha256"].as_str().unwrap())
    );

    let (from, to) = (CHUNK - 5, 2 * CHUNK + 9);
    let range = format!("bytes={from}-{}", to - 1);
    let part = api.ask(Method::GET, &one, &admin, &[("range", &range)]).await;
    assert!(part.status == StatusCode::PARTIAL_CONTENT && part.text == text[from..to]);
    assert_eq!(
        part.header("content-range"),
        format!("bytes {from}-{}/{}", to - 1, text.len())
    );
    let beyond = api
        .ask(Method::GET, &one, &admin, &[("range", "bytes=99999999-")])
        .await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", text.len()));

    let known = api.ask(Method::GET, &one, &admin, &[("if-none-match", &etag)]).await;
    assert!(known.status == StatusCode::NOT_MODIFIED && known.text.is_empty());
    let head = api.ask(Method::HEAD, &one, &admin, &[]).await;
    assert!(head.status == StatusCode::OK && head.text.is_empty());
    assert_eq!(head.header("content-length"), text.len().to_string());
}

#[tokio::test]
async fn another_users_artifacts_are_not_there() {
    let api = Api::start().await;
    let admin = api.login("admin", ADMIN_PASSWORD).await;
    let (anna, ben) = (api.user(&admin, "anna").await, api.user(&admin, "ben").await);
    let (path, list) = api.kept(&anna, vec![html("front", "<p>here</p>")]).await;
    let one = format!("{path}/{}", list["artifacts"][0]["id"].as_str().unwrap());
    let (other, _) = api.kept(&ben, vec![html("his", "<p>own</p>")]).await;
    let borrowed = format!("{other}/{}", list["artifacts"][0]["id"].as_str().unwrap());
    for path in [&path, &one, &borrowed] {
        assert_eq!(api.get(path, Some(&ben)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(api.get(&one, None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(api.get(&one, Some(&admin)).await.status, StatusCode::OK);
    assert_eq!(
        api.get(&format!("{path}/nonsense"), Some(&anna)).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_list_goes_on_behind_its_cursor_and_says_what_was_left_out_for_which_quota() {
    let api = Api::start().await;
    let admin = api.login("admin", ADMIN_PASSWORD).await;
    let anna = api.user(&admin, "anna").await;
    let set = api
        .put("/api/v1/quotas?owner=anna", &admin, &json!({ "artifact_bytes": 25 }))
        .await;
    assert_eq!(set.json()["artifact_bytes"], json!({ "used": 0, "limit": 25 }));
    let bad = api
        .put("/api/v1/quotas?owner=anna", &admin, &json!({ "artifact_bytes": -1 }))
        .await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
    let shots = vec![
        html("a", "0123456789"),
        html("b", "0123456789"),
        html("c", "0123456789"),
    ];
    let (path, list) = api.kept(&anna, shots).await;
    let third = &list["artifacts"][2];
    assert_eq!(
        third["left_out"],
        "the quota artifact_bytes is 25 and 20 are used; this has 10"
    );
    let gone = api
        .get(&format!("{path}/{}", third["id"].as_str().unwrap()), Some(&anna))
        .await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert!(gone.json()["detail"].as_str().unwrap().contains("artifact_bytes is 25"));
    let used = api.get("/api/v1/quotas", Some(&anna)).await.json();
    assert_eq!(used["artifact_bytes"], json!({ "used": 20, "limit": 25 }));

    let first = api.get(&format!("{path}?limit=2"), Some(&anna)).await.json();
    assert_eq!(first["artifacts"].as_array().unwrap().len(), 2);
    let next = first["next"].as_str().unwrap();
    let second = api
        .get(&format!("{path}?limit=2&cursor={next}"), Some(&anna))
        .await
        .json();
    assert_eq!(second["artifacts"][0]["name"], "c");
    assert!(second["artifacts"].as_array().unwrap().len() == 1 && second["next"].is_null());
    let refused = api.get(&format!("{path}?limit=0"), Some(&anna)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_artifact_in_a_bucket_is_streamed_like_any_other_and_is_503_while_the_store_is_away() {
    let store = ObjectStore::start(None).unwrap();
    let api = Api::start_with_bucket(&store).await;
    let admin = api.login("admin", ADMIN_PASSWORD).await;
    let text = long();
    let (path, list) = api.kept(&admin, vec![html("front", &text)]).await;
    let one = format!("{path}/{}", list["artifacts"][0]["id"].as_str().unwrap());
    let whole = api.get(&one, Some(&admin)).await;
    assert!(whole.status == StatusCode::OK && whole.text == text);
    let range = format!("bytes=-{}", CHUNK + 7);
    let part = api.ask(Method::GET, &one, &admin, &[("range", &range)]).await;
    assert_eq!(part.text, text[text.len() - CHUNK - 7..]);
    store.process().kill().unwrap();
    let away = api.get(&one, Some(&admin)).await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!away.text.contains("127.0.0.1"), "{}", away.text);
}

impl Api {
    async fn start_with_bucket(store: &ObjectStore) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self::with(|settings, _| {
            settings.artifacts.artifact_store = Store::S3;
            settings.artifacts.s3_bucket = Some(ObjectStore::BUCKET.to_owned());
            settings.artifacts.s3_endpoint = Some(store.endpoint());
            settings.artifacts.s3_force_path_style = true;
            settings.artifacts.s3_access_key_id = Some(Secret(ObjectStore::ACCESS_KEY_ID.to_owned()));
            settings.artifacts.s3_secret_access_key = Some(Secret(PASSWORD.to_owned()));
        })
        .await
    }
}
