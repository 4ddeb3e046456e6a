//! A crawl, checked and compiled: where it begins, and which URLs belong to it.

use regex::Regex;
use url::Url;

use super::{Check, Reads};
use crate::{Browser, CaptureWhen, Crawl, CrawlScope, Locator, On, TaskSpec, normal_url};

/// The longest URL that is followed.
pub const MAX_URL: usize = 2048;
const MAX_SEEDS: usize = 100;
const MAX_SITEMAPS: usize = 50;
const MAX_PATTERNS: usize = 32;
const MAX_DEPTH: u16 = 100;
const MAX_PAGES: u32 = 1_000_000;

/// A crawl that was checked.
#[derive(Clone, Debug)]
pub struct CrawlPlan {
    /// The pages that it begins at, the task's own first, each once and as [`normal_url`] writes it.
    pub seeds: Vec<Url>,
    /// The sitemaps that it begins at.
    pub sitemaps: Vec<Url>,
    /// Whether the sitemaps that robots.txt names are read too.
    pub from_robots_sitemaps: bool,
    /// The links that are followed; every `a` and `area` without it.
    pub links: Option<Locator>,
    /// How many links away from its beginning a page may be.
    pub max_depth: u16,
    /// The most pages.
    pub max_pages: u32,
    /// Whether a page's links are read at all: whoever reads a page of the last depth turns it off.
    pub reads_links: bool,
    scope: CrawlScope,
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    extract: Vec<Regex>,
}

impl CrawlPlan {
    /// Whether a link to this URL is followed. The URL is normal.
    pub fn follows(&self, url: &Url) -> bool {
        self.belongs(url) && (self.include.is_empty() || matches_any(&self.include, url))
    }

    /// Whether a page that was led to may be read: it lies within the scope and is not excluded.
    pub fn belongs(&self, url: &Url) -> bool {
        self.is_near(url) && !matches_any(&self.exclude, url)
    }

    /// Whether a page gives records.
    pub fn gives_records(&self, url: &Url) -> bool {
        self.extract.is_empty() || matches_any(&self.extract, url)
    }

    /// Whether it lies within the scope.
    pub fn is_near(&self, url: &Url) -> bool {
        let plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
        plain
            && url.as_str().len() <= MAX_URL
            && self.seeds.iter().any(|seed| match self.scope {
                CrawlScope::Host => host(seed) == host(url),
                CrawlScope::Origin => seed.origin() == url.origin(),
                CrawlScope::Subdomains => is_below(host(url), host(seed)),
            })
    }
}

/// The host without the `www.` that many sites answer with and without.
fn host(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    host.strip_prefix("www.").unwrap_or(host)
}

fn is_below(host: &str, above: &str) -> bool {
    host.strip_suffix(above)
        .is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

fn matches_any(patterns: &[Regex], url: &Url) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(url.as_str()))
}

impl Check {
    /// The crawl of a task whose own page is `url`.
    pub(super) fn crawl(&mut self, spec: &TaskSpec, url: Option<&Url>, reads: Reads) -> Option<CrawlPlan> {
        let crawl = spec.crawl.as_ref()?;
        if spec.pagination.is_some() {
            let cure = "follows one link after the other and crawl follows all; remove one of the two";
            self.refuse("pagination", "(given)", cure);
        }
        if let Some(browser) = &spec.browser {
            self.pages_of_no_order(browser);
        }
        self.range("crawl.maxDepth", crawl.max_depth.into(), 0, MAX_DEPTH.into());
        self.range("crawl.maxPages", crawl.max_pages.into(), 1, MAX_PAGES.into());
        let links = crawl.link_selector.as_deref();
        let links = links.and_then(|text| self.locator_in(reads, "crawl.linkSelector", text));
        let sitemaps = self.urls("crawl.sitemaps", &crawl.sitemaps, MAX_SITEMAPS);
        Some(CrawlPlan {
            seeds: self.seeds(crawl, url),
            sitemaps,
            from_robots_sitemaps: crawl.from_robots_sitemaps,
            links,
            max_depth: crawl.max_depth,
            max_pages: crawl.max_pages,
            reads_links: true,
            scope: crawl.scope,
            include: self.patterns("crawl.include", &crawl.include),
            exclude: self.patterns("crawl.exclude", &crawl.exclude),
            extract: self.patterns("crawl.extract", &crawl.extract),
        })
    }

    /// The pages of a crawl come in any order, each in a browser context of its own: none is the first or the last one.
    fn pages_of_no_order(&mut self, browser: &Browser) {
        for (index, step) in browser.steps.iter().enumerate() {
            if step.on == On::FirstPage {
                let cure = "names a page that a crawl does not have: each of its pages begins a browser session of its own; write EveryPage, with optional: true for what not every page has";
                self.refuse(format!("browser.steps[{index}].on"), "FirstPage", cure);
            }
        }
        for (index, capture) in browser.captures.iter().enumerate() {
            if capture.when == CaptureWhen::LastPage {
                let cure = "names a page that a crawl does not have: its pages come in any order; write EveryPage";
                self.refuse(format!("browser.captures[{index}].when"), "LastPage", cure);
            }
        }
    }

    fn seeds(&mut self, crawl: &Crawl, url: Option<&Url>) -> Vec<Url> {
        let mut seeds = Vec::new();
        let given = self.urls("crawl.seeds", &crawl.seeds, MAX_SEEDS);
        for seed in url.into_iter().chain(&given).map(normal_url) {
            if !seeds.contains(&seed) {
                seeds.push(seed);
            }
        }
        seeds
    }

    fn urls(&mut self, field: &str, texts: &[String], most: usize) -> Vec<Url> {
        if texts.len() > most {
            self.refuse(field, texts.len(), format!("at most {most} are allowed"));
        }
        let each = texts.iter().take(most).enumerate();
        each.filter_map(|(index, text)| self.url_of(&format!("{field}[{index}]"), text))
            .collect()
    }

    fn patterns(&mut self, field: &str, texts: &[String]) -> Vec<Regex> {
        if texts.len() > MAX_PATTERNS {
            self.refuse(field, texts.len(), format!("at most {MAX_PATTERNS} are allowed"));
        }
        let each = texts.iter().take(MAX_PATTERNS).enumerate();
        each.filter_map(|(index, text)| {
            let field = format!("{field}[{index}]");
            if text.is_empty() || text.len() > 1024 {
                self.refuse(field, text, "must have 1 to 1024 characters");
                return None;
            }
            self.regex(&field, text)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn compile(crawl: &Value) -> Result<CrawlPlan, Vec<String>> {
        let spec = json!({ "url": "https://shop.test/start#x", "fields": [{ "name": "t" }], "crawl": crawl });
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        match spec.compile() {
            Ok(plan) => Ok(plan.crawl.unwrap()),
            Err(violations) => Err(violations.iter().map(ToString::to_string).collect()),
        }
    }

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn an_empty_crawl_stays_on_its_host_for_a_thousand_pages() {
        let plan = compile(&json!({})).unwrap();
        assert_eq!((plan.max_depth, plan.max_pages), (3, 1000));
        assert_eq!(plan.seeds, [url("https://shop.test/start")]);
        for near in [
            "http://shop.test/a",
            "https://www.shop.test/a",
            "https://shop.test:8443/",
        ] {
            assert!(plan.follows(&url(near)), "{near}");
        }
        for far in [
            "https://sub.shop.test/",
            "https://ashop.test/",
            "https://shop.test.evil.test/",
            "https://u:p@shop.test/",
        ] {
            assert!(!plan.follows(&url(far)), "{far}");
        }
    }

    #[test]
    fn a_scope_is_a_host_an_origin_or_all_below_a_host() {
        let origin = compile(&json!({ "scope": "Origin", "seeds": ["http://other.test:81/"] })).unwrap();
        assert!(origin.follows(&url("https://shop.test/x")) && origin.follows(&url("http://other.test:81/x")));
        assert!(!origin.follows(&url("http://shop.test/x")) && !origin.follows(&url("http://other.test/x")));
        let below = compile(&json!({ "scope": "Subdomains" })).unwrap();
        assert!(below.follows(&url("http://a.b.shop.test/")) && below.follows(&url("http://shop.test/")));
        assert!(!below.follows(&url("http://ashop.test/")));
    }

    #[test]
    fn patterns_see_the_whole_url_and_exclude_goes_before_include() {
        let plan = compile(
            &json!({ "include": ["/p/", "[?]page="], "exclude": ["/p/old", "^http:"], "extract": ["/p/[0-9]+$"] }),
        );
        let plan = plan.unwrap();
        let follows = |text: &str| plan.follows(&url(text));
        assert!(follows("https://shop.test/p/1") && follows("https://shop.test/list?page=2"));
        assert!(
            !follows("https://shop.test/q")
                && !follows("https://shop.test/p/old/1")
                && !follows("http://shop.test/p/1")
        );
        assert!(
            plan.belongs(&url("https://shop.test/q")),
            "a redirect need not be included"
        );
        assert!(
            plan.gives_records(&url("https://shop.test/p/12")) && !plan.gives_records(&url("https://shop.test/p/x"))
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field_its_value_and_its_cure() {
        let refused = compile(&json!({
            "seeds": ["ftp://a.test/", "https://u:secret@a.test/"], "sitemaps": ["nowhere"], "include": ["("], "exclude": [""],
            "linkSelector": "$.a", "maxDepth": 101, "maxPages": 0,
        }))
        .unwrap_err();
        let all = refused.join("\n");
        for field in [
            "crawl.seeds[0] = \"ftp://a.test/\"",
            "crawl.seeds[1]",
            "crawl.sitemaps[0] = \"nowhere\"",
            "crawl.include[0] = \"(\"",
            "crawl.exclude[0]",
            "crawl.linkSelector",
            "crawl.maxDepth = \"101\"",
            "crawl.maxPages = \"0\"",
        ] {
            assert!(all.contains(field), "{field} in {all}");
        }
        assert_eq!(refused.len(), 8, "{all}");
        assert!(!all.contains("secret"));
    }

    #[test]
    fn a_crawl_has_no_last_page_to_capture() {
        let captures = |when: &str| {
            let spec = json!({
                "url": "https://shop.test/", "fields": [{ "name": "t" }], "render": "Browser", "crawl": {},
                "browser": { "captures": [{ "name": "front", "type": "Screenshot", "when": when }] },
            });
            serde_json::from_value::<TaskSpec>(spec).unwrap().compile()
        };
        assert!(captures("EveryPage").is_ok());
        let violations = captures("LastPage").unwrap_err();
        assert_eq!(
            violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(),
            ["browser.captures[0].when"]
        );
    }

    #[test]
    fn a_crawl_has_no_first_page_for_steps() {
        let steps = |on: &str| {
            let spec = json!({
                "url": "https://shop.test/", "fields": [{ "name": "t" }], "render": "Browser", "crawl": {},
                "browser": { "steps": [{ "type": "Click", "selector": "#agree", "optional": true, "on": on }] },
            });
            serde_json::from_value::<TaskSpec>(spec).unwrap().compile()
        };
        assert!(steps("EveryPage").is_ok());
        let told = steps("FirstPage").unwrap_err().to_string();
        assert!(
            told.contains("browser.steps[0].on = \"FirstPage\"") && told.contains("write EveryPage"),
            "{told}"
        );
    }

    #[test]
    fn a_crawl_is_compared_and_asked_like_any_other_run() {
        let spec = json!({
            "url": "https://shop.test/", "fields": [{ "name": "t" }], "crawl": {}, "watch": { "key": ["t"] }, "conditional": true,
        });
        assert!(serde_json::from_value::<TaskSpec>(spec).unwrap().compile().is_ok());
    }

    #[test]
    fn a_crawl_and_a_pagination_exclude_each_other() {
        let spec = json!({
            "url": "https://shop.test/", "fields": [{ "name": "t" }], "crawl": {}, "pagination": { "nextSelector": "a" },
        });
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        let violations = spec.compile().unwrap_err();
        assert_eq!(
            violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(),
            ["pagination"]
        );
    }
}
