//! What the database, its pooler, the queue and the cache tell (guide: "Database Query Performance", "Redis Memory Usage").

use super::{Query, Unit};

/// Whether each store answers every keeper.
pub const DEPENDENCIES: Query = Query {
    name: "dependency_reachable",
    help: "Whether each store answers every keeper.",
    unit: Unit::Flag,
    template: "min by (namespace, cluster, dependency) (selextract_dependency_up{component=\"keeper\",$scope})",
};

/// Whether the ledger is reached.
pub const DATABASE_REACHABLE: Query = Query {
    name: "database_reachable",
    help: "Whether the database and its pooler answer the keeper (guide: Database connection failure).",
    unit: Unit::Flag,
    template: "min by (namespace, cluster, dependency) (selextract_dependency_up{component=\"keeper\",dependency=~\"postgres|pgbouncer\",$scope})",
};

/// Whether the queue is reached.
pub const QUEUE_REACHABLE: Query = Query {
    name: "queue_reachable",
    help: "Whether the queue answers the keeper.",
    unit: Unit::Flag,
    template: "min by (namespace, cluster) (selextract_dependency_up{component=\"keeper\",dependency=\"redis-queue\",$scope})",
};

/// Whether the cache is reached.
pub const CACHE_REACHABLE: Query = Query {
    name: "cache_reachable",
    help: "Whether the cache answers the keeper.",
    unit: Unit::Flag,
    template: "min by (namespace, cluster) (selextract_dependency_up{component=\"keeper\",dependency=\"redis-cache\",$scope})",
};

/// Whether the database answers its exporter.
pub const POSTGRES_UP: Query = Query {
    name: "postgres_up",
    help: "Whether the database answers its exporter, the keeper.",
    unit: Unit::Flag,
    template: "max by (namespace, cluster) (pg_up{$scope})",
};

/// The share of the database's connections that are taken.
pub const CONNECTION_RATIO: Query = Query {
    name: "database_connection_ratio",
    help: "The share of the database's connections that are taken (guide: Database connection usage).",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster) (pg_stat_database_numbackends{$scope}) / max by (namespace, cluster) (pg_settings_max_connections{$scope})",
};

/// The connections that the database admits.
pub const MAX_CONNECTIONS: Query = Query {
    name: "database_max_connections",
    help: "The connections that the database admits.",
    unit: Unit::Count,
    template: "max by (namespace, cluster) (pg_settings_max_connections{$scope})",
};

/// Connections to the database.
pub const CONNECTIONS: Query = Query {
    name: "database_connections",
    help: "Connections to the database.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (pg_stat_database_numbackends{$scope})",
};

/// How far each read replica is behind.
pub const REPLICATION_LAG: Query = Query {
    name: "replication_lag",
    help: "How far each read replica is behind; nothing where there is none.",
    unit: Unit::Seconds,
    template: "max by (namespace, cluster, replica) (pg_replication_lag_seconds{$scope})",
};

/// Whether each read replica is connected.
pub const REPLICA_CONNECTED: Query = Query {
    name: "replica_connected",
    help: "1 for each read replica that follows the primary, 0 for one that is not connected; nothing where there is none.",
    unit: Unit::Count,
    template: "max by (namespace, cluster, slot_name) (pg_replication_slots_active{$scope})",
};

/// The share of blocks found in memory.
pub const DATABASE_HIT_RATIO: Query = Query {
    name: "database_cache_hit_ratio",
    help: "The share of blocks that the database found in its memory.",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster) (rate(pg_stat_database_blks_hit_total{$scope}[$window])) \
               / (sum by (namespace, cluster) (rate(pg_stat_database_blks_hit_total{$scope}[$window])) + sum by (namespace, cluster) (rate(pg_stat_database_blks_read_total{$scope}[$window])))",
};

/// How long a read from the disk takes the database.
pub const DATABASE_READ_TIME: Query = Query {
    name: "database_read_time",
    help: "How long the database waits for a read from its disk in the mean; unknown without reads (guide: Disk I/O, latency).",
    unit: Unit::Seconds,
    template: "sum by (namespace, cluster) (rate(pg_stat_io_read_seconds_total{$scope}[$window])) \
               / sum by (namespace, cluster) (rate(pg_stat_io_reads_total{$scope}[$window]))",
};

/// How long a write takes the database.
pub const DATABASE_WRITE_TIME: Query = Query {
    name: "database_write_time",
    help: "How long the database waits for a write in the mean; unknown without writes (guide: Disk I/O, latency).",
    unit: Unit::Seconds,
    template: "sum by (namespace, cluster) (rate(pg_stat_io_write_seconds_total{$scope}[$window])) \
               / sum by (namespace, cluster) (rate(pg_stat_io_writes_total{$scope}[$window]))",
};

/// How long its log takes to be on the disk.
pub const DATABASE_SYNC_TIME: Query = Query {
    name: "database_sync_time",
    help: "How long it takes in the mean until the database's log is on its disk, which each commit waits for (guide: Disk I/O, latency).",
    unit: Unit::Seconds,
    template: "sum by (namespace, cluster) (rate(pg_stat_wal_sync_seconds_total{$scope}[$window])) \
               / sum by (namespace, cluster) (rate(pg_stat_wal_syncs_total{$scope}[$window]))",
};

/// Transactions a second.
pub const TRANSACTIONS: Query = Query {
    name: "database_transactions_rate",
    help: "Transactions that were committed a second.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster) (rate(pg_stat_database_xact_commit_total{$scope}[$window]))",
};

/// Rollbacks a second.
pub const ROLLBACKS: Query = Query {
    name: "database_rollbacks_rate",
    help: "Transactions that were rolled back a second.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster) (rate(pg_stat_database_xact_rollback_total{$scope}[$window]))",
};

/// Deadlocks within the window.
pub const DEADLOCKS: Query = Query {
    name: "database_deadlocks",
    help: "Deadlocks within the window.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (increase(pg_stat_database_deadlocks_total{$scope}[$window]))",
};

/// The databases' size.
pub const DATABASE_SIZE: Query = Query {
    name: "database_size",
    help: "The size of the databases together.",
    unit: Unit::Bytes,
    template: "sum by (namespace, cluster) (pg_database_size_bytes{$scope})",
};

/// P95 of a query's time.
pub const QUERY_P95: Query = Query {
    name: "database_query_p95",
    help: "95 % of the platform's statements are answered within it (guide: Database Query Time).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(selextract_database_query_duration_seconds_bucket{$scope}[$window])))",
};

/// P95 of a query's time by operation.
pub const QUERY_P95_BY_OPERATION: Query = Query {
    name: "database_query_p95_by_operation",
    help: "95 % of an operation's statements are answered within it.",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, operation, le) (rate(selextract_database_query_duration_seconds_bucket{$scope}[$window])))",
};

/// P95 of a Redis operation.
pub const REDIS_P95: Query = Query {
    name: "redis_operation_p95",
    help: "95 % of the operations on queue and cache are answered within it (guide: Redis Operations).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, redis, le) (rate(selextract_redis_operation_duration_seconds_bucket{$scope}[$window])))",
};

/// P95 of a probe from the API to the database.
pub const API_TO_DATABASE_P95: Query = Query {
    name: "api_to_database_p95",
    help: "95 % of probes from the API to the database come back within it (guide: Internal Communication).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(selextract_round_trip_seconds_bucket{component=\"api\",to=\"postgres\",$scope}[$window])))",
};

/// P95 of a probe from the API to Redis.
pub const API_TO_REDIS_P95: Query = Query {
    name: "api_to_redis_p95",
    help: "95 % of probes from the API to queue and cache come back within it (guide: Internal Communication).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, to, le) (rate(selextract_round_trip_seconds_bucket{component=\"api\",to=~\"redis-.*\",$scope}[$window])))",
};

/// P95 of a probe from the workers to the queue.
pub const WORKER_TO_QUEUE_P95: Query = Query {
    name: "worker_to_queue_p95",
    help: "95 % of probes from the workers to the queue come back within it (guide: Internal Communication).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(selextract_round_trip_seconds_bucket{component=\"worker\",to=\"redis-queue\",$scope}[$window])))",
};

/// P95 of a probe between two parts.
pub const ROUND_TRIP_P95: Query = Query {
    name: "round_trip_p95",
    help: "95 % of probes between two parts come back within it (guide: Internal Communication).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, component, to, le) (rate(selextract_round_trip_seconds_bucket{$scope}[$window])))",
};

/// The share of each of the programs' pools that is in use.
pub const POOL_RATIO: Query = Query {
    name: "database_pool_ratio",
    help: "The share of each of the programs' database pools that is in use.",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster, component, pool) (selextract_database_pool_connections{state=\"used\",$scope}) / sum by (namespace, cluster, component, pool) (selextract_database_pool_limit{$scope})",
};

/// Whether queue and cache answer their exporter.
pub const REDIS_UP: Query = Query {
    name: "redis_reachable",
    help: "Whether queue and cache answer their exporter, the keeper.",
    unit: Unit::Flag,
    template: "max by (namespace, cluster, redis) (redis_up{$scope})",
};

/// The share of its memory that a Redis uses.
pub const REDIS_MEMORY_RATIO: Query = Query {
    name: "redis_memory_ratio",
    help: "The share of its memory that queue and cache use.",
    unit: Unit::Ratio,
    template: "max by (namespace, cluster, redis) (redis_memory_used_bytes{$scope}) / max by (namespace, cluster, redis) (redis_memory_max_bytes{$scope})",
};

/// The share of its memory that the queue uses.
pub const QUEUE_MEMORY_RATIO: Query = Query {
    name: "queue_memory_ratio",
    help: "The share of its memory that the queue uses, which evicts nothing and refuses writes when it is full.",
    unit: Unit::Ratio,
    template: "max by (namespace, cluster) (redis_memory_used_bytes{redis=~\".*queue\",$scope}) \
               / max by (namespace, cluster) (redis_memory_max_bytes{redis=~\".*queue\",$scope})",
};

/// The memory that a Redis uses.
pub const REDIS_MEMORY: Query = Query {
    name: "redis_memory",
    help: "The memory that queue and cache use.",
    unit: Unit::Bytes,
    template: "max by (namespace, cluster, redis) (redis_memory_used_bytes{$scope})",
};

/// Keys evicted a second.
pub const REDIS_EVICTIONS: Query = Query {
    name: "redis_evictions_rate",
    help: "Keys that were evicted a second, because memory was full.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, redis) (rate(redis_evicted_keys_total{$scope}[$window]))",
};

/// The share of keys that are found.
pub const REDIS_HIT_RATIO: Query = Query {
    name: "redis_hit_ratio",
    help: "The share of look-ups that find their key.",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster, redis) (rate(redis_keyspace_hits_total{$scope}[$window])) \
               / (sum by (namespace, cluster, redis) (rate(redis_keyspace_hits_total{$scope}[$window])) + sum by (namespace, cluster, redis) (rate(redis_keyspace_misses_total{$scope}[$window])))",
};

/// Clients of a Redis.
pub const REDIS_CLIENTS: Query = Query {
    name: "redis_clients",
    help: "Clients of queue and cache.",
    unit: Unit::Count,
    template: "max by (namespace, cluster, redis) (redis_connected_clients{$scope})",
};

/// Pods of the poolers that answer.
pub const POOLER_UP: Query = Query {
    name: "pooler_reachable",
    help: "The share of the poolers' pods that answer their exporter, the keeper.",
    unit: Unit::Ratio,
    template: "avg by (namespace, cluster, pooler) (pgbouncer_up{$scope})",
};

/// Clients that wait for a connection.
pub const POOLER_WAITING: Query = Query {
    name: "pooler_waiting",
    help: "Clients of the pooler that wait for a connection to the database.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster, pooler) (pgbouncer_pools_client_waiting_connections{$scope})",
};

/// Clients that waited, short waits too.
pub const POOLER_WAITED: Query = Query {
    name: "pooler_waited",
    help: "How many clients waited for a connection to the database in the mean, those between two looks too.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster, pooler) (rate(pgbouncer_stats_client_wait_seconds_total{$scope}[$window]))",
};

/// Connections that the pooler uses.
pub const POOLER_ACTIVE: Query = Query {
    name: "pooler_active",
    help: "Connections to the database that the pooler uses.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster, pooler) (pgbouncer_pools_server_active_connections{$scope})",
};

/// Connections that the pooler may use.
pub const POOLER_SIZE: Query = Query {
    name: "pooler_size",
    help: "Connections to the database that the pooler may use for one role.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster, pooler) (pgbouncer_databases_pool_size{$scope})",
};

/// The longest wait at the pooler.
pub const POOLER_MAX_WAIT: Query = Query {
    name: "pooler_max_wait",
    help: "How long the first of the waiting clients of the pooler has waited.",
    unit: Unit::Seconds,
    template: "max by (namespace, cluster, pooler) (pgbouncer_pools_client_maxwait_seconds{$scope})",
};

pub(super) const ALL: &[Query] = &[
    DEPENDENCIES,
    DATABASE_REACHABLE,
    QUEUE_REACHABLE,
    CACHE_REACHABLE,
    POSTGRES_UP,
    CONNECTION_RATIO,
    MAX_CONNECTIONS,
    CONNECTIONS,
    REPLICATION_LAG,
    REPLICA_CONNECTED,
    DATABASE_HIT_RATIO,
    DATABASE_READ_TIME,
    DATABASE_WRITE_TIME,
    DATABASE_SYNC_TIME,
    TRANSACTIONS,
    ROLLBACKS,
    DEADLOCKS,
    DATABASE_SIZE,
    QUERY_P95,
    QUERY_P95_BY_OPERATION,
    REDIS_P95,
    API_TO_DATABASE_P95,
    API_TO_REDIS_P95,
    WORKER_TO_QUEUE_P95,
    ROUND_TRIP_P95,
    POOL_RATIO,
    REDIS_UP,
    REDIS_MEMORY_RATIO,
    QUEUE_MEMORY_RATIO,
    REDIS_MEMORY,
    REDIS_EVICTIONS,
    REDIS_HIT_RATIO,
    REDIS_CLIENTS,
    POOLER_UP,
    POOLER_WAITING,
    POOLER_WAITED,
    POOLER_ACTIVE,
    POOLER_SIZE,
    POOLER_MAX_WAIT,
];
