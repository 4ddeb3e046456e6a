//! What an owner may use and uses.

use axum::{Json, extract::State};
use selextract_platform::ledger::quotas::{self, Usage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::tasks::named_owner;
use crate::{
    auth::caller::{Admin, Caller},
    params::Params,
    problem::{FieldError, Problem},
    state::AppState,
    strict::Strict,
};

/// Whose quotas are meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct QuotaParams {
    /// For admins: those of this owner, a user's name or `k8s:<namespace>`.
    owner: Option<String>,
}

/// What an owner may use. What is missing is the platform's default.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SetQuotas {
    /// Tasks that run at the same time; without it the workers bound them.
    #[serde(default)]
    #[schema(minimum = 0)]
    running: Option<i32>,
    /// Tasks that wait; a million without it.
    #[serde(default)]
    #[schema(minimum = 0)]
    queued: Option<i64>,
    /// Pages of runs that end on a day (UTC); ten million without it.
    #[serde(default)]
    #[schema(minimum = 0)]
    pages_per_day: Option<i64>,
    /// Bytes of artifacts; what does not fit is left out, and the run goes on. What the cluster's spec says without it.
    #[serde(default)]
    #[schema(minimum = 0)]
    artifact_bytes: Option<i64>,
}

/// One quota.
#[derive(Debug, Serialize, ToSchema)]
pub struct Quota {
    /// What is used.
    used: i64,
    /// The most; not there when there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i64>,
}

/// What an owner may use and uses.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotasView {
    /// Tasks that run.
    running: Quota,
    /// Tasks that wait.
    queued: Quota,
    /// Pages that were read today (UTC).
    pages_per_day: Quota,
    /// Bytes of artifacts.
    artifact_bytes: Quota,
}

/// What the caller may use and uses.
#[utoipa::path(
    get, path = "/api/v1/quotas", tag = "users", operation_id = "get_quotas", params(QuotaParams),
    responses((status = 200, body = QuotasView), (status = 404, body = Problem)),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Params(params): Params<QuotaParams>,
) -> Result<Json<QuotasView>, Problem> {
    let owner = named_owner(&state, &caller, params.owner.as_deref()).await?;
    Ok(Json(state.ledger.usage(owner).await?.into()))
}

/// Sets what an owner may use. For admins; it holds within five seconds.
#[utoipa::path(
    put, path = "/api/v1/quotas", tag = "users", operation_id = "set_quotas", params(QuotaParams), request_body = SetQuotas,
    responses(
        (status = 200, body = QuotasView),
        (status = 403, body = Problem),
        (status = 404, body = Problem),
        (status = 422, body = Problem),
    ),
)]
pub async fn set(
    State(state): State<AppState>,
    Admin(admin): Admin,
    Params(params): Params<QuotaParams>,
    Strict(new): Strict<SetQuotas>,
) -> Result<Json<QuotasView>, Problem> {
    let owner = named_owner(&state, &admin, params.owner.as_deref()).await?;
    state.ledger.set_quotas(owner, new.checked()?).await?;
    state.quotas.forget(owner).await;
    Ok(Json(state.ledger.usage(owner).await?.into()))
}

impl SetQuotas {
    fn checked(self) -> Result<quotas::Quotas, Problem> {
        let given = [
            ("running", self.running.map(i64::from)),
            ("queued", self.queued),
            ("pages_per_day", self.pages_per_day),
            ("artifact_bytes", self.artifact_bytes),
        ];
        let negative = given
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.filter(|v| *v < 0)?)));
        let errors: Vec<_> = negative
            .map(|(name, value)| FieldError::new(name, value.to_string(), "must be 0 or more"))
            .collect();
        if !errors.is_empty() {
            return Err(Problem::invalid().errors(errors));
        }
        Ok(quotas::Quotas {
            running: self.running,
            queued: self.queued,
            pages_per_day: self.pages_per_day,
            artifact_bytes: self.artifact_bytes,
        })
    }
}

impl From<Usage> for QuotasView {
    fn from(usage: Usage) -> Self {
        let quota = |used, limit| Quota { used, limit };
        Self {
            running: quota(usage.running, usage.running_limit.map(i64::from)),
            queued: quota(usage.queued, Some(usage.queued_limit)),
            pages_per_day: quota(usage.pages_today, Some(usage.pages_limit)),
            artifact_bytes: quota(usage.artifact_bytes, Some(usage.artifact_limit)),
        }
    }
}
