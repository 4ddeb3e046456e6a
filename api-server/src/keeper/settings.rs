//! The settings of the keeper and of the migration, from flags and the environment.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::Args;
use selextract_platform::artifacts::ArtifactSettings;
use selextract_task::Duration;
use url::Url;

/// Where the pods of a pooler are found: `NAME=HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolerPods {
    /// What its figures are called.
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
}

impl FromStr for PoolerPods {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=');
        let parts = parts.and_then(|(name, place)| Some((name, place.rsplit_once(':')?)));
        let (name, (host, port)) = parts.ok_or("write NAME=HOST:PORT")?;
        if name.is_empty() || host.is_empty() {
            return Err("a name and a host are needed: NAME=HOST:PORT");
        }
        Ok(Self {
            name: name.to_owned(),
            host: host.to_owned(),
            port: port.parse().map_err(|_| "the port is a number up to 65535")?,
        })
    }
}

/// What the keeper needs to know.
#[derive(Args)]
pub struct KeeperSettings {
    /// The primary itself, as the owner of the schema: postgres://role:password@host:port/database
    #[arg(long, env = "SELEXTRACT_DATABASE_DIRECT_URL", hide_env_values = true)]
    pub database_direct_url: String,
    /// The queue: redis://:password@host:port/0
    #[arg(long, env = "SELEXTRACT_REDIS_QUEUE_URL", hide_env_values = true)]
    pub redis_queue_url: String,
    /// The database as API and workers reach it, through the pooler; without it nothing is told about the pooler
    #[arg(long, env = "SELEXTRACT_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Each pooler by name and the Service whose addresses are its pods, such as rw=shop-pgbouncer-rw-pods:6432; without it or the database's
    /// URL nothing is told about their pools
    #[arg(long, env = "SELEXTRACT_POOLERS", value_delimiter = ',')]
    pub poolers: Vec<PoolerPods>,
    /// The cache: redis://:password@host:port/0; without it nothing is told about it
    #[arg(long, env = "SELEXTRACT_REDIS_CACHE_URL", hide_env_values = true)]
    pub redis_cache_url: Option<String>,
    /// The size of the database's volume in bytes; without it the disk's use is not told as a share
    #[arg(long, env = "SELEXTRACT_POSTGRES_STORAGE")]
    pub postgres_storage: Option<u64>,
    /// The size of the queue's volume in bytes; without it the disk's use is not told of it
    #[arg(long, env = "SELEXTRACT_REDIS_QUEUE_STORAGE")]
    pub redis_queue_storage: Option<u64>,
    /// The keys that seal users' secrets, as the API has them; without them no webhook is told
    #[arg(long, env = "SELEXTRACT_DATA_KEY", hide_env_values = true)]
    pub data_key: Option<String>,
    /// The egress proxy's URL, the only way out for webhooks
    #[arg(long, env = "SELEXTRACT_EGRESS_PROXY")]
    pub egress_proxy: Option<Url>,
    /// The name that stands in the lease: the pod's
    #[arg(long, env = "HOSTNAME", default_value = "keeper")]
    pub name: String,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, env = "SELEXTRACT_TELEMETRY_ADDR", default_value = "0.0.0.0:9090")]
    pub telemetry_addr: SocketAddr,
    /// How often tasks that are due and missing in the frontier are put there
    #[arg(long, env = "SELEXTRACT_REFILL_INTERVAL", default_value = "5s")]
    pub refill_interval: Duration,
    /// How often expired leases are taken back
    #[arg(long, env = "SELEXTRACT_SWEEP_INTERVAL", default_value = "5s")]
    pub sweep_interval: Duration,
    /// How long finished tasks are kept; whole months go at once
    #[arg(long, env = "SELEXTRACT_RETENTION", default_value = "90d")]
    pub retention: Duration,
    /// How many months ahead partitions are made
    #[arg(long, env = "SELEXTRACT_PARTITIONS_AHEAD", default_value = "3")]
    pub partitions_ahead: u8,
    /// Where artifacts are kept
    #[command(flatten)]
    pub artifacts: ArtifactSettings,
}

/// What the migration needs to know.
#[derive(Args)]
pub struct MigrateSettings {
    /// The primary itself, as the owner of the schema
    #[arg(long, env = "SELEXTRACT_DATABASE_DIRECT_URL", hide_env_values = true)]
    pub database_direct_url: String,
    /// The primary itself, as a superuser; without it roles and database are somebody else's
    #[arg(long, env = "SELEXTRACT_DATABASE_SUPERUSER_URL", hide_env_values = true)]
    pub database_superuser_url: Option<String>,
    /// The password of the role `selextract_owner`
    #[arg(
        long,
        env = "SELEXTRACT_DATABASE_OWNER_PASSWORD",
        hide_env_values = true,
        requires = "database_superuser_url"
    )]
    pub owner_password: Option<String>,
    /// The password of the role `selextract_app`
    #[arg(
        long,
        env = "SELEXTRACT_DATABASE_APP_PASSWORD",
        hide_env_values = true,
        requires = "database_superuser_url"
    )]
    pub app_password: Option<String>,
    /// The password of the role `selextract_replication`
    #[arg(
        long,
        env = "SELEXTRACT_DATABASE_REPLICATION_PASSWORD",
        hide_env_values = true,
        requires = "database_superuser_url"
    )]
    pub replication_password: Option<String>,
    /// The password that the user admin gets when there is none
    #[arg(long, env = "SELEXTRACT_ADMIN_PASSWORD", hide_env_values = true)]
    pub admin_password: String,
    /// A file that the database server's version is written to at the end; the operator names the container's termination log
    #[arg(long, env = "SELEXTRACT_REPORT")]
    pub report: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooler_is_a_name_and_a_place() {
        let pods: PoolerPods = "rw=shop-pgbouncer-rw-pods:6432".parse().unwrap();
        assert_eq!(
            (pods.name.as_str(), pods.host.as_str(), pods.port),
            ("rw", "shop-pgbouncer-rw-pods", 6432)
        );
        for wrong in ["", "rw", "rw=host", "=host:1", "rw=:1", "rw=host:port", "rw=host:65536"] {
            assert!(wrong.parse::<PoolerPods>().is_err(), "{wrong}");
        }
    }
}
