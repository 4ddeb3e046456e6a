//! The pools as the configuration file declares them. Pure but for the credentials, which are read from files when they are used.

use std::path::PathBuf;

use selextract_task::Duration;
use serde::Deserialize;
use snafu::{OptionExt, Snafu, ensure};
use url::Url;

use super::health::Rule;

const MAX_POOLS: usize = 32;
const MAX_PROXIES: usize = 256;
/// More than any user or password.
const MAX_CREDENTIAL: u64 = 4096;

/// A pool in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FilePool {
    name: String,
    proxies: Vec<FileProxy>,
    #[serde(default)]
    stickiness: Stickiness,
    #[serde(default)]
    resolves: Resolves,
    #[serde(default)]
    health_check: FileHealth,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileProxy {
    url: String,
    /// A folder with the files `username` and `password`.
    #[serde(default)]
    credentials: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileHealth {
    failures: u32,
    cooldown: Duration,
}

impl Default for FileHealth {
    fn default() -> Self {
        Self {
            failures: 3,
            cooldown: Duration::from_secs(30),
        }
    }
}

/// Who keeps a proxy of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Stickiness {
    /// Nobody: they take turns.
    #[default]
    None,
    /// Every host of a site its own.
    Host,
    /// Every run its own.
    Run,
}

/// Who resolves a site's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Resolves {
    /// This proxy alone: the upstream is asked for the address that was checked.
    #[default]
    Here,
    /// The upstream once more, for itself: what it dials nobody has checked.
    Upstream,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// As tasks name it.
    pub name: String,
    /// Its proxies; at least one.
    pub upstreams: Vec<Upstream>,
    /// Who keeps a proxy.
    pub stickiness: Stickiness,
    /// Who resolves names.
    pub resolves: Resolves,
    /// When a proxy rests.
    pub health: Rule,
}

/// A proxy of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// http, https or socks5; nothing secret in it.
    pub url: Url,
    credentials: Option<PathBuf>,
}

/// A user and a password; no `Debug` form.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: String,
}

/// Why pools are refused.
#[derive(Debug, Snafu, PartialEq, Eq)]
pub enum PoolError {
    /// Too many.
    #[snafu(display(
        "there are {count} upstream pools or proxies; at most {MAX_POOLS} pools and {MAX_PROXIES} proxies are taken"
    ))]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A pool that cannot be used.
    #[snafu(display("upstreams[{index}] ({name:?}): {why}"))]
    Form {
        /// Its place.
        index: usize,
        /// Its name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Checks what the file declares.
pub fn compile(file: Vec<FilePool>) -> Result<Vec<Pool>, PoolError> {
    ensure!(file.len() <= MAX_POOLS, TooManySnafu { count: file.len() });
    let count: usize = file.iter().map(|pool| pool.proxies.len()).sum();
    ensure!(count <= MAX_PROXIES, TooManySnafu { count });
    let mut pools: Vec<Pool> = Vec::with_capacity(file.len());
    for (index, pool) in file.into_iter().enumerate() {
        let form = |why| FormSnafu {
            index,
            name: pool.name.clone(),
            why,
        };
        ensure!(
            selextract_task::access::is_name(&pool.name),
            form("its name must be lower-case letters, digits and hyphens")
        );
        ensure!(
            pools.iter().all(|other| other.name != pool.name),
            form("its name is there twice")
        );
        ensure!(!pool.proxies.is_empty(), form("it has no proxies"));
        let read = |proxy: &FileProxy| {
            upstream(proxy).with_context(|| form("a proxy's url must be http, https or socks5, a host and a port"))
        };
        let upstreams: Vec<Upstream> = pool.proxies.iter().map(read).collect::<Result<_, _>>()?;
        ensure!(
            pool.health_check.failures > 0,
            form("healthCheck.failures must be 1 or more")
        );
        let health = Rule {
            failures: pool.health_check.failures,
            cooldown: pool.health_check.cooldown.get(),
        };
        let (stickiness, resolves) = (pool.stickiness, pool.resolves);
        pools.push(Pool {
            name: pool.name,
            upstreams,
            stickiness,
            resolves,
            health,
        });
    }
    Ok(pools)
}

fn upstream(proxy: &FileProxy) -> Option<Upstream> {
    let url = Url::parse(&proxy.url).ok()?;
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let has_port = url.port_or_known_default().is_some();
    (matches!(url.scheme(), "http" | "https" | "socks5") && url.has_host() && bare && has_port).then(|| Upstream {
        url,
        credentials: proxy.credentials.clone(),
    })
}

impl Upstream {
    /// Host and port.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.url.host_str().unwrap_or_default(), self.port())
    }

    pub(super) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// Its user and password, as their files are now.
    pub(super) async fn login(&self) -> Result<Option<Login>, &'static str> {
        let Some(folder) = &self.credentials else {
            return Ok(None);
        };
        let read = async |name: &str| {
            let path = folder.join(name);
            let size = tokio::fs::metadata(&path).await.ok()?.len();
            let text = if size <= MAX_CREDENTIAL {
                tokio::fs::read_to_string(&path).await.ok()
            } else {
                None
            }?;
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            (!text.bytes().any(|byte| byte.is_ascii_control())).then_some(text)
        };
        let (username, password) = (read("username").await, read("password").await);
        username
            .zip(password)
            .map(|(username, password)| Some(Login { username, password }))
            .ok_or("its Secret has no username and password")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(pools: &Value) -> Result<Vec<Pool>, PoolError> {
        compile(serde_json::from_value(pools.clone()).unwrap())
    }

    #[test]
    fn a_pool_has_defaults_and_its_mistakes_are_named() {
        let pools = parse(&json!([{ "name": "eu", "proxies": [{ "url": "socks5://10.0.0.1:1080" }] }])).unwrap();
        assert_eq!(
            (pools[0].stickiness, pools[0].resolves, pools[0].health.failures),
            (Stickiness::None, Resolves::Here, 3)
        );
        assert_eq!(pools[0].upstreams[0].authority(), "10.0.0.1:1080");
        let one = |url: &str| json!({ "name": "eu", "proxies": [{ "url": url }] });
        for (wrong, why) in [
            (
                json!([{ "name": "EU", "proxies": [{ "url": "http://a:1" }] }]),
                "lower-case",
            ),
            (json!([{ "name": "eu", "proxies": [] }]), "no proxies"),
            (json!([one("http://a.example:1"), one("http://b.example:1")]), "twice"),
            (json!([one("ftp://a.example:1")]), "socks5"),
            (json!([one("socks5://a.example")]), "port"),
            (json!([one("http://ann:hush@a.example:1")]), "http"),
        ] {
            let error = parse(&wrong).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("hush"), "{error}");
        }
    }
}
