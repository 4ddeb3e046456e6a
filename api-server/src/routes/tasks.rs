//! What to extract, and what became of it.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use selextract_platform::{
    frontier::Entry,
    ledger::{
        LedgerError, TaskId, UserId,
        tasks::{self, PAGE_ROWS},
    },
};
use selextract_task::feed::{RunError, RunState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema, openapi::Ref};
use uuid::Uuid;

use super::{
    changes::ReportView,
    crawl::{CrawlView, fetch_progress},
    new_task::{admit, idempotency_key, read_new},
    waiting::{Waiting, fetch_waiting},
};
use crate::{
    auth::{Role, caller::Caller},
    params::{Id, Params},
    problem::Problem,
    state::AppState,
    strict::Object,
};

/// Which tasks are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Only tasks in this state.
    #[param(inline)]
    status: Option<Status>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// For admins: the tasks of this owner, such as `k8s:<namespace>` for the `ScrapeTask`s of a namespace.
    owner: Option<String>,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, waits for a worker or for a retry.
    Pending,
    /// A worker holds it.
    Running,
    /// Every page was read.
    Succeeded,
    /// It ended with an error; what was read before stays.
    Failed,
    /// Somebody ended it.
    Canceled,
}

/// A task in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskSummary {
    id: Uuid,
    name: Option<String>,
    status: Status,
    /// RFC 3339.
    created_at: String,
    /// 1 unit is 1 CPU second of worker and browser, and 1 per 100 MB of egress, rounded up.
    compute_units_used: i64,
}

/// A task.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskView {
    /// The task's id.
    pub(super) id: Uuid,
    pub(super) status: Status,
    /// Why it does not run yet, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<Waiting>,
    /// Somebody asked to end it, and the worker has not yet.
    cancel_requested: bool,
    /// It is held until it is resumed; a worker that has it still lets go at its next page boundary.
    paused: bool,
    /// Why it failed, or why it waits for a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<RunErrorView>,
    priority: i16,
    /// Pages read.
    pages: i32,
    /// Records extracted.
    records: i64,
    /// How far it is, if it is a crawl that has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    crawl: Option<CrawlView>,
    /// Records left out and the like.
    pub(super) warnings: i64,
    /// 1 unit is 1 CPU second of worker and browser, and 1 per 100 MB of egress, rounded up.
    pub(super) compute_units_used: i64,
    /// How often a worker took up the page that is next.
    attempts: i32,
    /// How often it was replayed.
    replays: i32,
    /// RFC 3339.
    created_at: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    /// RFC 3339; when it is removed with its results.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// What is told of a run that read every page, of a `ScrapeTask`, a schedule or a watched task: what changed, how well fields were filled,
    /// and what drifted.
    #[serde(flatten)]
    pub(super) report: ReportView,
    /// What is extracted.
    #[schema(schema_with = spec_schema)]
    pub(super) spec: Value,
}

/// Why a task failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunErrorView {
    /// A stable word, such as `HttpStatus`, `Timeout`, `NoRecords`, `EgressRefused`, `AttemptsExhausted`.
    class: String,
    /// One sentence for people.
    message: String,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tasks {
    /// Newest first.
    tasks: Vec<TaskSummary>,
    /// Send it as `cursor` for the next page; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// Lists the caller's tasks, newest first.
#[utoipa::path(
    get, path = "/api/v1/tasks", tag = "tasks", operation_id = "list_tasks", params(ListParams),
    responses((status = 200, body = Tasks), (status = 400, body = Problem), (status = 404, body = Problem)),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Tasks>, Problem> {
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    let status = params.status.map(RunState::from);
    let rows = state.ledger.list(owner, params.cursor.map(TaskId), status).await?;
    let full = i64::try_from(rows.len()) == Ok(PAGE_ROWS);
    let next = rows.last().filter(|_| full).map(|row| row.id.0);
    let tasks = rows.into_iter().map(TaskSummary::read).collect::<Result<_, _>>()?;
    Ok(Json(Tasks { tasks, next }))
}

/// Accepts a task. It is durable before the answer is sent.
#[utoipa::path(
    post, path = "/api/v1/tasks", tag = "tasks", operation_id = "create_task",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 printable characters. The same key with the same \
            body gives the same task; with another body it is refused. Kept for a day at least.")),
    request_body(content = ref("#/components/schemas/CreateTask"), content_type = "application/json"),
    responses(
        (status = 201, body = TaskView, headers(("Location" = String, description = "The task's path"))),
        (status = 400, body = Problem),
        (status = 413, body = Problem),
        (status = 422, body = Problem, description = "Everything that is wrong, at once"),
        (status = 429, body = Problem, description = "A quota is used up, or too many requests"),
    ),
)]
pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Object(body): Object,
) -> Result<Response, Problem> {
    let idempotency = idempotency_key(&headers, Value::Object(body.clone()).to_string().as_bytes())?;
    let task = read_new(body, &state.pools)?;
    admit(&state, &caller, 1, idempotency.as_ref()).await?;
    let accepted = match state.ledger.accept(caller.owner(), &task, idempotency.as_ref()).await {
        Err(LedgerError::IdempotencyConflict) => return Err(Problem::idempotency_mismatch()),
        accepted => accepted?,
    };
    // Only now: the task is committed. A lost offer costs latency, never the task.
    if !accepted.replayed {
        let due_milliseconds = accepted.id.unix_milliseconds();
        state.offer(vec![Entry {
            id: accepted.id,
            owner: caller.owner(),
            host: task.host,
            priority: task.priority,
            due_milliseconds,
        }]);
    }
    let location = format!("/api/v1/tasks/{}", accepted.id);
    let task = match accepted.task {
        Some(task) => {
            let waiting = fetch_waiting(&state, &task).await?;
            TaskView::read(task, waiting)?
        }
        None => visible_task(&state, &caller, accepted.id.0).await?,
    };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(task)).into_response())
}

/// A task.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}", tag = "tasks", operation_id = "get_task",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses((status = 200, body = TaskView), (status = 404, body = Problem)),
)]
pub async fn get(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<Json<TaskView>, Problem> {
    visible_task(&state, &caller, id).await.map(Json)
}

/// Ends a task; what was read before stays. A task that has ended stays as it is.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/cancel", tag = "tasks", operation_id = "cancel_task",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses((status = 200, body = TaskView), (status = 404, body = Problem)),
)]
pub async fn cancel(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<Json<TaskView>, Problem> {
    state
        .ledger
        .cancel(caller.reach(), TaskId(id))
        .await?
        .ok_or_else(Problem::not_found)?;
    visible_task(&state, &caller, id).await.map(Json)
}

/// Deletes a task that has ended, with its results.
#[utoipa::path(
    delete, path = "/api/v1/tasks/{id}", tag = "tasks", operation_id = "delete_task",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 204, description = "The task is gone"),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "The task has not ended; cancel it first"),
    ),
)]
pub async fn delete(State(state): State<AppState>, caller: Caller, Id(id): Id) -> Result<StatusCode, Problem> {
    match state.ledger.delete(caller.reach(), TaskId(id)).await? {
        None => Err(Problem::not_found()),
        Some(false) => Err(Problem::conflict().detail("the task has not ended; cancel it first")),
        Some(true) => Ok(StatusCode::NO_CONTENT),
    }
}

/// The task, when the caller may see it. Whoever may not is told that there is none.
pub(super) async fn visible_task(state: &AppState, caller: &Caller, id: Uuid) -> Result<TaskView, Problem> {
    let task = state.ledger.task(caller.reach(), TaskId(id)).await?;
    let task = task.ok_or_else(Problem::not_found)?;
    let waiting = fetch_waiting(state, &task).await?;
    let report = if task.reported {
        state.ledger.run_report(task.id).await?
    } else {
        None
    };
    let crawl = fetch_progress(state, &task).await?;
    let view = TaskView::read(task, waiting)?;
    Ok(TaskView {
        report: report.map(ReportView::from).unwrap_or_default(),
        crawl,
        ..view
    })
}

/// Whose things are meant: the caller's, or of whom he names. Only an admin may name somebody else.
pub(super) async fn named_owner(state: &AppState, caller: &Caller, name: Option<&str>) -> Result<UserId, Problem> {
    let Some(name) = name.filter(|name| *name != caller.name) else {
        return Ok(caller.owner());
    };
    if caller.role != Role::Admin {
        return Err(Problem::not_found());
    }
    let user = state.ledger.user_by_name(name).await?;
    user.map(|user| user.id).ok_or_else(Problem::not_found)
}

impl TaskView {
    /// Whether it can still change.
    pub(super) fn has_ended(&self) -> bool {
        !RunState::from(self.status).is_open()
    }

    /// Whether it read every page.
    pub(super) fn succeeded(&self) -> bool {
        self.status == Status::Succeeded
    }

    fn read(task: tasks::TaskDetail, waiting: Option<Waiting>) -> Result<Self, Problem> {
        let state = task.state()?;
        let error = task.error_class.zip(task.error_message);
        Ok(Self {
            id: task.id.0,
            status: state.into(),
            waiting,
            cancel_requested: task.cancel_requested && state.is_open(),
            paused: task.paused && state.is_open(),
            error: error.map(|(class, message)| RunError { class, message }.into()),
            priority: task.priority,
            pages: task.pages,
            records: task.records,
            crawl: None,
            warnings: task.warnings,
            compute_units_used: task.compute_units_used,
            attempts: task.attempts,
            replays: task.replays,
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            expires_at: task.expires_at,
            report: ReportView::default(),
            spec: task.spec.0,
        })
    }
}

impl TaskSummary {
    fn read(task: tasks::TaskSummary) -> Result<Self, Problem> {
        let state = RunState::from_ledger(&task.status).ok_or_else(|| {
            tracing::error!(task = %task.id, status = task.status, "A task has a status that this version does not know.");
            Problem::internal()
        })?;
        Ok(Self {
            id: task.id.0,
            name: task.name,
            status: state.into(),
            created_at: task.created_at,
            compute_units_used: task.compute_units_used,
        })
    }
}

impl From<RunState> for Status {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Pending => Self::Pending,
            RunState::Running => Self::Running,
            RunState::Succeeded => Self::Succeeded,
            RunState::Failed => Self::Failed,
            RunState::Canceled => Self::Canceled,
        }
    }
}

impl From<Status> for RunState {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Running => Self::Running,
            Status::Succeeded => Self::Succeeded,
            Status::Failed => Self::Failed,
            Status::Canceled => Self::Canceled,
        }
    }
}

impl From<RunError> for RunErrorView {
    fn from(RunError { class, message }: RunError) -> Self {
        Self { class, message }
    }
}

/// The schema that [`crate::openapi::complete`] adds.
fn spec_schema() -> Ref {
    Ref::from_schema_name("TaskSpec")
}
