//! How considerate a task is of the hosts that it visits: how often, how many pages at a time, and what robots.txt says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// The most pages of one host at a time that a task may ask for.
pub const MAX_CONCURRENT: u16 = 64;
/// The longest rest of a host that a task may ask for, and the longest that a robots.txt is obeyed in (`Crawl-delay`).
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// How often a host is visited. What is counted is shared by all workers and all tasks that visit the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Politeness {
    /// The most pages of a host that are fetched at the same time.
    #[serde(default = "default_max_concurrent")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent: u16,

    /// How long a host rests after the start of a page before the next one may start, at most 60s. A longer Crawl-delay of its
    /// robots.txt holds instead, and it grows by itself while the host answers 429 or 503.
    #[serde(default = "default_min_delay")]
    pub min_delay: Duration,
}

/// Whether a host's robots.txt (RFC 9309) is obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.policy != 'Ignore' || has(self.reason)",
    "message": "robots.policy Ignore needs robots.reason; say why the site's rules do not hold for you, such as: the site is ours",
}]))]
pub struct Robots {
    /// Respect obeys it; Ignore needs a reason.
    #[serde(default)]
    pub policy: RobotsPolicy,

    /// Why it is ignored. Required with policy Ignore, refused with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub reason: Option<String>,
}

/// Whether robots.txt is obeyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RobotsPolicy {
    /// What it disallows is not fetched, and its Crawl-delay holds.
    #[default]
    Respect,
    /// It is not read.
    Ignore,
}

impl Default for Politeness {
    fn default() -> Self {
        Self {
            max_concurrent: default_max_concurrent(),
            min_delay: default_min_delay(),
        }
    }
}

/// Four pages a second at most: between Scrapy's project template (one at a time, a second apart) and crawlers without a delay.
fn default_max_concurrent() -> u16 {
    4
}

fn default_min_delay() -> Duration {
    Duration::from_millis(250)
}
