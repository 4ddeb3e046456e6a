//! Schedules: `ScrapeTask`s as the platform knows them, those that users make here, and runs out of turn.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use jiff::Timestamp;
use selextract_platform::ledger::{
    own_schedules::{MOST, Written},
    schedules::{LISTED, RunNow, Scheduled},
    scrape_tasks::Upserted,
};
use selextract_task::{DEFAULT_STARTING_DEADLINE, Duration};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema, openapi::Ref};
use uuid::Uuid;

use super::{
    new_schedule::read_schedule,
    tasks::{TaskView, named_owner, visible_task},
};
use crate::{
    auth::caller::Caller,
    params::{Params, Uid},
    problem::Problem,
    state::AppState,
    strict::Object,
};

/// Whose schedules are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ScheduleParams {
    /// `next` of the page before.
    cursor: Option<String>,
    /// For admins: those of this owner, such as `k8s:<namespace>`.
    owner: Option<String>,
}

/// A `ScrapeTask`, with or without a schedule, or a schedule that a user made here.
#[derive(Debug, Serialize, ToSchema)]
pub struct Schedule {
    /// Its `metadata.uid`, or what it was called here.
    uid: String,
    /// Its `metadata.name`, or its name for people.
    name: String,
    /// `ScrapeTask` or `api`: only who made it can change it.
    made_by: &'static str,
    /// A cron expression; not there when it runs once.
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    /// An IANA time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    /// No new run starts by itself.
    suspend: bool,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_run_at: Option<String>,
    /// The newest run.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<Uuid>,
    /// Where that stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    /// 0 (last) to 9 (first).
    priority: i16,
    /// What a tick does while a run is under way: `Allow`, `Forbid` or `Replace`.
    concurrency_policy: String,
    /// How late a tick may start its run.
    #[schema(example = "10m")]
    starting_deadline: String,
    /// Ticks that started no run: too late, or overtaken by the next one.
    missed_ticks: i64,
    /// RFC 3339; when one was missed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_missed_at: Option<String>,
    /// Why the tick that is due waits: a quota is used up. It starts when there is room again, until its deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    /// What a changed task does to a run that is under way: `Replace` or `Forbid`.
    on_change: String,
    /// How long a finished run is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "24h")]
    ttl_after_finished: Option<String>,
    /// How many succeeded runs are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    successful_runs_history_limit: Option<i32>,
    /// How many failed and canceled runs are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_runs_history_limit: Option<i32>,
    /// What is extracted; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = spec_schema)]
    task: Option<Value>,
}

/// A page of schedules, by uid.
#[derive(Debug, Serialize, ToSchema)]
pub struct Schedules {
    schedules: Vec<Schedule>,
    /// Send it as `cursor` for the next page; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists the `ScrapeTask`s of an owner, with and without a schedule, and the schedules that were made here.
#[utoipa::path(
    get, path = "/api/v1/schedules", tag = "tasks", operation_id = "list_schedules", params(ScheduleParams),
    responses((status = 200, body = Schedules), (status = 404, body = Problem)),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Params(params): Params<ScheduleParams>,
) -> Result<Json<Schedules>, Problem> {
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    let rows = state.ledger.schedules(owner, params.cursor.as_deref()).await?;
    let full = i64::try_from(rows.len()) == Ok(LISTED);
    let next = rows.last().filter(|_| full).map(|row| row.uid.clone());
    let schedules = rows.into_iter().map(Schedule::from).collect();
    Ok(Json(Schedules { schedules, next }))
}

/// Makes a schedule of the caller; a thousand at most. It runs from its next tick on.
#[utoipa::path(
    post, path = "/api/v1/schedules", tag = "tasks", operation_id = "create_schedule",
    request_body(content = ref("#/components/schemas/CreateSchedule"), content_type = "application/json"),
    responses(
        (status = 201, body = Schedule, headers(("Location" = String, description = "The schedule's path"))),
        (status = 409, body = Problem, description = "The caller has a thousand"),
        (status = 422, body = Problem, description = "Everything that is wrong, at once"),
    ),
)]
pub async fn create(State(state): State<AppState>, caller: Caller, Object(body): Object) -> Result<Response, Problem> {
    let item = read_schedule(Uuid::now_v7().to_string(), body, &state.pools)?;
    let written = state
        .ledger
        .create_schedule(caller.owner(), &item, Timestamp::now())
        .await?;
    done(&state, written)?;
    let schedule = visible(&state, &caller, &item.item.uid).await?;
    let location = format!("/api/v1/schedules/{}", schedule.uid);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(schedule)).into_response())
}

/// A schedule with its task.
#[utoipa::path(
    get, path = "/api/v1/schedules/{uid}", tag = "tasks", operation_id = "get_schedule",
    params(("uid" = String, Path, description = "The schedule's uid")),
    responses((status = 200, body = Schedule), (status = 404, body = Problem)),
)]
pub async fn get(State(state): State<AppState>, caller: Caller, Uid(uid): Uid) -> Result<Json<Schedule>, Problem> {
    visible(&state, &caller, &uid).await.map(Json)
}

/// Writes a schedule that was made here anew, as a whole: with `suspend` it rests, and without it goes on. A changed task holds from the
/// next tick, but replaces a run that is under way at once, unless `onChange` is Forbid.
#[utoipa::path(
    put, path = "/api/v1/schedules/{uid}", tag = "tasks", operation_id = "replace_schedule",
    params(("uid" = String, Path, description = "The schedule's uid")),
    request_body(content = ref("#/components/schemas/CreateSchedule"), content_type = "application/json"),
    responses(
        (status = 200, body = Schedule),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "It is a ScrapeTask's, or a run is under way and onChange is Forbid"),
        (status = 422, body = Problem, description = "Everything that is wrong, at once"),
    ),
)]
pub async fn replace(
    State(state): State<AppState>,
    caller: Caller,
    Uid(uid): Uid,
    Object(body): Object,
) -> Result<Json<Schedule>, Problem> {
    let item = read_schedule(uid, body, &state.pools)?;
    let written = state
        .ledger
        .replace_schedule(caller.reach(), &item, Timestamp::now())
        .await?;
    done(&state, written)?;
    visible(&state, &caller, &item.item.uid).await.map(Json)
}

/// Removes a schedule that was made here. A run that is under way is canceled; results stay.
#[utoipa::path(
    delete, path = "/api/v1/schedules/{uid}", tag = "tasks", operation_id = "delete_schedule",
    params(("uid" = String, Path, description = "The schedule's uid")),
    responses(
        (status = 204, description = "The schedule is gone"),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "It is a ScrapeTask's"),
    ),
)]
pub async fn delete(State(state): State<AppState>, caller: Caller, Uid(uid): Uid) -> Result<StatusCode, Problem> {
    changed(state.ledger.remove_schedule(caller.reach(), &uid).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The schedule, when the caller may see it. Whoever may not is told that there is none.
async fn visible(state: &AppState, caller: &Caller, uid: &str) -> Result<Schedule, Problem> {
    let found = state.ledger.schedule(caller.reach(), uid).await?;
    found.map(Schedule::from).ok_or_else(Problem::not_found)
}

/// Offers the run that a change started.
fn done(state: &AppState, written: Written<Upserted>) -> Result<(), Problem> {
    let Upserted { answer, started } = changed(written)?;
    if let Some(refused) = answer.refused {
        return Err(Problem::conflict().detail(refused));
    }
    state.offer(started.into_iter().collect());
    Ok(())
}

fn changed<T>(written: Written<T>) -> Result<T, Problem> {
    match written {
        Written::Done(done) => Ok(done),
        Written::Missing => Err(Problem::not_found()),
        Written::OfScrapeTask => Err(Problem::conflict().detail("it is a ScrapeTask; change it in Kubernetes")),
        Written::TooMany => Err(Problem::conflict().detail(format!("there are {MOST} schedules; remove one first"))),
    }
}

fn spec_schema() -> Ref {
    Ref::from_schema_name("TaskSpec")
}

/// Runs a schedule's task now, whatever its schedule says and also while it is suspended.
#[utoipa::path(
    post, path = "/api/v1/schedules/{uid}/run", tag = "tasks", operation_id = "run_schedule",
    params(("uid" = String, Path, description = "The ScrapeTask's metadata.uid")),
    responses(
        (status = 201, body = TaskView, headers(("Location" = String, description = "The run's path"))),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "A run of it is under way"),
        (status = 429, body = Problem, description = "The owner may have no further task now"),
    ),
)]
pub async fn run(State(state): State<AppState>, caller: Caller, Uid(uid): Uid) -> Result<Response, Problem> {
    let owner = state.ledger.schedule_owner(caller.reach(), &uid).await?;
    state.quotas.room(owner.ok_or_else(Problem::not_found)?).await?;
    let entry = match state.ledger.run_now(caller.reach(), &uid).await? {
        RunNow::Missing => return Err(Problem::not_found()),
        RunNow::UnderWay(id) => {
            let detail = format!("the run {id} of it is under way; wait for its end, or cancel it");
            return Err(Problem::conflict().detail(detail));
        }
        RunNow::Started(entry) => entry,
    };
    let id = entry.id;
    state.quotas.count(entry.owner, 1).await;
    state.offer(vec![entry]);
    let location = format!("/api/v1/tasks/{id}");
    let task = visible_task(&state, &caller, id.0).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(task)).into_response())
}

impl From<Scheduled> for Schedule {
    fn from(row: Scheduled) -> Self {
        let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Self {
            made_by: if row.from_api { "api" } else { "ScrapeTask" },
            priority: row.priority,
            concurrency_policy: row.concurrency_policy,
            starting_deadline: row
                .starting_deadline_seconds
                .map_or(DEFAULT_STARTING_DEADLINE, seconds)
                .to_string(),
            missed_ticks: row.missed_ticks,
            last_missed_at: row.last_missed_at,
            held: row.held,
            on_change: row.on_change,
            ttl_after_finished: row.ttl_seconds.map(|ttl| seconds(ttl).to_string()),
            successful_runs_history_limit: row.keep_succeeded,
            failed_runs_history_limit: row.keep_failed,
            task: row.spec.map(|spec| spec.0),
            uid: row.uid,
            name: row.name,
            cron: row.cron,
            time_zone: row.time_zone,
            suspend: row.suspend,
            next_run_at: row.next_run_at,
            task_id: row.task_id.map(|id| id.0),
            status: row.status,
        }
    }
}
