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

/// The `{id}` and the `{artifact}` of a path. What is not a UUID is not there.
#[derive(Clone, Copy, Debug)]
pub struct InTask(pub Uuid, pub Uuid);

/// The `{name}` of a path.
#[derive(Clone, Debug)]
pub struct Name(pub String);

/// The `{uid}` of a path.
#[derive(Clone, Debug)]
pub struct Uid(pub String);

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
        let id = segment(parts, state, "id").await?;
        Uuid::try_parse(&id).map(Self).map_err(|_| Problem::not_found())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for InTask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Id(id) = Id::from_request_parts(parts, state).await?;
        let artifact = segment(parts, state, "artifact").await?;
        let artifact = Uuid::try_parse(&artifact).map_err(|_| Problem::not_found())?;
        Ok(Self(id, artifact))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Uid {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        segment(parts, state, "uid").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        segment(parts, state, "name").await.map(Self)
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, Problem> {
    let Path(mut path) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::not_found())?;
    path.remove(name).ok_or_else(Problem::not_found)
}
