//! People and their roles. For admins.

use axum::{Json, extract::State};
use http::StatusCode;
use selextract_platform::ledger::{LedgerError, UserId, users};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    auth::{Role, caller::Admin},
    params::{Id, Params},
    problem::{FieldError, Problem},
    state::AppState,
    strict::Strict,
};

const MIN_PASSWORD: usize = 12;
const MAX_PASSWORD: usize = 1024;
const MAX_NAME: usize = 63;
const LIST_LENGTH: i64 = 100;

/// A new user.
#[derive(Deserialize, ToSchema)]
pub struct CreateUser {
    /// 1 to 63 letters, digits, `.`, `_` and `-`.
    #[schema(min_length = 1, max_length = 63, pattern = "^[A-Za-z0-9._-]+$")]
    username: String,
    /// At least 12 characters.
    #[schema(min_length = 12, max_length = 1024)]
    password: String,
    /// What the user may do.
    #[serde(default)]
    role: Role,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    id: Uuid,
    username: String,
    role: Role,
    /// A disabled user cannot log in and its API keys are refused.
    disabled: bool,
    /// RFC 3339.
    created_at: String,
}

/// Which users are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UserParams {
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of the users, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct Users {
    users: Vec<User>,
    /// Send it as `cursor` for the next page; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Creates a user.
#[utoipa::path(
    post, path = "/api/v1/users", tag = "users", operation_id = "create_user", request_body = CreateUser,
    responses(
        (status = 201, body = User),
        (status = 403, body = Problem),
        (status = 409, body = Problem, description = "The name is taken"),
        (status = 422, body = Problem),
    ),
)]
pub async fn create(
    State(state): State<AppState>,
    _: Admin,
    Strict(new): Strict<CreateUser>,
) -> Result<(StatusCode, Json<User>), Problem> {
    new.check()?;
    let hash = state.passwords.hash(new.password).await?;
    let id = match state.ledger.create_user(&new.username, new.role.into(), &hash).await {
        Err(LedgerError::NameTaken { .. }) => {
            return Err(Problem::conflict().detail("a user of this name exists; choose another name"));
        }
        created => created?,
    };
    let user = state.ledger.user(id).await?.ok_or_else(Problem::not_found)?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

/// Lists the users.
#[utoipa::path(
    get, path = "/api/v1/users", tag = "users", operation_id = "list_users",
    params(UserParams),
    responses((status = 200, body = Users), (status = 403, body = Problem)),
)]
pub async fn list(
    State(state): State<AppState>,
    _: Admin,
    Params(params): Params<UserParams>,
) -> Result<Json<Users>, Problem> {
    let users = state.ledger.users(params.cursor.as_deref(), LIST_LENGTH).await?;
    let full = i64::try_from(users.len()) == Ok(LIST_LENGTH);
    let next = users.last().filter(|_| full).map(|user| user.name.clone());
    Ok(Json(Users {
        users: users.into_iter().map(User::from).collect(),
        next,
    }))
}

/// Disables a user: its sessions end, and its API keys and access tokens are refused (access tokens within 2 seconds).
#[utoipa::path(
    post, path = "/api/v1/users/{id}/disable", tag = "users", operation_id = "disable_user",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 204, description = "The user is disabled"),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "Nobody disables himself"),
    ),
)]
pub async fn disable(State(state): State<AppState>, Admin(admin): Admin, Id(id): Id) -> Result<StatusCode, Problem> {
    if admin.id == id {
        return Err(Problem::conflict().detail("nobody disables himself; let another admin do it"));
    }
    if state.ledger.disable_user(UserId(id)).await? {
        state.standings.forget(id).await;
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self {
            id: user.id.0,
            role: Role::of(&user),
            username: user.name,
            disabled: user.disabled,
            created_at: user.created_at,
        }
    }
}

impl CreateUser {
    fn check(&self) -> Result<(), Problem> {
        let mut errors = Vec::new();
        let name_fits = self
            .username
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if self.username.is_empty() || self.username.len() > MAX_NAME || !name_fits {
            let value: String = self.username.chars().take(MAX_NAME).collect();
            let cure = "must be 1 to 63 letters, digits, dots, underscores and hyphens";
            errors.push(FieldError::new("username", value, cure));
        }
        if self.password.chars().count() < MIN_PASSWORD || self.password.len() > MAX_PASSWORD {
            errors.push(FieldError::new("password", "", "must have 12 to 1024 characters"));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid().errors(errors))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_field_of_a_new_user_is_told_and_the_password_never_repeated() {
        let user = CreateUser {
            username: "a b".to_owned(),
            password: "short".to_owned(),
            role: Role::Member,
        };
        let body = serde_json::to_string(&user.check().unwrap_err()).unwrap();
        assert!(
            body.contains("username") && body.contains("\"password\"") && !body.contains("short"),
            "{body}"
        );
    }
}
