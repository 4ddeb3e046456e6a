//! `ScrapeTask`s as the platform knows them, and their runs out of turn.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use selextract_platform::ledger::schedules::{LISTED, RunNow, Scheduled};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::tasks::{TaskView, named_owner, visible_task};
use crate::{
    auth::caller::Caller,
    params::{Params, Uid},
    problem::Problem,
    state::AppState,
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

/// A `ScrapeTask`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Schedule {
    /// Its `metadata.uid`.
    uid: String,
    /// Its `metadata.name`.
    name: String,
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
}

/// A page of schedules, by uid.
#[derive(Debug, Serialize, ToSchema)]
pub struct Schedules {
    schedules: Vec<Schedule>,
    /// Send it as `cursor` for the next page; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists the `ScrapeTask`s of an owner, with and without a schedule.
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

/// Runs a `ScrapeTask` now, whatever its schedule says and also while it is suspended.
#[utoipa::path(
    post, path = "/api/v1/schedules/{uid}/run", tag = "tasks", operation_id = "run_schedule",
    params(("uid" = String, Path, description = "The ScrapeTask's metadata.uid")),
    responses(
        (status = 201, body = TaskView, headers(("Location" = String, description = "The run's path"))),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "A run of it is under way"),
    ),
)]
pub async fn run(State(state): State<AppState>, caller: Caller, Uid(uid): Uid) -> Result<Response, Problem> {
    let entry = match state.ledger.run_now(caller.reach(), &uid).await? {
        RunNow::Missing => return Err(Problem::not_found()),
        RunNow::UnderWay(id) => {
            let detail = format!("the run {id} of it is under way; wait for its end, or cancel it");
            return Err(Problem::conflict().detail(detail));
        }
        RunNow::Started(entry) => entry,
    };
    let id = entry.id;
    state.offer(vec![entry]);
    let location = format!("/api/v1/tasks/{id}");
    let task = visible_task(&state, &caller, id.0).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(task)).into_response())
}

impl From<Scheduled> for Schedule {
    fn from(row: Scheduled) -> Self {
        Self {
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
