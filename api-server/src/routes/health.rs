//! Whether the API answers. It asks nobody: readiness, which asks the database, is on the telemetry port.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// The API answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    status: &'static str,
    /// The API's version.
    version: &'static str,
}

/// Whether the API answers.
#[utoipa::path(get, path = "/api/v1/health", tag = "health", security(()), responses((status = 200, body = Health)))]
pub async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}
