//! What sites allow: their robots.txt, remembered here for minutes and in Redis for a day, shared by all workers.

pub mod rules;

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use selextract_platform::frontier::Frontier;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use url::Url;

use crate::{
    failure::{Blame, Failure},
    fetch::http::{Http, RobotsAnswer},
};
use rules::Rules;

/// RFC 9309, section 2.4: not longer than a day.
const LIVES: Duration = Duration::from_hours(24);
/// A server that failed is asked again after this long.
const UNAVAILABLE_LIVES: Duration = Duration::from_mins(1);
/// How long this process trusts its own copy.
const MEMORY_LIVES: Duration = Duration::from_mins(1);
const MEMORY_BYTES: u64 = 16 << 20;
/// For the whole fetch.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What is known of an origin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Known {
    /// These rules hold.
    Rules(Arc<Rules>),
    /// The server failed with this status, lately: nothing may be fetched.
    Unavailable(u16),
}

/// The robots.txt of all sites.
#[derive(Clone)]
pub struct Robots {
    http: Http,
    frontier: Frontier,
    memory: Cache<String, Known>,
}

impl Robots {
    /// Asks sites through `http` and shares what it learns by the frontier's Redis.
    pub fn new(http: Http, frontier: Frontier) -> Self {
        let memory = Cache::builder()
            .max_capacity(MEMORY_BYTES)
            .weigher(|origin: &String, known: &Known| {
                let size = match known {
                    Known::Rules(rules) => rules.size(),
                    Known::Unavailable(_) => 100,
                };
                u32::try_from(origin.len() + size).unwrap_or(u32::MAX)
            })
            .time_to_live(MEMORY_LIVES)
            .build();
        Self { http, frontier, memory }
    }

    /// The same, asking sites by another client.
    #[must_use]
    pub fn by(&self, http: &Http) -> Self {
        Self {
            http: http.clone(),
            ..self.clone()
        }
    }

    /// What is known of a URL's origin without asking the site.
    pub async fn known(&self, url: &Url) -> Option<Known> {
        let origin = url.origin().ascii_serialization();
        if let Some(known) = self.memory.get(&origin).await {
            return Some(known);
        }
        let bytes = match self.frontier.robots(&origin).await {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!(origin, %error, "What is known of a robots.txt cannot be read; the site is asked.");
                return None;
            }
        };
        let known: Known = serde_json::from_slice(&bytes).ok()?;
        self.memory.insert(origin, known.clone()).await;
        Some(known)
    }

    /// Asks the site, and remembers what it said. The caller has its turn at the host.
    ///
    /// # Errors
    /// When no answer came, or the server failed.
    pub async fn ask(&self, url: &Url) -> Result<Arc<Rules>, Failure> {
        let answer = timeout(TIMEOUT, self.http.robots(url))
            .await
            .map_err(|_| Failure::retryable("Timeout", "robots.txt took longer than 15s").blaming(Blame::Host))?
            .map_err(|error| {
                let failure = Failure::from(error);
                Failure {
                    message: format!("robots.txt: {}", failure.message),
                    ..failure
                }
            })?;
        let rules = match answer {
            RobotsAnswer::Text(text) => Arc::new(Rules::parse(&text)),
            RobotsAnswer::Absent => Arc::default(),
            RobotsAnswer::Unavailable { status, retry_after } => {
                self.remember(url, Known::Unavailable(status), UNAVAILABLE_LIVES).await;
                let blames = if status == 429 { Blame::Haste } else { Blame::Host };
                return Err(Failure {
                    retry_after,
                    ..unavailable(status).blaming(blames)
                });
            }
        };
        self.remember(url, Known::Rules(Arc::clone(&rules)), LIVES).await;
        Ok(rules)
    }

    async fn remember(&self, url: &Url, known: Known, lives: Duration) {
        let origin = url.origin().ascii_serialization();
        if let Ok(bytes) = serde_json::to_vec(&known)
            && let Err(error) = self.frontier.keep_robots(&origin, bytes, lives).await
        {
            tracing::warn!(origin, %error, "A robots.txt could not be shared with the other workers.");
        }
        self.memory.insert(origin, known).await;
    }
}

/// The failure of a page whose site cannot say what it allows.
pub fn unavailable(status: u16) -> Failure {
    Failure::retryable(
        "RobotsUnavailable",
        format!("robots.txt was answered with {status}; until the site says what it allows, nothing of it is fetched"),
    )
}

/// The failure of a page that its site's robots.txt does not allow, by this rule.
pub fn disallowed(url: &Url, rule: &str) -> Failure {
    let message = format!("the site's robots.txt does not allow {} ({rule})", url.path());
    Failure::permanent("RobotsDisallowed", message)
}

impl std::fmt::Debug for Robots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Robots").finish_non_exhaustive()
    }
}
