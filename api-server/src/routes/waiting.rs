//! Why a task waits, as the API says it.

use jiff::Timestamp;
use selextract_platform::{
    frontier::hosts::HostState,
    ledger::tasks::TaskDetail,
    waiting::{self, Facts, Reason},
};
use selextract_task::feed::RunState;
use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use crate::{
    problem::{Problem, UsedUp},
    quotas::Held,
    state::AppState,
};

/// Why a pending task does not run yet.
#[derive(Debug, Serialize, ToSchema)]
pub struct Waiting {
    /// Why.
    #[schema(inline)]
    reason: WaitingReason,
    /// RFC 3339; about when it goes on, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// With `QuotaExceeded`: which.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<UsedUp>,
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

/// Why a pending task does not run yet.
pub(super) async fn fetch_waiting(state: &AppState, task: &TaskDetail) -> Result<Option<Waiting>, Problem> {
    if task.state()? != RunState::Pending {
        return Ok(None);
    }
    let now = Timestamp::now();
    let held = state.quotas.held(task.user_id).await?;
    let facts = Facts {
        paused: task.paused,
        due: task.due_at.parse().unwrap_or(now),
        begun: task.started_at.is_some(),
        attempts: task.attempts,
        error_class: task.error_class.as_deref(),
        quota: held.map(|held| held.until),
        worker: state.presence.any_worker().await,
        host: fetch_host(state, task).await,
    };
    let waiting = waiting::explain(&facts, now);
    let quota = held.filter(|_| waiting.reason == Reason::QuotaExceeded);
    Ok(Some(Waiting {
        reason: waiting.reason.into(),
        until: waiting.until.map(|until| until.to_string()),
        quota: quota.map(|Held { name, used, limit, .. }| UsedUp { name, used, limit }),
    }))
}

/// What the frontier says about the host of the task's first page. One that does not answer says nothing against it.
async fn fetch_host(state: &AppState, task: &TaskDetail) -> HostState {
    let url = task.spec["url"].as_str().and_then(|url| Url::parse(url).ok());
    let Some(host) = url.as_ref().and_then(Url::host_str) else {
        return HostState::Ready;
    };
    match state.frontier.host_states(&[host]).await {
        Ok(states) => states.first().copied().unwrap_or(HostState::Ready),
        Err(error) => {
            tracing::warn!(%error, "The frontier could not say why a task waits.");
            HostState::Ready
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
