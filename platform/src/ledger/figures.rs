//! What the database says about itself, under the names of its usual exporter. Needs a direct connection.

use selextract_telemetry::Figure;
use sqlx::Row;

use super::Ledger;
use crate::stores::{HELP, storage_used};

impl Ledger {
    /// Connections, cache hits, transactions, size and lag, and what the ledger counted over all owners.
    ///
    /// What may not be read (lag and log need the role `pg_monitor`) or fails is left out: a figure that is not known is absent.
    pub async fn figures(&self) -> Vec<Figure> {
        let mut figures = self.database_figures().await;
        figures.extend(self.disk_times().await);
        figures.extend(self.lags().await);
        figures.extend(self.replicas().await);
        figures.extend(self.counted().await);
        figures
    }

    async fn database_figures(&self) -> Vec<Figure> {
        let row = sqlx::query(
            "SELECT datname::text, numbackends::float8, blks_hit::float8, blks_read::float8, xact_commit::float8, xact_rollback::float8,
                    deadlocks::float8, pg_database_size(datid)::float8, current_setting('max_connections')::float8
             FROM pg_stat_database WHERE datname = current_database()",
        )
        .fetch_one(&self.pool)
        .await;
        let Ok(row) = row else {
            return vec![Figure::gauge("pg_up", HELP, 0.0)];
        };
        let name: String = row.get(0);
        let gauge = |metric, index: usize| Figure::gauge(metric, HELP, row.get(index)).with("datname", &name);
        let counter = |metric, index: usize| Figure::counter(metric, HELP, row.get(index)).with("datname", &name);
        let size: f64 = row.get(7);
        let mut figures = vec![
            Figure::gauge("pg_up", HELP, 1.0),
            gauge("pg_stat_database_numbackends", 1),
            counter("pg_stat_database_blks_hit_total", 2),
            counter("pg_stat_database_blks_read_total", 3),
            counter("pg_stat_database_xact_commit_total", 4),
            counter("pg_stat_database_xact_rollback_total", 5),
            counter("pg_stat_database_deadlocks_total", 6),
            gauge("pg_database_size_bytes", 7),
            Figure::gauge("pg_settings_max_connections", HELP, row.get(8)),
        ];
        let log = sqlx::query_scalar::<_, f64>("SELECT coalesce(sum(size), 0)::float8 FROM pg_ls_waldir()")
            .fetch_one(&self.pool)
            .await;
        figures.push(storage_used("postgres", size + log.unwrap_or(0.0)));
        figures
    }

    /// How often the database read, wrote and synced, and how long that took. Of a database that does not time it (`track_io_timing`,
    /// `track_wal_io_timing`) the times stay 0; a newer one tells of its log among the rest.
    async fn disk_times(&self) -> Vec<Figure> {
        let row = sqlx::query(
            "SELECT sum(reads)::float8, (sum(read_time) / 1000)::float8, sum(writes)::float8, (sum(write_time) / 1000)::float8,
                    (SELECT (to_jsonb(w) ->> 'wal_sync')::float8 FROM pg_stat_wal w),
                    (SELECT (to_jsonb(w) ->> 'wal_sync_time')::float8 / 1000 FROM pg_stat_wal w)
             FROM pg_stat_io",
        )
        .fetch_one(&self.pool)
        .await;
        let Ok(row) = row else { return Vec::new() };
        let names = [
            "pg_stat_io_reads_total",
            "pg_stat_io_read_seconds_total",
            "pg_stat_io_writes_total",
            "pg_stat_io_write_seconds_total",
            "pg_stat_wal_syncs_total",
            "pg_stat_wal_sync_seconds_total",
        ];
        let known = names.into_iter().enumerate();
        known
            .filter_map(|(index, name)| Some(Figure::counter(name, HELP, row.get::<Option<f64>, _>(index)?)))
            .collect()
    }

    async fn lags(&self) -> Vec<Figure> {
        // Without the right to see it the state is null.
        let rows = sqlx::query(
            "SELECT application_name::text, coalesce(extract(epoch FROM replay_lag), 0)::float8 FROM pg_stat_replication
             WHERE state = 'streaming' ORDER BY 1 LIMIT 16",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap_or_default();
        let one = |row: &sqlx::postgres::PgRow| {
            let replica: String = row.get(0);
            Figure::gauge("pg_replication_lag_seconds", HELP, row.get(1)).with("replica", &replica)
        };
        rows.iter().map(one).collect()
    }

    /// Replicas by their slots, which stay when a replica goes.
    async fn replicas(&self) -> Vec<Figure> {
        let rows = sqlx::query(
            "SELECT slot_name::text, active::int::float8 FROM pg_replication_slots
             WHERE slot_type = 'physical' AND slot_name ~ '^replica_[0-9]{1,4}$' ORDER BY 1 LIMIT 16",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap_or_default();
        let one = |row: &sqlx::postgres::PgRow| {
            let slot: String = row.get(0);
            Figure::gauge("pg_replication_slots_active", HELP, row.get(1)).with("slot_name", &slot)
        };
        rows.iter().map(one).collect()
    }

    /// The owners' counters, which the keeper folds; one row for each owner.
    async fn counted(&self) -> Vec<Figure> {
        let row = sqlx::query(
            "SELECT coalesce(sum(total), 0)::float8, coalesce(sum(succeeded), 0)::float8, coalesce(sum(failed), 0)::float8,
                    coalesce(sum(canceled), 0)::float8, (count(*) FILTER (WHERE active_at > now() - interval '30 days'))::float8
             FROM owner_counters",
        )
        .fetch_one(&self.pool)
        .await;
        let Ok(row) = row else { return Vec::new() };
        let ended = |outcome, index: usize| {
            Figure::counter(
                "selextract_tasks_ended_total",
                "Tasks that ended, by outcome.",
                row.get(index),
            )
            .with("outcome", outcome)
        };
        vec![
            Figure::counter(
                "selextract_tasks_accepted_total",
                "Tasks that were accepted.",
                row.get(0),
            ),
            ended("succeeded", 1),
            ended("failed", 2),
            ended("canceled", 3),
            Figure::gauge(
                "selextract_active_users",
                "Owners who signed in or had a task accepted within the last 30 days.",
                row.get(4),
            ),
        ]
    }
}
