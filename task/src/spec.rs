//! The task's specification as users write it, in camelCase, with the field names of the product that the guide describes.
//!
//! The types are lenient readers (unknown fields are ignored), so that an older program survives a newer writer; strictness sits at
//! the edges: the API collects unknown fields into one answer, the CRD has `fieldValidation=Strict`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Browser, Cookie, Crawl, Duration, Field, Pagination, Politeness, Robots, WaitCondition, Watch};

/// The version of [`TaskSpec`] that this build writes; stored beside every spec.
pub const SPEC_VERSION: i16 = 1;

/// What to extract, from where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.fields) != has(self.automatic)",
    "message": "give either fields, which are read where selectors say, or automatic, which finds its records itself",
}, {
    "rule": "!has(self.pagination) || !has(self.crawl)",
    "message": "pagination follows one link after the other and crawl follows all; remove one of the two",
}]))]
pub struct TaskSpec {
    /// A name for people, shown in lists. Not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub name: Option<String>,

    /// The first page, an absolute http or https URL without credentials.
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^[hH][tT][tT][pP][sS]?://[^@]+"))]
    pub url: String,

    /// How a page is fetched: Http reads the server's HTML; Browser renders it in Chromium and reads the DOM; Auto begins with the server's HTML and renders the page where the records are missing from it, and remembers for each host whether that helped.
    #[serde(default)]
    pub render: Render,

    /// A selector of what is one record each: CSS; or XPath 1.0, beginning with `/`, `./` or `(`; or JSONPath (RFC 9535), beginning with `$`, on pages that are JSON or CSV, which is read as a JSON array of one object for each row, named by the header. Without it each page is one record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub items: Option<String>,

    /// The elements that items selects hold JSON (such as `script#__NEXT_DATA__`): a JSONPath of the records in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub items_json_path: Option<String>,

    /// The fields of a record. Required, unless automatic is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub fields: Vec<Field>,

    /// Instead of items and fields: what is looked for in every page without a selector. A record is `kind`, `type` (the schema.org type, or a table's caption), `group` (which of its kind on the page), `row` (of a table) and `data`, an object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub automatic: Vec<Automatic>,

    /// How to go on to further pages. Without it only the first page is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pagination: Option<Pagination>,

    /// Goes on over a whole site instead: from url, seeds and sitemaps along the links of the pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crawl: Option<Crawl>,

    /// What a run is compared by with the last one of the same task that succeeded: which records are new, changed or gone, and what becomes of it when the site has changed under its selectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,

    /// Whether the site is asked if a page is as it was in the run before (`ETag`, `Last-Modified`), which spares fetching and reading it again. Without it: in the runs of a `ScrapeTask` and of a schedule, with render Http or Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditional: Option<bool>,

    /// What has to be in the page before it is read, in this order. Only with render Browser, or Auto for the pages that go there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub wait_conditions: Vec<WaitCondition>,

    /// What happens in the browser besides rendering: steps, captures, and what is not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<Browser>,

    /// Cookies that requests carry, to the task's own host or domain alone. What a site sets during a run holds for that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub cookies: Vec<Cookie>,

    /// The name of stored credentials (PUT /api/v1/credentials/{name}) that requests to their origin carry. The spec never holds the password itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub credentials: Option<String>,

    /// The name of a pool of upstream proxies that the cluster declares (spec.egress.upstreams). Without it requests go out from the cluster itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub proxy_pool: Option<String>,

    /// Request headers to add. Hop-by-hop headers, Host, Cookie (see cookies) and Authorization (see credentials) are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub custom_headers: BTreeMap<String, String>,

    /// How often the pages' hosts are visited. Without it at most 4 pages a second, 4 at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub politeness: Option<Politeness>,

    /// Whether the sites' robots.txt is obeyed. Without it, it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robots: Option<Robots>,

    /// How often a page is tried again after a failure that may pass.
    #[serde(default = "default_max_retries")]
    #[schemars(range(min = 0, max = 10))]
    pub max_retries: u8,

    /// The wait before the first retry; it doubles with each further one, with jitter, up to 15 minutes.
    #[serde(default = "default_retry_delay")]
    pub retry_delay: Duration,

    /// How long one page may take, from the request to the record, at most 120s (the guide's critical task processing time).
    #[serde(default = "default_timeout")]
    pub timeout: Duration,

    /// How long the whole run may take from its first page on, waits and pauses included, at least 1s and at most 30d. Beyond it the run fails; what was read stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,

    /// The most compute units of the run (1 is 1 CPU second, and 1 per 100 MB of egress). Beyond it the run fails; what was read stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_compute_units: Option<u32>,
}

/// What can be found without a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Automatic {
    /// Every object of the page's JSON-LD.
    JsonLd,
    /// The page's `og:`, `article:`, `product:` and `twitter:` properties, as one record.
    OpenGraph,
    /// Every top-level item of the page's microdata.
    Microdata,
    /// Every row of the page's tables that have a header.
    Tables,
    /// The title, byline, date, language and text of the page's article, as one record.
    Article,
}

/// How a page is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Render {
    /// Fetch by HTTP and read the HTML that the server sent.
    #[default]
    Http,
    /// Render in Chromium and read the DOM after the wait conditions hold.
    Browser,
    /// Fetch by HTTP, and render the page in Chromium where no item, a required field of all or most fields are missing from the server's HTML.
    Auto,
}

fn default_max_retries() -> u8 {
    3
}

fn default_retry_delay() -> Duration {
    Duration::from_secs(5)
}

fn default_timeout() -> Duration {
    // The guide's task processing target ("Key Performance Metrics").
    Duration::from_secs(30)
}
