//! The months of the ledger: partitions made ahead, and dropped when every task in them is older than the retention.

use std::time::Duration;

use jiff::{Timestamp, civil, tz::TimeZone};
use snafu::ResultExt;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Ledger, LedgerError, artifacts, error::DatabaseSnafu, transaction};

/// The tables that are partitioned by month.
const PARTITIONED: [&str; 7] = [
    "tasks",
    "pages",
    "crawl_pages",
    "artifacts",
    "artifact_chunks",
    "run_reports",
    "watch_records",
];
/// How long a change of a partition waits for a lock before it gives up until the next time: it stands in everybody's way meanwhile.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";
/// The migration and the keeper may both make partitions.
const ONE_CHANGE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(hashtextextended('selextract partitions', 0))";

/// How full a table's pages are filled, in percent. A task's row is written again with each of its pages and each renewed lease; where its
/// page has room, no index is touched. Pages are never written again.
fn fill(table: &str) -> u8 {
    if table == "tasks" { 85 } else { 100 }
}

impl Ledger {
    /// Makes the partitions of this month and of the months ahead, and returns the names of the new ones.
    ///
    /// A table is made beside its parent and attached then: `CREATE TABLE … PARTITION OF` would lock the parent exclusively.
    pub async fn make_partitions(&self, now: Timestamp, ahead: u8) -> Result<Vec<String>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "making partitions",
        };
        let mut made = Vec::new();
        for month in (0..=i32::from(ahead)).filter_map(|n| Month::of(now).plus(n)) {
            for table in PARTITIONED {
                let name = month.partition(table);
                let mut transaction = transaction::begin(&self.pool).await.context(doing)?;
                for sql in [LOCK_TIMEOUT, ONE_CHANGE_AT_A_TIME] {
                    sqlx::query(sql).execute(&mut *transaction).await.context(doing)?;
                }
                // A table of a later migration is not there yet.
                let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL OR to_regclass($2) IS NULL")
                    .bind(&name)
                    .bind(table)
                    .fetch_one(&mut *transaction)
                    .await
                    .context(doing)?;
                if there {
                    continue;
                }
                let (from, to) = (month.first_id(), month.plus(1).map_or(Uuid::max(), Month::first_id));
                for sql in [
                    format!(
                        "CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE) WITH (fillfactor = {})",
                        fill(table)
                    ),
                    format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')"),
                ] {
                    sqlx::raw_sql(AssertSqlSafe(sql))
                        .execute(&mut *transaction)
                        .await
                        .context(doing)?;
                }
                transaction.commit().await.context(doing)?;
                made.push(name);
            }
        }
        Ok(made)
    }

    /// Drops the partitions whose every task is older than `retention`, and returns their names. One with an open task stays.
    pub async fn drop_partitions(&self, now: Timestamp, retention: Duration) -> Result<Vec<String>, LedgerError> {
        let doing = DatabaseSnafu {
            doing: "dropping partitions",
        };
        let keep = jiff::SignedDuration::try_from(retention)
            .ok()
            .and_then(|retention| now.checked_sub(retention).ok())
            .map(Month::of);
        // By name, as a table that was detached and not dropped yet has no parent any more.
        let found: Vec<(String, Option<bool>)> = sqlx::query_as(
            "SELECT c.relname::text, i.inhdetachpending FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
             WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname ~ $1
             ORDER BY c.relname",
        )
        .bind(format!("^({})_[0-9]{{4}}_[0-9]{{2}}$", PARTITIONED.join("|")))
        .fetch_all(&self.pool)
        .await
        .context(doing)?;
        let mut dropped = Vec::new();
        for (name, detaching) in found {
            let Some((table, month)) = Month::of_partition(&name).filter(|(_, month)| keep.is_some_and(|k| *month < k))
            else {
                continue;
            };
            if detaching == Some(false) && self.has_open_task(month).await? {
                continue;
            }
            self.drop_partition(table, &name, detaching).await?;
            dropped.push(name);
        }
        Ok(dropped)
    }

    async fn has_open_task(&self, month: Month) -> Result<bool, LedgerError> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM tasks WHERE id >= $1 AND id < $2 AND status IN ('pending', 'running'))",
        )
        .bind(month.first_id())
        .bind(month.plus(1).map_or(Uuid::max(), Month::first_id))
        .fetch_one(&self.pool)
        .await
        .context(DatabaseSnafu {
            doing: "looking for open tasks",
        })
    }

    /// Detaches and drops. `detaching` is `None` when it has no parent any more, `Some(true)` when a detachment was interrupted.
    async fn drop_partition(&self, table: &str, name: &str, detaching: Option<bool>) -> Result<(), LedgerError> {
        // CONCURRENTLY refuses a transaction, and takes no exclusive lock on the parent.
        let detach = detaching.map(|interrupted| {
            let how = if interrupted { "FINALIZE" } else { "CONCURRENTLY" };
            format!("ALTER TABLE {table} DETACH PARTITION {name} {how}")
        });
        let drop = if table == "artifacts" {
            artifacts::forget(name)
        } else {
            format!("DROP TABLE {name}")
        };
        for sql in detach.into_iter().chain([drop]) {
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&self.pool)
                .await
                .context(DatabaseSnafu {
                    doing: "dropping a partition",
                })?;
        }
        Ok(())
    }
}

/// A month in UTC, which bounds a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Month {
    year: i16,
    month: i8,
}

impl Month {
    fn of(moment: Timestamp) -> Self {
        let date = moment.to_zoned(TimeZone::UTC).date();
        Self {
            year: date.year(),
            month: date.month(),
        }
    }

    fn plus(self, months: i32) -> Option<Self> {
        let index = i32::from(self.year) * 12 + i32::from(self.month) - 1 + months;
        Some(Self {
            year: i16::try_from(index.div_euclid(12)).ok()?,
            month: i8::try_from(index.rem_euclid(12) + 1).ok()?,
        })
    }

    fn partition(self, table: &str) -> String {
        format!("{table}_{:04}_{:02}", self.year, self.month)
    }

    fn of_partition(name: &str) -> Option<(&str, Self)> {
        let (rest, month) = name.rsplit_once('_')?;
        let (table, year) = rest.rsplit_once('_')?;
        Some((
            table,
            Self {
                year: year.parse().ok()?,
                month: month.parse().ok()?,
            },
        ))
    }

    /// The smallest `UUIDv7` of the month: its first millisecond in the first 48 bits, zeros behind it.
    fn first_id(self) -> Uuid {
        let milliseconds = civil::Date::new(self.year, self.month, 1)
            .ok()
            .and_then(|date| date.to_zoned(TimeZone::UTC).ok())
            .map_or(0, |first| first.timestamp().as_millisecond());
        Uuid::from_u128(u128::try_from(milliseconds).unwrap_or_default() << 80)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::TaskId;

    #[test]
    fn a_task_lies_in_the_partition_of_the_month_in_which_it_was_accepted() {
        let december = Month { year: 2026, month: 12 };
        let id = TaskId::of_tick(
            "uid",
            "2026-12-31T23:59:59.999Z"
                .parse::<Timestamp>()
                .unwrap()
                .as_millisecond(),
        );
        assert!(december.first_id() <= id.0 && id.0 < december.plus(1).unwrap().first_id());
        assert_eq!(december.plus(1).unwrap().partition("tasks"), "tasks_2027_01");
    }

    #[test]
    fn a_partitions_name_reads_back_to_its_table_and_month() {
        let month = Month { year: 2025, month: 1 };
        assert_eq!(Month::of_partition(&month.partition("pages")), Some(("pages", month)));
        assert_eq!(Month::of_partition("users"), None);
    }
}
