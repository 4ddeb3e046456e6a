//! What workers do: claim, renew, commit pages, finish, hand back. Every write carries the lease token; one that matches no row is
//! dropped and told as [`Fenced`].

use std::time::Duration;

use selextract_task::{TaskSpec, feed::RunError};
use serde_json::{Map, Value};
use snafu::ResultExt;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{
    Ledger, LedgerError, TaskId, UserId,
    artifacts::NewArtifact,
    claiming,
    crawl::HeldPage,
    error::DatabaseSnafu,
    leased::{EndRow, PageRow},
    pages,
};
use crate::frontier::Entry;

/// One extracted row.
pub type Record = Map<String, Value>;

/// The lease is somebody else's by now: stop, and write nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced;

/// A task that this worker holds.
#[derive(Clone, Debug, FromRow)]
pub struct Claim {
    /// The task.
    pub id: TaskId,
    /// Who owns it.
    pub user_id: UserId,
    /// The proof that this worker holds it.
    pub lease_token: Uuid,
    /// What to extract.
    pub spec: Json<TaskSpec>,
    /// Claims since the last committed page, this one included.
    pub attempts: i32,
    /// The most claims for one page.
    pub max_attempts: i16,
    /// Pages committed by earlier claims.
    pub pages: i32,
    /// Where the last committed page said to go on. `None` before the first page, and after the last.
    pub next_url: Option<String>,
    /// Seconds from when it was due to this claim.
    pub waited_seconds: f64,
    /// Seconds since it was first claimed, or first claimed after its last replay.
    pub running_seconds: f64,
    /// Compute units that earlier claims used, since its last replay.
    pub units_used: i64,
    /// The `ScrapeTask` or schedule that it is a run of.
    pub source_uid: Option<String>,
    /// The page of a crawl that is held, instead of a whole run; [`Claim::id`] is the page's then.
    #[sqlx(skip)]
    pub page: Option<HeldPage>,
}

/// The proof of a lease, to renew it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The task.
    pub id: TaskId,
    /// As in [`Claim::lease_token`].
    pub token: Uuid,
}

/// A lease after its renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Renewed {
    /// The task.
    pub id: TaskId,
    /// Somebody asked to end it.
    pub cancel_requested: bool,
    /// Somebody paused it, or, at a page's commit, its owner has read a day's pages: hand it back.
    pub paused: bool,
}

/// A page to commit.
#[derive(Clone, Debug, Default)]
pub struct NewPage {
    /// 1 for the first page of the run, then one more each.
    pub number: i32,
    /// The URL that was read.
    pub url: String,
    /// Where to go on.
    pub next_url: Option<String>,
    /// The page's records.
    pub records: Vec<Record>,
    /// Records left out for a missing required field.
    pub warnings: i32,
    /// What is kept beside the records; seen with the page or not at all.
    pub artifacts: Vec<NewArtifact>,
    /// How many items the page has, and in how many of them each field of the spec was found; empty where nobody counted.
    pub fill: Vec<i32>,
    /// The site said that it is as it was; its records are those of a former run.
    pub not_modified: bool,
    /// How long its commit may wait for other pages', to be one with them.
    pub spare: Duration,
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub enum Ending {
    /// Every page was read.
    Succeeded,
    /// It ended with an error; what was committed stays.
    Failed(RunError),
    /// Somebody asked for it.
    Canceled,
    /// It waits and is tried again; this attempt counts.
    Retry {
        /// From now.
        after: Duration,
        /// Why, shown while it waits.
        error: RunError,
    },
    /// It goes back to the queue at once; this attempt does not count.
    HandedBack,
    /// It goes back to the queue for a while, because its host or somebody else's turn asks for it; this attempt does not count.
    Waits {
        /// From now.
        after: Duration,
        /// Why, shown while it waits, where more than politeness is the reason.
        reason: Option<RunError>,
    },
}

impl Claim {
    /// The proof of the lease.
    pub fn lease(&self) -> Lease {
        Lease {
            id: self.id,
            token: self.lease_token,
        }
    }
}

impl Ledger {
    /// Claims those of the tasks that are still to be done. One that is due within 100 ms counts as due: the frontier goes by another
    /// clock, and what it gave out and nobody claims waits for the refill. The attempt is counted here, so that a page that kills its worker counts.
    pub async fn claim(&self, ids: &[TaskId], worker: &str, lease: Duration) -> Result<Vec<Claim>, LedgerError> {
        claiming::claim(&self.pool, ids, worker, lease)
            .await
            .context(DatabaseSnafu {
                doing: "claiming tasks",
            })
    }

    /// Extends leases. One that is missing in the answer is lost.
    pub async fn renew(&self, leases: &[Lease], lease: Duration) -> Result<Vec<Renewed>, LedgerError> {
        // In the order in which batches of pages and ends take the same rows.
        let mut leases = leases.to_vec();
        leases.sort_unstable_by_key(|lease| lease.id);
        let ids: Vec<Uuid> = leases.iter().map(|l| l.id.0).collect();
        let tokens: Vec<Uuid> = leases.iter().map(|l| l.token).collect();
        sqlx::query_as(
            "UPDATE tasks SET lease_until = now() + make_interval(secs => $3)
             FROM unnest($1::uuid[], $2::uuid[]) AS held (id, token)
             WHERE tasks.id = held.id AND tasks.lease_token = held.token AND coalesce(tasks.status, '') = 'running'
             RETURNING tasks.id, tasks.cancel_requested, tasks.paused",
        )
        .bind(&ids)
        .bind(&tokens)
        .bind(lease.as_secs_f64())
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "renewing leases",
        })
    }

    /// Commits a page and its records under the lease, and extends it, with other pages that come at the same time, or while it may wait for them. A page commits once, whoever tries how often.
    /// One with artifacts commits by itself, after their contents were written.
    pub async fn commit_page(
        &self,
        held: Lease,
        page: &NewPage,
        lease: Duration,
    ) -> Result<Result<Renewed, Fenced>, LedgerError> {
        let stored = pages::encode(&page.records)?;
        let row = PageRow {
            held,
            number: page.number,
            url: page.url.clone(),
            next_url: page.next_url.clone(),
            record_count: i32::try_from(page.records.len()).unwrap_or(i32::MAX),
            warnings: page.warnings,
            compressed: stored.compressed,
            records: stored.bytes,
            fill: fill_literal(&page.fill),
            not_modified: page.not_modified,
            lease_seconds: lease.as_secs_f64(),
        };
        if page.artifacts.is_empty() {
            return self.commit_together(row, page.spare).await;
        }
        self.commit_with_artifacts(row, &page.artifacts).await
    }

    /// Ends a claim and adds the compute units that it used, with other claims that end at the same time. What waits again is given back, to
    /// be offered to the frontier at once.
    pub async fn finish(
        &self,
        held: Lease,
        ending: &Ending,
        compute_units: u64,
    ) -> Result<Result<Option<Entry>, Fenced>, LedgerError> {
        let (status, error, after, give_back) = match ending {
            Ending::Succeeded => ("succeeded", None, None, 0),
            Ending::Failed(error) => ("failed", Some(error), None, 0),
            Ending::Canceled => ("canceled", None, None, 0),
            Ending::Retry { after, error } => ("pending", Some(error), Some(*after), 0),
            Ending::HandedBack => ("pending", None, Some(Duration::ZERO), 1),
            Ending::Waits { after, reason } => ("pending", reason.as_ref(), Some(*after), 1),
        };
        self.end_together(EndRow {
            held,
            status,
            error_class: error.map(|e| e.class.clone()),
            error_message: error.map(|e| e.message.clone()),
            after_seconds: after.map(|a| a.as_secs_f64()),
            give_back,
            compute_units: i64::try_from(compute_units).unwrap_or(i64::MAX),
        })
        .await
    }
}

/// As the text of an array: one statement commits pages with different numbers of fields.
pub(super) fn fill_literal(fill: &[i32]) -> Option<String> {
    let numbers: Vec<String> = fill.iter().map(i32::to_string).collect();
    (!numbers.is_empty()).then(|| format!("{{{}}}", numbers.join(",")))
}
