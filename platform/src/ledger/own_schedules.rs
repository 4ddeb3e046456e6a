//! Schedules that users of the API made. They stand in one table with those of `ScrapeTask`s, which only an operator writes.

use jiff::Timestamp;
use snafu::ResultExt;

use super::{
    Ledger, LedgerError, UserId,
    error::DatabaseSnafu,
    scrape_tasks::{CheckedUpsert, Origin, Upserted},
};

/// The most schedules of an owner.
pub const MOST: i64 = 1_000;

/// What became of a schedule that was to be written or removed.
#[derive(Clone, Debug)]
pub enum Written<T> {
    /// It was done.
    Done(T),
    /// There is no such schedule of this owner.
    Missing,
    /// It is a `ScrapeTask`'s: whoever wrote that changes it.
    OfScrapeTask,
    /// The owner has [`MOST`] already.
    TooMany,
}

impl Ledger {
    /// Makes a schedule of this owner, under the uid in the item.
    pub async fn create_schedule(
        &self,
        owner: UserId,
        item: &CheckedUpsert,
        now: Timestamp,
    ) -> Result<Written<Upserted>, LedgerError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM scrape_tasks WHERE user_id = $1")
            .bind(owner)
            .fetch_one(&self.pool)
            .await
            .context(DatabaseSnafu {
                doing: "counting schedules",
            })?;
        if count >= MOST {
            return Ok(Written::TooMany);
        }
        self.upsert_owned(item, owner, Origin::Api, now)
            .await
            .map(Written::Done)
    }

    /// Writes a schedule anew that a user made: of this owner, or of anybody when `owner` is `None`.
    pub async fn replace_schedule(
        &self,
        owner: Option<UserId>,
        item: &CheckedUpsert,
        now: Timestamp,
    ) -> Result<Written<Upserted>, LedgerError> {
        match self.maker(owner, &item.item.uid).await? {
            None => Ok(Written::Missing),
            Some((_, false)) => Ok(Written::OfScrapeTask),
            Some((owner, true)) => self
                .upsert_owned(item, owner, Origin::Api, now)
                .await
                .map(Written::Done),
        }
    }

    /// Removes a schedule that a user made; its open runs are canceled, its results stay.
    pub async fn remove_schedule(&self, owner: Option<UserId>, uid: &str) -> Result<Written<()>, LedgerError> {
        match self.maker(owner, uid).await? {
            None => Ok(Written::Missing),
            Some((_, false)) => Ok(Written::OfScrapeTask),
            Some((_, true)) => self.remove_scrape_tasks(&[uid.to_owned()]).await.map(Written::Done),
        }
    }

    /// Whose a schedule is, and whether it was made by the API.
    async fn maker(&self, owner: Option<UserId>, uid: &str) -> Result<Option<(UserId, bool)>, LedgerError> {
        sqlx::query_as(
            "SELECT user_id, from_api FROM scrape_tasks WHERE uid = $1 AND ($2::uuid IS NULL OR user_id = $2)",
        )
        .bind(uid)
        .bind(owner)
        .fetch_optional(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "looking for a schedule",
        })
    }
}
