//! A task's progress as server-sent events.

use std::{convert::Infallible, time::Duration};

use async_stream::stream;
use axum::{
    extract::State,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use tokio::time::{Instant, sleep};

use super::tasks::{TaskView, visible_task};
use crate::{auth::caller::Caller, params::Id, problem::Problem, state::AppState};

/// How often the task is read while a stream is open.
const POLL: Duration = Duration::from_secs(1);
/// How long a stream is open; a client comes back by itself. An access token lives as long.
const LONGEST: Duration = Duration::from_mins(15);

/// Follows a task: an event `task` with the task at first and whenever it changed, and an event `end` once it has ended.
///
/// The stream closes after the end, after 15 minutes, or when the server ends; a client that comes back is told where the task stands.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}/events", tag = "tasks", operation_id = "task_events",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 200, content_type = "text/event-stream", body = TaskView, description = "Events `task` and `end`, each with the task"),
        (status = 404, body = Problem),
        (status = 503, body = Problem, description = "Too many streams are open"),
    ),
)]
pub async fn events(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<Response, Problem> {
    let busy = |_| Problem::unavailable().detail("too many event streams are open; come back in a moment");
    let place = state.streams.clone().try_acquire_owned().map_err(busy)?;
    let first = visible_task(&state, &caller, id).await?;
    let events = stream! {
        let until = Instant::now() + LONGEST;
        let (mut task, mut told) = (Some(first), String::new());
        while Instant::now() < until {
            if let Some(task) = task.take() {
                let text = serde_json::to_string(&task).unwrap_or_default();
                if task.has_ended() {
                    yield Ok::<_, Infallible>(Event::default().event("end").data(text));
                    break;
                }
                if text != told {
                    yield Ok(Event::default().event("task").data(&text));
                    told = text;
                }
            }
            tokio::select! {
                () = state.ending.cancelled() => break,
                () = sleep(POLL) => {}
            }
            match visible_task(&state, &caller, id).await {
                Ok(read) => task = Some(read),
                // It was deleted; what is only unavailable is read again.
                Err(problem) if problem.status() == http::StatusCode::NOT_FOUND => break,
                Err(_) => {}
            }
        }
        drop(place);
    };
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
