//! Path and query parameters whose mistakes are problems like any other.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::problem::Problem;

/// The query, with nothing in it that is not known.
#[derive(Debug)]
pub struct Params<T>(pub T);

/// The `{id}` of a path. What is not a UUID is not there.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub Uuid);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| Problem::malformed().detail(error.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(path) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::not_found())?;
        let id = path.get("id").and_then(|id| Uuid::try_parse(id).ok());
        id.map(Self).ok_or_else(Problem::not_found)
    }
}
