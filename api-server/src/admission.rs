//! Who a request comes from and whether it may go on, before any handler: credentials are checked once, requests are counted by user, and
//! those without valid credentials that cost something (login, refresh, a wrong key) by the client's address.
//!
//! What is known in the process decides most requests; a busy client's cost a call to the cache once in fifty.
//! Measured: less than 2 µs for each request, those calls included, in an unoptimised build.

pub mod address;
pub mod limiter;
pub mod meter;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue};
use limiter::Limiter;
use meter::Verdict;

use crate::{
    auth::caller::{Identity, credential, identify},
    problem::Problem,
    state::AppState,
};

/// What takes a user name, a password or a refresh token.
const SESSION: &str = "/api/v1/auth/";
/// It needs a caller and is counted like everything else.
const ME: &str = "/api/v1/auth/me";

/// Identifies the caller for the handlers and counts the request; 429 when its client has sent too many.
pub async fn admit(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let counted = if path.starts_with(SESSION) && path != ME {
        let client = address::client(&request, state.trusted_proxies);
        Some((&state.by_address, state.by_address.admit(&client).await))
    } else {
        let identity = identify(&state, credential(request.headers())).await;
        match identity {
            None => None,
            Some(Ok(caller)) => {
                let verdict = state.by_user.admit(&caller.id.to_string()).await;
                request.extensions_mut().insert(Identity(Ok(caller)));
                Some((&state.by_user, verdict))
            }
            Some(Err(problem)) => {
                request.extensions_mut().insert(Identity(Err(problem)));
                let client = address::client(&request, state.trusted_proxies);
                Some((&state.by_address, state.by_address.admit(&client).await))
            }
        }
    };
    let Some((limiter, verdict)) = counted else {
        return next.run(request).await;
    };
    let mut response = if verdict.admitted {
        next.run(request).await
    } else {
        too_many(limiter, verdict).into_response()
    };
    tell(&mut response, limiter, verdict);
    response
}

/// The problem of a client that has sent too many requests.
pub fn too_many(limiter: &Limiter, verdict: Verdict) -> Problem {
    let limit = limiter.limit();
    Problem::too_many_requests()
        .detail(format!(
            "the limit {} is {limit}; come back when Retry-After says",
            limiter.name()
        ))
        .retry_after(verdict.wait)
}

/// Says where the client stands (draft-ietf-httpapi-ratelimit-headers-10).
fn tell(response: &mut Response, limiter: &Limiter, verdict: Verdict) {
    const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
    const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
    let (name, limit) = (limiter.name(), limiter.limit());
    let (burst, period) = (limit.burst.get(), limit.period.as_millis());
    let missing = u128::from(burst - verdict.left.min(burst));
    let full_after = (missing * period).div_ceil(u128::from(burst) * 1000);
    let policy = format!("\"{name}\";q={burst};w={}", period.div_ceil(1000));
    let standing = format!("\"{name}\";r={};t={full_after}", verdict.left);
    for (header, text) in [(POLICY, policy), (LIMIT, standing)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header, value);
        }
    }
}
