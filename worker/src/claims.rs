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
        Entry, Frontier, FrontierError, Unvisited,
        hosts::{Admission, Outcome, Visit},
        rendering::{Finding, Remembered},
    },
    ledger::{
        Ledger, LedgerError, TaskId,
        claims::{Claim, Ending, Fenced, Lease, NewPage, Renewed},
        conditional::{FormerPage, Known, PageState},
        crawl::{Begun, CrawlEnd, CrawlReport, CrawlStart, HeldPage},
        pages::Page,
    },
};
use snafu::{ResultExt, Snafu};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use url::Url;
use uuid::Uuid;

/// When a task that its owner's limit kept waiting is tried again.
const CROWDED_PAUSE: Duration = Duration::from_millis(500);

/// The most of what a page has found that is offered at once.
const OFFERED: usize = 2_000;
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
        let (pages, runs): (Vec<TaskId>, Vec<TaskId>) = taken.ids.iter().partition(|id| id.is_crawl_page());
        let mut claims = Vec::new();
        if !runs.is_empty() {
            let claimed = self.ledger.claim(&runs, &self.worker, self.lease).await;
            claims = claimed.context(ClaimSnafu)?;
            if claims.len() < runs.len() {
                self.put_back(&runs, &claims).await;
            }
        }
        if !pages.is_empty() {
            match self.ledger.claim_crawl_pages(&pages, &self.worker, self.lease).await {
                Ok(claimed) => {
                    if claimed.len() < pages.len() {
                        self.release_pages(&pages, &claimed).await;
                    }
                    claims.extend(claimed);
                }
                // What was claimed before is not to wait for its lease's end.
                Err(error) if !claims.is_empty() => {
                    tracing::warn!(%error, "Pages of crawls were not claimed; the keeper will find them.");
                }
                Err(error) => return Err(error).context(ClaimSnafu),
            }
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

    /// Tells a host that the run ends without having begun a page there. What cannot be told expires.
    pub async fn unvisited(&self, host: &str, claim: &Claim) {
        let unvisited = Unvisited {
            id: claim.id,
            owner: claim.user_id,
            host,
        };
        self.release(&[unvisited]).await;
    }

    /// The same for a claim whose run visits no host at all, or is let go before it could.
    pub async fn leave_unvisited(&self, claim: &Claim) {
        let url = claim.page.as_ref().map_or(claim.spec.url.as_str(), |page| &page.url);
        if let Some(host) = Url::parse(url).ok().as_ref().and_then(Url::host_str) {
            self.unvisited(host, claim).await;
        }
    }

    async fn release(&self, unvisited: &[Unvisited<'_>]) {
        if let Err(error) = self.frontier.release(unvisited).await {
            tracing::warn!(%error, "Places at hosts could not be given back; they expire.");
        }
    }

    /// Hosts get the places back that were taken for pages of crawls which are not claimed: another has them, or their run waits or has ended.
    async fn release_pages(&self, ids: &[TaskId], claims: &[Claim]) {
        match self.ledger.unclaimed_crawl_pages(&unclaimed(ids, claims)).await {
            Ok(left) => {
                let unvisited: Vec<_> = left.iter().map(Entry::unvisited).collect();
                self.release(&unvisited).await;
            }
            Err(error) => {
                tracing::warn!(%error, "Places of pages that were not claimed were not given back; they expire.");
            }
        }
    }

    /// Hosts get the places back that were taken for what is not claimed. What its owner's limit of running tasks kept from being claimed is
    /// offered again a moment later: the refill comes too seldom for an owner whose tasks are short. What is lost here the refill finds.
    async fn put_back(&self, ids: &[TaskId], claims: &[Claim]) {
        let left = match self.ledger.unclaimed(&unclaimed(ids, claims)).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "What was not claimed was not put back; the keeper will find it.");
                return;
            }
        };
        let unvisited: Vec<_> = left.iter().map(|(entry, _)| entry.unvisited()).collect();
        self.release(&unvisited).await;
        let wait = i64::try_from(jittered(CROWDED_PAUSE).as_millis()).unwrap_or_default();
        let again = now_milliseconds() + wait;
        let crowded: Vec<Entry> = left
            .into_iter()
            .filter(|(_, crowded)| *crowded)
            .map(|(entry, _)| Entry {
                due_milliseconds: again,
                ..entry
            })
            .collect();
        if let Err(error) = self.frontier.offer(&crowded).await {
            tracing::warn!(%error, "Tasks beyond a quota were not put back; the keeper will find them.");
        }
    }

    /// Renews leases; one that is missing in the answer is lost.
    ///
    /// # Errors
    /// When the ledger does not answer.
    pub async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewed>, LedgerError> {
        let (pages, runs): (Vec<Lease>, Vec<Lease>) = leases.iter().partition(|lease| lease.id.is_crawl_page());
        let mut renewed = Vec::new();
        if !runs.is_empty() {
            renewed = self.ledger.renew(&runs, self.lease).await?;
        }
        if !pages.is_empty() {
            renewed.extend(self.ledger.renew_crawl_pages(&pages, self.lease).await?);
        }
        Ok(renewed)
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

    /// What is known of a page of this owner, where it is needed with its links. One that is not known is fetched.
    pub async fn known_page(&self, claim: &Claim, key: Uuid, with_links: bool) -> Option<Known> {
        match self.ledger.known_page(claim.user_id, key, with_links).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "A page's state could not be read; it is fetched.");
                None
            }
        }
    }

    /// Remembers a page's state. One that is lost costs the next run a page.
    pub async fn remember_page(&self, claim: &Claim, state: &PageState, number: i32) {
        if let Err(error) = self.ledger.remember_page(claim, state, number).await {
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
        if let Some(page) = &claim.page {
            return self.end_page(claim, page, &crawl_end(ending), 0, 0).await;
        }
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

    /// Lets a crawl's task begin, and offers its first pages. `Ok(Ok(false))`: somebody asked to end it, and the claim is still held.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn begin_crawl(&self, claim: &Claim, start: &CrawlStart) -> Result<Result<bool, Fenced>, LedgerError> {
        match self.patiently(|| self.ledger.begin_crawl(claim.lease(), start)).await? {
            Err(Fenced) => Ok(Err(Fenced)),
            Ok(Begun::Canceled) => Ok(Ok(false)),
            Ok(Begun::Open(entries)) => {
                self.offer_found(&entries).await;
                Ok(Ok(true))
            }
        }
    }

    /// Lets a crawl's page go, and offers what it has found. What it cost is in millionths of a compute unit.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn end_page(
        &self,
        claim: &Claim,
        page: &HeldPage,
        end: &CrawlEnd,
        micros: u64,
        max_pages: u32,
    ) -> Result<Result<(), Fenced>, LedgerError> {
        let end = || {
            self.ledger
                .end_crawl_page(claim.lease(), page.task, end.clone(), micros, max_pages)
        };
        match self.patiently(end).await? {
            Err(Fenced) => Ok(Err(Fenced)),
            Ok(ended) => {
                self.offer_found(&ended.entries).await;
                Ok(Ok(()))
            }
        }
    }

    /// Reports on a crawl whose pages have ended.
    ///
    /// # Errors
    /// When the ledger does not answer for a lease's time.
    pub async fn report_crawl(
        &self,
        claim: &Claim,
        page: &HeldPage,
    ) -> Result<Result<CrawlReport, Fenced>, LedgerError> {
        self.patiently(|| self.ledger.report_crawl(claim, page)).await
    }

    /// The frontier has room for so many of an owner's at a host; the keeper brings the rest.
    async fn offer_found(&self, entries: &[Entry]) {
        let entries = &entries[..entries.len().min(OFFERED)];
        if !entries.is_empty()
            && let Err(error) = self.frontier.offer(entries).await
        {
            tracing::warn!(%error, "A crawl's pages were not offered; the keeper will find them.");
        }
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

fn unclaimed(ids: &[TaskId], claims: &[Claim]) -> Vec<TaskId> {
    let left = ids.iter().filter(|id| claims.iter().all(|claim| claim.id != **id));
    left.copied().collect()
}

/// How a page's claim ends whose run could not even be looked at, or that is given back.
pub(crate) fn crawl_end(ending: &Ending) -> CrawlEnd {
    let waits = |after, reason| CrawlEnd::Waits { after, reason };
    match ending {
        Ending::Failed(error) => CrawlEnd::FailsRun(error.clone()),
        Ending::Retry { after, error } => CrawlEnd::Retry {
            after: *after,
            error: error.clone(),
        },
        Ending::Waits { after, reason } => waits(*after, reason.clone()),
        Ending::HandedBack | Ending::Succeeded | Ending::Canceled => waits(Duration::ZERO, None),
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
