//! Counts and trends: read from the replicas, kept for a while.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::header;
use selextract_platform::ledger::stats::{self, OwnerStats};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    auth::caller::{Admin, Caller},
    params::Params,
    problem::Problem,
    state::AppState,
};

/// Which time the analytics are about.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AnalyticsParams {
    /// `24h`, `7d` or `30d`; `24h` without it.
    #[serde(default)]
    #[param(inline)]
    period: Period,
}

/// How far back the analytics look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub enum Period {
    /// The last day.
    #[default]
    #[serde(rename = "24h")]
    Day,
    /// The last week.
    #[serde(rename = "7d")]
    Week,
    /// The last month.
    #[serde(rename = "30d")]
    Month,
}

/// What the caller has done so far.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    /// Tasks accepted.
    tasks: i64,
    /// Tasks that wait or run.
    open: i64,
    /// Tasks that read every page.
    succeeded: i64,
    /// Tasks that ended with an error.
    failed: i64,
    /// Tasks that somebody ended.
    canceled: i64,
    /// Pages of ended tasks.
    pages: i64,
    /// Records of ended tasks.
    records: i64,
    /// Compute units of ended tasks.
    compute_units_used: i64,
}

/// What the platform did in the period.
#[derive(Debug, Serialize, ToSchema)]
pub struct Analytics {
    period: Period,
    /// Tasks accepted in the period.
    tasks: i64,
    /// Of them, how many succeeded so far.
    succeeded: i64,
    /// Of them, how many failed so far.
    failed: i64,
    /// Pages read.
    pages: i64,
    /// Records extracted.
    records: i64,
    /// Compute units used.
    compute_units_used: i64,
    /// Owners with a task.
    owners: i64,
    /// Half of the ended tasks took at most this long from acceptance to end, in seconds.
    p50_seconds: Option<f64>,
    /// 95 of 100 ended tasks took at most this long, in seconds.
    p95_seconds: Option<f64>,
}

impl From<OwnerStats> for Stats {
    fn from(stats: OwnerStats) -> Self {
        Self {
            tasks: stats.total,
            open: stats.open,
            succeeded: stats.succeeded,
            failed: stats.failed,
            canceled: stats.canceled,
            pages: stats.pages,
            records: stats.records,
            compute_units_used: stats.compute_units,
        }
    }
}

impl Analytics {
    fn new(period: Period, figures: &stats::Analytics) -> Self {
        Self {
            period,
            tasks: figures.tasks,
            succeeded: figures.succeeded,
            failed: figures.failed,
            pages: figures.pages,
            records: figures.records,
            compute_units_used: figures.compute_units,
            owners: figures.owners,
            p50_seconds: figures.p50_seconds,
            p95_seconds: figures.p95_seconds,
        }
    }
}

impl Period {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
        }
    }

    const fn seconds(self) -> i64 {
        const DAY: i64 = 24 * 60 * 60;
        match self {
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
        }
    }
}

/// The caller's counts, at most five minutes old.
#[utoipa::path(
    get, path = "/api/v1/dashboard/stats", tag = "insight", operation_id = "dashboard_stats",
    responses((status = 200, body = Stats)),
)]
pub async fn dashboard(State(state): State<AppState>, caller: Caller) -> Result<Response, Problem> {
    let owner = caller.owner();
    // The guide's key ("API Response Caching").
    let key = format!("user_stats:{owner}");
    let compute = async { body(&Stats::from(state.replica.owner_stats(owner).await?)) };
    state.stats.get(&key, compute).await.map(json)
}

/// Trends of the whole platform, at most an hour old. For admins.
#[utoipa::path(
    get, path = "/api/v1/analytics", tag = "insight", operation_id = "analytics", params(AnalyticsParams),
    responses((status = 200, body = Analytics), (status = 403, body = Problem)),
)]
pub async fn analytics(
    State(state): State<AppState>,
    _: Admin,
    Params(params): Params<AnalyticsParams>,
) -> Result<Response, Problem> {
    let key = format!("platform_analytics:{}", params.period.as_str());
    let compute = async {
        body(&Analytics::new(
            params.period,
            &state.replica.analytics(params.period.seconds()).await?,
        ))
    };
    state.analytics.get(&key, compute).await.map(json)
}

fn body(value: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| {
        tracing::error!(%error, "An answer could not be written as JSON.");
        Problem::internal()
    })
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response()
}
