//! Logging in and out, and who one is.

use axum::{Json, extract::State};
use http::StatusCode;
use selextract_platform::ledger::users::{Refresh as Rotation, User};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{
        Role,
        caller::Caller,
        tokens::{ACCESS_LIFETIME, REFRESH_LIFETIME, Secret, hash_of},
    },
    problem::Problem,
    state::AppState,
    strict::Strict,
};

/// Argon2's work does not depend on the length, but hashing the input does.
const MAX_PASSWORD: usize = 1024;
const MAX_NAME: usize = 200;

/// Who logs in.
#[derive(Deserialize, ToSchema)]
pub struct Login {
    /// The user's name.
    username: String,
    /// The user's password.
    password: String,
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
pub struct Refresh {
    /// As the last login or refresh gave it.
    refresh_token: String,
}

/// What a login or a refresh gives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tokens {
    /// Send it as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds until the access token expires.
    expires_in: u64,
    /// Good for one refresh.
    refresh_token: String,
}

/// Who sends the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    id: Uuid,
    username: String,
    role: Role,
}

/// Logs in by name and password.
#[utoipa::path(
    post, path = "/api/v1/auth/login", tag = "auth", security(()), request_body = Login,
    responses(
        (status = 200, body = Tokens),
        (status = 401, body = Problem, description = "The name or the password is wrong"),
        (status = 422, body = Problem),
        (status = 429, body = Problem, description = "Too many failed logins; Retry-After says when to come back"),
        (status = 503, body = Problem, description = "Too many logins at a time; Retry-After says when to come back"),
    ),
)]
pub async fn login(State(state): State<AppState>, Strict(login): Strict<Login>) -> Result<Json<Tokens>, Problem> {
    let tokens = sign_in(&state, login).await;
    state.logins.count(&tokens);
    tokens
}

async fn sign_in(state: &AppState, login: Login) -> Result<Json<Tokens>, Problem> {
    if login.password.len() > MAX_PASSWORD || login.username.len() > MAX_NAME {
        return Err(Problem::wrong_credentials());
    }
    let admission = state.passwords.admit()?;
    state.lockouts.check(&login.username).await?;
    let user = state
        .ledger
        .user_by_name(&login.username)
        .await?
        .filter(|user| !user.disabled);
    let hash = user.as_ref().and_then(|user| user.password_hash.clone());
    let fits = state.passwords.verify(admission, login.password, hash).await?;
    let Some(user) = user.filter(|_| fits) else {
        state.lockouts.failed(&login.username).await;
        return Err(Problem::wrong_credentials());
    };
    state.lockouts.succeeded(&login.username).await;
    let refresh = Secret::refresh();
    state
        .ledger
        .start_session(user.id, &refresh.hash, REFRESH_LIFETIME)
        .await?;
    tokens(state, &user, refresh)
}

/// Exchanges a refresh token for new tokens. Used twice, it ends the whole session.
#[utoipa::path(
    post, path = "/api/v1/auth/refresh", tag = "auth", security(()), request_body = Refresh,
    responses((status = 200, body = Tokens), (status = 401, body = Problem)),
)]
pub async fn refresh(State(state): State<AppState>, Strict(body): Strict<Refresh>) -> Result<Json<Tokens>, Problem> {
    let next = Secret::refresh();
    let rotated = state
        .ledger
        .rotate_session(&hash_of(&body.refresh_token), &next.hash, REFRESH_LIFETIME)
        .await?;
    match rotated {
        Rotation::Rotated(user) => tokens(&state, &user, next),
        Rotation::Reused => {
            tracing::warn!("A refresh token was used twice; its session has ended.");
            Err(Problem::unauthenticated())
        }
        Rotation::Invalid => Err(Problem::unauthenticated()),
    }
}

/// Ends the session of a refresh token. Access tokens that are out run off within 15 minutes.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", tag = "auth", security(()), request_body = Refresh,
    responses((status = 204, description = "The session has ended, or there was none")),
)]
pub async fn logout(State(state): State<AppState>, Strict(body): Strict<Refresh>) -> Result<StatusCode, Problem> {
    state.ledger.end_session(&hash_of(&body.refresh_token)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who sends the request.
#[utoipa::path(
    get, path = "/api/v1/auth/me", tag = "auth",
    responses((status = 200, body = Me), (status = 401, body = Problem)),
)]
pub async fn me(caller: Caller) -> Json<Me> {
    Json(Me {
        id: caller.id,
        username: caller.name,
        role: caller.role,
    })
}

fn tokens(state: &AppState, user: &User, refresh: Secret) -> Result<Json<Tokens>, Problem> {
    let now = jsonwebtoken::get_current_timestamp();
    let access_token = state
        .tokens
        .sign(user.id.0, &user.name, Role::of(user), now)
        .map_err(|error| {
            tracing::error!(%error, "An access token could not be signed.");
            Problem::internal()
        })?;
    Ok(Json(Tokens {
        access_token,
        token_type: "Bearer",
        expires_in: ACCESS_LIFETIME.as_secs(),
        refresh_token: refresh.text,
    }))
}
