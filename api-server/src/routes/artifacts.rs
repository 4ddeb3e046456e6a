//! What a run keeps beside its records, as downloads.
//!
//! A content goes out chunk by chunk, each read when the client has taken the one before: a slow reader holds no database connection.
//! It comes from strange sites, so it is never shown as a page of ours: always an attachment, of a media type from a fixed list.

use std::{io, ops::Range};

use async_stream::try_stream;
use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use selextract_platform::ledger::{
    TaskId,
    artifacts::{self, CHUNK, Kind},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    auth::caller::Caller,
    params::{Id, InTask, Params},
    problem::Problem,
    state::AppState,
};

/// Artifacts in one answer, when nothing is said and at most.
const LISTED: u16 = 50;
const MAX_LISTED: u16 = 200;
/// No script, no form, no frame, nothing loaded, and an origin of its own, should something open it all the same.
const SANDBOX: &str = "sandbox; default-src 'none'";
/// What stands as it is in a header's extended value (RFC 8187).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which artifacts are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ArtifactParams {
    /// `next` of the answer before.
    cursor: Option<Uuid>,
    /// How many at most, 1 to 200; 50 without it.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u16>,
}

/// What a run keeps beside its records.
#[derive(Debug, Serialize, ToSchema)]
pub struct Artifacts {
    /// In the order in which they were taken.
    artifacts: Vec<ArtifactView>,
    /// Send it as `cursor` for the next ones; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// A screenshot, a PDF or a copy of a page.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArtifactView {
    id: Uuid,
    /// The page of the run that it was taken of, from 1.
    page: i32,
    /// Its name in the spec.
    name: String,
    #[schema(example = "image/png")]
    media_type: String,
    /// Bytes of its content.
    size: i64,
    /// The hash of its content, in hexadecimal digits; not there when it was left out.
    #[serde(skip_serializing_if = "String::is_empty")]
    sha256: String,
    /// Why there is no content: it is larger than 10 MiB, a quota is used up, or the store did not take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
    /// RFC 3339.
    created_at: String,
}

/// Lists what a task keeps beside its records, in the order in which it was taken.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}/artifacts", tag = "tasks", operation_id = "list_artifacts",
    params(("id" = Uuid, Path, description = "The task's id"), ArtifactParams),
    responses((status = 200, body = Artifacts), (status = 400, body = Problem), (status = 404, body = Problem)),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    Params(params): Params<ArtifactParams>,
) -> Result<Json<Artifacts>, Problem> {
    let limit = params.limit.unwrap_or(LISTED);
    if !(1..=MAX_LISTED).contains(&limit) {
        return Err(Problem::malformed().detail(format!("limit is {limit} and must be 1 to {MAX_LISTED}")));
    }
    let task = visible(&state, &caller, id).await?;
    let found = state.ledger.artifacts(task, params.cursor, limit.into()).await?;
    let next = found
        .last()
        .filter(|_| found.len() == usize::from(limit))
        .map(|artifact| artifact.id);
    let artifacts = found.into_iter().map(ArtifactView::from).collect();
    Ok(Json(Artifacts { artifacts, next }))
}

/// The content of an artifact, or the part of it that the header `Range` asks for, as a download.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}/artifacts/{artifact}", tag = "tasks", operation_id = "get_artifact",
    params(
        ("id" = Uuid, Path, description = "The task's id"),
        ("artifact" = Uuid, Path, description = "The artifact's id"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of the answer before"),
    ),
    responses(
        (status = 200, description = "The content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "A part of the content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The client has it"),
        (status = 404, body = Problem),
        (status = 416, body = Problem, description = "The content has no such part"),
    ),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    InTask(task, id): InTask,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let task = visible(&state, &caller, task).await?;
    let found = state.ledger.artifact(task, id).await?;
    let artifact = found.ok_or_else(Problem::not_found)?;
    if let Some(reason) = &artifact.left_out {
        return Err(Problem::not_found().detail(format!("the artifact was left out: {reason}")));
    }
    let etag = format!("\"{}\"", hex::encode(&artifact.sha256));
    if is_named(&headers, header::IF_NONE_MATCH, &etag) {
        return Ok(described(StatusCode::NOT_MODIFIED.into_response(), &artifact, &etag));
    }
    let size = u64::try_from(artifact.size).unwrap_or_default();
    let wanted = match wanted(&headers, &etag, size) {
        Wanted::Whole => None,
        Wanted::Part(part) => Some(part),
        Wanted::Nothing => return Ok(unsatisfiable(size)),
    };
    let part = wanted.clone().unwrap_or(0..size);
    let body = if method == Method::HEAD || part.is_empty() {
        Body::empty()
    } else {
        content(state, artifact.clone(), part.clone()).await?
    };
    let mut response = described(Response::new(body), &artifact, &etag);
    let head = response.headers_mut();
    head.insert(header::CONTENT_LENGTH, (part.end - part.start).into());
    if wanted.is_some() {
        insert(
            head,
            header::CONTENT_RANGE,
            &format!("bytes {}-{}/{size}", part.start, part.end - 1),
        );
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The task, when the caller may see it. Whoever may not is told that there is none.
async fn visible(state: &AppState, caller: &Caller, id: Uuid) -> Result<TaskId, Problem> {
    let task = state.ledger.task(caller.reach(), TaskId(id)).await?;
    task.map(|task| task.id).ok_or_else(Problem::not_found)
}

/// The headers that an artifact always has.
fn described(mut response: Response, artifact: &artifacts::Artifact, etag: &str) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, artifact.media_type.as_str()),
        (
            header::CONTENT_DISPOSITION,
            &disposition(&artifact.name, &artifact.media_type),
        ),
        (header::ETAG, etag),
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "private, no-cache"),
        (header::CONTENT_SECURITY_POLICY, SANDBOX),
    ] {
        insert(headers, name, value);
    }
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    // Everything that stands here is printable ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A download with a file's name (RFC 6266), for old clients without what is not ASCII.
fn disposition(name: &str, media_type: &str) -> String {
    let ending = format!(".{}", Kind::of(media_type).extension);
    let name = if name.ends_with(&ending) {
        name.to_owned()
    } else {
        format!("{name}{ending}")
    };
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || " ._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let ascii: String = name.chars().map(plain).collect();
    format!(
        "attachment; filename=\"{ascii}\"; filename*=UTF-8''{}",
        utf8_percent_encode(&name, PLAIN)
    )
}

/// What of a content is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    /// A part that it does not have.
    Nothing,
}

/// Reads `Range` and `If-Range` (RFC 9110, section 14). What is not one range of bytes is as good as none.
fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if text(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Wanted::Whole;
    }
    let Some((from, to)) = range.split_once('-').map(|(from, to)| (from.trim(), to.trim())) else {
        return Wanted::Whole;
    };
    let part = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(last)) if from <= last => from..size.min(last.saturating_add(1)),
        (Ok(from), Err(_)) if to.is_empty() => from..size,
        (Err(_), Ok(length)) if from.is_empty() => size.saturating_sub(length)..size,
        _ => return Wanted::Whole,
    };
    if part.start < part.end {
        Wanted::Part(part)
    } else {
        Wanted::Nothing
    }
}

fn unsatisfiable(size: u64) -> Response {
    let mut response = Problem::range_not_satisfiable()
        .detail(format!("the content has {size} bytes"))
        .into_response();
    insert(
        response.headers_mut(),
        header::CONTENT_RANGE,
        &format!("bytes */{size}"),
    );
    response
}

fn is_named(headers: &HeaderMap, name: header::HeaderName, etag: &str) -> bool {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*")
}

/// The first chunk is read before the answer begins, so that a store that is away is told by the status.
async fn content(state: AppState, artifact: artifacts::Artifact, part: Range<u64>) -> Result<Body, Problem> {
    let first = piece(&state, &artifact, &part, part.start).await?;
    Ok(Body::from_stream(rest(state, artifact, part, first)))
}

/// The chunks of the part. An error in the middle ends the body before its length, so that the client sees it cut off.
fn rest(
    state: AppState,
    artifact: artifacts::Artifact,
    part: Range<u64>,
    first: Bytes,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    try_stream! {
        let mut at = part.start + first.len() as u64;
        yield first;
        while at < part.end {
            let next = piece(&state, &artifact, &part, at).await;
            let next = next.map_err(|_| io::Error::other("the artifact could not be read"))?;
            at += next.len() as u64;
            yield next;
        }
    }
}

/// The bytes from `at` to the end of their chunk, or of the part.
async fn piece(state: &AppState, artifact: &artifacts::Artifact, part: &Range<u64>, at: u64) -> Result<Bytes, Problem> {
    const SIZE: u64 = CHUNK as u64;
    let number = at / SIZE;
    let chunk = state.ledger.artifact_chunk(artifact, number).await?;
    let inside = |place: u64| usize::try_from(place - number * SIZE).unwrap_or(CHUNK).min(chunk.len());
    let (from, to) = (inside(at), inside(part.end));
    if from >= to {
        tracing::error!(task = %artifact.task_id, artifact = %artifact.id, number, "A chunk of an artifact is shorter than its size says.");
        return Err(Problem::internal());
    }
    Ok(chunk.slice(from..to))
}

impl From<artifacts::Artifact> for ArtifactView {
    fn from(artifact: artifacts::Artifact) -> Self {
        Self {
            id: artifact.id,
            page: artifact.page,
            name: artifact.name,
            media_type: artifact.media_type,
            size: artifact.size,
            sha256: hex::encode(&artifact.sha256),
            left_out: artifact.left_out,
            created_at: artifact.created_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &'static str, condition: Option<&'static str>) -> Wanted {
        let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
        if let Some(condition) = condition {
            headers.insert(header::IF_RANGE, HeaderValue::from_static(condition));
        }
        wanted(&headers, "\"a\"", 100)
    }

    #[test]
    fn a_range_is_a_part_of_what_there_is() {
        assert_eq!(asked("bytes=0-9", None), Wanted::Part(0..10));
        assert_eq!(asked("bytes=90-", None), Wanted::Part(90..100));
        assert_eq!(asked("bytes=-30", None), Wanted::Part(70..100));
        assert_eq!(asked("bytes=-300", None), Wanted::Part(0..100));
        assert_eq!(asked("bytes=50-18446744073709551615", None), Wanted::Part(50..100));
        for beyond in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(asked(beyond, None), Wanted::Nothing, "{beyond}");
        }
        for nonsense in [
            "bytes=",
            "bytes=9-1",
            "bytes=0-1,4-5",
            "lines=1-2",
            "bytes=a-b",
            "bytes=--5",
        ] {
            assert_eq!(asked(nonsense, None), Wanted::Whole, "{nonsense}");
        }
    }

    #[test]
    fn a_range_of_another_content_is_the_whole_of_this_one() {
        assert_eq!(asked("bytes=0-9", Some("\"a\"")), Wanted::Part(0..10));
        assert_eq!(asked("bytes=0-9", Some("\"b\"")), Wanted::Whole);
    }

    #[test]
    fn a_download_has_a_name_in_every_script_and_cannot_break_the_header() {
        assert_eq!(
            disposition("front", "image/png"),
            "attachment; filename=\"front.png\"; filename*=UTF-8''front.png"
        );
        assert_eq!(
            disposition("Preis ä\".html", "text/html; charset=utf-8"),
            "attachment; filename=\"Preis __.html\"; filename*=UTF-8''Preis%20%C3%A4%22.html"
        );
        assert_eq!(
            disposition("a\r\nb", "image/png")
                .chars()
                .filter(|c| c.is_control())
                .count(),
            0
        );
    }

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let has = |tags: &'static str| {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(tags))]);
            is_named(&headers, header::IF_NONE_MATCH, "\"a\"")
        };
        assert!(has("\"a\"") && has("\"b\", W/\"a\"") && has("*"));
        assert!(!has("\"b\"") && !has("a"));
    }
}
