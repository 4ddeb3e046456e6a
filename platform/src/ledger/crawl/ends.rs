//! How a page's claim ends, and what it has found: many of one run in one transaction, each under its own lease.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use selextract_task::feed::RunError;
use snafu::{IntoError, ResultExt};
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::{
    FOUND, FoundPage,
    begin::{self, Turn},
    column, links,
    rows::{Batch, write_ends},
    settle::settle,
};
use crate::{
    frontier::Entry,
    gather::Gather,
    ledger::{
        Ledger, LedgerError, TaskId,
        artifacts::{Contents, NewArtifact, Place},
        claims::{Fenced, Lease, Record},
        conditional::{self, PageState},
        error::DatabaseSnafu,
        together::all_or_each,
        transaction,
    },
};

/// A worker has at most 64 pages under way.
const MOST: usize = 128;
const LANES: usize = 2;

/// A page that was read.
#[derive(Clone, Debug, Default)]
pub struct ReadPage {
    /// Where it was in the end, as it is shown.
    pub url: String,
    /// Where it was in the end, when that is another page of the crawl's than the one that was asked for. One that the crawl has found
    /// already is read by itself, and not here.
    pub moved: Option<FoundPage>,
    /// Its records.
    pub records: Vec<Record>,
    /// Records left out for a missing required field.
    pub warnings: i32,
    /// The pages that it leads to.
    pub found: Vec<FoundPage>,
    /// What is kept beside the records; seen with the page or not at all.
    pub artifacts: Vec<NewArtifact>,
    /// How many items the page has, and in how many of them each field of the spec was found; empty where nobody counted.
    pub fill: Vec<i32>,
    /// The site said that it is as it was; its records and links are those of a former run.
    pub not_modified: bool,
    /// Its state, for a run to come that asks whether it is as it was.
    pub state: Option<Box<PageState>>,
    /// Whether what it leads to is kept with it, for that run to go on along it.
    pub keeps_links: bool,
}

/// How a page's claim ends.
#[derive(Clone, Debug)]
pub enum CrawlEnd {
    /// It was read.
    Done(ReadPage),
    /// A sitemap or robots.txt was read.
    Mapped(Vec<FoundPage>),
    /// It failed for good.
    Failed(RunError),
    /// It failed for good, since its site says that there is no such page.
    Absent(RunError),
    /// It is none that is read: its site forbids it, it leads out of the crawl, or it is no page.
    Skipped(RunError),
    /// It is tried again later; this attempt counts.
    Retry {
        /// From now.
        after: Duration,
        /// Why.
        error: RunError,
    },
    /// It waits again and this attempt does not count.
    Waits {
        /// From now.
        after: Duration,
        /// Why, where more than politeness is the reason.
        reason: Option<RunError>,
    },
    /// It waits again and this attempt does not count; and the whole run fails.
    FailsRun(RunError),
    /// The run was compared with the one before when it had so many pages.
    Reported(i32),
}

/// What became of a run with the end of a page's claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrawlEnded {
    /// What is to be offered to the frontier.
    pub entries: Vec<Entry>,
    /// Whether the run ended with it.
    pub run_ended: bool,
}

/// One call, as it is gathered.
#[derive(Debug)]
pub(super) struct End {
    pub(super) held: Lease,
    pub(super) task: TaskId,
    pub(super) step: Step,
    /// What is kept of its links.
    pub(super) links: Option<Vec<u8>>,
    /// Those of the page, written already.
    pub(super) artifacts: Option<Contents>,
    pub(super) micros: i64,
    pub(super) max_pages: i64,
    /// Only while the lease has expired: the sweeper's.
    pub(super) expired: bool,
}

impl End {
    /// What is to be remembered of its page.
    fn state(&self) -> Option<&PageState> {
        match &self.step {
            Step::End(CrawlEnd::Done(page)) => page.state.as_deref(),
            Step::Found(_) | Step::End(_) => None,
        }
    }
}

/// A part of an end.
#[derive(Debug)]
pub(super) enum Step {
    /// Some of what a page has found; the lease stays.
    Found(Vec<FoundPage>),
    /// The end, with what is left of what it has found.
    End(CrawlEnd),
}

type Answer = Result<Result<CrawlEnded, Fenced>, sqlx::Error>;

/// What gathers.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct CrawlEnds(Gather<Arc<End>, Answer>);

pub(in crate::ledger) fn gather(pool: PgPool) -> CrawlEnds {
    CrawlEnds(Gather::new(MOST, LANES, move |ends: Vec<Arc<End>>| {
        let pool = pool.clone();
        async move { by_task(&pool, ends).await }
    }))
}

/// Each run's ends in a transaction of its own; the answers in the order of the calls.
async fn by_task(pool: &PgPool, ends: Vec<Arc<End>>) -> Vec<Answer> {
    let mut tasks: BTreeMap<TaskId, Vec<usize>> = BTreeMap::new();
    for (place, end) in ends.iter().enumerate() {
        tasks.entry(end.task).or_default().push(place);
    }
    let mut answers: Vec<Option<Answer>> = ends.iter().map(|_| None).collect();
    for (task, places) in tasks {
        let of_task = places.iter().map(|place| Arc::clone(&ends[*place])).collect();
        let answered = all_or_each(of_task, |ends| commit(pool, task, ends)).await;
        for (place, answer) in places.into_iter().zip(answered) {
            answers[place] = Some(answer);
        }
    }
    let unanswered = || Err(sqlx::Error::RowNotFound);
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(unanswered))
        .collect()
}

impl Ledger {
    /// Ends a page's claim, with others that end at the same time. Very many pages that were found are written down in steps before.
    pub async fn end_crawl_page(
        &self,
        held: Lease,
        task: TaskId,
        mut end: CrawlEnd,
        micros: u64,
        max_pages: u32,
    ) -> Result<Result<CrawlEnded, Fenced>, LedgerError> {
        let Ok(artifacts) = self.write_crawl_artifacts(held, task, &mut end).await? else {
            return Ok(Err(Fenced));
        };
        let links = match &end {
            CrawlEnd::Done(page) if page.keeps_links => Some(links::pack(&page.found)?),
            _ => None,
        };
        let mut entries = Vec::new();
        let make = |step, micros| End {
            held,
            task,
            step,
            links: None,
            artifacts: None,
            micros,
            max_pages: max_pages.into(),
            expired: false,
        };
        if let CrawlEnd::Done(ReadPage { found, .. }) | CrawlEnd::Mapped(found) = &mut end {
            while found.len() > FOUND {
                let rest = found.split_off(FOUND);
                let step = Step::Found(std::mem::replace(found, rest));
                match self.end_step(make(step, 0)).await? {
                    Ok(ended) => entries.extend(ended.entries),
                    Err(Fenced) => return Ok(Err(Fenced)),
                }
            }
        }
        let micros = i64::try_from(micros).unwrap_or(i64::MAX / 2);
        let last = Arc::new(End {
            links,
            artifacts,
            ..make(Step::End(end), micros)
        });
        let ended = self.end_step_of(Arc::clone(&last)).await;
        if let Some(artifacts) = &last.artifacts {
            // Those of a page that another had already.
            self.take_back(artifacts).await;
        }
        Ok(ended?.map(|ended| {
            entries.extend(ended.entries);
            CrawlEnded { entries, ..ended }
        }))
    }

    /// Writes the contents of the artifacts of a page that was read.
    async fn write_crawl_artifacts(
        &self,
        held: Lease,
        task: TaskId,
        end: &mut CrawlEnd,
    ) -> Result<Result<Option<Contents>, Fenced>, LedgerError> {
        let CrawlEnd::Done(page) = end else { return Ok(Ok(None)) };
        if page.artifacts.is_empty() {
            return Ok(Ok(None));
        }
        let place = Place {
            held,
            task,
            page: held.id.to_string(),
        };
        let contents = self
            .write_artifacts(&place, &std::mem::take(&mut page.artifacts))
            .await?;
        Ok(contents.map(|contents| {
            page.warnings = page.warnings.saturating_add(contents.left_out);
            Some(contents)
        }))
    }

    pub(super) async fn end_step(&self, end: End) -> Result<Result<CrawlEnded, Fenced>, LedgerError> {
        self.end_step_of(Arc::new(end)).await
    }

    async fn end_step_of(&self, end: Arc<End>) -> Result<Result<CrawlEnded, Fenced>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "ending a crawl's page",
        };
        let answer = self.crawl_ends.0.call(end).await;
        answer
            .ok_or_else(|| doing.into_error(sqlx::Error::PoolTimedOut))?
            .context(doing)
    }
}

/// A run that is locked.
#[derive(FromRow)]
pub(super) struct Run {
    #[sqlx(flatten)]
    turn: Turn,
    pub(super) pages: i32,
    crawl_found: i32,
}

/// The ends of some of a run's pages in one transaction.
async fn commit(
    pool: &PgPool,
    task: TaskId,
    ends: Vec<Arc<End>>,
) -> Result<Vec<Result<CrawlEnded, Fenced>>, sqlx::Error> {
    let mut transaction = transaction::begin(pool).await?;
    let run: Option<Run> = sqlx::query_as(
        "SELECT user_id, priority, pages, crawl_found FROM tasks
         WHERE id = $1 AND status = 'running' AND crawl_open IS NOT NULL FOR UPDATE",
    )
    .bind(task)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(run) = run else {
        return Ok(ends.iter().map(|_| Err(Fenced)).collect());
    };
    let held = hold(&mut transaction, &ends).await?;
    let ours: Vec<&End> = ends
        .iter()
        .map(Arc::as_ref)
        .filter(|end| held.contains(&end.held.token))
        .collect();
    let mut answer = CrawlEnded::default();
    if !ours.is_empty() {
        let mut batch = Batch::default();
        for (place, end) in ours.iter().enumerate() {
            if let Some(number) = batch.take(&mut transaction, &run, end).await? {
                batch.read.push((place, number));
            }
        }
        answer.entries = write_ends(&mut transaction, task, run.turn, &batch.rows).await?;
        let states = batch
            .read
            .iter()
            .filter_map(|(end, number)| Some((ours.get(*end)?.state()?, *number)));
        conditional::remember(&mut *transaction, (run.turn.user_id, task), &states.collect::<Vec<_>>()).await?;
        for (end, number) in &batch.read {
            if let Some(artifacts) = ours.get(*end).and_then(|end| end.artifacts.as_ref()) {
                artifacts.keep(&mut transaction, task, *number).await?;
            }
        }
        let most = ours.iter().map(|end| end.max_pages).max().unwrap_or_default();
        let room = most - i64::from(run.crawl_found);
        let written = begin::write(&mut transaction, task, run.turn, &batch.found, room).await?;
        batch.delta.found = written.pages;
        batch.delta.open += i32::try_from(written.entries.len()).unwrap_or(i32::MAX);
        answer.entries.extend(written.entries);
        let settled = settle(&mut transaction, task, &batch.delta).await?;
        answer.run_ended = settled.ended;
        answer.entries.extend(
            settled
                .report
                .map(|due_milliseconds| run.turn.report(task, due_milliseconds)),
        );
    }
    transaction.commit().await?;
    // What is to be offered is told to one of them.
    let mut first = Some(answer.entries);
    let told = |end: &Arc<End>| {
        held.contains(&end.held.token).then(|| CrawlEnded {
            entries: first.take().unwrap_or_default(),
            run_ended: answer.run_ended,
        })
    };
    Ok(ends.iter().map(told).map(|ended| ended.ok_or(Fenced)).collect())
}

/// Locks those pages whose leases these are, in the order of their ids.
async fn hold(connection: &mut PgConnection, ends: &[Arc<End>]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let tokens: Vec<Uuid> = sqlx::query_scalar(
        "SELECT c.lease_token FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS held (id, token, expired)
             JOIN crawl_pages c ON c.id = held.id AND c.lease_token = held.token
         WHERE c.status = 'running' AND (NOT held.expired OR c.lease_until < now())
         ORDER BY c.id FOR UPDATE OF c",
    )
    .bind(column(ends, |end| end.held.id.0))
    .bind(column(ends, |end| end.held.token))
    .bind(column(ends, |end| end.expired))
    .fetch_all(connection)
    .await?;
    Ok(tokens.into_iter().collect())
}
