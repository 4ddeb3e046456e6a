//! Tasks that wait, as the frontier takes them.

use sqlx::FromRow;

use super::{TaskId, UserId};
use crate::frontier::Entry;

/// A task that waits; the columns are `id, user_id, host, priority, due_milliseconds`.
#[derive(FromRow)]
pub(crate) struct EntryRow {
    id: TaskId,
    user_id: UserId,
    host: String,
    priority: i16,
    due_milliseconds: i64,
}

impl EntryRow {
    pub(crate) const fn id(&self) -> TaskId {
        self.id
    }

    pub(crate) const fn owner(&self) -> UserId {
        self.user_id
    }

    /// The lower, the earlier.
    pub(crate) fn rank(&self) -> i32 {
        9 - i32::from(self.priority)
    }
}

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Self {
        Self {
            id: row.id,
            owner: row.user_id,
            host: row.host,
            priority: u8::try_from(row.priority).unwrap_or_default(),
            due_milliseconds: row.due_milliseconds,
        }
    }
}
