//! The database, its pooler, the queue and the cache: what has to fit together. Pure.

use selextract_crds::{PgBouncerSpec, PostgresSpec, Provider, Quantity, RedisSpec};
use selextract_task::Duration;

use super::{PgBouncer, Pod, Postgres, Redis, check::Check};

/// The least memory that PostgreSQL starts with, in megabytes.
const LEAST_POSTGRES_MB: u64 = 128;
/// The least that Valkey is given.
const LEAST_REDIS_BYTES: u64 = 1 << 20;

impl Check {
    pub(super) fn postgres(&mut self, postgres: &PostgresSpec) -> Postgres {
        let field = "spec.postgres";
        match (postgres.provider, &postgres.external) {
            (Provider::External, None) => {
                let cure =
                    "name the Secret with the database's URL in spec.postgres.external, or set provider to Managed";
                self.refuse("InvalidDatabase", "spec.postgres.provider", "External", cure);
            }
            (Provider::Managed, Some(external)) => {
                let cure = "it is read with provider External only; set that, or remove external";
                self.refuse("InvalidDatabase", "spec.postgres.external", &external.secret_name, cure);
            }
            _ => {}
        }
        let storage = postgres
            .storage
            .clone()
            .unwrap_or_else(|| Quantity::new(self.sizes.postgres_storage));
        self.at_least_bytes("spec.postgres.storage", &storage, 256 << 20);
        self.at_least("spec.postgres.maxLag", postgres.max_lag, Duration::from_secs(1));
        let pod = self.pod(&format!("{field}.pod"), &postgres.pod, &self.sizes.postgres);
        let memory_mb = pod.limits.memory.as_ref().and_then(Quantity::units).unwrap_or_default() >> 20;
        if memory_mb < LEAST_POSTGRES_MB {
            let cure = format!("PostgreSQL needs at least {LEAST_POSTGRES_MB}Mi; raise it");
            self.refuse(
                "InvalidQuantity",
                "spec.postgres.pod.resources.limits.memory",
                format!("{memory_mb}Mi"),
                cure,
            );
        }
        Postgres {
            external: postgres.external.clone(),
            storage,
            storage_class_name: postgres.storage_class_name.clone(),
            max_connections: postgres.max_connections,
            read_replicas: if postgres.provider == Provider::Managed {
                postgres.read_replicas
            } else {
                0
            },
            max_lag: postgres.max_lag,
            memory_mb,
            pod,
        }
    }

    pub(super) fn pgbouncer(&mut self, pgbouncer: &PgBouncerSpec, postgres: &PostgresSpec) -> PgBouncer {
        let replicas = pgbouncer.replicas.unwrap_or(self.sizes.pgbouncer_replicas);
        // Both poolers may end at the primary while no replica streams; what goes round the pooler (keeper, migrations, operator,
        // replication, an administrator) needs some as well.
        let needed = 2 * u32::from(replicas) * u32::from(pgbouncer.default_pool_size) + 15;
        if postgres.provider == Provider::Managed && needed > u32::from(postgres.max_connections) {
            let cure = format!(
                "{replicas} pods in each of two Deployments with this many server connections, and 15 for others, need {needed}, \
                 but spec.postgres.maxConnections is {}; lower it or raise maxConnections",
                postgres.max_connections
            );
            self.refuse(
                "TooFewConnections",
                "spec.pgbouncer.defaultPoolSize",
                pgbouncer.default_pool_size,
                cure,
            );
        }
        PgBouncer {
            replicas: replicas.into(),
            max_client_conn: pgbouncer.max_client_conn,
            default_pool_size: pgbouncer.default_pool_size,
            max_prepared_statements: pgbouncer.max_prepared_statements,
            pod: self.pod("spec.pgbouncer.pod", &pgbouncer.pod, &self.sizes.pgbouncer),
        }
    }

    pub(super) fn queue(&mut self, redis: &RedisSpec) -> Redis {
        let storage = redis
            .queue
            .storage
            .clone()
            .unwrap_or_else(|| Quantity::new(self.sizes.queue_storage));
        self.at_least_bytes("spec.redis.queue.storage", &storage, 64 << 20);
        let pod = self.pod("spec.redis.queue.pod", &redis.queue.pod, &self.sizes.redis);
        let max_memory = self.max_memory("spec.redis.queue", redis.queue.max_memory.as_ref(), &pod);
        Redis {
            max_memory,
            volume: Some((storage, redis.queue.storage_class_name.clone())),
            pod,
        }
    }

    pub(super) fn cache(&mut self, redis: &RedisSpec) -> Redis {
        let pod = self.pod("spec.redis.cache.pod", &redis.cache.pod, &self.sizes.redis);
        let max_memory = self.max_memory("spec.redis.cache", redis.cache.max_memory.as_ref(), &pod);
        Redis {
            max_memory,
            volume: None,
            pod,
        }
    }

    /// The rest of the container's memory is for buffers, fragmentation and the copy that a rewrite of the log makes.
    fn max_memory(&mut self, section: &str, own: Option<&Quantity>, pod: &Pod) -> u64 {
        let limit = pod.limits.memory.as_ref().and_then(Quantity::units).unwrap_or_default();
        let Some(own) = own else { return limit / 4 * 3 };
        let field = format!("{section}.maxMemory");
        let bytes = self.bytes(&field, own);
        if bytes < LEAST_REDIS_BYTES || bytes > limit / 10 * 9 {
            let cure = format!(
                "it must be 1Mi to nine tenths of the container's memory limit of {limit} bytes; raise \
                 {section}.pod.resources.limits.memory or lower it"
            );
            self.refuse("InvalidQuantity", &field, own.as_str(), cure);
        }
        bytes
    }
}
