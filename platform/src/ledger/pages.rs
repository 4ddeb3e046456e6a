//! Pages with their records: how they are stored, and reading them by keyset in short statements.

use serde_json::{Map, Value};
use snafu::ResultExt;
use uuid::Uuid;

use super::{ContentSnafu, Doing, Ledger, Result};

/// Bodies above this many bytes are compressed.
const COMPRESS_ABOVE: usize = 2048;

/// A page of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Its number, from 1.
    pub page: i32,
    /// Its address.
    pub url: String,
    /// What it gave.
    pub records: Vec<Map<String, Value>>,
}

pub(super) struct Body {
    pub compressed: bool,
    pub bytes: Vec<u8>,
}

pub(super) fn encode(records: &[Map<String, Value>]) -> Result<Body> {
    const DOING: &str = "writing a page's records";
    let json = serde_json::to_vec(records).doing(DOING)?;
    if json.len() <= COMPRESS_ABOVE {
        return Ok(Body {
            compressed: false,
            bytes: json,
        });
    }
    let bytes = zstd::bulk::compress(&json, 3)
        .map_err(anyhow::Error::from)
        .context(ContentSnafu { doing: DOING })?;
    Ok(Body {
        compressed: true,
        bytes,
    })
}

pub(super) fn decode(body: &Body) -> Result<Vec<Map<String, Value>>> {
    const DOING: &str = "reading a page's records";
    if !body.compressed {
        return serde_json::from_slice(&body.bytes).doing(DOING);
    }
    let json = zstd::decode_all(body.bytes.as_slice())
        .map_err(anyhow::Error::from)
        .context(ContentSnafu { doing: DOING })?;
    serde_json::from_slice(&json).doing(DOING)
}

impl Ledger {
    /// The pages of a run after `after`, in their order.
    pub async fn pages(&self, task: Uuid, after: Option<i32>, limit: u16) -> Result<Vec<Page>> {
        let rows: Vec<(i32, String, bool, Vec<u8>)> = sqlx::query_as(
            "SELECT page, url, compressed, body FROM pages WHERE task_id = $1 AND page > $2 ORDER BY page LIMIT $3",
        )
        .bind(task)
        .bind(after.unwrap_or(0))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .doing("reading pages")?;
        rows.into_iter()
            .map(|(page, url, compressed, bytes)| {
                Ok(Page {
                    page,
                    url,
                    records: decode(&Body { compressed, bytes })?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_whether_compressed_or_not() {
        for count in [1_usize, 500] {
            let record = serde_json::json!({ "title": "työ", "n": 1 })
                .as_object()
                .unwrap()
                .clone();
            let records = vec![record; count];
            let body = encode(&records).unwrap();
            assert_eq!(body.compressed, count > 1);
            assert_eq!(decode(&body).unwrap(), records);
        }
    }
}
