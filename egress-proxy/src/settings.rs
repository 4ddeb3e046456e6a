//! What the program is told by flags and environment variables.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use selextract_task::Duration;

use crate::{dial::Limits, server::ServerLimits};

/// The forward proxy below Selextract's fetch engines: resolves, checks every address, dials what it checked.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Settings {
    /// Where clients connect.
    #[arg(long, env = "SELEXTRACT_LISTEN", default_value = "0.0.0.0:3128")]
    pub listen: SocketAddr,
    /// Where clients connect that name a pool of upstream proxies, as the user of Proxy-Authorization; without it there are no pools.
    #[arg(long, env = "SELEXTRACT_POOLS_LISTEN")]
    pub pools_listen: Option<SocketAddr>,
    /// Where probes and metrics are served.
    #[arg(long, env = "SELEXTRACT_TELEMETRY_ADDR", default_value = "0.0.0.0:9090")]
    pub telemetry_addr: SocketAddr,
    /// The JSON file with ports and allow list; without it only the public internet on 80 and 443 is open.
    #[arg(long, env = "SELEXTRACT_EGRESS_CONFIG")]
    pub config: Option<PathBuf>,
    /// How often the file is looked at.
    #[arg(long, env = "SELEXTRACT_EGRESS_RELOAD_INTERVAL", default_value = "5s")]
    pub reload_interval: Duration,
    /// For resolving and connecting together.
    #[arg(long, env = "SELEXTRACT_EGRESS_CONNECT_TIMEOUT", default_value = "10s")]
    pub connect_timeout: Duration,
    /// With nothing moving in either direction, and for a client between two requests.
    #[arg(long, env = "SELEXTRACT_EGRESS_IDLE_TIMEOUT", default_value = "60s")]
    pub idle_timeout: Duration,
    /// From a connection's start to its end.
    #[arg(long, env = "SELEXTRACT_EGRESS_TOTAL_TIMEOUT", default_value = "15m")]
    pub total_timeout: Duration,
    /// Bytes in both directions of one connection to an origin.
    #[arg(long, env = "SELEXTRACT_EGRESS_MAX_BYTES", default_value_t = 256 * 1024 * 1024)]
    pub max_bytes: u64,
    /// Client connections at a time, tunnels too; the next gets 503.
    #[arg(long, env = "SELEXTRACT_EGRESS_MAX_CONNECTIONS", default_value_t = 2048)]
    pub max_connections: usize,
    /// After SIGTERM new connections are still served for this long, while `/readyz` says no.
    #[arg(long, env = "SELEXTRACT_EGRESS_SETTLE_TIME", default_value = "5s")]
    pub settle_time: Duration,
    /// For open connections after that: a worker's longest page, 120 s, and 15 s.
    #[arg(long, env = "SELEXTRACT_EGRESS_DRAIN_TIMEOUT", default_value = "135s")]
    pub drain_timeout: Duration,
    /// Which log lines are written.
    #[arg(long, env = "SELEXTRACT_LOG", default_value = "info")]
    pub log: String,
}

impl Settings {
    /// The limits of connections to origins.
    pub fn origin_limits(&self) -> Limits {
        Limits {
            connect: self.connect_timeout.get(),
            idle: self.idle_timeout.get(),
            total: self.total_timeout.get(),
            max_bytes: self.max_bytes,
        }
    }

    /// The limits of connections from clients.
    pub fn server_limits(&self) -> ServerLimits {
        ServerLimits {
            max_connections: self.max_connections,
            idle: self.idle_timeout.get(),
            settle: self.settle_time.get(),
            drain: self.drain_timeout.get(),
        }
    }
}
