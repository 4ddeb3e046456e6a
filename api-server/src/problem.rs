//! What the API answers when it cannot do what was asked: `application/problem+json` (RFC 9457) with a stable type.
//!
//! Pure. Never echoes a database's, a cache's or a library's words: those go to the log, where the error is made into a problem.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use selextract_platform::ledger::LedgerError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::password::PasswordError;

/// How long a client waits before it asks a busy server again, in seconds.
const RETRY_AFTER_BUSY: u32 = 1;

/// A problem as RFC 9457 writes it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A stable identifier of the kind of problem: `urn:selextract:problem:<name>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:selextract:problem:not-found")]
    kind: &'static str,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 404)]
    status: u16,
    /// What happened this time, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Everything that is wrong with the request's fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// The quota that is used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<Box<UsedUp>>,
    #[serde(skip)]
    retry_after: Option<u32>,
}

/// One field of a request that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The path of the field, such as `fields[2].selector`.
    pub field: String,
    /// What was written there, shortened.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// A quota that is used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsedUp {
    /// Its name.
    #[schema(example = "queued")]
    pub name: &'static str,
    /// What is used of it.
    pub used: i64,
    /// The most of it.
    pub limit: i64,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $slug:literal, $title:literal;)*) => {
        impl Problem {
            $($(#[$doc])* pub fn $name() -> Self {
                Self::of(StatusCode::$status, concat!("urn:selextract:problem:", $slug), $title)
            })*
        }
    };
}

kinds! {
    /// The body is not JSON, or a parameter does not have its form.
    malformed = BAD_REQUEST, "malformed-request", "The request cannot be read";
    /// No credentials, or credentials that are not valid (any more).
    unauthenticated = UNAUTHORIZED, "unauthenticated", "Credentials are missing or not valid";
    /// Wrong user or wrong password, and never which.
    wrong_credentials = UNAUTHORIZED, "wrong-credentials", "The user name or the password is wrong";
    /// The caller's role does not reach that far. Only for whole route groups, never for one object.
    forbidden = FORBIDDEN, "forbidden", "This needs the role admin";
    /// There is no such thing, or it belongs to somebody else.
    not_found = NOT_FOUND, "not-found", "There is no such resource";
    /// The path exists, the method does not.
    method_not_allowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The resource does not have this method";
    /// None of the formats that the client accepts is offered.
    not_acceptable = NOT_ACCEPTABLE, "not-acceptable", "None of the accepted formats is offered";
    /// The request does not fit the state of the thing.
    conflict = CONFLICT, "conflict", "The request does not fit the state of the resource";
    /// The body is larger than the limit.
    too_large = PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large";
    /// The content has no such part.
    range_not_satisfiable = RANGE_NOT_SATISFIABLE, "range-not-satisfiable", "The content has no such part";
    /// The body is not declared as JSON.
    unsupported_media_type = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be application/json";
    /// The body is JSON, and something in it is wrong.
    invalid = UNPROCESSABLE_ENTITY, "invalid-fields", "Fields of the request are not valid";
    /// The same idempotency key came with another request.
    idempotency_mismatch = UNPROCESSABLE_ENTITY, "idempotency-mismatch", "The idempotency key belongs to another request";
    /// Too many failed logins.
    locked_out = TOO_MANY_REQUESTS, "locked-out", "Too many failed logins";
    /// The client sends more requests than it may.
    too_many_requests = TOO_MANY_REQUESTS, "too-many-requests", "Too many requests";
    /// The caller has used up a quota.
    over_quota = TOO_MANY_REQUESTS, "quota-exceeded", "A quota is used up";
    /// Something broke that the client cannot mend.
    internal = INTERNAL_SERVER_ERROR, "internal", "The server failed";
    /// Something that the server needs does not answer, or it is full.
    unavailable = SERVICE_UNAVAILABLE, "unavailable", "The service cannot answer now";
    /// It took too long.
    timed_out = GATEWAY_TIMEOUT, "timed-out", "The request took too long";
}

impl Problem {
    fn of(status: StatusCode, kind: &'static str, title: &'static str) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: None,
            errors: Vec::new(),
            quota: None,
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_BUSY),
        }
    }

    /// Says what happened this time. Nothing internal.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Names the fields that are wrong.
    #[must_use]
    pub fn errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// A quota is used up.
    pub fn quota_exceeded(name: &'static str, used: i64, limit: i64) -> Self {
        Self {
            quota: Some(Box::new(UsedUp { name, used, limit })),
            ..Self::over_quota().detail(format!("the quota {name} is {limit} and {used} are used"))
        }
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// One wrong field.
    pub fn field(field: impl Into<String>, value: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid().errors(vec![FieldError::new(field, value, message)])
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl FieldError {
    /// A field, what was written there, and what is wrong with it.
    pub fn new(field: impl Into<String>, value: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            value: value.into(),
            message: message.into(),
        }
    }

    /// The same field within a larger thing.
    #[must_use]
    pub fn within(self, path: &str) -> Self {
        let field = match self.field.as_str() {
            "" | "." => path.to_owned(),
            field => format!("{path}.{field}"),
        };
        Self { field, ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"selextract\""),
            );
        }
        response
    }
}

impl From<LedgerError> for Problem {
    /// Logged here, once: the client learns only whether to come back.
    fn from(error: LedgerError) -> Self {
        if error.is_unavailable() {
            tracing::warn!(%error, "The ledger is not available.");
            let what = match error {
                LedgerError::Object { .. } => "the artifact store does not answer",
                _ => "the database is busy or not reachable",
            };
            return Self::unavailable().detail(format!("{what}; come back in a moment"));
        }
        tracing::error!(%error, "The ledger failed.");
        Self::internal()
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        if matches!(error, PasswordError::Busy) {
            return Self::unavailable().detail("too many logins wait; come back in a moment");
        }
        tracing::error!(%error, "A password could not be checked.");
        Self::internal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(problem: &Problem) -> serde_json::Value {
        serde_json::to_value(problem).unwrap()
    }

    #[test]
    fn a_problem_has_a_stable_type_and_no_empty_members() {
        assert_eq!(
            body(&Problem::not_found()),
            serde_json::json!({
                "type": "urn:selextract:problem:not-found",
                "title": "There is no such resource",
                "status": 404,
            })
        );
    }

    #[test]
    fn a_problem_is_sent_as_problem_json_with_its_status() {
        let response = Problem::field("url", "ftp://x", "must be http or https").into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let response = Problem::unavailable().into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let later = Problem::locked_out().retry_after(std::time::Duration::from_millis(30_001));
        assert_eq!(later.into_response().headers()[header::RETRY_AFTER], "31");
    }

    #[test]
    fn missing_credentials_are_challenged() {
        let response = Problem::unauthenticated().into_response();
        assert_eq!(
            response.headers()[header::WWW_AUTHENTICATE],
            "Bearer realm=\"selextract\""
        );
    }
}
