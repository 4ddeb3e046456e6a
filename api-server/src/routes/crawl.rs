//! A crawl's pages, how far it is, and running its failed pages again.

use axum::{Json, extract::State};
use selextract_platform::ledger::{
    TaskId,
    crawl::{CrawlPageRow, CrawlProgress, PAGE_LIMIT, PageStatus},
    tasks::TaskDetail,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    run_control::answer,
    tasks::{RunErrorView, TaskView},
};
use crate::{
    auth::caller::Caller,
    params::{Id, Params},
    problem::Problem,
    state::AppState,
};

/// Pages of one answer without `limit`.
const LIMIT: u16 = 100;

/// Which pages of a crawl are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CrawlPageParams {
    /// Only pages in this state.
    #[param(inline)]
    status: Option<CrawlPageStatus>,
    /// `next` of the answer before.
    cursor: Option<Uuid>,
    /// How many at most, 1 to 1,000; 100 without it.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u16>,
}

/// Where a page of a crawl stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CrawlPageStatus {
    /// It waits for its turn, or for a retry.
    Pending,
    /// A worker reads it.
    Running,
    /// It was read.
    Done,
    /// It failed, as often as it may.
    Failed,
    /// It is none that is read: its site forbids it, it leads out of the crawl or to another of its pages, or it is of another kind.
    Skipped,
}

/// What a row of a crawl is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CrawlPageKind {
    /// A page.
    Page,
    /// A sitemap.
    Sitemap,
    /// The robots.txt of the URL's site, read for the sitemaps that it names.
    Robots,
}

/// How far a crawl is.
#[derive(Debug, Serialize, ToSchema)]
pub struct CrawlView {
    /// Pages found so far, which `crawl.maxPages` bounds.
    found: i32,
    /// Pages and sitemaps that wait.
    pending: i32,
    /// Pages and sitemaps that workers read at the moment.
    running: i32,
    /// Pages that were read.
    done: i32,
    /// Pages and sitemaps that failed.
    failed: i32,
    /// Pages that are none that is read.
    skipped: i32,
}

/// A page of a crawl.
#[derive(Debug, Serialize, ToSchema)]
pub struct CrawlPage {
    /// The page's id.
    id: Uuid,
    #[schema(inline)]
    kind: CrawlPageKind,
    /// Its URL, in the one spelling that the crawl knows it by.
    url: String,
    /// How many links away from `url`, seeds and sitemaps it is.
    depth: i16,
    #[schema(inline)]
    status: CrawlPageStatus,
    /// How often a worker took it up.
    attempts: i32,
    /// Records that it gave.
    records: i32,
    /// RFC 3339; while it waits, not before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Why it failed, was skipped, or waits for a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RunErrorView>,
}

/// Some of a crawl's pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct CrawlPages {
    /// In an order that stays and means nothing.
    pages: Vec<CrawlPage>,
    /// Send it as `cursor` for the next pages; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// Lists the pages that a crawl has found, and what became of each. A task that is no crawl has none.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}/pages", tag = "tasks", operation_id = "crawl_pages",
    params(("id" = Uuid, Path, description = "The task's id"), CrawlPageParams),
    responses((status = 200, body = CrawlPages), (status = 400, body = Problem), (status = 404, body = Problem)),
)]
pub async fn pages(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
    Params(params): Params<CrawlPageParams>,
) -> Result<Json<CrawlPages>, Problem> {
    let limit = i64::from(params.limit.unwrap_or(LIMIT));
    if !(1..=PAGE_LIMIT).contains(&limit) {
        return Err(Problem::malformed().detail(format!("limit = {limit}: must be 1 to {PAGE_LIMIT}")));
    }
    let task = state.ledger.task(caller.reach(), TaskId(id)).await?;
    let task = task.ok_or_else(Problem::not_found)?;
    let status = params.status.map(PageStatus::from);
    let after = params.cursor.map(TaskId);
    let rows = state.ledger.crawl_pages(task.id, after, status, limit).await?;
    let full = i64::try_from(rows.len()) == Ok(limit);
    let next = rows.last().filter(|_| full).map(|row| row.id.0);
    let pages = rows.into_iter().map(CrawlPage::read).collect::<Result<_, _>>()?;
    Ok(Json(CrawlPages { pages, next }))
}

/// Lets the failed pages of a crawl run again, with all their attempts. A crawl that had ended runs again until they have ended too.
#[utoipa::path(
    post, path = "/api/v1/tasks/{id}/retry-failed-pages", tag = "tasks", operation_id = "retry_failed_pages",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 200, body = TaskView),
        (status = 404, body = Problem),
        (status = 409, body = Problem, description = "No page of it failed, it was canceled, or it is no crawl"),
    ),
)]
pub async fn retry_failed_pages(
    State(state): State<AppState>,
    caller: Caller,
    Id(id): Id,
) -> Result<Json<TaskView>, Problem> {
    let changed = state.ledger.retry_failed_pages(caller.reach(), TaskId(id)).await?;
    let unfit = "the task is no crawl with failed pages, or it was canceled; there is nothing to run again";
    answer(&state, &caller, id, changed, unfit).await
}

/// How far a crawl is; `None` for a task that is none, or has not begun.
pub(super) async fn fetch_progress(state: &AppState, task: &TaskDetail) -> Result<Option<CrawlView>, Problem> {
    if task.spec.get("crawl").is_none_or(serde_json::Value::is_null) {
        return Ok(None);
    }
    let progress = state.ledger.crawl_progress(task.id).await?;
    Ok(progress.map(CrawlView::from))
}

impl From<CrawlProgress> for CrawlView {
    fn from(progress: CrawlProgress) -> Self {
        Self {
            found: progress.found,
            pending: progress.pending,
            running: progress.running,
            done: progress.done,
            failed: progress.failed,
            skipped: progress.skipped,
        }
    }
}

impl CrawlPage {
    fn read(row: CrawlPageRow) -> Result<Self, Problem> {
        let unknown = || {
            tracing::error!(page = %row.id, status = row.status, kind = row.kind, "A page has a state that this version does not know.");
            Problem::internal()
        };
        let kind = match row.kind.as_str() {
            "page" => CrawlPageKind::Page,
            "sitemap" => CrawlPageKind::Sitemap,
            "robots" => CrawlPageKind::Robots,
            _ => return Err(unknown()),
        };
        let status = PageStatus::from_ledger(&row.status).ok_or_else(unknown)?;
        let error = row.error_class.zip(row.error_message);
        Ok(Self {
            id: row.id.0,
            kind,
            url: row.url,
            depth: row.depth,
            status: status.into(),
            attempts: row.attempts,
            records: row.records,
            due_at: row.due_at,
            ended_at: row.ended_at,
            error: error.map(|(class, message)| selextract_task::feed::RunError { class, message }.into()),
        })
    }
}

impl From<PageStatus> for CrawlPageStatus {
    fn from(status: PageStatus) -> Self {
        match status {
            PageStatus::Pending => Self::Pending,
            PageStatus::Running => Self::Running,
            PageStatus::Done => Self::Done,
            PageStatus::Failed => Self::Failed,
            PageStatus::Skipped => Self::Skipped,
        }
    }
}

impl From<CrawlPageStatus> for PageStatus {
    fn from(status: CrawlPageStatus) -> Self {
        match status {
            CrawlPageStatus::Pending => Self::Pending,
            CrawlPageStatus::Running => Self::Running,
            CrawlPageStatus::Done => Self::Done,
            CrawlPageStatus::Failed => Self::Failed,
            CrawlPageStatus::Skipped => Self::Skipped,
        }
    }
}
