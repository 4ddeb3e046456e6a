//! Runs that failed, by cause, and their replay.

use axum::{Json, extract::State};
use selextract_platform::ledger::{
    TaskId,
    run_control::{self, REPLAY_BATCH},
    tasks::PAGE_ROWS,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::tasks::named_owner;
use crate::{auth::caller::Caller, params::Params, problem::Problem, state::AppState, strict::Strict};

/// Statements of one request: it replays ten thousand at most.
const BATCHES: usize = 10;

/// Which dead letters are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadLetterParams {
    /// Only those with this cause, such as `Timeout`.
    cause: Option<String>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// For admins: the dead letters of this owner.
    owner: Option<String>,
}

/// Whose causes are counted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CauseParams {
    /// For admins: those of this owner.
    owner: Option<String>,
}

/// Which dead letters are replayed.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ReplayDeadLetters {
    /// Only those with this cause; all without it.
    #[serde(default)]
    cause: Option<String>,
    /// For admins: those of this owner.
    #[serde(default)]
    owner: Option<String>,
}

/// A run that failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetter {
    /// The task's id.
    id: Uuid,
    name: Option<String>,
    /// Its first page.
    url: String,
    /// A stable word, such as `HttpStatus`, `Timeout`, `NoRecords`, `EgressRefused`, `AttemptsExhausted`.
    cause: String,
    /// One sentence for people.
    message: String,
    /// Pages read; a replay goes on behind them.
    pages: i32,
    /// Records extracted.
    records: i64,
    /// How often the failed page was tried.
    attempts: i32,
    /// How often the run was replayed before.
    replays: i32,
    /// RFC 3339.
    failed_at: Option<String>,
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetters {
    /// The newest run first.
    dead_letters: Vec<DeadLetter>,
    /// Send it as `cursor` for the next page; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// How many runs failed for one reason.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cause {
    /// A stable word.
    cause: String,
    /// How many.
    count: i64,
}

/// Why runs failed, the most frequent cause first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Causes {
    causes: Vec<Cause>,
}

/// What a replay did.
#[derive(Debug, Serialize, ToSchema)]
pub struct Replayed {
    /// Runs that wait again.
    replayed: usize,
    /// There are more: send the request again.
    more: bool,
}

/// Lists the runs that failed, newest first.
#[utoipa::path(
    get, path = "/api/v1/dead-letters", tag = "dead-letters", operation_id = "list_dead_letters", params(DeadLetterParams),
    responses((status = 200, body = DeadLetters), (status = 400, body = Problem), (status = 404, body = Problem)),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Params(params): Params<DeadLetterParams>,
) -> Result<Json<DeadLetters>, Problem> {
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    let before = params.cursor.map(TaskId);
    let rows = state
        .ledger
        .dead_letters(owner, params.cause.as_deref(), before)
        .await?;
    let full = i64::try_from(rows.len()) == Ok(PAGE_ROWS);
    let next = rows.last().filter(|_| full).map(|row| row.id.0);
    let dead_letters = rows.into_iter().map(DeadLetter::from).collect();
    Ok(Json(DeadLetters { dead_letters, next }))
}

/// Counts the runs that failed by their cause.
#[utoipa::path(
    get, path = "/api/v1/dead-letters/causes", tag = "dead-letters", operation_id = "dead_letter_causes", params(CauseParams),
    responses((status = 200, body = Causes), (status = 404, body = Problem)),
)]
pub async fn causes(
    State(state): State<AppState>,
    caller: Caller,
    Params(params): Params<CauseParams>,
) -> Result<Json<Causes>, Problem> {
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    let found = state.replica.causes(owner).await?.into_iter();
    let causes = found.map(|run_control::Cause { cause, count }| Cause { cause, count });
    Ok(Json(Causes {
        causes: causes.collect(),
    }))
}

/// Replays the runs that failed, of one cause or of all, ten thousand at most: each goes on behind its last committed page.
#[utoipa::path(
    post, path = "/api/v1/dead-letters/replay", tag = "dead-letters", operation_id = "replay_dead_letters",
    request_body = ReplayDeadLetters,
    responses(
        (status = 200, body = Replayed),
        (status = 404, body = Problem),
        (status = 422, body = Problem),
        (status = 429, body = Problem, description = "The owner may have no further task now"),
    ),
)]
pub async fn replay(
    State(state): State<AppState>,
    caller: Caller,
    Strict(body): Strict<ReplayDeadLetters>,
) -> Result<Json<Replayed>, Problem> {
    let owner = named_owner(&state, &caller, body.owner.as_deref()).await?;
    let (mut replayed, mut more, mut after) = (0, true, None);
    for _ in 0..BATCHES {
        let most = match state.quotas.room(owner).await {
            Ok(room) => room.min(REPLAY_BATCH),
            Err(refused) if replayed == 0 => return Err(refused),
            Err(_) => break,
        };
        let entries = state
            .ledger
            .replay_dead_letters(owner, body.cause.as_deref(), after, most)
            .await?;
        state.quotas.count(owner, entries.len()).await;
        replayed += entries.len();
        more = i64::try_from(entries.len()) == Ok(most);
        // One that fails again meanwhile is not replayed twice.
        after = entries.last().map(|entry| entry.id);
        state.offer(entries);
        if !more {
            break;
        }
    }
    Ok(Json(Replayed { replayed, more }))
}

impl From<run_control::DeadLetter> for DeadLetter {
    fn from(letter: run_control::DeadLetter) -> Self {
        Self {
            id: letter.id.0,
            name: letter.name,
            url: letter.url,
            cause: letter.cause,
            message: letter.message,
            pages: letter.pages,
            records: letter.records,
            attempts: letter.attempts,
            replays: letter.replays,
            failed_at: letter.failed_at,
        }
    }
}
