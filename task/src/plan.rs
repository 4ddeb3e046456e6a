//! From a [`TaskSpec`] to a [`Plan`] that can be run, or to every [`Violation`] at once.

mod browser;
mod crawl;
mod fields;
mod paging;
mod watching;

use std::fmt;

use url::Url;

use crate::{
    Automatic, Duration, JsonPath, Locator, MAX_CONCURRENT, MAX_DELAY, PageTemplate, Politeness, Render, Robots,
    RobotsPolicy, Stop, TaskSpec,
    access::{PlannedCookie, check_name, plan_cookies},
};
pub use browser::{Act, Awaited, More, Step, Visit, Wait};
pub use crawl::{CrawlPlan, MAX_URL};
pub use fields::{Change, CompiledField, Shape, Take};

/// The longest time a page may ask for: the guide's critical task processing time ("Key Performance Metrics").
const MAX_TIMEOUT: Duration = Duration::from_secs(120);
const MIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest time that a run may be given: 10,000 pages of the longest time are two weeks.
const MAX_DURATION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A spec that was checked and compiled: every selector parses, every limit holds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The first page.
    pub url: Url,
    /// How pages are fetched.
    pub render: Render,
    /// What every page must be.
    pub reads: Reads,
    /// What is one record each.
    pub items: Items,
    /// The fields of a record, in the order of the spec.
    pub fields: Vec<CompiledField>,
    /// What is looked for without selectors, instead of items and fields.
    pub automatic: Vec<Automatic>,
    /// The link to the next page.
    pub next: Option<Locator>,
    /// The URLs of the pages after the first, instead of a link.
    pub template: Option<PageTemplate>,
    /// When the run ends besides at its last page.
    pub stop: Stop,
    /// The most pages of a run, at least 1.
    pub max_pages: u32,
    /// How the run goes on over a whole site.
    pub crawl: Option<CrawlPlan>,
    /// What happens to pages in the browser.
    pub visit: Visit,
    /// Request headers to add, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Cookies that the task gives.
    pub cookies: Vec<PlannedCookie>,
    /// The credentials that its requests show, by name.
    pub credentials: Option<String>,
    /// The pool of upstream proxies that its requests take, by name.
    pub proxy_pool: Option<String>,
    /// How often the pages' hosts are visited.
    pub politeness: Politeness,
    /// Whether robots.txt is obeyed.
    pub obeys_robots: bool,
    /// How often a page is tried again.
    pub max_retries: u8,
    /// The wait before the first retry.
    pub retry_delay: std::time::Duration,
    /// How long one page may take.
    pub timeout: std::time::Duration,
    /// How long the run may take from its first page on.
    pub max_duration: Option<std::time::Duration>,
    /// The most compute units of the run.
    pub max_compute_units: Option<u32>,
}

/// What something is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// HTML or XML: a tree of elements.
    Tree,
    /// JSON, or CSV as an array of objects.
    Json,
}

/// What is one record each.
#[derive(Clone, Debug)]
pub enum Items {
    /// The page.
    Page,
    /// What a selector leads to.
    Located(Locator),
    /// Values within the JSON that elements hold.
    Embedded {
        /// The elements.
        holder: Locator,
        /// The values in each of them.
        path: JsonPath,
    },
}

/// One thing that is wrong with a spec: where, what was written, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field in the spec, such as `fields[2].selector`.
    pub field: String,
    /// What was written there, shortened to 80 characters.
    pub value: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Everything that is wrong with a spec; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violation {
    /// A field, what was written there, and what is wrong with it.
    pub(crate) fn new(field: impl Into<String>, value: impl fmt::Display, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            value: value.to_string().chars().take(80).collect(),
            message: message.into(),
        }
    }
}

impl Violations {
    /// Of at least one.
    pub(crate) fn of(violations: Vec<Violation>) -> Self {
        Self(violations)
    }

    /// The violations, in the order of the spec.
    pub fn iter(&self) -> std::slice::Iter<'_, Violation> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Violations {
    type Item = &'a Violation;
    type IntoIter = std::slice::Iter<'a, Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}: {}", self.field, self.value, self.message)
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

impl TaskSpec {
    /// Checks the whole spec and compiles it.
    ///
    /// # Errors
    /// Every violation there is, not only the first.
    pub fn compile(&self) -> Result<Plan, Violations> {
        let mut check = Check::default();
        let url = check.url(&self.url);
        let (reads, items) = check.items(self);
        let fields = if check.automatic(self) {
            Vec::new()
        } else {
            check.record(&self.fields, items_read(reads, &items))
        };
        let paging = check.paging(self.pagination.as_ref(), url.as_ref(), reads);
        let max_pages = self.pagination.as_ref().map_or(1, |p| p.max_pages);
        check.range("pagination.maxPages", max_pages.into(), 1, 10_000);
        let crawl = check.crawl(self, url.as_ref(), reads);
        check.range("maxRetries", self.max_retries.into(), 0, 10);
        check.watch(self);
        if self.conditional == Some(true) && self.render == Render::Browser {
            let cure = "is asked by HTTP alone; use render Http, or remove it";
            check.refuse("conditional", true, cure);
        }
        let visit = check.visit(self, &items);
        let headers = check.headers(self);
        let cookies = plan_cookies(&self.cookies, url.as_ref(), &mut check.violations);
        check_name("credentials", self.credentials.as_deref(), &mut check.violations);
        check_name("proxyPool", self.proxy_pool.as_deref(), &mut check.violations);
        let politeness = check.politeness(self.politeness);
        let obeys_robots = check.robots(self.robots.as_ref());
        check.within("timeout", self.timeout, MIN_TIMEOUT, MAX_TIMEOUT);
        check.within(
            "retryDelay",
            self.retry_delay,
            Duration::from_millis(100),
            Duration::from_secs(900),
        );
        if let Some(longest) = self.max_duration {
            check.within("maxDuration", longest, MIN_TIMEOUT, MAX_DURATION);
        }
        if let Some(units) = self.max_compute_units {
            check.range("maxComputeUnits", units.into(), 1, 1_000_000_000);
        }
        if let Some(name) = &self.name
            && (name.trim().is_empty() || name.chars().count() > 200)
        {
            check.refuse("name", name, "must have 1 to 200 characters");
        }
        match url {
            Some(url) if check.violations.is_empty() => Ok(Plan {
                url,
                render: self.render,
                reads,
                items,
                fields,
                automatic: self.automatic.clone(),
                next: paging.next,
                template: paging.template,
                stop: paging.stop,
                max_pages,
                crawl,
                visit,
                headers,
                cookies,
                credentials: self.credentials.clone(),
                proxy_pool: self.proxy_pool.clone(),
                politeness,
                obeys_robots,
                max_retries: self.max_retries,
                retry_delay: self.retry_delay.get(),
                timeout: self.timeout.get(),
                max_duration: self.max_duration.map(Duration::get),
                max_compute_units: self.max_compute_units,
            }),
            _ => Err(Violations(check.violations)),
        }
    }
}

/// What fields are read from.
fn items_read(reads: Reads, items: &Items) -> Reads {
    match items {
        Items::Embedded { .. } => Reads::Json,
        Items::Page | Items::Located(_) => reads,
    }
}

#[derive(Default)]
struct Check {
    violations: Vec<Violation>,
}

impl Check {
    fn refuse(&mut self, field: impl Into<String>, value: impl fmt::Display, message: impl Into<String>) {
        self.violations.push(Violation::new(field, value, message));
    }

    fn url(&mut self, text: &str) -> Option<Url> {
        self.url_of("url", text)
    }

    fn url_of(&mut self, field: &str, text: &str) -> Option<Url> {
        let cure = "write an absolute URL such as https://example.com/list";
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                self.refuse(field, text, format!("is not a URL ({error}); {cure}"));
                return None;
            }
        };
        if !matches!(url.scheme(), "http" | "https") {
            self.refuse(
                field,
                text,
                format!("has the scheme {:?}; only http and https are fetched", url.scheme()),
            );
            return None;
        }
        if !url.username().is_empty() || url.password().is_some() {
            self.refuse(
                field,
                "(hidden)",
                "holds credentials; take the user and password out of the URL",
            );
            return None;
        }
        if url.as_str().len() > 2048 {
            self.refuse(field, text, "has more than 2048 characters");
            return None;
        }
        Some(url)
    }

    /// What pages must be, and what is a record in them.
    fn items(&mut self, spec: &TaskSpec) -> (Reads, Items) {
        let located = spec.items.as_deref().and_then(|text| self.locator("items", text));
        let begins = |text: &Option<String>| text.as_deref().is_some_and(|text| text.trim_start().starts_with('$'));
        let json = begins(&spec.items) || (spec.items.is_none() && spec.fields.iter().any(|f| begins(&f.selector)));
        if json && spec.render != Render::Http {
            let cure = "shows pages in a browser, which reads no JSON; use render Http, or a selector of the element that shows it";
            self.refuse("render", format!("{:?}", spec.render), cure);
        }
        let path = spec.items_json_path.as_deref();
        let path = path.and_then(|text| self.json_path("itemsJsonPath", text));
        if spec.items_json_path.is_some() && (json || spec.items.is_none()) {
            let cure = "is read in the JSON of elements; name them in items by CSS or XPath, or write the whole JSONPath in items";
            self.refuse(
                "itemsJsonPath",
                spec.items_json_path.as_deref().unwrap_or_default(),
                cure,
            );
        }
        let items = match (located, path) {
            (None, _) => Items::Page,
            (Some(located), None) => Items::Located(located),
            (Some(holder), Some(path)) => Items::Embedded { holder, path },
        };
        (if json { Reads::Json } else { Reads::Tree }, items)
    }

    /// Whether the task finds its records itself.
    fn automatic(&mut self, spec: &TaskSpec) -> bool {
        if spec.automatic.is_empty() {
            return false;
        }
        if !spec.fields.is_empty() || spec.items.is_some() {
            let cure = "finds its records itself; remove it, or items and fields";
            self.refuse("automatic", format!("{:?}", spec.automatic), cure);
        }
        true
    }

    fn json_path(&mut self, field: &str, text: &str) -> Option<JsonPath> {
        if let Locator::JsonPath(path) = self.locator(field, text)? {
            return Some(path);
        }
        self.refuse(field, text, "is not a JSONPath; it begins with $");
        None
    }

    /// A selector in the language of what it is read in.
    fn locator_in(&mut self, reads: Reads, field: impl Into<String>, text: &str) -> Option<Locator> {
        let field = field.into();
        let locator = self.locator(field.as_str(), text)?;
        if locator.is_json() == (reads == Reads::Json) {
            return Some(locator);
        }
        let cure = match reads {
            Reads::Json => "is read in JSON; write a JSONPath, beginning with $",
            Reads::Tree => {
                "is read in a tree of elements; write CSS or XPath, or read an element's JSON with jsonPath or itemsJsonPath"
            }
        };
        self.refuse(field, text, cure);
        None
    }

    fn locator(&mut self, field: impl Into<String>, text: &str) -> Option<Locator> {
        let field = field.into();
        if text.len() > 1024 {
            self.refuse(field, text, "has more than 1024 characters");
            return None;
        }
        Locator::parse(text)
            .map_err(|message| self.refuse(field, text, message))
            .ok()
    }

    fn headers(&mut self, spec: &TaskSpec) -> Vec<(String, String)> {
        if spec.custom_headers.len() > 32 {
            self.refuse("customHeaders", spec.custom_headers.len(), "at most 32 are allowed");
        }
        let mut headers = Vec::with_capacity(spec.custom_headers.len());
        for (name, value) in &spec.custom_headers {
            let lower = name.to_ascii_lowercase();
            let field = format!("customHeaders[{name:?}]");
            if !is_token(&lower) {
                self.refuse(field, name, "is not a header name (RFC 9110, section 5.1)");
            } else if is_reserved_header(&lower) {
                self.refuse(field, name, instead_of(&lower));
            } else if value.len() > 4096 || !value.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b)) {
                self.refuse(field, "(hidden)", "must be at most 4096 printable ASCII characters");
            } else {
                headers.push((lower, value.clone()));
            }
        }
        headers
    }

    fn politeness(&mut self, given: Option<Politeness>) -> Politeness {
        let politeness = given.unwrap_or_default();
        self.range(
            "politeness.maxConcurrent",
            politeness.max_concurrent.into(),
            1,
            MAX_CONCURRENT.into(),
        );
        self.within(
            "politeness.minDelay",
            politeness.min_delay,
            Duration::from_millis(0),
            MAX_DELAY,
        );
        politeness
    }

    /// Whether robots.txt is obeyed.
    fn robots(&mut self, robots: Option<&Robots>) -> bool {
        let Some(robots) = robots else { return true };
        let reason = robots.reason.as_deref().unwrap_or_default().trim();
        match robots.policy {
            RobotsPolicy::Respect if robots.reason.is_some() => {
                self.refuse(
                    "robots.reason",
                    reason,
                    "is read only with policy Ignore; set that policy or remove it",
                );
            }
            RobotsPolicy::Ignore if reason.is_empty() || reason.chars().count() > 500 => {
                let cure = "is required with policy Ignore: say in 1 to 500 characters why the site's rules do not hold for you";
                self.refuse("robots.reason", reason, cure);
            }
            RobotsPolicy::Respect | RobotsPolicy::Ignore => {}
        }
        robots.policy == RobotsPolicy::Respect
    }

    fn range(&mut self, field: &str, value: u64, min: u64, max: u64) {
        if !(min..=max).contains(&value) {
            self.refuse(field, value, format!("must be {min} to {max}"));
        }
    }

    fn within(&mut self, field: &str, value: Duration, min: Duration, max: Duration) {
        if !(min..=max).contains(&value) {
            self.refuse(field, value, format!("must be {min} to {max}"));
        }
    }
}

/// Headers that the platform sets itself, or that would change how the connection is framed (RFC 9110, section 7.6.1), or that carry
/// credentials, which a spec must not hold.
const RESERVED_HEADERS: [&str; 13] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "accept-encoding",
];

/// Whether the platform sets a header, by its name in lower case, itself.
pub(crate) fn is_reserved_header(name: &str) -> bool {
    RESERVED_HEADERS.contains(&name) || name.starts_with("proxy-")
}

fn instead_of(reserved: &str) -> &'static str {
    match reserved {
        "cookie" => "cannot be given here; write it in cookies",
        "authorization" => {
            "cannot be given here; store it with PUT /api/v1/credentials/{name} and name it in credentials"
        }
        "user-agent" => {
            "cannot be given: it tells sites the platform and whom to write to, which the cluster sets in spec.worker.contact; leave it out"
        }
        _ => "is set by the platform and cannot be given",
    }
}

/// Whether a text is a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(extra: &serde_json::Value) -> TaskSpec {
        let mut spec = serde_json::json!({
            "url": "https://example.com/list",
            "fields": [{ "name": "title", "selector": "h1" }],
        });
        if let (Some(spec), Some(extra)) = (spec.as_object_mut(), extra.as_object()) {
            spec.extend(extra.clone());
        }
        serde_json::from_value(spec).unwrap()
    }

    fn refused(extra: &serde_json::Value) -> Vec<String> {
        let violations = spec(extra).compile().unwrap_err();
        violations.iter().map(|v| v.field.clone()).collect()
    }

    #[test]
    fn a_minimal_spec_compiles_with_the_guides_defaults() {
        let plan = spec(&serde_json::json!({})).compile().unwrap();
        assert_eq!(plan.timeout, std::time::Duration::from_secs(30));
        assert_eq!((plan.max_pages, plan.max_retries), (1, 3));
    }

    #[test]
    fn every_violation_is_told_at_once() {
        let fields = refused(&serde_json::json!({
            "url": "ftp://example.com",
            "items": "div[",
            "fields": [{ "name": "1st" }, { "name": "a", "attribute": "id" }, { "name": "a", "type": "Attribute" }],
            "timeout": "5m",
            "waitConditions": [{ "selector": "::" }],
        }));
        assert_eq!(
            fields,
            [
                "url",
                "items",
                "fields[0].name",
                "fields[1].attribute",
                "fields[2].name",
                "fields[2].attribute",
                "waitConditions",
                "waitConditions[0].selector",
                "timeout",
            ]
        );
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_echoed() {
        let violations = spec(&serde_json::json!({ "url": "https://u:secret@example.com/" }))
            .compile()
            .unwrap_err();
        assert!(!violations.to_string().contains("secret"));
    }

    #[test]
    fn headers_of_the_platform_and_credentials_are_refused() {
        for name in [
            "Host",
            "authorization",
            "Cookie",
            "Proxy-Authorization",
            "Transfer-Encoding",
            "bad name",
        ] {
            assert_eq!(
                refused(&serde_json::json!({ "customHeaders": { name: "x" } })).len(),
                1,
                "{name}"
            );
        }
    }

    #[test]
    fn the_name_that_sites_know_the_platform_by_is_not_replaced() {
        let hidden = serde_json::json!({ "customHeaders": { "User-Agent": "Mozilla/5.0 (ours alone)" } });
        let told = spec(&hidden).compile().unwrap_err().to_string();
        assert!(
            told.contains("customHeaders[\"User-Agent\"]")
                && told.contains("spec.worker.contact")
                && told.contains("leave it out"),
            "{told}"
        );
    }

    #[test]
    fn politeness_has_bounds_and_a_default() {
        let plan = spec(&serde_json::json!({})).compile().unwrap();
        assert_eq!(plan.politeness, Politeness::default());
        assert!(plan.obeys_robots);
        let wild = serde_json::json!({ "politeness": { "maxConcurrent": 65, "minDelay": "61s" } });
        assert_eq!(refused(&wild), ["politeness.maxConcurrent", "politeness.minDelay"]);
        let none = serde_json::json!({ "politeness": { "maxConcurrent": 0 } });
        assert_eq!(refused(&none), ["politeness.maxConcurrent"]);
    }

    #[test]
    fn robots_txt_is_ignored_for_a_reason_only() {
        let ignoring =
            |reason: serde_json::Value| serde_json::json!({ "robots": { "policy": "Ignore", "reason": reason } });
        assert_eq!(refused(&ignoring(serde_json::Value::Null)), ["robots.reason"]);
        assert_eq!(refused(&ignoring("  ".into())), ["robots.reason"]);
        assert!(
            !spec(&ignoring("the site is ours".into()))
                .compile()
                .unwrap()
                .obeys_robots
        );
        assert_eq!(
            refused(&serde_json::json!({ "robots": { "reason": "x" } })),
            ["robots.reason"]
        );
    }

    #[test]
    fn a_browser_asks_for_no_states_of_pages() {
        let spec_of = |render: &str| serde_json::json!({ "conditional": true, "render": render });
        assert_eq!(refused(&spec_of("Browser")), ["conditional"]);
        assert!(spec(&spec_of("Http")).compile().is_ok());
    }

    #[test]
    fn a_spec_without_politeness_is_written_as_before() {
        let written = serde_json::to_value(spec(&serde_json::json!({}))).unwrap();
        assert!(written.get("politeness").is_none() && written.get("robots").is_none());
    }

    #[test]
    fn a_newer_spec_is_read_by_this_version() {
        let spec = spec(&serde_json::json!({ "someLaterField": true }));
        assert!(spec.compile().is_ok());
    }
}
