//! Credentials that the operator reads from Kubernetes Secrets: sealed here, for the owner of the Secret's namespace.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use http::StatusCode;
use selextract_platform::ledger::credentials::{FromSecret, MOST};
use selextract_task::{
    access::is_name,
    feed::credentials::{KnownSecret, KnownSecrets, SecretAnswer, SecretCredentials, SecretRemovals},
};
use serde::Deserialize;

use super::handlers::bound;
use crate::{
    params::Params,
    problem::Problem,
    routes::credentials::{Ready, store},
    state::AppState,
};

/// Which of the known Secrets are wanted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AfterParams {
    /// The namespace of the last one of the page before.
    #[serde(default)]
    after_namespace: String,
    /// Its name.
    #[serde(default)]
    after_name: String,
}

/// Stores the credentials of a Secret.
pub async fn put(
    State(state): State<AppState>,
    body: Result<Json<SecretCredentials>, JsonRejection>,
) -> Result<Json<SecretAnswer>, Problem> {
    let Json(secret) = body.map_err(|rejection| unreadable(&rejection))?;
    let refused = |why: String| Ok(Json(SecretAnswer { refused: Some(why) }));
    if !is_name(&secret.name) {
        return refused(format!(
            "the Secret's name {:?} cannot be a name of credentials",
            secret.name
        ));
    }
    let ready = match Ready::of(secret.credentials) {
        Ok(ready) => ready,
        Err(errors) => {
            let told: Vec<String> = errors
                .iter()
                .map(|error| format!("{} = {:?}: {}", error.field, error.value, error.message))
                .collect();
            return refused(told.join("; ").chars().take(1024).collect());
        }
    };
    let owner = state.ledger.namespace_owner(&secret.namespace).await?;
    if store(&state, owner, &secret.name, ready, Some(&secret.version)).await? {
        Ok(Json(SecretAnswer::default()))
    } else {
        refused(format!("namespace {} has {MOST} credentials already", secret.namespace))
    }
}

/// A page of what came from Secrets.
pub async fn known(
    State(state): State<AppState>,
    Params(after): Params<AfterParams>,
) -> Result<Json<KnownSecrets>, Problem> {
    let found = state
        .ledger
        .credentials_of_secrets((&after.after_namespace, &after.after_name))
        .await?;
    let items = found
        .into_iter()
        .map(
            |FromSecret {
                 namespace,
                 name,
                 version,
             }| KnownSecret {
                namespace,
                name,
                version,
            },
        )
        .collect();
    Ok(Json(KnownSecrets { items }))
}

/// Removes what came from these Secrets.
pub async fn remove(
    State(state): State<AppState>,
    body: Result<Json<SecretRemovals>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Json(SecretRemovals { items }) = body.map_err(|rejection| unreadable(&rejection))?;
    bound(items.len())?;
    for item in items {
        state
            .ledger
            .delete_credentials_of_secret(&item.namespace, &item.name)
            .await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Without serde's sentence, which repeats values.
fn unreadable(rejection: &JsonRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::too_large()
    } else {
        Problem::malformed().detail("the body is not what this call takes")
    }
}
