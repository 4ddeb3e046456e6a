//! What the ends of some of a run's pages are as rows: the pages' own, those with their records, and what was found.

use std::time::Duration;

use selextract_task::feed::RunError;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{
    FoundPage,
    begin::Turn,
    column,
    ends::{CrawlEnd, End, ReadPage, Run, Step},
    settle::Delta,
};
use crate::{
    frontier::Entry,
    ledger::{TaskId, claims::fill_literal, pages},
};

/// The end of a page as its row; with the page's records when it was read.
#[derive(Default)]
pub(super) struct Ending {
    id: Uuid,
    status: &'static str,
    after_seconds: Option<f64>,
    give_back: i32,
    error: Option<RunError>,
    absent: bool,
    read: Option<Read>,
}

struct Read {
    number: i32,
    url: String,
    record_count: i32,
    warnings: i32,
    compressed: bool,
    records: Vec<u8>,
    fill: Option<String>,
    not_modified: bool,
    links: Option<Vec<u8>>,
}

/// What the ends of a run's pages are together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) delta: Delta,
    pub(super) rows: Vec<Ending>,
    pub(super) found: Vec<FoundPage>,
    /// The ends of pages that were read, by their places, with the pages' numbers.
    pub(super) read: Vec<(usize, i32)>,
}

impl Batch {
    /// What an end means for its page and for its run. Returns the number of a page that was read.
    pub(super) async fn take(
        &mut self,
        connection: &mut PgConnection,
        run: &Run,
        end: &End,
    ) -> Result<Option<i32>, sqlx::Error> {
        self.delta.micros += end.micros;
        let how = match &end.step {
            Step::Found(pages) => {
                self.found.extend_from_slice(pages);
                return Ok(None);
            }
            Step::End(how) => how,
        };
        let mut row = match how {
            CrawlEnd::Done(page) => self.take_page(connection, run, end, page).await?,
            CrawlEnd::Mapped(pages) => {
                self.found.extend_from_slice(pages);
                Ending::of("done", None)
            }
            CrawlEnd::Failed(error) => Ending::of("failed", Some(error)),
            CrawlEnd::Absent(error) => Ending {
                absent: true,
                ..Ending::of("failed", Some(error))
            },
            CrawlEnd::Reported(pages) => {
                self.delta.reported = Some(*pages);
                Ending::of("done", None)
            }
            CrawlEnd::Skipped(error) => Ending::of("skipped", Some(error)),
            CrawlEnd::Retry { after, error } => Ending::again(Some(*after), Some(error), 0),
            CrawlEnd::Waits { after, reason } => Ending::again(Some(*after), reason.as_ref(), 1),
            CrawlEnd::FailsRun(error) => {
                self.delta.fails.get_or_insert_with(|| error.clone());
                Ending::again(None, None, 1)
            }
        };
        row.id = end.held.id.0;
        self.delta.failed += i32::from(row.status == "failed");
        self.delta.skipped += i32::from(row.status == "skipped");
        self.delta.open -= i32::from(row.status != "pending");
        let number = row.read.as_ref().map(|read| read.number);
        self.rows.push(row);
        Ok(number)
    }

    /// A page that was read. What another page of the crawl has or will have is not written a second time.
    async fn take_page(
        &mut self,
        connection: &mut PgConnection,
        run: &Run,
        end: &End,
        page: &ReadPage,
    ) -> Result<Ending, sqlx::Error> {
        let mut row = Ending::of("done", None);
        if let Some(moved) = &page.moved {
            let arrived = arrive(connection, end.task, moved, page.records.len()).await?;
            row = Ending::of("skipped", Some(&led_to(moved, arrived)));
            if !arrived {
                return Ok(row);
            }
        }
        let stored = pages::encode(&page.records).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        self.delta.pages += 1;
        self.delta.records += i64::try_from(page.records.len()).unwrap_or(i64::MAX);
        self.delta.warnings += i64::from(page.warnings);
        row.read = Some(Read {
            number: run.pages + self.delta.pages,
            url: page.url.clone(),
            record_count: i32::try_from(page.records.len()).unwrap_or(i32::MAX),
            warnings: page.warnings,
            compressed: stored.compressed,
            records: stored.bytes,
            fill: fill_literal(&page.fill),
            not_modified: page.not_modified,
            links: end.links.clone(),
        });
        self.found.extend_from_slice(&page.found);
        Ok(row)
    }
}

impl Ending {
    fn of(status: &'static str, error: Option<&RunError>) -> Self {
        Self {
            status,
            error: error.cloned(),
            ..Self::default()
        }
    }

    fn again(after: Option<Duration>, error: Option<&RunError>, give_back: i32) -> Self {
        Self {
            after_seconds: after.map(|after| after.as_secs_f64()),
            give_back,
            ..Self::of("pending", error)
        }
    }
}

/// Why a page was not read that led to another.
fn led_to(page: &FoundPage, read: bool) -> RunError {
    let (class, what) = if read {
        ("Redirected", "was read in its place")
    } else {
        ("Duplicate", "the crawl has already")
    };
    RunError {
        class: class.into(),
        message: format!("it leads to {}, which {what}", page.url),
    }
}

/// Writes down that the page that another led to was read; not when the crawl has it already.
async fn arrive(
    connection: &mut PgConnection,
    task: TaskId,
    page: &FoundPage,
    records: usize,
) -> Result<bool, sqlx::Error> {
    let new = sqlx::query(
        "INSERT INTO crawl_pages (id, task_id, kind, url, host, depth, status, attempts, records, ended_at)
         VALUES ($1, $2, 'page', $3, $4, $5, 'done', 1, $6, now()) ON CONFLICT (id) DO NOTHING",
    )
    .bind(TaskId::of_crawl_page(task, page.kind, &page.url))
    .bind(task)
    .bind(&page.url)
    .bind(&page.host)
    .bind(page.depth)
    .bind(i32::try_from(records).unwrap_or(i32::MAX))
    .execute(connection)
    .await?;
    Ok(new.rows_affected() == 1)
}

#[derive(FromRow)]
struct Ended {
    id: TaskId,
    host: String,
    due_milliseconds: i64,
}

/// Writes the ends and the pages that were read; what waits again is given back.
pub(super) async fn write_ends(
    connection: &mut PgConnection,
    task: TaskId,
    turn: Turn,
    rows: &[Ending],
) -> Result<Vec<Entry>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let read: Vec<&Read> = rows.iter().filter_map(|row| row.read.as_ref()).collect();
    let count = |row: &Ending| {
        row.read
            .as_ref()
            .filter(|_| row.status == "done")
            .map_or(0, |read| read.record_count)
    };
    let ended: Vec<Ended> = sqlx::query_as(
        "WITH ended AS (
             UPDATE crawl_pages c SET status = new.status, attempts = greatest(c.attempts - new.give_back, 0), records = new.records,
                 due_at = CASE WHEN new.after_seconds IS NULL THEN c.due_at ELSE now() + make_interval(secs => new.after_seconds) END,
                 ended_at = CASE WHEN new.status <> 'pending' THEN now() END,
                 error_class = new.error_class, error_message = new.error_message, absent = new.absent, lease_token = NULL, lease_until = NULL,
                 worker = CASE WHEN new.status <> 'pending' THEN c.worker END
             FROM unnest($2::uuid[], $3::text[], $4::double precision[], $5::integer[], $6::integer[], $7::text[], $8::text[],
                     $18::boolean[])
                 AS new (id, status, after_seconds, give_back, records, error_class, error_message, absent)
             WHERE c.id = new.id
             RETURNING c.id, c.status, c.host, c.due_at
         ), kept AS (
             INSERT INTO pages (task_id, number, url, record_count, warnings, compressed, records, fill, not_modified, links)
             SELECT $1, number, url, record_count, warnings, compressed, records, fill::integer[], not_modified, links
             FROM unnest($9::integer[], $10::text[], $11::integer[], $12::integer[], $13::boolean[], $14::bytea[], $15::text[], $16::boolean[],
                     $17::bytea[])
                 AS read (number, url, record_count, warnings, compressed, records, fill, not_modified, links)
         )
         SELECT id, host, ceil(extract(epoch FROM due_at) * 1000)::bigint AS due_milliseconds FROM ended WHERE status = 'pending'",
    )
    .bind(task)
    .bind(column(rows, |row| row.id))
    .bind(column(rows, |row| row.status))
    .bind(column(rows, |row| row.after_seconds))
    .bind(column(rows, |row| row.give_back))
    .bind(column(rows, count))
    .bind(column(rows, |row| row.error.as_ref().map(|error| error.class.as_str())))
    .bind(column(rows, |row| row.error.as_ref().map(|error| error.message.as_str())))
    .bind(column(&read, |read| read.number))
    .bind(column(&read, |read| read.url.as_str()))
    .bind(column(&read, |read| read.record_count))
    .bind(column(&read, |read| read.warnings))
    .bind(column(&read, |read| read.compressed))
    .bind(column(&read, |read| read.records.as_slice()))
    .bind(column(&read, |read| read.fill.as_deref()))
    .bind(column(&read, |read| read.not_modified))
    .bind(column(&read, |read| read.links.as_deref()))
    .bind(column(rows, |row| row.absent))
    .fetch_all(connection)
    .await?;
    let entry = |row: Ended| Entry {
        id: row.id,
        owner: turn.user_id,
        host: row.host,
        priority: u8::try_from(turn.priority).unwrap_or_default(),
        due_milliseconds: row.due_milliseconds,
    };
    Ok(ended.into_iter().map(entry).collect())
}
