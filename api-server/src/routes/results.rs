//! What a task extracted: JSON in pages, NDJSON and CSV as streams.
//!
//! A stream reads the ledger page by page in short statements: a slow reader holds no database connection.

use std::io;

use async_stream::try_stream;
use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue, header};
use selextract_platform::ledger::{Ledger, LedgerError, TaskId, pages::Page};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::tasks::{RunErrorView, Status, TaskView, visible_task};
use crate::{
    auth::caller::Caller,
    export::{Lines, Record},
    params::{Id, Params},
    problem::Problem,
    state::AppState,
};

/// Pages of a task in one JSON answer, and in one read of a stream.
const PAGES: u16 = 20;
const MAX_PAGES: u16 = 100;

/// Which results are wanted, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResultParams {
    /// Goes before the header `Accept`.
    #[param(inline)]
    format: Option<Format>,
    /// For JSON: `next` of the answer before.
    cursor: Option<i32>,
    /// For JSON: how many pages of the task at most, 1 to 100; 20 without it.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u16>,
}

/// A format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One object with some pages' records.
    Json,
    /// Every record, one JSON object a line.
    Ndjson,
    /// Every record, with a header; cells that a spreadsheet would take for a formula begin with an apostrophe.
    Csv,
}

/// The results of a task: some of its pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct Results {
    /// Where the task stands.
    status: Status,
    /// The records of the pages, in their order.
    #[schema(value_type = Vec<Object>)]
    records: Vec<Record>,
    /// The pages that the records are from.
    pages: Vec<PageView>,
    /// Why the task failed; empty when it did not.
    errors: Vec<RunErrorView>,
    /// Records left out and the like, over the whole task.
    warnings: i64,
    /// 1 unit is 1 CPU second of worker and browser, and 1 per 100 MB of egress, rounded up.
    compute_units_used: i64,
    /// Send it as `cursor` for the next pages; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i32>,
}

/// A page of a task that was read.
#[derive(Debug, Serialize, ToSchema)]
pub struct PageView {
    /// Its place in the run.
    page: i32,
    /// Its address.
    url: String,
    /// When it was read, RFC 3339.
    fetched_at: String,
    /// How many records it gave.
    records: i32,
    /// The site said that it is as it was, and its records are those of a former run.
    not_modified: bool,
}

/// The records of a task, as JSON, NDJSON or CSV by `format` or by the header `Accept`.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}/results", tag = "tasks", operation_id = "task_results",
    params(("id" = Uuid, Path, description = "The task's id"), ResultParams),
    responses(
        (status = 200, description = "The records", content(
            (Results = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 404, body = Problem),
        (status = 406, body = Problem),
    ),
)]
pub async fn results(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    Params(params): Params<ResultParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let format = params
        .format
        .or_else(|| accepted(&headers))
        .ok_or_else(Problem::not_acceptable)?;
    let task = visible_task(&state, &caller, id).await?;
    // Watched tasks may ask for changes alone. What was not compared is held whole.
    let report = if task.succeeded() && task.report.is_there() {
        state.ledger.run_report(TaskId(id)).await?
    } else {
        None
    };
    let source = Source {
        id: TaskId(id),
        changes_only: report.is_some_and(|report| report.leaves_out_the_same()),
    };
    match format {
        Format::Json => json(&state, task, source, &params)
            .await
            .map(IntoResponse::into_response),
        Format::Ndjson => Ok(lines(state, &task, source, Lines::Ndjson)),
        Format::Csv => Ok(lines(state, &task, source, Lines::Csv)),
    }
}

/// Whose pages are read, and what is left out of them.
#[derive(Clone, Copy, Debug)]
struct Source {
    id: TaskId,
    /// Records that are the same as in the run before are left out.
    changes_only: bool,
}

impl Source {
    async fn pages(self, ledger: &Ledger, after: i32, limit: u16) -> Result<Vec<Page>, LedgerError> {
        let mut pages = ledger.pages(self.id, after, limit.into()).await?;
        if self.changes_only {
            ledger.keep_changes(self.id, &mut pages).await?;
        }
        Ok(pages)
    }
}

/// The first format that the client names; all of them are fine with a client that names none.
fn accepted(headers: &HeaderMap) -> Option<Format> {
    let Some(accept) = headers.get(header::ACCEPT) else {
        return Some(Format::Json);
    };
    let ranges = accept.to_str().unwrap_or_default().split(',');
    let known: Vec<_> = ranges.filter_map(range).collect();
    // `max_by` gives the last of equals; the client's first goes first.
    known
        .iter()
        .rev()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(format, _)| *format)
}

/// A media range with its weight, when it is one of ours.
fn range(text: &str) -> Option<(Format, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "*/*" | "application/*" | "application/json" => Format::Json,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Format::Ndjson,
        "text/csv" | "text/*" => Format::Csv,
        _ => return None,
    };
    let weight = parts
        .find_map(|part| part.strip_prefix("q="))
        .map_or(Some(1.0), |q| q.parse().ok())?;
    (weight > 0.0).then_some((format, weight))
}

async fn json(
    state: &AppState,
    task: TaskView,
    source: Source,
    params: &ResultParams,
) -> Result<Json<Results>, Problem> {
    let limit = params.limit.unwrap_or(PAGES);
    if !(1..=MAX_PAGES).contains(&limit) {
        return Err(Problem::malformed().detail(format!("limit must be 1 to {MAX_PAGES}")));
    }
    let pages = source
        .pages(&state.ledger, params.cursor.unwrap_or_default(), limit)
        .await?;
    let next = pages
        .last()
        .filter(|_| pages.len() == usize::from(limit))
        .map(|page| page.number);
    let mut answer = Results {
        status: task.status,
        records: Vec::new(),
        pages: Vec::with_capacity(pages.len()),
        errors: task.error.into_iter().collect(),
        warnings: task.warnings,
        compute_units_used: task.compute_units_used,
        next,
    };
    for page in pages {
        answer.pages.push(PageView {
            page: page.number,
            url: page.url,
            fetched_at: page.fetched_at,
            records: i32::try_from(page.records.len()).unwrap_or(i32::MAX),
            not_modified: page.not_modified,
        });
        answer.records.extend(page.records);
    }
    Ok(Json(answer))
}

fn lines(state: AppState, task: &TaskView, source: Source, format: Lines) -> Response {
    let columns = columns(&task.spec);
    let mut response = Body::from_stream(stream(state, source, columns, format)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if format == Lines::Csv {
        let disposition = format!("attachment; filename=\"{}.csv\"", task.id);
        // A UUID is always a header's value.
        if let Ok(value) = HeaderValue::from_str(&disposition) {
            headers.insert(header::CONTENT_DISPOSITION, value);
        }
    }
    response
}

/// The names of the fields, in the order of the stored spec.
fn columns(spec: &Value) -> Vec<String> {
    let fields = spec["fields"].as_array().into_iter().flatten();
    fields
        .filter_map(|field| field["name"].as_str().map(str::to_owned))
        .collect()
}

/// The lines of every page. An error in the middle ends the body without its last chunk, so that the client sees it cut off.
fn stream(
    state: AppState,
    source: Source,
    columns: Vec<String>,
    format: Lines,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    try_stream! {
        yield format.head(&columns)?;
        let mut after = 0;
        loop {
            let pages = source.pages(&state.ledger, after, PAGES).await.map_err(|error| {
                tracing::error!(%error, task = %source.id, "Reading results failed in the middle of a stream.");
                io::Error::other("the results could not be read")
            })?;
            let Some(last) = pages.last() else { break };
            after = last.number;
            let full = pages.len() == usize::from(PAGES);
            for page in pages {
                yield format.page(&columns, &page.records)?;
            }
            if !full {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> Option<Format> {
        accepted(&HeaderMap::from_iter([(
            header::ACCEPT,
            HeaderValue::from_static(value),
        )]))
    }

    #[test]
    fn the_format_is_the_clients_choice() {
        assert_eq!(accepted(&HeaderMap::new()), Some(Format::Json));
        assert_eq!(accept("text/csv"), Some(Format::Csv));
        assert_eq!(accept("text/html, application/x-ndjson;q=0.5"), Some(Format::Ndjson));
        assert_eq!(accept("application/json;q=0.1, text/csv;q=0.9"), Some(Format::Csv));
        assert_eq!(
            accept("application/x-ndjson, */*"),
            Some(Format::Ndjson),
            "the first of equals"
        );
        assert_eq!(accept("*/*"), Some(Format::Json));
        assert_eq!(accept("image/png"), None);
        assert_eq!(accept("text/csv;q=0"), None);
    }
}
