//! Pausing, resuming and replaying a task.

use axum::{Json, extract::State};
use selextract_platform::ledger::{TaskId, run_control::Changed};
use selextract_task::feed::RunState;
use uuid::Uuid;

use super::tasks::{TaskView, visible_task};
use crate::{auth::caller::Caller, params::Id, problem::Problem, state::AppState};

/// Holds a task: one that waits is not begun, one that runs stops at its next page boundary. What was read stays.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/pause", tag = "tasks", operation_id = "pause_task",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 200, body = TaskView),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The task has ended"),
    ),
)]
pub async fn pause(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<Json<TaskView>, Problem> {
    let changed = state.ledger.pause(caller.reach(), TaskId(id)).await?;
    answer(
        &state,
        &caller,
        id,
        changed,
        "the task has ended; there is nothing to pause",
    )
    .await
}

/// Lets a paused task go on, behind its last committed page.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/resume", tag = "tasks", operation_id = "resume_task",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 200, body = TaskView),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The task has ended"),
    ),
)]
pub async fn resume(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<Json<TaskView>, Problem> {
    let changed = state.ledger.resume(caller.reach(), TaskId(id)).await?;
    answer(
        &state,
        &caller,
        id,
        changed,
        "the task has ended; replay it if it failed",
    )
    .await
}

/// Takes a failed task up again behind its last committed page, with all its attempts.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/replay", tag = "tasks", operation_id = "replay_task",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 200, body = TaskView),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The task has not failed"),
        (status = 429, body = Problem, description = "The owner may have no further task now"),
    ),
)]
pub async fn replay(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<Json<TaskView>, Problem> {
    let task = state.ledger.task(caller.reach(), TaskId(id)).await?;
    let task = task.ok_or_else(Problem::not_found)?;
    // What has not failed is told so, whatever there is room for.
    if task.state()? == RunState::Failed {
        state.quotas.admit(task.user_id, 1).await?;
    }
    let changed = state.ledger.replay(caller.reach(), TaskId(id)).await?;
    answer(
        &state,
        &caller,
        id,
        changed,
        "the task has not failed; only failed tasks are replayed",
    )
    .await
}

pub(super) async fn answer(
    state: &AppState,
    caller: &Caller,
    id: Uuid,
    changed: Changed,
    unfit: &'static str,
) -> Result<Json<TaskView>, Problem> {
    match changed {
        Changed::Missing => return Err(Problem::not_found()),
        Changed::Unfit => return Err(Problem::conflict().detail(unfit)),
        Changed::Done(None) => {}
        Changed::Done(Some(entry)) => state.offer(vec![entry]),
    }
    visible_task(state, caller, id).await.map(Json)
}
