//! Many tasks in one request, all or none.

use axum::{
    Json,
    extract::{FromRequest, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::StatusCode;
use selextract_platform::{
    frontier::Entry,
    ledger::{LedgerError, batch::MAX_BATCH, tasks::NewTask},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use utoipa::ToSchema;
use uuid::Uuid;

use super::new_task::{admit, idempotency_key, parse};
use crate::{
    auth::caller::Caller,
    pools::Pools,
    problem::{FieldError, Problem},
    state::AppState,
    strict::JsonBody,
};

/// The largest body of a batch: ten thousand specs of 1.6 KB.
pub const BODY_LIMIT: usize = 16 << 20;
/// The most errors that are told at once.
const MAX_ERRORS: usize = 100;

/// What is read of the body at first: each task is taken apart by itself, so that a large batch is never in memory twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    tasks: Vec<&'a RawValue>,
}

/// The tasks that were accepted.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAccepted {
    /// Their ids, in the order of the request.
    ids: Vec<Uuid>,
}

/// Accepts up to 10,000 tasks, all or none. They are durable before the answer is sent.
#[utoipa::path(
    post, path = "/api/v1/tasks:batch", tag = "tasks", operation_id = "create_tasks",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 printable characters, for the whole batch. The same key \
            with the same body gives the same tasks; with another body it is refused. Kept for a day at least.")),
    request_body(content = ref("#/components/schemas/CreateTasks"), content_type = "application/json"),
    responses(
        (status = 201, body = BatchAccepted),
        (status = 400, body = Problem),
        (status = 413, body = Problem),
        (status = 422, body = Problem, description = "What is wrong, up to a hundred fields; no task was accepted"),
        (status = 429, body = Problem, description = "A quota is used up; no task was accepted"),
        (status = 503, body = Problem, description = "Too many batches at a time"),
    ),
)]
pub async fn create(State(state): State<AppState>, caller: Caller, request: Request) -> Result<Response, Problem> {
    // Before the body is read: a batch takes some times its size of memory.
    let busy = |_| Problem::unavailable().detail("too many batches come at a time; come back in a moment");
    let turn = state.batches.try_acquire().map_err(busy)?;
    let headers = request.headers().clone();
    let JsonBody(body) = JsonBody::from_request(request, &state).await?;
    let idempotency = idempotency_key(&headers, &body)?;
    let pools = state.pools.clone();
    let tasks = tokio::task::spawn_blocking(move || read(&body, &pools))
        .await
        .map_err(|error| {
            tracing::error!(%error, "Checking a batch failed.");
            Problem::internal()
        })??;
    let owner = caller.owner();
    admit(&state, &caller, tasks.len(), idempotency.as_ref()).await?;
    let accepted = match state.ledger.accept_batch(owner, &tasks, idempotency.as_ref()).await {
        Err(LedgerError::IdempotencyConflict) => return Err(Problem::idempotency_mismatch()),
        accepted => accepted?,
    };
    if !accepted.replayed {
        let entries = accepted.ids.iter().zip(tasks).map(|(id, task)| Entry {
            id: *id,
            owner,
            host: task.host,
            priority: task.priority,
            due_milliseconds: id.unix_milliseconds(),
        });
        state.offer(entries.collect());
    }
    drop(turn);
    let ids = accepted.ids.into_iter().map(|id| id.0).collect();
    Ok((StatusCode::CREATED, Json(BatchAccepted { ids })).into_response())
}

/// Every task, or what is wrong with them.
fn read(body: &Bytes, pools: &Pools) -> Result<Vec<NewTask>, Problem> {
    let Batch { tasks } = serde_json::from_slice(body).map_err(|error| {
        Problem::malformed().detail(format!(
            "the body must be {{\"tasks\": […]}}: line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    if tasks.is_empty() || tasks.len() > MAX_BATCH {
        let message = format!("must have 1 to {MAX_BATCH} tasks; send the rest in further requests");
        return Err(Problem::field("tasks", tasks.len().to_string(), message));
    }
    let mut errors = Vec::new();
    let mut read = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.into_iter().enumerate() {
        let mut wrong = Vec::new();
        match serde_json::from_str::<Map<String, Value>>(task.get()) {
            Ok(task) => read.extend(parse(task, pools, &mut wrong)),
            Err(_) => wrong.push(FieldError::new("", "", "must be a JSON object")),
        }
        errors.extend(wrong.into_iter().map(|error| error.within(&format!("tasks[{index}]"))));
        if errors.len() >= MAX_ERRORS {
            break;
        }
    }
    errors.truncate(MAX_ERRORS);
    if errors.is_empty() {
        Ok(read)
    } else {
        Err(Problem::invalid().errors(errors))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(value: &Value) -> Bytes {
        value.to_string().into()
    }

    #[test]
    fn what_is_wrong_is_told_with_the_tasks_place_and_is_bounded() {
        let good = json!({ "url": "https://e.com", "fields": [{ "name": "a" }] });
        assert_eq!(
            read(&body(&json!({ "tasks": [good, good] })), &Pools::default())
                .unwrap()
                .len(),
            2
        );
        let wrong = read(
            &body(&json!({ "tasks": [good, { "url": "ftp://e.com", "colour": 1 }, 7] })),
            &Pools::default(),
        )
        .unwrap_err();
        let told = serde_json::to_value(&wrong).unwrap();
        let fields: Vec<_> = told["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["field"].as_str().unwrap())
            .collect();
        assert_eq!(
            fields,
            ["tasks[1].colour", "tasks[1].url", "tasks[1].fields", "tasks[2]"]
        );
        let many = vec![json!({ "url": "x", "fields": [] }); 200];
        let many =
            serde_json::to_value(read(&body(&json!({ "tasks": many })), &Pools::default()).unwrap_err()).unwrap();
        assert_eq!(many["errors"].as_array().unwrap().len(), MAX_ERRORS);
        for malformed in [
            json!({ "tasks": [] }),
            json!([good]),
            json!({ "tasks": [good], "x": 1 }),
        ] {
            assert!(read(&body(&malformed), &Pools::default()).is_err(), "{malformed}");
        }
    }
}
