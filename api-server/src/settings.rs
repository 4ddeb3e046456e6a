//! The program's settings: flags with an environment variable each; secrets by environment variable alone, never as an argument.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use selextract_platform::{artifacts::ArtifactSettings, cache::Limit};
use selextract_task::Duration;
use snafu::{OptionExt, Snafu};

use crate::internal::tokens::Expected;

/// The public API of a Selextract cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "selextract-api", version)]
pub struct Settings {
    /// Where the public API listens.
    #[arg(long, env = "SELEXTRACT_PUBLIC_ADDR", default_value = "0.0.0.0:8080")]
    pub public_addr: SocketAddr,
    /// Where the internal listener listens.
    #[arg(long, env = "SELEXTRACT_INTERNAL_ADDR", default_value = "0.0.0.0:8081")]
    pub internal_addr: SocketAddr,
    /// Where health, readiness and metrics are served.
    #[arg(long, env = "SELEXTRACT_TELEMETRY_ADDR", default_value = "0.0.0.0:9090")]
    pub telemetry_addr: SocketAddr,
    /// Database connections that are kept.
    #[arg(long, env = "SELEXTRACT_POOL_SIZE", default_value_t = 20)]
    pub pool_size: u32,
    /// Further database connections when all are taken.
    #[arg(long, env = "SELEXTRACT_POOL_OVERFLOW", default_value_t = 30)]
    pub pool_overflow: u32,
    /// How long a request waits for a database connection before it answers 503.
    #[arg(long, env = "SELEXTRACT_POOL_ACQUIRE_TIMEOUT", default_value = "2s")]
    pub pool_acquire_timeout: Duration,
    /// How long a database connection lives.
    #[arg(long, env = "SELEXTRACT_POOL_MAX_LIFETIME", default_value = "3600s")]
    pub pool_max_lifetime: Duration,
    /// How long a request may take to its answer's first byte.
    #[arg(long, env = "SELEXTRACT_REQUEST_TIMEOUT", default_value = "30s")]
    pub request_timeout: Duration,
    /// How long the API goes on accepting after SIGTERM, while it leaves the Service's endpoints.
    #[arg(long, env = "SELEXTRACT_LEAVE_DELAY", default_value = "5s")]
    pub leave_delay: Duration,
    /// How long open requests may go on after that.
    #[arg(long, env = "SELEXTRACT_DRAIN_TIMEOUT", default_value = "20s")]
    pub drain_timeout: Duration,
    /// The log's filter.
    #[arg(long, env = "SELEXTRACT_LOG", default_value = "info")]
    pub log: String,
    /// How much a client may send.
    #[command(flatten)]
    pub limits: Limits,
    /// Where artifacts are kept.
    #[command(flatten)]
    pub artifacts: ArtifactSettings,
    /// The internal listener.
    #[command(flatten)]
    pub internal: Internal,
}

/// How much a client may send: a number of requests at once, and that many again in each such time.
#[derive(Clone, Debug, clap::Args)]
pub struct Limits {
    /// Of each user, over all replicas.
    #[arg(long = "rate-limit", env = "SELEXTRACT_RATE_LIMIT", default_value = "5000/10s")]
    pub rate: Limit,
    /// Of each address: logins, refreshes and requests with wrong credentials, over all replicas.
    #[arg(
        long = "login-rate-limit",
        env = "SELEXTRACT_LOGIN_RATE_LIMIT",
        default_value = "120/1m"
    )]
    pub login_rate: Limit,
    /// Of each user: previews, over all replicas.
    #[arg(
        long = "preview-rate-limit",
        env = "SELEXTRACT_PREVIEW_RATE_LIMIT",
        default_value = "20/1m"
    )]
    pub preview_rate: Limit,
    /// How many proxies stand in front of the API that add the client's address to X-Forwarded-For.
    #[arg(long, env = "SELEXTRACT_TRUSTED_PROXIES", default_value_t = 0)]
    pub trusted_proxies: u8,
    /// The pools of upstream proxies that tasks may name, with commas between them; empty where there are none. Without it any name is accepted.
    #[arg(long, env = "SELEXTRACT_PROXY_POOLS")]
    pub proxy_pools: Option<String>,
}

/// The internal listener's settings: all of them, or it is off.
#[derive(Clone, Debug, clap::Args)]
pub struct Internal {
    /// The audience of the operator's tokens for this cluster.
    #[arg(long = "internal-audience", env = "SELEXTRACT_INTERNAL_AUDIENCE")]
    pub audience: Option<String>,
    /// The operator's service account, as in a token's `sub`.
    #[arg(long = "internal-subject", env = "SELEXTRACT_INTERNAL_SUBJECT")]
    pub subject: Option<String>,
    /// The issuer of service-account tokens.
    #[arg(long = "internal-issuer", env = "SELEXTRACT_INTERNAL_ISSUER")]
    pub issuer: Option<String>,
    /// The file with the keys that sign service-account tokens.
    #[arg(long = "internal-jwks", env = "SELEXTRACT_INTERNAL_JWKS")]
    pub jwks: Option<PathBuf>,
    /// The certificate, PEM.
    #[arg(long = "internal-tls-cert", env = "SELEXTRACT_INTERNAL_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM.
    #[arg(long = "internal-tls-key", env = "SELEXTRACT_INTERNAL_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
}

/// The internal listener's settings when it is on.
#[derive(Clone, Debug)]
pub struct InternalOn {
    /// Whom it lets in.
    pub expected: Expected,
    /// The file with the keys that sign service-account tokens.
    pub jwks: PathBuf,
    /// The certificate, PEM.
    pub tls_cert: PathBuf,
    /// The certificate's key, PEM.
    pub tls_key: PathBuf,
}

/// What opens the services; it never appears in arguments or logs.
#[derive(Clone)]
pub struct Secrets {
    /// The primary, through PgBouncer.
    pub database_url: String,
    /// The replicas, through PgBouncer; the primary where there are none.
    pub database_read_url: String,
    /// The frontier.
    pub redis_queue_url: String,
    /// The cache.
    pub redis_cache_url: String,
    /// The keys of the access tokens.
    pub token_keys: String,
    /// The keys that seal users' secrets; without them there are no webhooks.
    pub data_key: Option<String>,
}

/// Why the settings cannot be used.
#[derive(Debug, Snafu)]
pub enum SettingsError {
    /// A secret is not there.
    #[snafu(display("the environment variable {name} is missing or empty"))]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// The internal listener has a certificate and lacks something else.
    #[snafu(display("the internal listener has a certificate and needs {name} too"))]
    Incomplete {
        /// Which.
        name: &'static str,
    },
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    /// Reads them by `get`, which is `std::env::var` in the program.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let need = |name: &'static str| get(name).filter(|v| !v.is_empty()).context(MissingSnafu { name });
        let database_url = need("SELEXTRACT_DATABASE_URL")?;
        Ok(Self {
            database_read_url: need("SELEXTRACT_DATABASE_READ_URL").unwrap_or_else(|_| database_url.clone()),
            database_url,
            redis_queue_url: need("SELEXTRACT_REDIS_QUEUE_URL")?,
            redis_cache_url: need("SELEXTRACT_REDIS_CACHE_URL")?,
            token_keys: need("SELEXTRACT_TOKEN_KEYS")?,
            data_key: need("SELEXTRACT_DATA_KEY").ok(),
        })
    }
}

impl Internal {
    /// The settings when there is a certificate. One of them without the others is a mistake and said so.
    pub fn on(&self) -> Result<Option<InternalOn>, SettingsError> {
        let (Some(tls_cert), Some(tls_key)) = (self.tls_cert.clone(), self.tls_key.clone()) else {
            return Ok(None);
        };
        let need = |value: &Option<String>, name: &'static str| value.clone().context(IncompleteSnafu { name });
        Ok(Some(InternalOn {
            expected: Expected {
                audience: need(&self.audience, "SELEXTRACT_INTERNAL_AUDIENCE")?,
                subject: need(&self.subject, "SELEXTRACT_INTERNAL_SUBJECT")?,
                issuer: need(&self.issuer, "SELEXTRACT_INTERNAL_ISSUER")?,
            },
            jwks: self.jwks.clone().context(IncompleteSnafu {
                name: "SELEXTRACT_INTERNAL_JWKS",
            })?,
            tls_cert,
            tls_key,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_guides() {
        let settings = Settings::parse_from(["selextract-api"]);
        assert_eq!((settings.pool_size, settings.pool_overflow), (20, 30));
        assert_eq!(settings.pool_max_lifetime, Duration::from_secs(3600));
        assert_eq!(settings.pool_acquire_timeout, Duration::from_secs(2));
        assert!(settings.internal.on().unwrap().is_none());
    }

    #[test]
    fn a_certificate_without_the_rest_is_a_mistake() {
        let flags = [
            "selextract-api",
            "--internal-tls-cert",
            "c",
            "--internal-tls-key",
            "k",
            "--internal-audience",
            "a",
        ];
        let error = Settings::parse_from(flags).internal.on().unwrap_err();
        assert!(error.to_string().contains("SELEXTRACT_INTERNAL_SUBJECT"), "{error}");
    }

    #[test]
    fn secrets_are_not_arguments_and_do_not_show() {
        let help = <Settings as clap::CommandFactory>::command()
            .render_long_help()
            .to_string();
        assert!(!help.contains("DATABASE_URL") && !help.contains("TOKEN_KEYS"));
        let secrets = Secrets::read(|_| Some("hidden".to_owned())).unwrap();
        assert!(!format!("{secrets:?}").contains("hidden"));
        assert!(Secrets::read(|_| None).is_err());
    }
}
