//! Whether an owner may have more tasks. What he uses is read at most every five seconds, and what this replica accepts meanwhile is
//! added to it: a quota may be overrun by what the other replicas accept in that time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use moka::future::Cache;
use selextract_platform::ledger::{
    Ledger, UserId,
    quotas::{QueueRoom, Usage},
};

use crate::problem::Problem;

/// How old an owner's usage may be.
const KEPT: Duration = Duration::from_secs(5);
/// Owners that are remembered; one read for each further one.
const OWNERS: u64 = 10_000;

/// The quota of tasks that run at the same time, by its name.
pub const RUNNING: &str = "running";

/// A quota for which tasks are not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: &'static str,
    /// What is used of it.
    pub used: i64,
    /// The most of it.
    pub limit: i64,
    /// When there is some of it again; `None` when nobody knows.
    pub until: Option<Timestamp>,
}

/// Checks quotas.
#[derive(Clone)]
pub struct Quotas {
    ledger: Ledger,
    kept: Cache<UserId, Arc<Account>>,
}

struct Account {
    usage: Usage,
    accepted: AtomicI64,
}

impl Account {
    fn room(&self) -> QueueRoom {
        QueueRoom {
            used: self.usage.queued + self.accepted.load(Ordering::Relaxed),
            limit: self.usage.queued_limit,
        }
    }
}

fn used_up(room: QueueRoom) -> Problem {
    Problem::quota_exceeded("queued", room.used, room.limit).retry_after(KEPT)
}

impl Quotas {
    /// With nobody known.
    pub fn new(ledger: Ledger) -> Self {
        let kept = Cache::builder().max_capacity(OWNERS).time_to_live(KEPT).build();
        Self { ledger, kept }
    }

    /// Counts tasks that are about to be accepted, or refuses them with quota, used and limit.
    pub async fn admit(&self, owner: UserId, tasks: usize) -> Result<(), Problem> {
        let account = self.account(owner).await?;
        let tasks = i64::try_from(tasks).unwrap_or(i64::MAX);
        let room = account.room();
        if room.used.saturating_add(tasks) > room.limit {
            return Err(used_up(room));
        }
        account.accepted.fetch_add(tasks, Ordering::Relaxed);
        Ok(())
    }

    /// Why an owner may not have one task more now, as one sentence; `None` where he may.
    pub async fn no_room(&self, owner: UserId) -> Result<Option<String>, Problem> {
        let room = self.account(owner).await?.room();
        Ok((room.free() == 0).then(|| room.to_string()))
    }

    /// How many tasks more an owner may have now; refuses none at all with quota, used and limit.
    pub async fn room(&self, owner: UserId) -> Result<i64, Problem> {
        let room = self.account(owner).await?.room();
        match room.free() {
            0 => Err(used_up(room)),
            free => Ok(free),
        }
    }

    /// Counts tasks that were accepted.
    pub async fn count(&self, owner: UserId, tasks: usize) {
        if let Some(account) = self.kept.get(&owner).await {
            let tasks = i64::try_from(tasks).unwrap_or(i64::MAX);
            account.accepted.fetch_add(tasks, Ordering::Relaxed);
        }
    }

    /// The quota for which an owner's tasks are not begun now.
    pub async fn held(&self, owner: UserId) -> Result<Option<Held>, Problem> {
        Ok(held(&self.account(owner).await?.usage))
    }

    /// Forgets an owner, whose quotas have changed.
    pub async fn forget(&self, owner: UserId) {
        self.kept.invalidate(&owner).await;
    }

    async fn account(&self, owner: UserId) -> Result<Arc<Account>, Problem> {
        let read = async {
            let usage = self.ledger.usage(owner).await?;
            let accepted = AtomicI64::new(0);
            Ok::<_, Problem>(Arc::new(Account { usage, accepted }))
        };
        let account = self.kept.try_get_with(owner, read).await;
        account.map_err(|problem: Arc<Problem>| Problem::clone(&problem))
    }
}

fn held(usage: &Usage) -> Option<Held> {
    if let Some(until) = usage.held_until {
        return Some(Held {
            name: "pages_per_day",
            used: usage.pages_today,
            limit: usage.pages_limit,
            until: Timestamp::from_millisecond(until).ok(),
        });
    }
    let limit = usage.running_limit.map(i64::from)?;
    (usage.running >= limit).then_some(Held {
        name: RUNNING,
        used: usage.running,
        limit,
        until: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_holds_tasks_is_named() {
        let free = Usage {
            running: 3,
            running_limit: Some(4),
            queued: 9,
            queued_limit: 10,
            pages_today: 100,
            pages_limit: 100,
            artifact_bytes: 0,
            artifact_limit: 1,
            held_until: None,
        };
        assert_eq!(held(&free), None, "the keeper has not held him yet");
        let crowded = Usage {
            running: 4,
            ..free.clone()
        };
        assert_eq!(
            held(&crowded).map(|h| (h.name, h.used, h.limit)),
            Some(("running", 4, 4))
        );
        let read = Usage {
            held_until: Some(1000),
            ..crowded
        };
        assert_eq!(
            held(&read).map(|h| (h.name, h.used, h.limit)),
            Some(("pages_per_day", 100, 100))
        );
    }
}
