//! What a task would extract from its first page: read by a worker, stored nowhere.

use std::time::Duration;

use axum::{Json, extract::State};
use jiff::Timestamp;
use selextract_platform::previews::{self, Asked, LONGEST, PreviewError, Request};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{new_task::read_spec, tasks::RunErrorView};
use crate::{admission, auth::caller::Caller, problem::Problem, state::AppState, strict::Object};

/// What an answer needs beside the page's own time.
const MARGIN: Duration = Duration::from_secs(1);

/// What a task would extract.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preview {
    /// Where the page came from in the end.
    url: String,
    /// The first records, a hundred and 1 MiB at most.
    #[schema(value_type = Vec<Object>)]
    records: Vec<Map<String, Value>>,
    /// How many the page has.
    found: u64,
    /// Records left out for a missing required field.
    warnings: u32,
    /// Where a run would go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_url: Option<String>,
    /// Why there is nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RunErrorView>,
}

/// Reads a task's first page within ten seconds and stores nothing. Twenty a minute for each user.
#[utoipa::path(
    post, path = "/api/v1/tasks:preview", tag = "tasks", operation_id = "preview_task",
    request_body(content = ref("#/components/schemas/TaskSpec"), content_type = "application/json"),
    responses(
        (status = 200, body = Preview, description = "The records, or the error with which a run would fail"),
        (status = 422, body = Problem),
        (status = 429, body = Problem, description = "Too many previews; Retry-After says when to come back"),
        (status = 503, body = Problem, description = "No worker is free for it"),
    ),
)]
pub async fn preview(
    State(state): State<AppState>,
    caller: Caller,
    Object(body): Object,
) -> Result<Json<Preview>, Problem> {
    let spec = read_spec(body, &state.pools)?;
    let verdict = state.previews_by_user.admit(&caller.id.to_string()).await;
    if !verdict.admitted {
        return Err(admission::too_many(&state.previews_by_user, verdict));
    }
    let busy = || Problem::unavailable().detail("no worker is free for a preview; come back in a moment");
    let turn = state.preview_turns.try_acquire().map_err(|_| busy())?;
    if state.presence.any_worker().await == Some(false) {
        state.previews.want_worker().await.map_err(|error| unanswered(&error))?;
        let told = "no worker is there, and previews are read by workers; one is asked for";
        return Err(Problem::unavailable().detail(told).retry_after(LONGEST));
    }
    let request = Request {
        id: Uuid::new_v4(),
        deadline_milliseconds: Timestamp::now().as_millisecond()
            + i64::try_from(LONGEST.as_millis()).unwrap_or_default(),
        spec,
        owner: Some(caller.owner()),
    };
    let asked = state.previews.ask(&request, LONGEST + MARGIN).await;
    let asked = asked.map_err(|error| unanswered(&error))?;
    drop(turn);
    match asked {
        Asked::Answered(answer) => Ok(Json((*answer).into())),
        Asked::Full | Asked::Unanswered => Err(busy()),
    }
}

fn unanswered(error: &PreviewError) -> Problem {
    tracing::warn!(%error, "A preview could not be asked for.");
    Problem::unavailable().detail("the queue does not answer; come back in a moment")
}

impl From<previews::Answer> for Preview {
    fn from(answer: previews::Answer) -> Self {
        Self {
            url: answer.url,
            records: answer.records,
            found: answer.found,
            warnings: answer.warnings,
            next_url: answer.next_url,
            error: answer.error.map(RunErrorView::from),
        }
    }
}
