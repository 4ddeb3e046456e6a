//! Why a task waits, as the API says it.

use jiff::Timestamp;
use selextract_platform::{
    frontier::hosts::HostState,
    ledger::{crawl::WaitingPage, tasks::TaskDetail},
    waiting::{self, Facts, Reason},
};
use selextract_task::feed::RunState;
use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use crate::{
    problem::{Problem, UsedUp},
    quotas::{Held, RUNNING},
    state::AppState,
};

/// Why a task waits: one that is pending, or a crawl of which no page is read at the moment.
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

/// Why a task waits: one that is pending, or a crawl of which no page is read at the moment.
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

/// Why a task waits: one that is pending, or a crawl of which no page is read at the moment.
pub(super) async fn fetch_waiting(state: &AppState, task: &TaskDetail) -> Result<Option<Waiting>, Problem> {
    let now = Timestamp::now();
    let waits = match task.state()? {
        RunState::Pending => Waits::of_task(task, now),
        // A crawl that has begun runs without a worker; any other run is a worker's.
        RunState::Running if task.spec["crawl"].is_object() => match state.ledger.waiting_page(task.id).await? {
            Some(page) => Waits::of_page(page, now),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let held = state.quotas.held(task.user_id).await?.filter(|held| waits.counts(held));
    let facts = Facts {
        paused: task.paused,
        due: waits.due,
        begun: task.started_at.is_some(),
        attempts: waits.attempts,
        error_class: waits.error_class.as_deref(),
        quota: held.map(|held| held.until),
        worker: state.presence.any_worker().await,
        host: fetch_host(state, waits.host.as_deref()).await,
    };
    let waiting = waiting::explain(&facts, now);
    let quota = held.filter(|_| waiting.reason == Reason::QuotaExceeded);
    Ok(Some(Waiting {
        reason: waiting.reason.into(),
        until: waiting.until.map(|until| until.to_string()),
        quota: quota.map(|Held { name, used, limit, .. }| UsedUp { name, used, limit }),
    }))
}

/// What waits: a task, or the page of a crawl that is due first.
struct Waits {
    host: Option<String>,
    due: Timestamp,
    attempts: i32,
    error_class: Option<String>,
    begun_crawl: bool,
}

impl Waits {
    fn of_task(task: &TaskDetail, now: Timestamp) -> Self {
        let url = task.spec["url"].as_str().and_then(|url| Url::parse(url).ok());
        Self {
            host: url.as_ref().and_then(Url::host_str).map(str::to_owned),
            due: task.due_at.parse().unwrap_or(now),
            attempts: task.attempts,
            error_class: task.error_class.clone(),
            begun_crawl: false,
        }
    }

    fn of_page(page: WaitingPage, now: Timestamp) -> Self {
        Self {
            host: Some(page.host),
            due: Timestamp::from_millisecond(page.due_milliseconds).unwrap_or(now),
            attempts: page.attempts,
            error_class: page.error_class,
            begun_crawl: true,
        }
    }

    /// Whether a quota holds it. A crawl that has begun is one of the running tasks, and its pages are not held by their number.
    fn counts(&self, held: &Held) -> bool {
        !(self.begun_crawl && held.name == RUNNING)
    }
}

/// What the frontier says about the host of what is read next. One that does not answer says nothing against it.
async fn fetch_host(state: &AppState, host: Option<&str>) -> HostState {
    let Some(host) = host else {
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
