//! What a site said about a page's state, so that it can say the next time that the page is as it was: then its records are those of the
//! run before.

use std::time::Duration;

use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Ledger, LedgerError, TaskId, UserId, claims::Record, error::DatabaseSnafu, pages};

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
    compressed: bool,
    records: Vec<u8>,
}

impl Ledger {
    /// What is known of a page by its key, while the run that has it is there.
    pub async fn known_page(&self, owner: UserId, key: Uuid) -> Result<Option<Known>, LedgerError> {
        let row: Option<KnownRow> = sqlx::query_as(
            "SELECT v.url, v.etag, v.last_modified, v.task_id, v.page FROM page_validators v
             WHERE v.user_id = $1 AND v.key = $2 AND v.expires_at > now()
                 AND EXISTS (SELECT FROM pages p WHERE p.task_id = v.task_id AND p.number = v.page)",
        )
        .bind(owner)
        .bind(key)
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

    /// Remembers a page's state by its key, after the page was committed.
    pub async fn remember_page(&self, owner: UserId, key: Uuid, known: &Known) -> Result<(), LedgerError> {
        sqlx::query(
            "INSERT INTO page_validators (user_id, key, url, etag, last_modified, task_id, page, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8))
             ON CONFLICT (user_id, key) DO UPDATE SET url = excluded.url, etag = excluded.etag, last_modified = excluded.last_modified,
                 task_id = excluded.task_id, page = excluded.page, expires_at = excluded.expires_at",
        )
        .bind(owner)
        .bind(key)
        .bind(&known.url)
        .bind(&known.validators.etag)
        .bind(&known.validators.last_modified)
        .bind(known.task_id)
        .bind(known.page)
        .bind(LIVES.as_secs_f64())
        .execute(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "remembering a page's state",
        })?;
        Ok(())
    }

    /// A page of a former run, if it is still there.
    pub async fn former_page(&self, known: &Known) -> Result<Option<FormerPage>, LedgerError> {
        let row: Option<FormerRow> = sqlx::query_as(
            "SELECT next_url, warnings, fill, compressed, records FROM pages WHERE task_id = $1 AND number = $2",
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
            })
        })
        .transpose()
    }
}
