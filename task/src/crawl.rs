//! What a user may ask of a crawl: where it begins, which links it follows, and how far.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a run goes on over a whole site. Its pages are spread over all workers, each is read once, and each is tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Crawl {
    /// Pages to begin at, besides url.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 8, max = 2048)), extend("x-kubernetes-list-type" = "set"))]
    pub seeds: Vec<String>,

    /// Sitemaps to begin at (sitemaps.org: XML, an index of them, or a text with a URL a line; gzip too). At most 50 files of 50,000 URLs and 50 MiB each are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 8, max = 2048)), extend("x-kubernetes-list-type" = "set"))]
    pub sitemaps: Vec<String>,

    /// Whether the sitemaps that the robots.txt of url and seeds name are read too.
    #[serde(default)]
    pub from_robots_sitemaps: bool,

    /// How far from url and seeds the crawl goes; other links are not followed.
    #[serde(default)]
    pub scope: CrawlScope,

    /// Regular expressions (RE2 syntax) that are searched in the whole URL: only links that one of them matches are followed. Without any, all are. url and seeds are always read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub include: Vec<String>,

    /// Regular expressions that are searched in the whole URL: a link that one of them matches is not followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub exclude: Vec<String>,

    /// Regular expressions that are searched in the whole URL: only pages that one of them matches give records; of the others the links are followed. Without any, all pages give records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub extract: Vec<String>,

    /// A selector (CSS, XPath or JSONPath, as items) of the links that are followed: their `href` or text. Without it, every `a` and `area` with an `href`. Links with `rel=nofollow`, and those of pages whose meta robots says so, are never followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub link_selector: Option<String>,

    /// How many links away from url, seeds and the URLs of sitemaps a page may be; with 0 no link is followed.
    #[serde(default = "default_max_depth")]
    #[schemars(range(min = 0, max = 100))]
    pub max_depth: u16,

    /// The most pages that the crawl visits.
    #[serde(default = "default_max_pages")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_pages: u32,
}

/// How far a crawl goes from the pages that it begins at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CrawlScope {
    /// To the same hosts, by http and https and on any port; `www.` in front makes no other host.
    #[default]
    Host,
    /// To the same origins: scheme, host and port.
    Origin,
    /// To the same hosts and every host below them.
    Subdomains,
}

fn default_max_depth() -> u16 {
    3
}

fn default_max_pages() -> u32 {
    1000
}
