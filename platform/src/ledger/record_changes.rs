//! What a watched run found new, changed and gone: read page by page from the run and from the one before it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use selextract_task::Watch;
use snafu::ResultExt;
use sqlx::FromRow;

use super::{Ledger, LedgerError, TaskId, claims::Record, error::DatabaseSnafu, pages::Page};
use crate::digest::changed_fields;

/// The most changes that are read at once.
pub const MOST: i64 = 100;
const DOING: &str = "reading the changes of a run";

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was not in the run before.
    New,
    /// It was, with another content.
    Changed,
    /// It was, and is no more.
    Gone,
}

impl Kind {
    const fn number(self) -> i16 {
        match self {
            Self::New => 1,
            Self::Changed => 2,
            Self::Gone => 3,
        }
    }

    const fn of(number: i16) -> Self {
        match number {
            1 => Self::New,
            2 => Self::Changed,
            _ => Self::Gone,
        }
    }
}

/// A place in the list of changes: by kind, then in the order of the run's records (of those that are gone, of the run before).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// As in the ledger.
    pub kind: i16,
    /// The page.
    pub page: i32,
    /// The record on it.
    pub place: i32,
}

/// A record that is new, changed or gone.
#[derive(Clone, Debug)]
pub struct RecordChange {
    /// Where it stands in the list.
    pub at: Place,
    /// What became of it.
    pub kind: Kind,
    /// As it is now; none when it is gone.
    pub record: Option<Record>,
    /// As it was; none when it is new, or when the run before was removed.
    pub before: Option<Record>,
    /// What differs, where both are known.
    pub fields: Vec<String>,
}

#[derive(FromRow)]
struct Row {
    kind: i16,
    page: i32,
    place: i32,
    before_page: Option<i32>,
    before_place: Option<i32>,
}

impl Row {
    /// Where it is in the run before.
    fn before(&self) -> Option<(i32, i32)> {
        match Kind::of(self.kind) {
            Kind::New => None,
            Kind::Changed => self.before_page.zip(self.before_place),
            Kind::Gone => Some((self.page, self.place)),
        }
    }

    fn now(&self) -> Option<(i32, i32)> {
        (Kind::of(self.kind) != Kind::Gone).then_some((self.page, self.place))
    }
}

impl Ledger {
    /// Changes of a run that was compared with `former`, after `after`, of one kind when asked; [`MOST`] at most.
    pub async fn record_changes(
        &self,
        (id, former): (TaskId, Option<TaskId>),
        kind: Option<Kind>,
        after: Option<Place>,
        limit: i64,
        watch: &Watch,
    ) -> Result<Vec<RecordChange>, LedgerError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT kind, page, place, before_page, before_place FROM watch_records
             WHERE task_id = $1 AND kind <> 0 AND ($2::smallint IS NULL OR kind = $2) AND (kind, page, place) > ($3, $4, $5)
             ORDER BY kind, page, place LIMIT $6",
        )
        .bind(id)
        .bind(kind.map(Kind::number))
        .bind(after.map_or(0, |place| place.kind))
        .bind(after.map_or(0, |place| place.page))
        .bind(after.map_or(0, |place| place.place))
        .bind(limit.clamp(1, MOST))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })?;
        let mut now = self.pick(id, rows.iter().filter_map(Row::now)).await?;
        let mut before = match former {
            Some(former) => self.pick(former, rows.iter().filter_map(Row::before)).await?,
            None => HashMap::new(),
        };
        let change = |row: &Row| {
            let record = row.now().and_then(|place| now.remove(&place));
            let before = row.before().and_then(|place| before.remove(&place));
            let fields = match (&before, &record) {
                (Some(before), Some(record)) => changed_fields(before, record, watch),
                _ => Vec::new(),
            };
            RecordChange {
                at: Place {
                    kind: row.kind,
                    page: row.page,
                    place: row.place,
                },
                kind: Kind::of(row.kind),
                record,
                before,
                fields,
            }
        };
        Ok(rows.iter().map(change).collect())
    }

    /// Records by their places, one page in memory at a time. What was removed is left out.
    async fn pick(
        &self,
        id: TaskId,
        places: impl Iterator<Item = (i32, i32)>,
    ) -> Result<HashMap<(i32, i32), Record>, LedgerError> {
        let mut wanted: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (page, place) in places {
            wanted.entry(page).or_default().push(place);
        }
        let mut picked = HashMap::new();
        for (number, places) in wanted {
            let page = self.pages(id, number - 1, 1).await?.pop();
            let Some(mut page) = page.filter(|page| page.number == number) else {
                continue;
            };
            for place in places {
                let record = usize::try_from(place)
                    .ok()
                    .and_then(|place| page.records.get_mut(place));
                if let Some(record) = record {
                    picked.insert((number, place), std::mem::take(record));
                }
            }
        }
        Ok(picked)
    }

    /// Leaves in pages of a watched run only the records that are new or changed. Their numbers are in a row.
    pub async fn keep_changes(&self, id: TaskId, pages: &mut [Page]) -> Result<(), LedgerError> {
        let (Some(first), Some(last)) = (pages.first(), pages.last()) else {
            return Ok(());
        };
        let places: Vec<(i32, i32)> = sqlx::query_as(
            "SELECT page, place FROM watch_records WHERE task_id = $1 AND kind IN (1, 2) AND page BETWEEN $2 AND $3",
        )
        .bind(id)
        .bind(first.number)
        .bind(last.number)
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: DOING })?;
        let kept: BTreeSet<(i32, i32)> = places.into_iter().collect();
        for page in pages {
            let number = page.number;
            let mut place = 0..;
            page.records
                .retain(|_| place.next().is_some_and(|place| kept.contains(&(number, place))));
        }
        Ok(())
    }
}
