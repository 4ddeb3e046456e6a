//! Reading and storing pages with their records.

use snafu::ResultExt;
use sqlx::FromRow;

use super::{Ledger, LedgerError, TaskId, claims::Record, error::DatabaseSnafu, error::StoredSnafu};
use crate::packing;

/// Records above this many bytes of JSON are stored compressed (the guide: "Use compression for large values").
const COMPRESS_ABOVE: usize = 2048;
/// About as much as most records take.
const RECORD_BYTES: usize = 256;
/// The most bytes that a stored page may unpack to.
const MAX_BYTES: u64 = 256 << 20;

/// A page's records as they are stored.
pub(crate) struct Encoded {
    pub(crate) compressed: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A page with its records.
#[derive(Clone, Debug)]
pub struct Page {
    /// 1 for the first page of the run.
    pub number: i32,
    /// The URL that was read.
    pub url: String,
    /// RFC 3339.
    pub fetched_at: String,
    /// Records left out for a missing required field.
    pub warnings: i32,
    /// The site said that it is as it was in a former run.
    pub not_modified: bool,
    /// Its records.
    pub records: Vec<Record>,
}

#[derive(FromRow)]
struct Row {
    number: i32,
    url: String,
    fetched_at: String,
    warnings: i32,
    not_modified: bool,
    compressed: bool,
    records: Vec<u8>,
}

impl Ledger {
    /// Up to `limit` pages of a task after page `after` (0 for the first), in order. One short statement: an export calls it again and
    /// again, so that it never holds a connection at its client's pace.
    pub async fn pages(&self, id: TaskId, after: i32, limit: i64) -> Result<Vec<Page>, LedgerError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT number, url, rfc3339(fetched_at) AS fetched_at, warnings, not_modified, compressed, records
             FROM pages WHERE task_id = $1 AND number > $2 ORDER BY number LIMIT $3",
        )
        .bind(id)
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading pages" })?;
        rows.into_iter().map(Page::try_from).collect()
    }
}

/// What a run has committed, without its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Visited {
    /// The URLs of its pages.
    pub urls: Vec<String>,
    /// How many records they have.
    pub records: i64,
}

impl Ledger {
    /// What a run has committed so far.
    pub async fn visited(&self, id: TaskId) -> Result<Visited, LedgerError> {
        sqlx::query_as(
            "SELECT coalesce(array_agg(url), '{}') AS urls, coalesce(sum(record_count), 0)::bigint AS records
             FROM pages WHERE task_id = $1",
        )
        .bind(id)
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "reading the URLs of pages",
        })
    }
}

impl TryFrom<Row> for Page {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<Self, LedgerError> {
        Ok(Self {
            number: row.number,
            url: row.url,
            fetched_at: row.fetched_at,
            warnings: row.warnings,
            not_modified: row.not_modified,
            records: decode(row.compressed, row.records)?,
        })
    }
}

pub(crate) fn encode(records: &[Record]) -> Result<Encoded, LedgerError> {
    let unreadable = |message: String| {
        StoredSnafu {
            what: "a page's records",
            message,
        }
        .build()
    };
    let mut json = Vec::with_capacity(RECORD_BYTES * records.len());
    serde_json::to_writer(&mut json, records).map_err(|e| unreadable(e.to_string()))?;
    if json.len() <= COMPRESS_ABOVE {
        return Ok(Encoded {
            compressed: false,
            bytes: json,
        });
    }
    let bytes = packing::pack(&json, packing::STORED).map_err(|e| unreadable(e.to_string()))?;
    Ok(Encoded {
        compressed: true,
        bytes,
    })
}

pub(crate) fn decode(compressed: bool, bytes: Vec<u8>) -> Result<Vec<Record>, LedgerError> {
    let unreadable = |message: String| {
        StoredSnafu {
            what: "a page's records",
            message,
        }
        .build()
    };
    let json = if compressed {
        packing::unpack(&bytes, MAX_BYTES).map_err(|e| unreadable(e.to_string()))?
    } else {
        bytes
    };
    serde_json::from_slice(&json).map_err(|e| unreadable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: usize) -> Vec<Record> {
        (0..count)
            .map(|n| Record::from_iter([("n".to_owned(), n.into())]))
            .collect()
    }

    #[test]
    fn records_read_back_as_they_were_whether_compressed_or_not() {
        for (count, compressed) in [(1, false), (1000, true)] {
            let stored = encode(&records(count)).unwrap();
            assert_eq!(stored.compressed, compressed);
            assert_eq!(decode(stored.compressed, stored.bytes).unwrap(), records(count));
        }
    }
}
