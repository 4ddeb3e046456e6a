//! What the worker is told by flags and the environment. Secrets come by environment only.

use std::{fmt, net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum};
use selextract_platform::artifacts::ArtifactSettings;
use selextract_task::Duration;
use url::Url;

use crate::{browser::BrowserSettings, contact::Contact, run::Pace};

/// The worker: claims runs, fetches their pages, extracts records and commits them.
#[derive(Clone, Debug, Parser)]
#[command(name = "selextract-worker", version)]
pub struct Settings {
    /// PostgreSQL, through the pooler. A secret: give it by the environment.
    #[arg(long, env = "SELEXTRACT_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// The frontier. A secret: give it by the environment.
    #[arg(long, env = "SELEXTRACT_REDIS_QUEUE_URL", hide_env_values = true)]
    pub redis_queue_url: Secret,

    /// The keys that open credentials, as the API has them; without it runs that name credentials fail. A secret: give it by the environment.
    #[arg(long, env = "SELEXTRACT_DATA_KEY", hide_env_values = true)]
    pub data_key: Option<Secret>,

    /// The only way out to the sites.
    #[arg(long, env = "SELEXTRACT_EGRESS_PROXY")]
    pub egress_proxy: Url,

    /// The egress proxy's listener for pools of upstream proxies; without it runs that name a pool fail.
    #[arg(long, env = "SELEXTRACT_EGRESS_POOLS")]
    pub egress_pools: Option<Url>,

    /// Whom the owners of sites may write to: a web page or a mail address, in every request's User-Agent. The project's home if it is not given.
    #[arg(long, env = "SELEXTRACT_CONTACT", default_value_t = Contact::default())]
    pub contact: Contact,

    /// After which age a connection is replaced.
    #[arg(long, env = "SELEXTRACT_POOL_MAX_LIFETIME", default_value = "3600s")]
    pub pool_max_lifetime: Duration,

    /// A name that no other worker has at the same time; the pod's name.
    #[arg(long, env = "SELEXTRACT_WORKER_NAME")]
    pub worker_name: String,

    /// Connections to the database.
    #[arg(long, env = "SELEXTRACT_POOL_SIZE", default_value_t = 4)]
    pub pool_size: u32,

    /// How long a statement waits for a connection.
    #[arg(long, env = "SELEXTRACT_POOL_ACQUIRE_TIMEOUT", default_value = "2s")]
    pub pool_acquire_timeout: Duration,

    /// Runs at the same time; at most twice that are claimed (guide: `CELERY_WORKER_CONCURRENCY`, `CELERY_WORKER_PREFETCH_MULTIPLIER`).
    #[arg(long, env = "SELEXTRACT_CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub concurrency: u32,

    /// How long a claim holds without being renewed.
    #[arg(long, env = "SELEXTRACT_LEASE", default_value = "30s")]
    pub lease: Duration,

    /// Runs after which the process ends and is started afresh (guide: `CELERY_WORKER_MAX_TASKS_PER_CHILD`).
    #[arg(long, env = "SELEXTRACT_MAX_TASKS", default_value_t = 1000)]
    pub max_tasks: u64,

    /// How long a stopping worker may take to finish its pages: the longest page and 15 seconds.
    #[arg(long, env = "SELEXTRACT_DRAIN_TIMEOUT", default_value = "135s")]
    pub drain_timeout: Duration,

    /// Chromium.
    #[arg(long, env = "SELEXTRACT_BROWSER", default_value = "/usr/bin/chromium-headless-shell")]
    pub browser: PathBuf,

    /// Chromium's own sandbox. Off only where the node lacks the seccomp profile for it.
    #[arg(long, env = "SELEXTRACT_BROWSER_SANDBOX", default_value = "on")]
    pub browser_sandbox: Switch,

    /// Pages until a browser is retired.
    #[arg(long, env = "SELEXTRACT_BROWSER_MAX_PAGES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub browser_max_pages: u32,

    /// Age at which a browser is retired.
    #[arg(long, env = "SELEXTRACT_BROWSER_MAX_AGE", default_value = "30m")]
    pub browser_max_age: Duration,

    /// Megabytes at which a browser is retired.
    #[arg(long, env = "SELEXTRACT_BROWSER_MAX_MEMORY_MB", default_value_t = 500)]
    pub browser_max_memory_mb: u64,

    /// Where artifacts are kept.
    #[command(flatten)]
    pub artifacts: ArtifactSettings,

    /// How long a browser is kept that nobody needs.
    #[arg(long, env = "SELEXTRACT_BROWSER_MAX_IDLE", default_value = "5m")]
    pub browser_max_idle: Duration,

    /// Where health and metrics are served.
    #[arg(long, env = "SELEXTRACT_TELEMETRY_ADDR", default_value = "0.0.0.0:9090")]
    pub telemetry_addr: SocketAddr,

    /// What is logged, as a filter of tracing-subscriber.
    #[arg(long, env = "SELEXTRACT_LOG", default_value = "info")]
    pub log: String,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is used.
    On,
    /// It is not.
    Off,
}

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Settings {
    /// How the worker works.
    pub fn pace(&self) -> Pace {
        Pace {
            concurrency: usize::try_from(self.concurrency).unwrap_or(1),
            lease: self.lease.get(),
            max_tasks: self.max_tasks,
            drain_timeout: self.drain_timeout.get(),
        }
    }

    /// How the browser is run.
    pub fn browser_settings(&self) -> BrowserSettings {
        BrowserSettings {
            program: self.browser.clone(),
            sandbox: self.browser_sandbox == Switch::On,
            proxy: self.egress_proxy.clone(),
            contact: self.contact.clone(),
            max_pages: self.browser_max_pages,
            max_age: self.browser_max_age.get(),
            max_memory: self.browser_max_memory_mb.saturating_mul(1 << 20),
            max_idle: self.browser_max_idle.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &[&str]) -> Settings {
        let least = [
            "selextract-worker",
            "--database-url=postgres://app:hunter2@db/x",
            "--redis-queue-url=redis://:hunter2@redis/0",
            "--egress-proxy=http://blue-egress:3128",
            "--worker-name=blue-worker-0",
        ];
        Settings::try_parse_from(least.iter().chain(more)).unwrap()
    }

    #[test]
    fn the_defaults_are_the_guides() {
        let settings = settings(&[]);
        assert_eq!((settings.concurrency, settings.max_tasks), (4, 1000));
        let browser = settings.browser_settings();
        assert!(browser.sandbox);
        assert_eq!((browser.max_pages, browser.max_age.as_secs()), (100, 1800));
        assert_eq!(browser.max_memory, 500 << 20);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", settings(&[])).contains("hunter2"));
    }

    #[test]
    fn the_sandbox_is_off_only_when_it_is_said() {
        assert!(!settings(&["--browser-sandbox=off"]).browser_settings().sandbox);
    }
}
