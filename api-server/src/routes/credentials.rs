//! Credentials for sites: written, listed without what is secret in them, removed; never read back.

use axum::{Json, extract::State};
use http::StatusCode;
use selextract_platform::{
    ledger::{
        UserId,
        credentials::{self, MOST, Stored, place},
    },
    sealed::Seal,
};
use selextract_task::{
    access::is_name,
    credentials::{Checked, SiteCredentials},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::tasks::named_owner;
use crate::{
    auth::caller::Caller,
    params::{Name, Params},
    problem::{FieldError, Problem},
    state::AppState,
    strict::{self, Object},
};

/// Whose credentials are meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CredentialsParams {
    /// For admins: of this owner, such as `k8s:<namespace>` for the `ScrapeTask`s of a namespace.
    owner: Option<String>,
}

/// Credentials, without what is secret in them.
#[derive(Debug, Serialize, ToSchema)]
pub struct CredentialsView {
    /// As tasks name them.
    name: String,
    /// `basic`, `bearer`, `header` or `formLogin`.
    kind: String,
    /// The origin that gets them.
    origin: String,
    /// Whether the operator keeps them as a Kubernetes Secret says.
    from_secret: bool,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    updated_at: String,
}

/// An owner's credentials.
#[derive(Debug, Serialize, ToSchema)]
pub struct CredentialsList {
    credentials: Vec<CredentialsView>,
}

/// Stores credentials under a name, over those that had it: a hundred at most for each owner. What is secret in them is encrypted, and
/// nothing reads it back but a worker that runs a task of this owner which names them.
#[utoipa::path(
    put, path = "/api/v1/credentials/{name}", tag = "credentials", operation_id = "put_credentials",
    params(("name" = String, Path, description = "1 to 63 lower-case letters, digits and hyphens"), CredentialsParams),
    request_body(content = ref("#/components/schemas/SiteCredentials"), content_type = "application/json"),
    responses(
        (status = 204, description = "They are stored"),
        (status = 404, body = Problem, description = "There is no such owner"),
        (status = 409, body = Problem, description = "The owner has a hundred"),
        (status = 422, body = Problem, description = "Everything that is wrong, at once; no secret is repeated"),
        (status = 503, body = Problem, description = "The cluster has no key for secrets"),
    ),
)]
pub async fn put(
    State(state): State<AppState>,
    caller: Caller,
    Name(name): Name,
    Params(params): Params<CredentialsParams>,
    Object(body): Object,
) -> Result<StatusCode, Problem> {
    if !is_name(&name) {
        let cure = "must have 1 to 63 lower-case letters, digits and hyphens, and begin and end with a letter or digit";
        return Err(Problem::field("name", name.chars().take(80).collect::<String>(), cure));
    }
    let credentials = read(body)?;
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    if store(&state, owner, &name, credentials, None).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::conflict().detail(format!("there are {MOST} credentials; remove some first")))
    }
}

/// Lists the caller's credentials. What is secret in them is not shown, to nobody.
#[utoipa::path(
    get, path = "/api/v1/credentials", tag = "credentials", operation_id = "list_credentials", params(CredentialsParams),
    responses((status = 200, body = CredentialsList), (status = 404, body = Problem)),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Params(params): Params<CredentialsParams>,
) -> Result<Json<CredentialsList>, Problem> {
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    let found = state.ledger.credentials(owner).await?;
    Ok(Json(CredentialsList {
        credentials: found.into_iter().map(CredentialsView::from).collect(),
    }))
}

/// Removes credentials. Runs that name them fail from their next claim on.
#[utoipa::path(
    delete, path = "/api/v1/credentials/{name}", tag = "credentials", operation_id = "delete_credentials",
    params(("name" = String, Path, description = "As they were stored"), CredentialsParams),
    responses((status = 204, description = "They are gone"), (status = 404, body = Problem)),
)]
pub async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Name(name): Name,
    Params(params): Params<CredentialsParams>,
) -> Result<StatusCode, Problem> {
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    if state.ledger.delete_credentials(owner, &name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}

/// Credentials that were checked, and the text that is sealed.
pub(crate) struct Ready {
    checked: Checked,
    text: String,
}

impl Ready {
    /// Checks credentials.
    ///
    /// # Errors
    /// Every mistake, without any secret.
    pub(crate) fn of(credentials: SiteCredentials) -> Result<Self, Vec<FieldError>> {
        let text = serde_json::to_string(&credentials).unwrap_or_default();
        match credentials.check() {
            Ok(checked) => Ok(Self { checked, text }),
            Err(violations) => Err(violations
                .iter()
                .map(|violation| FieldError::new(&violation.field, &violation.value, &violation.message))
                .collect()),
        }
    }
}

fn read(body: Map<String, Value>) -> Result<Ready, Problem> {
    let mut errors = Vec::new();
    let read: Option<SiteCredentials> = strict::decode(Value::Object(body), &mut errors);
    // serde's sentence about a value of the wrong type repeats it, and it may be a secret.
    for error in errors.iter_mut().filter(|error| error.message.contains("invalid type")) {
        "has another type; see SiteCredentials in the API's document".clone_into(&mut error.message);
        error.value.clear();
    }
    let ready = read
        .map(Ready::of)
        .and_then(|checked| checked.map_err(|wrong| errors.extend(wrong)).ok());
    ready
        .filter(|_| errors.is_empty())
        .ok_or_else(|| Problem::invalid().errors(errors))
}

/// Seals and stores credentials. `false` when the owner has too many.
pub(crate) async fn store(
    state: &AppState,
    owner: UserId,
    name: &str,
    credentials: Ready,
    secret_version: Option<&str>,
) -> Result<bool, Problem> {
    let seal = state.seal.as_ref().ok_or_else(|| {
        Problem::unavailable().detail("the cluster has no key for secrets; its operator makes one when it is upgraded")
    })?;
    let (id, origin) = (
        Uuid::now_v7(),
        credentials.checked.origin.origin().ascii_serialization(),
    );
    let secret = sealed(seal, &place(id, &origin), &credentials.text)?;
    let stored = Stored {
        id,
        name,
        kind: credentials.checked.way.kind(),
        origin: &origin,
        secret: &secret,
        secret_version,
    };
    Ok(state.ledger.put_credentials(owner, &stored).await?)
}

fn sealed(seal: &Seal, place: &str, text: &str) -> Result<String, Problem> {
    seal.seal(place, text).map_err(|error| {
        tracing::error!(%error, "Credentials could not be sealed.");
        Problem::internal()
    })
}

impl From<credentials::Listed> for CredentialsView {
    fn from(listed: credentials::Listed) -> Self {
        Self {
            name: listed.name,
            kind: listed.kind,
            origin: listed.origin,
            from_secret: listed.from_secret,
            created_at: listed.created_at,
            updated_at: listed.updated_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_mistake_in_credentials_repeats_a_secret() {
        for body in [
            json!({ "origin": "https://shop.example", "basic": { "username": "ann", "password": ["hush"] } }),
            json!({ "origin": "https://shop.example", "basic": "hush" }),
            json!({ "origin": "https://shop.example", "bearer": { "token": "hush\n", "colour": "hush" } }),
            json!({ "origin": "https://ann:hush@shop.example", "bearer": { "token": "hush" } }),
        ] {
            let Value::Object(body) = body else { panic!("an object") };
            let problem = serde_json::to_string(&read(body).err().unwrap()).unwrap();
            assert!(problem.contains("errors") && !problem.contains("hush"), "{problem}");
        }
    }
}
