//! What clients do.

use http::StatusCode;
use serde_json::json;

use crate::support::{self, Api};

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
