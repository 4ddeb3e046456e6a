//! What a host allows, shared by all workers: a rest between pages, so many at a time, its own complaints, and a breaker.
//!
//! Every page of every run begins with [`Frontier::begin`] and ends with [`Frontier::end`] or the next page's begin. A worker that dies
//! between them leaves a slot that expires. After a wipe a host rests for its whole delay, since nobody knows when it was last visited.

use std::time::Duration;

use snafu::ResultExt;

use super::{Frontier, FrontierError, FrontierSnafu};
use crate::ledger::{TaskId, UserId};

/// The longest wait that a host's `Retry-After` is obeyed for.
pub const MAX_ASKED: Duration = Duration::from_hours(1);

/// A page that a run wants to begin.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// Where.
    pub host: &'a str,
    /// The run; it has one page at a time.
    pub id: TaskId,
    /// Whose run it is.
    pub owner: UserId,
    /// The most pages of the host at a time.
    pub max_concurrent: u16,
    /// How long the host rests after this page's start.
    pub delay: Duration,
    /// The longest that the page may take; its slot is free again after that, whoever forgets it.
    pub takes: Duration,
    /// The longest wait for the start that is granted.
    pub patience: Duration,
    /// To whom this page gives way.
    pub gives_way: GivesWay,
}

/// To whom a page gives way, so that a long run does not keep others from their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivesWay {
    /// To nobody: the first page of a claim, so that every claim gets somewhere.
    ToNobody,
    /// To an owner that waits for the same host.
    AtTheHost,
    /// To any owner that has something to run.
    Everywhere,
}

/// Whether a page may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may, after this wait; the host is taken from now on.
    Start(Duration),
    /// The host rests, or asked for quiet, for longer than the run is patient.
    Later(Duration),
    /// The host's breaker is open.
    Unavailable(Duration),
    /// So many pages are under way as the run allows.
    Full,
    /// Another owner waits.
    GiveWay,
}

/// How a page ended, as far as its host is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered, whatever it was.
    Answered,
    /// The host failed: no connection, no answer in time, or a server error.
    Failed,
    /// The host asked for quiet (429, or 503 with `Retry-After`) for this long.
    Busy(Duration),
    /// It says nothing about the host.
    Unknown,
}

/// Why tasks of a host wait, if they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// A page may begin.
    Ready,
    /// It rests, or has as many pages under way as are allowed: `DomainLimited`, for this long at least.
    Limited(Duration),
    /// It failed too often and is left alone: `HostUnavailable`, for this long.
    Unavailable(Duration),
}

impl Frontier {
    /// Begins a page, after the page before at the same host has ended with `before`.
    pub async fn begin(&self, visit: &Visit<'_>, before: Option<Outcome>) -> Result<Admission, FrontierError> {
        let mut call = self.scripts.visit.prepare_invoke();
        call.arg(visit.host)
            .arg(visit.id.to_string())
            .arg(visit.owner.to_string());
        for word in words(before) {
            call.arg(word);
        }
        call.arg(visit.max_concurrent)
            .arg(milliseconds(visit.delay))
            .arg(milliseconds(visit.takes))
            .arg(milliseconds(visit.patience))
            .arg(match visit.gives_way {
                GivesWay::ToNobody => 0,
                GivesWay::AtTheHost => 1,
                GivesWay::Everywhere => 2,
            });
        let mut connection = self.connection("begin").await?;
        let (word, wait): (String, u64) = call.invoke_async(&mut connection).await.context(FrontierSnafu {
            doing: "beginning a page with",
        })?;
        let wait = Duration::from_millis(wait);
        Ok(match word.as_str() {
            "go" => Admission::Start(wait),
            "later" => Admission::Later(wait),
            "open" => Admission::Unavailable(wait),
            "way" => Admission::GiveWay,
            _ => Admission::Full,
        })
    }

    /// Ends a run's page at a host.
    pub async fn end(&self, host: &str, id: TaskId, owner: UserId, outcome: Outcome) -> Result<(), FrontierError> {
        let mut call = self.scripts.visit.prepare_invoke();
        call.arg(host).arg(id.to_string()).arg(owner.to_string());
        for word in words(Some(outcome)) {
            call.arg(word);
        }
        let mut connection = self.connection("end").await?;
        let _: (String, u64) = call.invoke_async(&mut connection).await.context(FrontierSnafu {
            doing: "ending a page with",
        })?;
        Ok(())
    }

    /// How these hosts are now, in the same order.
    pub async fn host_states(&self, hosts: &[&str]) -> Result<Vec<HostState>, FrontierError> {
        if hosts.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection("host_states").await?;
        let answers: Vec<(String, u64)> = self
            .scripts
            .states
            .arg(hosts)
            .invoke_async(&mut connection)
            .await
            .context(FrontierSnafu {
                doing: "asking about hosts in",
            })?;
        Ok(answers
            .into_iter()
            .map(|(word, wait)| match word.as_str() {
                "open" => HostState::Unavailable(Duration::from_millis(wait)),
                "limited" => HostState::Limited(Duration::from_millis(wait)),
                _ => HostState::Ready,
            })
            .collect())
    }
}

/// An outcome as the script reads it: a word, and the milliseconds that the host asked for.
fn words(outcome: Option<Outcome>) -> [String; 2] {
    let (word, asked) = match outcome {
        None => ("", Duration::ZERO),
        Some(Outcome::Answered) => ("ok", Duration::ZERO),
        Some(Outcome::Failed) => ("failed", Duration::ZERO),
        Some(Outcome::Busy(asked)) => ("busy", asked.min(MAX_ASKED)),
        Some(Outcome::Unknown) => ("none", Duration::ZERO),
    };
    [word.to_owned(), milliseconds(asked).to_string()]
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
