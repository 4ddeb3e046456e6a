//! The database, its pooler, the queue and the cache: what has to fit together. Pure.

use selextract_crds::{PgBouncerSpec, PostgresSpec, Provider, Quantity, RedisSpec};
use selextract_task::Duration;

use super::{PgBouncer, Pod, Postgres, Redis, check::Check};

/// The least memory that PostgreSQL starts with, in megabytes.
const LEAST_POSTGRES_MB: u64 = 128;
/// The most server connections of a pooler's pod that are chosen for it (guide: `DEFAULT_POOL_SIZE`).
const POOL_SIZE: u32 = 20;
/// Both poolers may end at the primary while no replica streams.
const POOLERS: u32 = 2;
/// Connections round the poolers: keeper, migrations, operator, replication, an administrator, and what the server keeps for superusers.
const ROUND_POOLERS: u32 = 15;
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
        let admitted = u32::from(postgres.max_connections);
        let size = pgbouncer
            .default_pool_size
            .unwrap_or_else(|| pool_size(admitted, replicas.into()));
        let needed = connections(size.max(1), replicas.into());
        // How many an external server admits is measured; there the scaling holds.
        let known = postgres.provider == Provider::Managed || pgbouncer.default_pool_size.is_none();
        if known && (size == 0 || needed > admitted) {
            let cure = format!(
                "{replicas} pods in each of two Deployments with this many server connections, and {ROUND_POOLERS} for others, need \
                 {needed}, but spec.postgres.maxConnections is {admitted}; lower it or spec.pgbouncer.replicas, or raise maxConnections"
            );
            self.refuse("TooFewConnections", "spec.pgbouncer.defaultPoolSize", size.max(1), cure);
        }
        PgBouncer {
            replicas: replicas.into(),
            max_client_conn: pgbouncer.max_client_conn,
            default_pool_size: size,
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

/// The connections that a database must admit for poolers of so many pods each.
pub fn connections(pool_size: u16, replicas: u32) -> u32 {
    POOLERS * replicas * u32::from(pool_size) + ROUND_POOLERS
}

/// The guide's pool, or as much of it as a database that admits so many connections has for each pod; 0 where that is none.
fn pool_size(admitted: u32, replicas: u32) -> u16 {
    let each = admitted.saturating_sub(ROUND_POOLERS) / (POOLERS * replicas).max(1);
    u16::try_from(each.min(POOL_SIZE)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_the_guides_where_that_fits_and_else_what_is_left_for_it() {
        for (admitted, replicas, size) in [
            // The guide's platform, and Small.
            (100, 2, 20),
            (100, 1, 20),
            (100, 3, 14),
            (100, 10, 4),
            (60, 2, 11),
            (1000, 10, 20),
            (20, 3, 0),
            (10, 1, 0),
        ] {
            assert_eq!(pool_size(admitted, replicas), size, "{admitted} for {replicas}");
        }
    }

    #[test]
    fn whatever_is_admitted_the_poolers_never_open_more() {
        for admitted in 16..=600 {
            for replicas in 1..=10 {
                let size = pool_size(admitted, replicas);
                assert!(
                    size == 0 || connections(size, replicas) <= admitted,
                    "{admitted} for {replicas}"
                );
            }
        }
    }
}
