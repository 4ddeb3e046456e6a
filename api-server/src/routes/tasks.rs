//! What to extract, and what became of it.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use selextract_platform::{
    frontier::Entry,
    ledger::{
        LedgerError, TaskId, UserId,
        tasks::{self, Idempotency, NewTask, PAGE_ROWS},
    },
    waiting::{self, Facts, HostState, Reason},
};
use selextract_task::{
    Duration, Plan, TaskSpec,
    feed::{RunError, RunState},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema, openapi::Ref};
use uuid::Uuid;

use crate::{
    auth::{Role, caller::Caller},
    params::{Id, Params},
    problem::{FieldError, Problem},
    state::AppState,
    strict::{self, Object},
};

/// The priority of a task that names none, in the middle.
pub const DEFAULT_PRIORITY: u8 = 5;
const MAX_PRIORITY: u8 = 9;
const MAX_IDEMPOTENCY_KEY: usize = 255;
const MAX_TTL: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

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
    /// What is extracted.
    #[schema(schema_with = spec_schema)]
    pub(super) spec: Value,
}

/// Why a pending task does not run yet.
#[derive(Debug, Serialize, ToSchema)]
pub struct Waiting {
    /// Why.
    #[schema(inline)]
    reason: WaitingReason,
    /// RFC 3339; about when it goes on, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

/// Why a pending task does not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub enum WaitingReason {
    /// It may run now and waits for its turn.
    Queued,
    /// Its host was asked as often as politeness allows for the moment.
    DomainLimited,
    /// Its host does not answer, or asked to be left alone.
    HostUnavailable,
    /// Its owner has used up a quota.
    QuotaExceeded,
    /// No worker is there.
    NoWorker,
    /// Somebody paused it.
    Paused,
    /// Its time has not come.
    Scheduled,
    /// It failed, and is tried again after a while.
    RetryBackoff,
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
    let task = read_new(body)?;
    state.quotas.admit(caller.owner(), 1).await?;
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
    let task = visible_task(&state, &caller, accepted.id.0).await?;
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
    TaskView::read(task, waiting)
}

/// Why a pending task does not run yet.
async fn fetch_waiting(state: &AppState, task: &tasks::TaskDetail) -> Result<Option<Waiting>, Problem> {
    if task.state()? != RunState::Pending {
        return Ok(None);
    }
    let now = Timestamp::now();
    let facts = Facts {
        paused: task.paused,
        due: task.due_at.parse().unwrap_or(now),
        attempts: task.attempts,
        quota: state.quotas.holds(task.user_id).await?,
        worker: state.presence.any_worker().await,
        host: HostState::Open,
    };
    Ok(Some(waiting::explain(&facts, now).into()))
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
            warnings: task.warnings,
            compute_units_used: task.compute_units_used,
            attempts: task.attempts,
            replays: task.replays,
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            expires_at: task.expires_at,
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

impl From<waiting::Waiting> for Waiting {
    fn from(waiting: waiting::Waiting) -> Self {
        Self {
            reason: waiting.reason.into(),
            until: waiting.until.map(|until| until.to_string()),
        }
    }
}

impl From<Reason> for WaitingReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Queued => Self::Queued,
            Reason::DomainLimited => Self::DomainLimited,
            Reason::HostUnavailable => Self::HostUnavailable,
            Reason::QuotaExceeded => Self::QuotaExceeded,
            Reason::NoWorker => Self::NoWorker,
            Reason::Paused => Self::Paused,
            Reason::Scheduled => Self::Scheduled,
            Reason::RetryBackoff => Self::RetryBackoff,
        }
    }
}

/// The schema that [`crate::openapi::complete`] adds.
fn spec_schema() -> Ref {
    Ref::from_schema_name("TaskSpec")
}

/// The new task, or everything that is wrong with it.
fn read_new(body: Map<String, Value>) -> Result<NewTask, Problem> {
    let mut errors = Vec::new();
    parse(body, &mut errors).ok_or_else(|| Problem::invalid().errors(errors))
}

/// The spec, which compiles, or everything that is wrong with it.
pub(super) fn read_spec(body: Map<String, Value>) -> Result<TaskSpec, Problem> {
    let mut errors = Vec::new();
    let spec: Option<TaskSpec> = strict::decode(Value::Object(body), &mut errors);
    let plan = spec.as_ref().and_then(|spec| compile(spec, &mut errors));
    let checked = spec.filter(|_| plan.is_some() && errors.is_empty());
    checked.ok_or_else(|| Problem::invalid().errors(errors))
}

/// The new task; everything that is wrong with it goes to `errors`.
pub(super) fn parse(mut body: Map<String, Value>, errors: &mut Vec<FieldError>) -> Option<NewTask> {
    let priority = match body.shift_remove("priority") {
        None => DEFAULT_PRIORITY,
        Some(value) => read_priority(&value).unwrap_or_else(|| {
            let cure = "must be a whole number from 0 (last) to 9 (first)";
            errors.push(FieldError::new("priority", strict::echo(&value), cure));
            DEFAULT_PRIORITY
        }),
    };
    let ttl = body.shift_remove("ttlAfterFinished").and_then(|value| {
        let ttl = read_ttl(&value);
        if ttl.is_none() {
            let cure = "must be a duration of at most 3650d, such as 24h";
            errors.push(FieldError::new("ttlAfterFinished", strict::echo(&value), cure));
        }
        ttl
    });
    let spec: Option<TaskSpec> = strict::decode(Value::Object(body), errors);
    let plan = spec.as_ref().and_then(|spec| compile(spec, errors));
    let (spec, plan) = spec.zip(plan).filter(|_| errors.is_empty())?;
    Some(NewTask {
        spec,
        host: plan.url.host_str().unwrap_or_default().to_owned(),
        priority,
        ttl: ttl.map(Duration::get),
    })
}

fn compile(spec: &TaskSpec, errors: &mut Vec<FieldError>) -> Option<Plan> {
    match spec.compile() {
        Ok(plan) => Some(plan),
        Err(violations) => {
            errors.extend(
                violations
                    .iter()
                    .map(|v| FieldError::new(&v.field, &v.value, &v.message)),
            );
            None
        }
    }
}

fn read_priority(value: &Value) -> Option<u8> {
    let number = u8::try_from(value.as_u64()?).ok()?;
    (number <= MAX_PRIORITY).then_some(number)
}

fn read_ttl(value: &Value) -> Option<Duration> {
    let ttl: Duration = value.as_str()?.parse().ok()?;
    (ttl <= MAX_TTL).then_some(ttl)
}

/// The idempotency key of a request with this body, when it has one.
pub(super) fn idempotency_key(headers: &HeaderMap, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()));
    let key = key
        .ok_or_else(|| Problem::malformed().detail("Idempotency-Key must have 1 to 255 printable ASCII characters"))?;
    Ok(Some(Idempotency {
        key: key.to_owned(),
        body_hash: Sha256::digest(body).into(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(body: Value) -> Vec<String> {
        let Value::Object(body) = body else { panic!("an object") };
        let problem = serde_json::to_value(read_new(body).unwrap_err()).unwrap();
        let errors = problem["errors"].as_array().unwrap().iter();
        errors
            .map(|error| error["field"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn unknown_fields_and_violations_come_in_one_answer() {
        let body = json!({ "url": "ftp://e.com", "colour": "red", "priority": 11, "fields": [{ "name": "1st", "selektor": "a" }] });
        assert_eq!(
            problems(body),
            ["priority", "colour", "fields[0].selektor", "url", "fields[0].name"]
        );
    }

    #[test]
    fn a_missing_field_is_told_beside_unknown_ones() {
        let fields = problems(json!({ "feilds": [], "url": "https://e.com" }));
        assert_eq!(fields[0], "feilds");
        assert_eq!(fields.len(), 2);
    }

    #[test]
    fn the_priority_is_not_a_part_of_the_spec() {
        let body = json!({ "url": "https://e.com", "priority": 9, "fields": [{ "name": "a" }] });
        let task = read_new(body.as_object().unwrap().clone()).unwrap();
        assert_eq!(
            (task.spec.url.as_str(), task.host.as_str(), task.priority),
            ("https://e.com", "e.com", 9)
        );
    }
}
