//! Where a crawl begins, and how what it finds is written down: each page once, and no more than it may visit.

use std::collections::HashSet;

use snafu::ResultExt;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{CrawlKind, FoundPage, MAX_SITEMAPS, column};
use crate::{
    frontier::Entry,
    ledger::{
        Ledger, LedgerError, TaskId, UserId,
        claims::{Fenced, Lease},
        error::DatabaseSnafu,
        transaction,
    },
};

/// What a crawl begins with.
#[derive(Clone, Debug, Default)]
pub struct CrawlStart {
    /// Its seeds, sitemaps and robots.txt.
    pub found: Vec<FoundPage>,
    /// The most pages that it visits.
    pub max_pages: u32,
    /// What is said when it ends without a record; `None` where that is well.
    pub nothing: Option<String>,
    /// Whether it is compared with the one before when its pages have ended.
    pub reports: bool,
    /// Compute units that finding out cost.
    pub units: u64,
}

/// What became of a crawl that was to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It runs; these are to be offered to the frontier.
    Open(Vec<Entry>),
    /// Somebody asked to end it; the claim is still held.
    Canceled,
}

/// Whose a run is, and which turn its pages take.
#[derive(Clone, Copy, Debug, FromRow)]
pub(super) struct Turn {
    pub(super) user_id: UserId,
    pub(super) priority: i16,
}

#[derive(FromRow)]
struct Held {
    #[sqlx(flatten)]
    turn: Turn,
    cancel_requested: bool,
}

/// A row that was new.
#[derive(FromRow)]
struct New {
    id: TaskId,
    host: String,
    kind: String,
    due_milliseconds: i64,
}

/// What was written down.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) entries: Vec<Entry>,
    /// How many of them are pages.
    pub(super) pages: i32,
}

impl Ledger {
    /// Lets a crawl's task go into the state in which it runs without a lease, with its first pages waiting.
    pub async fn begin_crawl(&self, held: Lease, start: &CrawlStart) -> Result<Result<Begun, Fenced>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "beginning a crawl",
        };
        let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
        let row: Option<Held> = sqlx::query_as(
            "SELECT user_id, priority, cancel_requested FROM tasks WHERE id = $1 AND lease_token = $2 AND status = 'running' FOR UPDATE",
        )
        .bind(held.id)
        .bind(held.token)
        .fetch_optional(&mut *transaction)
        .await
        .context(doing)?;
        let Some(row) = row else { return Ok(Err(Fenced)) };
        if row.cancel_requested {
            return Ok(Ok(Begun::Canceled));
        }
        let room = i64::from(start.max_pages);
        let written = write(&mut transaction, held.id, row.turn, &start.found, room)
            .await
            .context(doing)?;
        sqlx::query(
            "WITH begun AS (
                 UPDATE tasks SET crawl_open = $2, crawl_found = $3, crawl_failed = 0, crawl_skipped = 0, crawl_micros = 0, crawl_nothing = $4,
                     crawl_reports = $6, compute_units_used = compute_units_used + $5, attempts = 1, error_class = NULL, error_message = NULL,
                     lease_token = NULL, lease_until = NULL, worker = NULL
                 WHERE id = $1 RETURNING user_id, compute_units_used
             )
             INSERT INTO owner_counter_deltas (user_id, compute_units) SELECT user_id, compute_units_used FROM begun",
        )
        .bind(held.id)
        .bind(i32::try_from(written.entries.len()).unwrap_or(i32::MAX))
        .bind(written.pages)
        .bind(start.nothing.as_deref())
        .bind(i64::try_from(start.units).unwrap_or(i64::MAX))
        .bind(start.reports)
        .execute(&mut *transaction)
        .await
        .context(doing)?;
        transaction.commit().await.context(doing)?;
        Ok(Ok(Begun::Open(written.entries)))
    }
}

/// Writes down what is new of what was found, as far as there is room. The caller has locked the task, so that nobody else writes
/// meanwhile: the room holds exactly.
pub(super) async fn write(
    connection: &mut PgConnection,
    task: TaskId,
    turn: Turn,
    found: &[FoundPage],
    room: i64,
) -> Result<Written, sqlx::Error> {
    let mut seen = HashSet::new();
    let found: Vec<(Uuid, &FoundPage)> = found
        .iter()
        .map(|page| (TaskId::of_crawl_page(task, page.kind, &page.url).0, page))
        .filter(|(id, _)| seen.insert(*id))
        .collect();
    if found.is_empty() {
        return Ok(Written::default());
    }
    let maps = if found.iter().any(|(_, page)| page.kind == CrawlKind::Sitemap) {
        MAX_SITEMAPS - sitemaps(connection, task).await?
    } else {
        0
    };
    let new: Vec<New> = sqlx::query_as(
        "WITH fresh AS (
             SELECT * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::smallint[]) WITH ORDINALITY
                 AS new (id, kind, url, host, depth, place)
             WHERE NOT EXISTS (SELECT FROM crawl_pages c WHERE c.id = new.id)
         ), taken AS (
             (SELECT * FROM fresh WHERE kind = 'page' ORDER BY depth, place LIMIT greatest($7, 0))
             UNION ALL (SELECT * FROM fresh WHERE kind = 'sitemap' ORDER BY place LIMIT greatest($8, 0))
             UNION ALL (SELECT * FROM fresh WHERE kind = 'robots')
         )
         INSERT INTO crawl_pages (id, task_id, kind, url, host, depth) SELECT id, $1, kind, url, host, depth FROM taken
         ON CONFLICT (id) DO NOTHING
         RETURNING id, host, kind, ceil(extract(epoch FROM due_at) * 1000)::bigint AS due_milliseconds",
    )
    .bind(task)
    .bind(column(&found, |(id, _)| *id))
    .bind(column(&found, |(_, page)| page.kind.as_str()))
    .bind(column(&found, |(_, page)| page.url.as_str()))
    .bind(column(&found, |(_, page)| page.host.as_str()))
    .bind(column(&found, |(_, page)| page.depth))
    .bind(room)
    .bind(maps)
    .fetch_all(connection)
    .await?;
    let pages = new.iter().filter(|row| row.kind == CrawlKind::Page.as_str()).count();
    Ok(Written {
        pages: i32::try_from(pages).unwrap_or(i32::MAX),
        entries: new.into_iter().map(|row| row.entry(turn)).collect(),
    })
}

async fn sitemaps(connection: &mut PgConnection, task: TaskId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM crawl_pages
         WHERE id BETWEEN crawl_first($1) AND crawl_last($1) AND task_id = $1 AND kind <> 'page' AND kind = 'sitemap'",
    )
    .bind(task)
    .fetch_one(connection)
    .await
}

impl New {
    fn entry(self, turn: Turn) -> Entry {
        Entry {
            id: self.id,
            owner: turn.user_id,
            host: self.host,
            priority: u8::try_from(turn.priority).unwrap_or_default(),
            due_milliseconds: self.due_milliseconds,
        }
    }
}
