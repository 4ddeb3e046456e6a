//! Credentials for sites: written, never read back, and nowhere in the database in clear.

use http::StatusCode;
use selextract_platform::ledger::credentials::place;
use serde_json::{Value, json};

use crate::{
    internal::Operator,
    support::{self, Api},
};

const PATH: &str = "/api/v1/credentials/shop";

fn form(password: &str) -> Value {
    json!({
        "origin": "https://shop.example", "formLogin": {
            "loginUrl": "/login", "usernameField": "email", "username": "ann-at-shop", "password": password,
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_written_and_never_read_back_and_sealed_at_rest() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    assert_eq!(
        api.put(PATH, &ann, &form("hush-hush-1")).await.status,
        StatusCode::NO_CONTENT
    );
    let again = api.put(PATH, &ann, &form("hush-hush-2")).await;
    assert_eq!((again.status, again.text.as_str()), (StatusCode::NO_CONTENT, ""));
    let listed = api.get("/api/v1/credentials", Some(&ann)).await;
    let one = &listed.json()["credentials"][0];
    assert_eq!(
        (&one["name"], &one["kind"], &one["origin"]),
        (&json!("shop"), &json!("formLogin"), &json!("https://shop.example"))
    );
    assert_eq!(listed.json()["credentials"].as_array().unwrap().len(), 1);
    assert_eq!(api.get(PATH, Some(&ann)).await.status, StatusCode::METHOD_NOT_ALLOWED);

    let dump = api.sql("SELECT schema_to_xml('public', true, false, '')");
    assert!(dump.contains("https://shop.example"), "the dump holds the row");
    for secret in ["hush-hush", "ann-at-shop"] {
        assert!(!dump.contains(secret) && !listed.text.contains(secret), "{secret}");
    }
    let owner = api.state.ledger.user_by_name("ann").await.unwrap().unwrap().id;
    let sealed = api
        .state
        .ledger
        .sealed_credentials(owner, "shop")
        .await
        .unwrap()
        .unwrap();
    let seal = api.state.seal.as_ref().unwrap();
    let text = seal.open(&place(sealed.id, &sealed.origin), &sealed.secret).unwrap();
    assert!(text.contains("hush-hush-2"));
    assert!(
        seal.open(&place(sealed.id, "https://evil.test"), &sealed.secret)
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_somebody_else_are_not_there() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let ann = api.user(&admin, "ann").await;
    let bob = api.user(&admin, "bob").await;
    api.put(PATH, &ann, &form("hush")).await;
    assert_eq!(api.delete(PATH, &bob).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        api.get("/api/v1/credentials?owner=ann", Some(&bob)).await.status,
        StatusCode::NOT_FOUND
    );
    let as_ann = format!("{PATH}?owner=ann");
    assert_eq!(api.put(&as_ann, &bob, &form("x")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        api.get("/api/v1/credentials", Some(&bob)).await.json()["credentials"],
        json!([])
    );
    assert_eq!(
        api.get("/api/v1/credentials", None).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        api.put(&as_ann, &admin, &form("by an admin")).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(api.delete(PATH, &ann).await.status, StatusCode::NO_CONTENT);
    assert_eq!(api.delete(PATH, &ann).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_at_once_without_the_secret_and_an_owner_has_a_hundred() {
    let api = Api::start().await;
    let admin = api.login("admin", support::ADMIN_PASSWORD).await;
    let wrong = json!({
        "origin": "http://shop.example", "colour": "red", "basic": { "username": "a:b", "password": "hush" }, "bearer": { "token": "hush" },
    });
    let answer = api.put(PATH, &admin, &wrong).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields: Vec<Value> = answer.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].clone())
        .collect();
    assert_eq!(fields, ["colour", "origin", "", "basic.username"]);
    assert!(!answer.text.contains("hush"));
    let named = api.put("/api/v1/credentials/Shop", &admin, &form("x")).await;
    assert_eq!(named.json()["errors"][0]["field"], "name");
    for number in 0..100 {
        let path = format!("/api/v1/credentials/c{number}");
        assert_eq!(api.put(&path, &admin, &form("x")).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(api.put(PATH, &admin, &form("x")).await.status, StatusCode::CONFLICT);
    assert_eq!(
        api.put("/api/v1/credentials/c7", &admin, &form("y")).await.status,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_keeps_credentials_as_secrets_say_and_takes_only_its_own_away() {
    let operator = Operator::start().await;
    let secret = |name: &str, version: &str, credentials: &Value| json!({ "namespace": "team", "name": name, "version": version, "credentials": credentials });
    for version in ["1", "2"] {
        let (status, text) = operator
            .call("PUT", "credentials", &secret("shop", version, &form("hush")))
            .await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "{}"));
    }
    let (_, refused) = operator
        .call(
            "PUT",
            "credentials",
            &secret("bad", "1", &json!({ "origin": "https://e.example" })),
        )
        .await;
    assert!(refused.contains("exactly one"), "{refused}");
    let (_, known) = operator.call("GET", "credentials", &Value::Null).await;
    assert_eq!(known, r#"{"items":[{"namespace":"team","name":"shop","version":"2"}]}"#);
    let (_, after) = operator
        .call("GET", "credentials?afterNamespace=team&afterName=shop", &Value::Null)
        .await;
    assert_eq!(after, r#"{"items":[]}"#);

    let admin = operator.api.login("admin", support::ADMIN_PASSWORD).await;
    let of_team = "/api/v1/credentials?owner=k8s:team";
    let by_hand = operator
        .api
        .put("/api/v1/credentials/own?owner=k8s:team", &admin, &form("x"))
        .await;
    assert_eq!(by_hand.status, StatusCode::NO_CONTENT);
    let removals =
        json!({ "items": [{ "namespace": "team", "name": "shop" }, { "namespace": "team", "name": "own" }] });
    assert_eq!(
        operator.call("POST", "credentials/remove", &removals).await.0,
        StatusCode::NO_CONTENT
    );
    let left = operator.api.get(of_team, Some(&admin)).await.json();
    assert_eq!(left["credentials"][0]["name"], "own");
    assert_eq!(left["credentials"].as_array().unwrap().len(), 1);
}
