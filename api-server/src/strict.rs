//! Request bodies: JSON in which nothing is ignored. Every unknown field is collected and told at once.
//!
//! The types themselves read leniently (an older program survives a newer writer); strictness sits here, at the edge.

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::problem::{FieldError, Problem};

/// The most characters of a value that an answer repeats.
const MAX_ECHO: usize = 80;

/// A body of type `T` without a single unknown field.
#[derive(Debug)]
pub struct Strict<T>(pub T);

/// A body that is a JSON object, to be taken apart by [`decode`].
#[derive(Debug)]
pub struct Object(pub Map<String, Value>);

/// A body that is declared as JSON.
#[derive(Debug)]
pub struct JsonBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(&request) {
            return Err(Problem::unsupported_media_type());
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::too_large()
            } else {
                Problem::malformed().detail("the body did not arrive")
            }
        })?;
        Ok(Self(body))
    }
}

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let JsonBody(body) = JsonBody::from_request(request, state).await?;
        // serde_json refuses more than 128 levels, which bounds the depth.
        match serde_json::from_slice(&body) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(Problem::malformed().detail("the body must be a JSON object")),
            Err(error) => Err(Problem::malformed().detail(format!(
                "the body is not JSON: line {}, column {}",
                error.line(),
                error.column()
            ))),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Strict<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Object(object) = Object::from_request(request, state).await?;
        let mut errors = Vec::new();
        match decode(Value::Object(object), &mut errors) {
            Some(body) if errors.is_empty() => Ok(Self(body)),
            _ => Err(Problem::invalid().errors(errors)),
        }
    }
}

/// Reads a `T` and adds every unknown field, and what cannot be read, to `errors`.
pub fn decode<T: DeserializeOwned>(value: Value, errors: &mut Vec<FieldError>) -> Option<T> {
    let mut track = serde_path_to_error::Track::new();
    let mut unknown = Vec::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = serde_ignored::deserialize(tracked, |path| unknown.push(dotted(&path)));
    errors.extend(
        unknown
            .into_iter()
            .map(|field| FieldError::new(field, "", "is not a field here; remove it or correct its name")),
    );
    match result {
        Ok(body) => Some(body),
        Err(error) => {
            errors.push(FieldError::new(track.path().to_string(), "", readable(&error)));
            None
        }
    }
}

/// A value as an answer repeats it.
pub fn echo(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_default()
        .chars()
        .take(MAX_ECHO)
        .collect()
}

/// serde's sentence, which names types and fields of the request and nothing of the server; shortened, for it repeats the value.
fn readable(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.chars().count() > 2 * MAX_ECHO {
        text.chars().take(2 * MAX_ECHO).chain(['…']).collect()
    } else {
        text
    }
}

fn dotted(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Path::Map { parent, key } => {
            let parent = dotted(parent);
            if parent.is_empty() {
                key.clone()
            } else {
                format!("{parent}.{key}")
            }
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => dotted(parent),
    }
}

fn is_json(request: &Request) -> bool {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return false;
    };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use selextract_task::TaskSpec;
    use serde_json::json;

    use super::*;

    fn fields<T: DeserializeOwned>(value: Value) -> Vec<String> {
        let mut errors = Vec::new();
        let _ = decode::<T>(value, &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn every_unknown_field_is_told_at_any_depth() {
        let unknown = fields::<TaskSpec>(json!({
            "url": "https://example.com",
            "feilds": [],
            "fields": [{ "name": "a", "selektor": "h1" }, { "name": "b", "pagination": { "x": 1 } }],
            "pagination": { "nextSelector": "a", "stop": true },
        }));
        assert_eq!(
            unknown,
            [
                "feilds",
                "fields[0].selektor",
                "fields[1].pagination",
                "pagination.stop"
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_path() {
        assert_eq!(
            fields::<TaskSpec>(json!({ "url": "https://example.com", "fields": [{ "name": 7 }] })),
            ["fields[0].name"]
        );
    }

    #[test]
    fn a_spec_without_unknown_fields_is_read() {
        let mut errors = Vec::new();
        let spec: Option<TaskSpec> = decode(
            json!({ "url": "https://e.com", "fields": [{ "name": "a" }] }),
            &mut errors,
        );
        assert!(spec.is_some() && errors.is_empty());
    }

    #[test]
    fn what_an_answer_repeats_is_bounded() {
        assert_eq!(echo(&"x".repeat(500)).chars().count(), MAX_ECHO);
        let mut errors = Vec::new();
        let _ = decode::<TaskSpec>(
            json!({ "url": "https://e.com", "fields": "y".repeat(9000) }),
            &mut errors,
        );
        assert!(errors[0].message.chars().count() < 200);
    }
}
