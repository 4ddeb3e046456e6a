//! The internal listener: what the operator says to the API of a cluster, over TLS, with a service-account token.
//!
//! `GET` and `PUT /internal/v1/scrape-tasks`, `POST /internal/v1/scrape-tasks/remove`, `GET /internal/v1/changes`: `selextract_task::feed`;
//! `GET` and `PUT /internal/v1/credentials`, `POST /internal/v1/credentials/remove`: `selextract_task::feed::credentials`.

mod credentials;
mod handlers;
pub mod tls;
pub mod tokens;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing,
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    auth::caller::bearer,
    metrics::{self, HttpMetrics},
    problem::Problem,
    router::limit_time,
    state::AppState,
};
use tokens::OperatorTokens;

/// 500 items of the largest spec that validation lets through stay below it.
const BODY_LIMIT: usize = 64 * 1024 * 1024;
/// Beyond the longest long poll.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The routes' methods and templates, for the metrics.
pub const ROUTES: [(&str, &str); 7] = [
    ("GET", "/internal/v1/scrape-tasks"),
    ("PUT", "/internal/v1/scrape-tasks"),
    ("POST", "/internal/v1/scrape-tasks/remove"),
    ("GET", "/internal/v1/changes"),
    ("GET", "/internal/v1/credentials"),
    ("PUT", "/internal/v1/credentials"),
    ("POST", "/internal/v1/credentials/remove"),
];

/// The internal listener's routes behind the operator's token.
pub fn router(state: AppState, tokens: Arc<OperatorTokens>, metrics: HttpMetrics) -> Router {
    let [
        (_, known),
        (_, upsert),
        (_, remove),
        (_, changes),
        (_, secrets),
        _,
        (_, secrets_remove),
    ] = ROUTES;
    Router::new()
        .route(known, routing::get(handlers::known))
        .route(upsert, routing::put(handlers::upsert))
        .route(remove, routing::post(handlers::remove))
        .route(changes, routing::get(handlers::changes))
        .route(secrets, routing::get(credentials::known).put(credentials::put))
        .route(secrets_remove, routing::post(credentials::remove))
        .with_state(state)
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(tokens, admit))
        .layer(middleware::from_fn_with_state(REQUEST_TIMEOUT, limit_time))
        .layer(CatchPanicLayer::custom(|_| Problem::internal().into_response()))
        .layer(middleware::from_fn_with_state(metrics, metrics::measure))
}

/// Lets the operator in and nobody else, before a body is read.
async fn admit(State(tokens): State<Arc<OperatorTokens>>, request: Request, next: Next) -> Response {
    let Some(token) = bearer(request.headers()) else {
        return Problem::unauthenticated().into_response();
    };
    match tokens.verify(token).await {
        Ok(()) => next.run(request).await,
        Err(error) => {
            tracing::warn!(%error, "The internal listener refused a token.");
            Problem::unauthenticated().into_response()
        }
    }
}
