//! What the worker asks of the frontier and the ledger: runs to work on, and writes under their leases.

use std::{
    collections::HashSet,
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::Rng;
use selextract_platform::{
    drift::Drift,
    frontier::{
        Frontier, FrontierError,
        hosts::{Admission, Outcome, Visit},
        rendering::{Finding, Remembered},
    },
    ledger::{
        Ledger, LedgerError, TaskId,
        claims::{Claim, Ending, Fenced, Lease, NewPage, Renewed},
        conditional::{FormerPage, Known},
        pages::Page,
    },
};
use snafu::{ResultExt, Snafu};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use uuid::Uuid;

/// When a task that its owner's limit kept waiting is tried again.
const CROWDED_PAUSE: Duration = Duration::from_millis(500);

/// Pages that are read again at a time.
const COMMITTED_BATCH: i64 = 20;

/// The frontier or the ledger does not answer.
#[derive(Debug, Snafu)]
pub enum ClaimError {
    /// The frontier did not answer.
    #[snafu(display("{source}"))]
    Take {
        /// Why.
        source: FrontierError,
    },
    /// The ledger did not answer.
    #[snafu(display("{source}"))]
    Claim {
        /// Why.
        source: LedgerError,
    },
}

/// The frontier and the ledger, as one worker uses them.
pub struct Claims {
    ledger: Ledger,
    frontier: Frontier,
    wake: Notify,
    worker: String,
    lease: Duration,
}

/// What was claimed.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The runs.
    pub claims: Vec<Claim>,
    /// When there may be more; `None` when nothing waits for a moment.
    pub next: Option<Duration>,
}

/// What earlier claims of a run have committed.
#[derive(Debug, Default)]
pub struct History {
    /// The URLs of its pages.
    pub urls: HashSet<String>,
    /// How many records they have.
    pub records: u64,
}

impl Claims {
    /// For the worker of this name.
    pub fn new(ledger: Ledger, frontier: Frontier, worker: String, lease: Duration) -> Self {
        Self {
            ledger,
            frontier,
            wake: Notify::new(),
            worker,
            lease,
        }
    }

    /// Hears the frontier's word, for as long as it is polled.
    pub async fn listen(&self) {
        self.frontier.listen(&self.wake).await;
    }

    /// Until the frontier says that there is something. The caller bounds it.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Whether both answer.
    ///
    /// # Errors
    /// When one does not.
    pub async fn ping(&self) -> Result<(), ClaimError> {
        self.frontier.ping().await.context(TakeSnafu)?;
        self.ledger.ping().await.context(ClaimSnafu)
    }

    /// Takes and claims up to this many runs. What was taken and cannot be claimed comes back by the keeper's refill.
    ///
    /// # Errors
    /// When frontier or ledger do not answer.
    pub async fn claim(&self, most: usize) -> Result<Claimed, ClaimError> {
        let taken = self.frontier.take(most).await.context(TakeSnafu)?;
        if taken.ids.is_empty() {
            return Ok(Claimed {
                next: taken.next,
                ..Claimed::default()
            });
        }
        let claims = self.ledger.claim(&taken.ids, &self.worker, self.lease).await;
        let claims = claims.context(ClaimSnafu)?;
        if claims.len() < taken.ids.len() {
            self.put_back(&taken.ids, &claims).await;
        }
        Ok(Claimed {
            claims,
            // What somebody else had done already says nothing about the rest.
            next: Some(Duration::ZERO),
        })
    }

    /// Begins a page at a host, after the one before ended there.
    ///
    /// # Errors
    /// When the frontier does not answer.
    pub async fn begin(&self, visit: &Visit<'_>, before: Option<Outcome>) -> Result<Admission, FrontierError> {
        self.frontier.begin(visit, before).await
    }

    /// Ends a page at a host. One that cannot be told expires.
    pub async fn end(&self, host: &str, claim: &Claim, outcome: Outcome) {
        if let Err(error) = self.frontier.end(host, claim.id, claim.user_id, outcome).await {
            tracing::warn!(host, %error, "A host's slot could not be given back; it expires.");
        }
    }

    /// What is known of how a host's pages are rendered; nothing when the frontier does not answer.
    pub async fn rendering(&self, host: &str) -> Remembered {
        self.frontier.rendering(host).await.unwrap_or_else(|error| {
            tracing::warn!(host, %error, "How a host is rendered cannot be read; it is tried by HTTP.");
            Remembered::Unknown
        })
    }

    /// Remembers how a host's pages are rendered.
    pub async fn found_rendering(&self, host: &str, finding: Finding) {
        if let Err(error) = self.frontier.found_rendering(host, finding).await {
            tracing::warn!(host, %error, "How a host is rendered could not be shared with the other workers.");
        }
    }

    /// What its owner's limit of running tasks kept from being claimed is offered again a moment later: the refill comes too seldom for
    /// an owner whose tasks are short. What is lost here the refill finds.
    async fn put_back(&self, ids: &[TaskId], claims: &[Claim]) {
        let left: Vec<TaskId> = ids
            .iter()
            .filter(|id| claims.iter().all(|claim| claim.id != **id))
            .copied()
            .collect();
        match self.ledger.crowded_out(&left).await {
            Ok(entries) if entries.is_empty() => {}
            Ok(mut entries) => {
                let wait = i64::try_from(jittered(CROWDED_PAUSE).as_millis()).unwrap_or_default();
                let again = now_milliseconds() + wait;
                for entry in &mut entries {
                    entry.due_milliseconds = again;
                }
                if let Err(error) = self.frontier.offer(&entries).await {
                    tracing::warn!(%error, "Tasks beyond a quota were not put back; the keeper will find them.");
                }
            }
            Err(error) => tracing::warn!(%error, "Tasks beyond a quota were not put back; the keeper will find them."),
        }
    }

    /// Renews leases; one that is missing in the answer is lost.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewed>, LedgerError> {
        self.ledger.renew(leases, self.lease).await
    }

    /// What was committed before this claim.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn history(&self, claim: &Claim) -> Result<History, LedgerError> {
        if claim.pages == 0 {
            return Ok(History::default());
        }
        let visited = self.patiently(|| self.ledger.visited(claim.id)).await?;
        Ok(History {
            urls: visited.urls.into_iter().collect(),
            records: u64::try_from(visited.records).unwrap_or_default(),
        })
    }

    /// The page of a run that was committed after this one (0 for the first).
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn page_after(&self, claim: &Claim, number: i32) -> Result<Option<Page>, LedgerError> {
        let mut pages = self.patiently(|| self.ledger.pages(claim.id, number, 1)).await?;
        Ok(pages.pop())
    }

    /// The next committed pages of a run behind this one, with their records.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn committed(&self, claim: &Claim, after: i32) -> Result<Vec<Page>, LedgerError> {
        self.patiently(|| self.ledger.pages(claim.id, after, COMMITTED_BATCH))
            .await
    }

    /// Commits a page.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn commit(&self, claim: &Claim, page: &NewPage) -> Result<Result<Renewed, Fenced>, LedgerError> {
        // A commit whose answer was lost is told as fenced the second time; then the lease runs out, and the next claim goes on after it.
        self.patiently(|| self.ledger.commit_page(claim.lease(), page, self.lease))
            .await
    }

    /// What is known of a page of this owner. One that is not known is fetched.
    pub async fn known_page(&self, claim: &Claim, key: Uuid) -> Option<Known> {
        match self.ledger.known_page(claim.user_id, key).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "A page's state could not be read; it is fetched.");
                None
            }
        }
    }

    /// Remembers a page's state. One that is lost costs the next run a page.
    pub async fn remember_page(&self, claim: &Claim, key: Uuid, known: &Known) {
        if let Err(error) = self.ledger.remember_page(claim.user_id, key, known).await {
            tracing::warn!(%error, "A page's state could not be remembered; the next run fetches it.");
        }
    }

    /// A page of a former run.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn former_page(&self, known: &Known) -> Result<Option<FormerPage>, LedgerError> {
        self.patiently(|| self.ledger.former_page(known)).await
    }

    /// Reports on a run that has read every page; returns what drifted.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn report(&self, claim: &Claim) -> Result<Result<Option<Vec<Drift>>, Fenced>, LedgerError> {
        self.patiently(|| self.ledger.report(claim)).await
    }

    /// Lets a run go. One that waits again is offered to the frontier at once, so that it need not wait for the keeper's refill too.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn finish(&self, claim: &Claim, ending: &Ending, units: u64) -> Result<Result<(), Fenced>, LedgerError> {
        let released = self
            .patiently(|| self.ledger.finish(claim.lease(), ending, units))
            .await?;
        if let Ok(Some(entry)) = &released
            && let Err(error) = self.frontier.offer(std::slice::from_ref(entry)).await
        {
            tracing::warn!(task = %claim.id, %error, "A run that waits was not offered; the keeper will find it.");
        }
        Ok(released.map(drop))
    }

    /// Tries again for a lease's time: what was fetched is worth more than a pooler's restart.
    async fn patiently<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, LedgerError>>,
    {
        let give_up = Instant::now() + self.lease;
        let mut pause = Duration::from_millis(100);
        loop {
            match attempt().await {
                Err(LedgerError::Database { doing, source }) if Instant::now() + pause < give_up => {
                    tracing::warn!(doing, error = %source, "The ledger failed; it is tried again.");
                }
                answer => return answer,
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

fn now_milliseconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// So that what failed together does not come back together.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.75..1.25))
}
