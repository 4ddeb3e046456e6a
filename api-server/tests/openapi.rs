//! The OpenAPI document: the same as the one that was reviewed, and true.

use std::collections::BTreeSet;

use selextract_api_server::{openapi, router};

#[test]
fn the_document_is_the_reviewed_one() {
    insta::assert_json_snapshot!(router::document().unwrap());
}

#[test]
fn the_document_is_openapi_3_1_and_refers_to_nothing_that_is_not_in_it() {
    let document = router::document().unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} is not in the document");
    }
}

#[test]
fn every_route_is_in_the_document_with_an_operation_id_of_its_own() {
    let document = router::document().unwrap();
    let found: BTreeSet<_> = openapi::operations(&document)
        .into_iter()
        .map(|(m, p)| format!("{m} {p}"))
        .collect();
    let expected = [
        "GET /api/v1/health",
        "GET /api/v1/tasks/{id}/artifacts",
        "GET /api/v1/tasks/{id}/artifacts/{artifact}",
        "POST /api/v1/auth/login",
        "POST /api/v1/auth/refresh",
        "POST /api/v1/auth/logout",
        "GET /api/v1/auth/me",
        "POST /api/v1/users",
        "GET /api/v1/users",
        "POST /api/v1/users/{id}/disable",
        "POST /api/v1/api-keys",
        "GET /api/v1/api-keys",
        "DELETE /api/v1/api-keys/{id}",
        "POST /api/v1/tasks",
        "GET /api/v1/tasks",
        "GET /api/v1/tasks/{id}",
        "DELETE /api/v1/tasks/{id}",
        "POST /api/v1/tasks/{id}/cancel",
        "POST /api/v1/tasks/{id}/pause",
        "POST /api/v1/tasks/{id}/resume",
        "POST /api/v1/tasks/{id}/replay",
        "GET /api/v1/tasks/{id}/pages",
        "POST /api/v1/tasks/{id}/retry-failed-pages",
        "POST /api/v1/tasks:batch",
        "POST /api/v1/tasks:preview",
        "GET /api/v1/tasks/{id}/events",
        "GET /api/v1/credentials",
        "PUT /api/v1/credentials/{name}",
        "DELETE /api/v1/credentials/{name}",
        "POST /api/v1/webhooks",
        "GET /api/v1/webhooks",
        "DELETE /api/v1/webhooks/{id}",
        "GET /api/v1/webhooks/{id}/deliveries",
        "POST /api/v1/deliveries/{id}/resend",
        "GET /api/v1/quotas",
        "PUT /api/v1/quotas",
        "GET /api/v1/schedules",
        "POST /api/v1/schedules",
        "GET /api/v1/schedules/{uid}",
        "PUT /api/v1/schedules/{uid}",
        "DELETE /api/v1/schedules/{uid}",
        "POST /api/v1/schedules/{uid}/run",
        "GET /api/v1/dead-letters",
        "GET /api/v1/dead-letters/causes",
        "POST /api/v1/dead-letters/replay",
        "GET /api/v1/tasks/{id}/results",
        "GET /api/v1/tasks/{id}/changes",
        "GET /api/v1/dashboard/stats",
        "GET /api/v1/analytics",
    ];
    assert_eq!(found, expected.into_iter().map(str::to_owned).collect());
    let operations: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .collect();
    let ids: BTreeSet<_> = operations
        .iter()
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), operations.len());
}
