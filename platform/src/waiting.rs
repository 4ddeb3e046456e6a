//! Why a task waits, and about how long. Pure: facts and the time are passed in.
//!
//! The ledger knows its own reasons; what the frontier knows of the task's host comes as a [`HostState`].

use std::time::Duration;

use jiff::Timestamp;

use crate::frontier::hosts::HostState;

/// Why a task waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
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

impl Reason {
    /// As the API, the change feed and conditions write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::DomainLimited => "DomainLimited",
            Self::HostUnavailable => "HostUnavailable",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::NoWorker => "NoWorker",
            Self::Paused => "Paused",
            Self::Scheduled => "Scheduled",
            Self::RetryBackoff => "RetryBackoff",
        }
    }
}

/// What is known about a task that waits.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Somebody paused it.
    pub paused: bool,
    /// Not before this moment.
    pub due: Timestamp,
    /// A worker had it before.
    pub begun: bool,
    /// Claims of its next page so far that failed.
    pub attempts: i32,
    /// The class of what it last failed or was given back for.
    pub error_class: Option<&'a str>,
    /// Until when its owner has used up a quota, if one is used up.
    pub quota: Option<Option<Timestamp>>,
    /// Whether a worker is there; `None` when nobody knows.
    pub worker: Option<bool>,
    /// What the frontier says about its host.
    pub host: HostState,
}

/// Why a task waits, and until when as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Why.
    pub reason: Reason,
    /// About when it goes on; `None` when nobody knows.
    pub until: Option<Timestamp>,
}

/// The reason that holds longest where several do: what a person decided, then the clock, then what is used up, then who is missing.
pub fn explain(facts: &Facts<'_>, now: Timestamp) -> Waiting {
    let of = |reason, until| Waiting { reason, until };
    if facts.paused {
        return of(Reason::Paused, None);
    }
    if facts.due > now {
        return of(
            why_later(facts),
            Some(facts.due.max(host_until(facts.host, now).unwrap_or(now))),
        );
    }
    if let Some(until) = facts.quota {
        return of(Reason::QuotaExceeded, until);
    }
    if facts.worker == Some(false) {
        return of(Reason::NoWorker, None);
    }
    let reason = match facts.host {
        HostState::Unavailable(_) => Reason::HostUnavailable,
        HostState::Limited(_) => Reason::DomainLimited,
        HostState::Ready => Reason::Queued,
    };
    of(reason, host_until(facts.host, now))
}

/// Why a task has a moment before which it does not run.
fn why_later(facts: &Facts<'_>) -> Reason {
    let left_alone = facts.error_class == Some("HostUnavailable") || facts.error_class == Some("RobotsUnavailable");
    match facts.host {
        HostState::Unavailable(_) => Reason::HostUnavailable,
        _ if left_alone => Reason::HostUnavailable,
        _ if facts.attempts > 0 => Reason::RetryBackoff,
        // A run that was given back without a failure made room at its host.
        _ if facts.begun => Reason::DomainLimited,
        _ => Reason::Scheduled,
    }
}

fn host_until(host: HostState, now: Timestamp) -> Option<Timestamp> {
    let (HostState::Limited(wait) | HostState::Unavailable(wait)) = host else {
        return None;
    };
    (wait > Duration::ZERO).then(|| now.saturating_add(wait).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn facts(now: Timestamp) -> Facts<'static> {
        Facts {
            paused: false,
            due: now,
            begun: false,
            attempts: 0,
            error_class: None,
            quota: None,
            worker: Some(true),
            host: HostState::Ready,
        }
    }

    #[test]
    fn every_waiting_task_says_why_it_waits_and_until_when() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let later = now + SignedDuration::from_mins(5);
        let calm = facts(now);
        let limited = HostState::Limited(Duration::from_mins(5));
        let table = [
            (calm, Reason::Queued, None),
            (Facts { worker: None, ..calm }, Reason::Queued, None),
            (
                Facts {
                    paused: true,
                    due: later,
                    ..calm
                },
                Reason::Paused,
                None,
            ),
            (Facts { due: later, ..calm }, Reason::Scheduled, Some(later)),
            (
                Facts {
                    due: later,
                    attempts: 2,
                    ..calm
                },
                Reason::RetryBackoff,
                Some(later),
            ),
            (
                Facts {
                    quota: Some(Some(later)),
                    worker: Some(false),
                    ..calm
                },
                Reason::QuotaExceeded,
                Some(later),
            ),
            (
                Facts {
                    worker: Some(false),
                    host: limited,
                    ..calm
                },
                Reason::NoWorker,
                None,
            ),
            (Facts { host: limited, ..calm }, Reason::DomainLimited, Some(later)),
            (
                Facts {
                    host: HostState::Unavailable(Duration::from_mins(5)),
                    ..calm
                },
                Reason::HostUnavailable,
                Some(later),
            ),
            (
                Facts {
                    due: later,
                    begun: true,
                    ..calm
                },
                Reason::DomainLimited,
                Some(later),
            ),
            (
                Facts {
                    due: later,
                    begun: true,
                    error_class: Some("HostUnavailable"),
                    ..calm
                },
                Reason::HostUnavailable,
                Some(later),
            ),
        ];
        for (facts, reason, until) in table {
            assert_eq!(explain(&facts, now), Waiting { reason, until }, "{facts:?}");
        }
    }
}
