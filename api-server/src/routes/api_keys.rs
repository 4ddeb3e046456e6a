//! Keys for programs. A key is shown once; what is stored of it is a hash.

use axum::{Json, extract::State};
use http::StatusCode;
use selextract_platform::ledger::users;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{caller::Caller, tokens::Secret},
    params::Id,
    problem::Problem,
    state::AppState,
    strict::Strict,
};

const MAX_NAME: usize = 100;

/// A new API key.
#[derive(Deserialize, ToSchema)]
pub struct CreateApiKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// A new API key with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewApiKey {
    id: Uuid,
    name: String,
    /// What lists show of it.
    prefix: String,
    /// The key. It cannot be shown again.
    key: String,
}

/// An API key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKey {
    id: Uuid,
    name: String,
    /// The beginning of the key.
    prefix: String,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339, to the minute; not there before the first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
    /// RFC 3339; there once it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<String>,
}

/// The caller's API keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKeys {
    api_keys: Vec<ApiKey>,
}

/// Creates an API key for the caller, with the caller's rights.
#[utoipa::path(
    post, path = "/api/v1/api-keys", tag = "api-keys", operation_id = "create_api_key", request_body = CreateApiKey,
    responses((status = 201, body = NewApiKey), (status = 422, body = Problem)),
)]
pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Strict(new): Strict<CreateApiKey>,
) -> Result<(StatusCode, Json<NewApiKey>), Problem> {
    if new.name.trim().is_empty() || new.name.chars().count() > MAX_NAME {
        return Err(Problem::field("name", "", "must have 1 to 100 characters"));
    }
    let secret = Secret::api_key();
    let stored = state
        .ledger
        .create_api_key(caller.owner(), &new.name, &secret.prefix, &secret.hash, None)
        .await?;
    let answer = NewApiKey {
        id: stored.id,
        name: stored.name,
        prefix: secret.prefix,
        key: secret.text,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Lists the caller's API keys.
#[utoipa::path(
    get, path = "/api/v1/api-keys", tag = "api-keys", operation_id = "list_api_keys",
    responses((status = 200, body = ApiKeys)),
)]
pub async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<ApiKeys>, Problem> {
    let keys = state.ledger.api_keys(caller.owner()).await?;
    Ok(Json(ApiKeys {
        api_keys: keys.into_iter().map(ApiKey::from).collect(),
    }))
}

/// Revokes an API key of the caller; it is refused from the next request on.
#[utoipa::path(
    delete, path = "/api/v1/api-keys/{id}", tag = "api-keys", operation_id = "revoke_api_key",
    params(("id" = Uuid, Path, description = "The key's id")),
    responses((status = 204, description = "The key is revoked"), (status = 404, body = Problem)),
)]
pub async fn revoke(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<StatusCode, Problem> {
    if state.ledger.revoke_api_key(caller.owner(), id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}

impl From<users::ApiKey> for ApiKey {
    fn from(key: users::ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            created_at: key.created_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
        }
    }
}
