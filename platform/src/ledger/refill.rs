//! What waits, for the frontier: of every owner what comes first, then stretch by stretch what comes behind it, so that nobody's backlog
//! stands before another's. Only reads.

use std::{collections::BTreeMap, ops::Bound};

use snafu::ResultExt;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Ledger, LedgerError, TaskId, UserId, error::DatabaseSnafu};
use crate::frontier::Entry;

/// How many rows one stretch has.
const BATCH: usize = 5_000;
/// Owners of one stretch.
pub(super) const OWNERS: usize = 50;
/// How many rows of an owner's a round through all owners reads.
pub(super) const HEAD: usize = BATCH / OWNERS;

/// How far a circle through all tasks that wait has come.
pub type RefillCursor = Circle<Place>;

/// How far a circle through all that waits has come, where a row has such a place in its owner's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circle<P> {
    pub(super) round: Round,
    /// How far it is with those owners of whom more waits than one stretch has; one entry for each such owner.
    places: BTreeMap<UserId, P>,
}

/// Where a circle is; behind the last owner that it looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// It looks at what of every owner's comes first.
    Heads(Option<UserId>),
    /// It looks at what comes behind that.
    Deeper(Option<UserId>),
}

/// A row of something that waits.
pub(super) trait Waits {
    /// Its place in its owner's order.
    type Place;

    fn owner(&self) -> UserId;

    fn place(&self) -> Self::Place;
}

/// A task in its owner's order: by priority, then by due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    rank: i32,
    due_microseconds: i64,
    id: TaskId,
}

impl<P> Default for Circle<P> {
    fn default() -> Self {
        Self {
            round: Round::Heads(None),
            places: BTreeMap::new(),
        }
    }
}

impl Place {
    /// Before all rows.
    const START: Self = Self {
        rank: -1,
        due_microseconds: 0,
        id: TaskId(Uuid::nil()),
    };
}

impl<P: Copy> Circle<P> {
    /// The same circle, which looks first again at what of every owner's comes first, unless it is at that already.
    #[must_use]
    pub fn heads_first(self) -> Self {
        match self.round {
            Round::Heads(_) => self,
            Round::Deeper(_) => Self {
                round: Round::Heads(None),
                ..self
            },
        }
    }

    /// The owners to look at in the round of what lies deeper, and how many rows of each.
    pub(super) fn deeper(&self, after: Option<UserId>) -> (Vec<(UserId, P)>, usize) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let owners = self.places.range((from, Bound::Unbounded)).take(OWNERS);
        let owners: Vec<_> = owners.map(|(owner, place)| (*owner, *place)).collect();
        let rows = BATCH / owners.len().max(1);
        (owners, rows)
    }

    /// After the heads of these owners were read. Who is further already stays there.
    pub(super) fn after_heads<R: Waits<Place = P>>(mut self, owners: &[UserId], rows: &[R]) -> Option<Self> {
        for (owner, place) in longer(rows, HEAD) {
            self.places.entry(owner).or_insert(place);
        }
        self.round = match owners.last() {
            Some(last) if owners.len() == OWNERS => Round::Heads(Some(*last)),
            _ => Round::Deeper(None),
        };
        self.open()
    }

    /// After a stretch of these owners was read that lies deeper.
    pub(super) fn after_deeper<R: Waits<Place = P>>(
        mut self,
        owners: &[(UserId, P)],
        most: usize,
        rows: &[R],
    ) -> Option<Self> {
        for (owner, _) in owners {
            self.places.remove(owner);
        }
        self.places.extend(longer(rows, most));
        let last = owners.last().map(|(owner, _)| *owner);
        self.round = Round::Deeper(last.filter(|_| owners.len() == OWNERS));
        self.open()
    }

    fn open(self) -> Option<Self> {
        (matches!(self.round, Round::Heads(_)) || !self.places.is_empty()).then_some(self)
    }
}

/// The owners of whom as many rows came as may come, each with the last of them. The rows are in order.
fn longer<R: Waits>(rows: &[R], most: usize) -> Vec<(UserId, R::Place)> {
    rows.chunk_by(|one, next| one.owner() == next.owner())
        .filter(|of_owner| of_owner.len() >= most)
        .filter_map(<[R]>::last)
        .map(|last| (last.owner(), last.place()))
        .collect()
}

#[derive(FromRow)]
struct Row {
    id: TaskId,
    user_id: UserId,
    host: String,
    priority: i16,
    due_microseconds: i64,
}

impl Waits for Row {
    type Place = Place;

    fn owner(&self) -> UserId {
        self.user_id
    }

    fn place(&self) -> Place {
        Place {
            rank: 9 - i32::from(self.priority),
            due_microseconds: self.due_microseconds,
            id: self.id,
        }
    }
}

impl Row {
    fn entry(self) -> Entry {
        Entry {
            id: self.id,
            owner: self.user_id,
            host: self.host,
            priority: u8::try_from(self.priority).unwrap_or_default(),
            // Rounded up: what is offered a moment too early is not claimed.
            due_milliseconds: self.due_microseconds.div_euclid(1_000)
                + i64::from(self.due_microseconds.rem_euclid(1_000) > 0),
        }
    }
}

impl Ledger {
    /// A stretch of the tasks that wait, for the frontier; with where to go on, `None` at the end of the circle. A circle begins with what
    /// comes first of every owner's, by priority and due time, and goes on with those who have more, in turns.
    pub async fn refill(&self, from: Option<RefillCursor>) -> Result<(Vec<Entry>, Option<RefillCursor>), LedgerError> {
        let cursor = from.unwrap_or_default();
        let (rows, next) = match cursor.round {
            Round::Heads(after) => {
                let owners = self.waiting_owners(after).await?;
                let starts: Vec<_> = owners.iter().map(|owner| (*owner, Place::START)).collect();
                let rows = self.waiting_rows(&starts, HEAD).await?;
                let next = cursor.after_heads(&owners, &rows);
                (rows, next)
            }
            Round::Deeper(after) => {
                let (owners, most) = cursor.deeper(after);
                let rows = self.waiting_rows(&owners, most).await?;
                let next = cursor.after_deeper(&owners, most, &rows);
                (rows, next)
            }
        };
        Ok((rows.into_iter().map(Row::entry).collect(), next))
    }

    /// The next owners of whom something waits. One look into the index for each, however much that is; only that index has this order.
    async fn waiting_owners(&self, after: Option<UserId>) -> Result<Vec<UserId>, LedgerError> {
        sqlx::query_scalar(
            "WITH RECURSIVE owners AS (
                 (SELECT user_id FROM tasks WHERE status = 'pending' AND NOT paused AND ($1::uuid IS NULL OR user_id > $1)
                  ORDER BY user_id, 9 - priority, due_at, id LIMIT 1)
                 UNION ALL
                 SELECT next.user_id FROM owners CROSS JOIN LATERAL (
                     SELECT user_id FROM tasks WHERE status = 'pending' AND NOT paused AND user_id > owners.user_id
                     ORDER BY user_id, 9 - priority, due_at, id LIMIT 1
                 ) next
             )
             SELECT user_id FROM owners LIMIT $2",
        )
        .bind(after)
        .bind(i64::try_from(OWNERS).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading whose tasks wait" })
    }

    /// Of each owner up to so many rows behind a place, in their order.
    async fn waiting_rows(&self, owners: &[(UserId, Place)], most: usize) -> Result<Vec<Row>, LedgerError> {
        sqlx::query_as(
            "SELECT w.id, w.user_id, w.host, w.priority, (extract(epoch FROM w.due_at) * 1000000)::bigint AS due_microseconds
             FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::uuid[]) AS o (user_id, rank, due, id) CROSS JOIN LATERAL (
                 SELECT t.id, t.user_id, t.host, t.priority, t.due_at FROM tasks t
                 WHERE t.status = 'pending' AND NOT t.paused AND t.user_id = o.user_id
                     AND (9 - t.priority, t.due_at, t.id) > (o.rank, 'epoch'::timestamptz + o.due * interval '1 microsecond', o.id)
                 ORDER BY 9 - t.priority, t.due_at, t.id LIMIT $5
             ) w
             WHERE NOT EXISTS (SELECT FROM owner_holds h WHERE h.user_id = o.user_id AND h.until > now())
             ORDER BY w.user_id, 9 - w.priority, w.due_at, w.id",
        )
        .bind(owners.iter().map(|(owner, _)| owner.0).collect::<Vec<Uuid>>())
        .bind(owners.iter().map(|(_, place)| place.rank).collect::<Vec<_>>())
        .bind(owners.iter().map(|(_, place)| place.due_microseconds).collect::<Vec<_>>())
        .bind(owners.iter().map(|(_, place)| place.id.0).collect::<Vec<Uuid>>())
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&self.pool)
        .await
        .context(DatabaseSnafu { doing: "reading tasks that wait" })
    }
}
