//! Every route of the public API in one place, and what stands around all of them.

use std::time::Duration;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};
use utoipa_swagger_ui::SwaggerUi;

use crate::{
    admission,
    metrics::{self, HttpMetrics},
    openapi,
    problem::Problem,
    routes::{
        api_keys, artifacts, auth, batch, changes, crawl, credentials, dead_letters, events, health, insight, preview,
        quotas, results, run_control, schedules, tasks, users, webhooks,
    },
    state::AppState,
};

/// The largest body: a spec of 64 fields with the longest selectors is a tenth of it.
pub const BODY_LIMIT: usize = 1024 * 1024;
const DOCS: &str = "/docs";

/// Every route with its declaration.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(health::health))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::me))
        .routes(routes!(users::create, users::list))
        .routes(routes!(users::disable))
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(tasks::create, tasks::list))
        .routes(routes!(preview::preview))
        .routes(routes!(batch::create).layer(DefaultBodyLimit::max(batch::BODY_LIMIT)))
        .routes(routes!(tasks::get, tasks::delete))
        .routes(routes!(tasks::cancel))
        .routes(routes!(run_control::pause))
        .routes(routes!(run_control::resume))
        .routes(routes!(run_control::replay))
        .routes(routes!(crawl::pages))
        .routes(routes!(crawl::retry_failed_pages))
        .routes(routes!(schedules::create, schedules::list))
        .routes(routes!(schedules::get, schedules::replace, schedules::delete))
        .routes(routes!(schedules::run))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::causes))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(results::results))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::get))
        .routes(routes!(changes::changes))
        .routes(routes!(events::events))
        .routes(routes!(quotas::get, quotas::set))
        .routes(routes!(webhooks::create, webhooks::list))
        .routes(routes!(webhooks::delete))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::resend))
        .routes(routes!(credentials::list))
        .routes(routes!(credentials::put, credentials::delete))
        .routes(routes!(insight::dashboard))
        .routes(routes!(insight::analytics))
}

/// The OpenAPI document of [`routes`].
pub fn document() -> serde_json::Result<Value> {
    openapi::complete(&routes().to_openapi())
}

/// The public API as it is served: routes, the document and its page, limits and headers.
pub fn public(state: AppState, metrics: HttpMetrics, document: Value, timeout: Duration) -> Router {
    let (api, _) = routes().split_for_parts();
    api.with_state(state.clone())
        .merge(SwaggerUi::new(DOCS).external_url_unchecked(openapi::PATH, document))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(state, admission::admit))
        .layer(middleware::from_fn_with_state(timeout, limit_time))
        .layer(CatchPanicLayer::custom(|_| Problem::internal().into_response()))
        .layer(middleware::from_fn(add_headers))
        .layer(middleware::from_fn_with_state(metrics, metrics::measure))
}

/// Bounds the time to an answer's first byte.
pub(crate) async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timed_out().into_response(),
    }
}

async fn add_headers(request: Request, next: Next) -> Response {
    const API: &str = "default-src 'none'; frame-ancestors 'none'";
    // The page's own script and style come from here; swagger-ui sets style attributes and embeds images.
    const PAGE: &str =
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    let page = request.uri().path().starts_with(DOCS);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CONTENT_SECURITY_POLICY, if page { PAGE } else { API });
    if !page {
        set(header::CACHE_CONTROL, "no-store");
    }
    response
}
