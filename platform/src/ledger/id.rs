//! Identities. A task's id is a `UUIDv7`, so ids sort by creation and a month of tasks is a range of ids.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A task: one run of one spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct TaskId(pub Uuid);

/// A user or a namespace that owns tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct UserId(pub Uuid);

impl TaskId {
    /// A new id, of now.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// When it was made, in milliseconds since the epoch: the first 48 bits (RFC 9562, section 5.7).
    pub fn unix_milliseconds(self) -> i64 {
        i64::try_from(self.0.as_u128() >> 80).unwrap_or(i64::MAX)
    }

    /// The id of a schedule's run at a tick: the same for whoever computes it.
    ///
    /// The first 48 bits are the tick, so that the row lies in the tick's month; the rest is a hash of the schedule's uid and the tick.
    pub fn of_tick(uid: &str, tick_milliseconds: i64) -> Self {
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{uid}/{tick_milliseconds}").as_bytes());
        let mut random = [0; 10];
        random.copy_from_slice(&hash.as_bytes()[..10]);
        let milliseconds = u64::try_from(tick_milliseconds).unwrap_or_default();
        Self(uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid())
    }
}

impl Default for TaskId {
    fn default() -> Self {
        Self::new()
    }
}

impl UserId {
    /// A new id.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for UserId {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $type {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

as_text!(TaskId);
as_text!(UserId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticks_run_has_the_same_id_for_everybody_and_lies_in_the_ticks_month() {
        let tick = 1_764_547_200_000;
        assert_eq!(TaskId::of_tick("uid", tick), TaskId::of_tick("uid", tick));
        assert_ne!(TaskId::of_tick("uid", tick), TaskId::of_tick("other", tick));
        assert_eq!(TaskId::of_tick("uid", tick).unix_milliseconds(), tick);
        assert_eq!(TaskId::of_tick("uid", tick).0.get_version_num(), 7);
    }
}
