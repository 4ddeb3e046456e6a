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
    seen_in: Option<TaskId>,
}

/// A record's run, its page there, and its place on that.
type Spot = (TaskId, i32, i32);

impl Row {
    /// Where it is in the run before, or in the one that saw it last.
    fn before(&self, former: Option<TaskId>) -> Option<Spot> {
        let run = self.seen_in.or(former)?;
        let kept = || Some((run, self.before_page?, self.before_place?));
        match Kind::of(self.kind) {
            Kind::New => None,
            Kind::Gone if self.seen_in.is_none() => Some((run, self.page, self.place)),
            Kind::Changed | Kind::Gone => kept(),
        }
    }

    fn now(&self, run: TaskId) -> Option<Spot> {
        (Kind::of(self.kind) != Kind::Gone).then_some((run, self.page, self.place))
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
            "SELECT kind, page, place, before_page, before_place, seen_in FROM watch_records
             WHERE task_id = $1 AND kind <> 0 AND kind < 4 AND ($2::smallint IS NULL OR kind = $2) AND (kind, page, place) > ($3, $4, $5)
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
        let mut now = self.pick(rows.iter().filter_map(|row| row.now(id))).await?;
        let mut before = self.pick(rows.iter().filter_map(|row| row.before(former))).await?;
        let change = |row: &Row| {
            let record = row.now(id).and_then(|spot| now.remove(&spot));
            let before = row.before(former).and_then(|spot| before.remove(&spot));
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
    async fn pick(&self, spots: impl Iterator<Item = Spot>) -> Result<HashMap<Spot, Record>, LedgerError> {
        let mut wanted: BTreeMap<(TaskId, i32), Vec<i32>> = BTreeMap::new();
        for (run, page, place) in spots {
            wanted.entry((run, page)).or_default().push(place);
        }
        let mut picked = HashMap::new();
        for ((id, number), places) in wanted {
            let page = self.pages(id, number - 1, 1).await?.pop();
            let Some(mut page) = page.filter(|page| page.number == number) else {
                continue;
            };
            for place in places {
                let record = usize::try_from(place)
                    .ok()
                    .and_then(|place| page.records.get_mut(place));
                if let Some(record) = record {
                    picked.insert((id, number, place), std::mem::take(record));
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
