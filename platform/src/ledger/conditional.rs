//! What a site said about a page's state, so that it can say the next time that the page is as it was: then its records are those of the
//! run before.

use std::time::Duration;

use snafu::ResultExt;
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use super::{
    Ledger, LedgerError, TaskId, UserId,
    claims::{Claim, Record},
    crawl::links,
    error::DatabaseSnafu,
    pages,
};

/// How long a page's state is known after it was seen last.
const LIVES: Duration = Duration::from_hours(30 * 24);

/// A page's state as its site names it; at least one of them is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// The header `ETag`.
    pub etag: Option<String>,
    /// The header `Last-Modified`.
    pub last_modified: Option<String>,
}

/// A page's state, to be remembered when the page has its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageState {
    /// What the page is known by.
    pub key: Uuid,
    /// Where it came from in the end: only there its state means something.
    pub url: String,
    /// Its state.
    pub validators: Validators,
}

/// A page that a run has, whose site can say whether it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where it came from in the end: only there its state means something.
    pub url: String,
    /// Its state.
    pub validators: Validators,
    /// The run that has it.
    pub task_id: TaskId,
    /// Its number there.
    pub page: i32,
}

/// A page as a former run committed it.
#[derive(Clone, Debug)]
pub struct FormerPage {
    /// Its records.
    pub records: Vec<Record>,
    /// Where the run went on; `None` where it ended.
    pub next_url: Option<String>,
    /// Records left out for a missing required field.
    pub warnings: i32,
    /// How many items it has, and in how many of them each field was found.
    pub fill: Vec<i32>,
    /// The pages that it leads to, where they were kept.
    pub links: Vec<String>,
}

#[derive(FromRow)]
struct KnownRow {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    task_id: TaskId,
    page: i32,
}

#[derive(FromRow)]
struct FormerRow {
    next_url: Option<String>,
    warnings: i32,
    fill: Option<Vec<i32>>,
    links: Option<Vec<u8>>,
    compressed: bool,
    records: Vec<u8>,
}

impl Ledger {
    /// What is known of a page by its key, while the run that has it is there; where its links are needed, only with them.
    pub async fn known_page(&self, owner: UserId, key: Uuid, with_links: bool) -> Result<Option<Known>, LedgerError> {
        let row: Option<KnownRow> = sqlx::query_as(
            "SELECT v.url, v.etag, v.last_modified, v.task_id, v.page FROM page_validators v
             WHERE v.user_id = $1 AND v.key = $2 AND v.expires_at > now()
                 AND EXISTS (SELECT FROM pages p WHERE p.task_id = v.task_id AND p.number = v.page
                     AND (p.links IS NOT NULL OR NOT $3))",
        )
        .bind(owner)
        .bind(key)
        .bind(with_links)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading a page's state",
        })?;
        Ok(row.map(|row| Known {
            url: row.url,
            validators: Validators {
                etag: row.etag,
                last_modified: row.last_modified,
            },
            task_id: row.task_id,
            page: row.page,
        }))
    }

    /// Remembers a page's state, after the page was committed under this number.
    pub async fn remember_page(&self, claim: &Claim, state: &PageState, number: i32) -> Result<(), LedgerError> {
        let remembered = remember(&self.pool, (claim.user_id, claim.id), &[(state, number)]).await;
        remembered.context(DatabaseSnafu {
            doing: "remembering a page's state",
        })
    }

    /// A page of a former run, if it is still there.
    pub async fn former_page(&self, known: &Known) -> Result<Option<FormerPage>, LedgerError> {
        let row: Option<FormerRow> = sqlx::query_as(
            "SELECT next_url, warnings, fill, links, compressed, records FROM pages WHERE task_id = $1 AND number = $2",
        )
        .bind(known.task_id)
        .bind(known.page)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading a page of a former run",
        })?;
        row.map(|row| {
            Ok(FormerPage {
                records: pages::decode(row.compressed, row.records)?,
                next_url: row.next_url,
                warnings: row.warnings,
                fill: row.fill.unwrap_or_default(),
                links: row.links.map_or(Ok(Vec::new()), |links| links::unpack(&links))?,
            })
        })
        .transpose()
    }
}

/// Remembers the states of a run's pages, each with the page's number.
pub(super) async fn remember(
    database: impl PgExecutor<'_>,
    (owner, run): (UserId, TaskId),
    states: &[(&PageState, i32)],
) -> Result<(), sqlx::Error> {
    if states.is_empty() {
        return Ok(());
    }
    // In the order of their keys: two runs of one spec that write the same ones do not wait for each other in a circle.
    let mut states = states.to_vec();
    states.sort_unstable_by_key(|(state, _)| state.key);
    let texts = |read: fn(&PageState) -> Option<&str>| -> Vec<Option<&str>> {
        states.iter().map(|(state, _)| read(state)).collect()
    };
    sqlx::query(
        "INSERT INTO page_validators (user_id, key, url, etag, last_modified, task_id, page, expires_at)
         SELECT $1, key, url, etag, last_modified, $2, page, now() + make_interval(secs => $8)
         FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::integer[]) AS new (key, url, etag, last_modified, page)
         ON CONFLICT (user_id, key) DO UPDATE SET url = excluded.url, etag = excluded.etag, last_modified = excluded.last_modified,
             task_id = excluded.task_id, page = excluded.page, expires_at = excluded.expires_at",
    )
    .bind(owner)
    .bind(run)
    .bind(states.iter().map(|(state, _)| state.key).collect::<Vec<Uuid>>())
    .bind(texts(|state| Some(&state.url)))
    .bind(texts(|state| state.validators.etag.as_deref()))
    .bind(texts(|state| state.validators.last_modified.as_deref()))
    .bind(states.iter().map(|(_, number)| *number).collect::<Vec<i32>>())
    .bind(LIVES.as_secs_f64())
    .execute(database)
    .await?;
    Ok(())
}
