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
use selextract_platform::ledger::{Ledger, UserId, quotas::Usage};

use crate::problem::Problem;

/// How old an owner's usage may be.
const KEPT: Duration = Duration::from_secs(5);
/// Owners that are remembered; one read for each further one.
const OWNERS: u64 = 10_000;

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
        let used = account.usage.queued + account.accepted.load(Ordering::Relaxed);
        let limit = account.usage.queued_limit;
        if used.saturating_add(tasks) > limit {
            return Err(Problem::quota_exceeded("queued", used, limit).retry_after(KEPT));
        }
        account.accepted.fetch_add(tasks, Ordering::Relaxed);
        Ok(())
    }

    /// Until when an owner's tasks are not begun for a quota, when one is used up.
    pub async fn holds(&self, owner: UserId) -> Result<Option<Option<Timestamp>>, Problem> {
        let usage = &self.account(owner).await?.usage;
        let until = usage
            .held_until
            .and_then(|until| Timestamp::from_millisecond(until).ok());
        let crowded = usage
            .running_limit
            .is_some_and(|limit| usage.running >= i64::from(limit));
        Ok(until.map(Some).or_else(|| crowded.then_some(None)))
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
