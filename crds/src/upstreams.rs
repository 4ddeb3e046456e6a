//! Pools of upstream proxies: declared here by whoever runs the cluster, named by tasks.

use schemars::JsonSchema;
use selextract_task::Duration;
use serde::{Deserialize, Serialize};

use crate::LocalObjectReference;

/// A pool of upstream proxies. A task names it in proxyPool; without that its requests go out from the cluster itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamPool {
    /// As tasks name it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Its proxies.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub proxies: Vec<UpstreamProxy>,

    /// Who keeps a proxy of the pool: None, they take turns; Host, every host of a site its own; Run, every run its own.
    #[serde(default)]
    pub stickiness: Stickiness,

    /// Who resolves a site's name. Here: the egress proxy alone, and the upstream is asked for the address that was checked. Upstream: the upstream once more, by itself, for proxies that take no addresses; what it dials then nobody has checked, and the condition ProxyPools says so.
    #[serde(default)]
    pub resolves: Resolves,

    /// When a proxy that fails is left alone.
    #[serde(default)]
    pub health_check: UpstreamHealth,
}

/// One proxy of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamProxy {
    /// http, https (both are asked by CONNECT) or socks5, a host and a port, without credentials.
    #[schemars(length(min = 10, max = 512), regex(pattern = "^(http|https|socks5)://[^@/?#]+/?$"))]
    pub url: String,

    /// A Secret of the cluster's namespace with the keys username and password. Without it the proxy is asked without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<LocalObjectReference>,
}

/// Who keeps a proxy of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stickiness {
    /// Nobody: the proxies take turns.
    #[default]
    None,
    /// Every host of a site.
    Host,
    /// Every run.
    Run,
}

/// Who resolves a site's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Resolves {
    /// The egress proxy alone.
    #[default]
    Here,
    /// The upstream once more.
    Upstream,
}

/// When a proxy that fails is left alone: it is told by the connections that it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpstreamHealth {
    /// Failures of the proxy itself, in a row, until it rests. A site that cannot be reached through it is none.
    #[schemars(range(min = 1, max = 100))]
    pub failures: u32,

    /// How long it rests at first; each time that it fails again right after, twice as long, up to ten minutes.
    pub cooldown: Duration,
}

impl Default for UpstreamHealth {
    fn default() -> Self {
        Self {
            failures: 3,
            cooldown: Duration::from_secs(30),
        }
    }
}
