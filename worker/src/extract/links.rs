//! The links of a page that a crawl follows.

use std::{borrow::Cow, collections::HashSet};

use scraper::ElementRef;
use selextract_task::{CrawlPlan, absolute, normal_url};
use url::Url;

use super::{
    ExtractError, Reading,
    select::{self, Found, Scope},
    value,
};

/// The most links of one page that are followed.
const MAX_LINKS: usize = 10_000;
/// Whose wish a `<meta name>` may be.
const MEANT: [&str; 2] = ["robots", "selextract"];

/// Each URL once, in its one spelling, in the order of the document. None where the page does not want its links to be followed.
pub(super) fn find(crawl: &CrawlPlan, root: Scope<'_>, reading: &Reading) -> Result<Vec<Url>, ExtractError> {
    if !crawl.reads_links {
        return Ok(Vec::new());
    }
    let mut links = Links::new(crawl, &reading.base);
    if let Scope::Tree(root) = root {
        for element in root.descendants().filter_map(ElementRef::wrap) {
            reading.budget.work(1)?;
            match element.value().name() {
                "meta" if forbids(|name| element.attr(name).map(Cow::Borrowed)) => return Ok(Vec::new()),
                "a" | "area" if crawl.links.is_none() => links.add_element(element),
                _ => {}
            }
        }
    }
    match &crawl.links {
        // A page that gives no records may be of another kind than the selectors read.
        Some(locator) if locator.is_json() == matches!(root, Scope::Json(_)) => {
            select::each(locator, root, reading, &mut |found| {
                match &found {
                    Found::Element(element) => links.add_element(*element),
                    other => links.add(&value::plain(other)),
                }
                Ok(links.urls.len() < MAX_LINKS)
            })?;
        }
        _ => {}
    }
    Ok(links.urls)
}

/// The same, of what was read without a tree: links as they are written.
pub(super) fn of_written(crawl: &CrawlPlan, written: &[String], reading: &Reading) -> Result<Vec<Url>, ExtractError> {
    let mut links = Links::new(crawl, &reading.base);
    for link in written {
        reading.budget.work(1)?;
        links.add(link);
    }
    Ok(links.urls)
}

struct Links<'a> {
    crawl: &'a CrawlPlan,
    base: &'a Url,
    seen: HashSet<Url>,
    urls: Vec<Url>,
}

impl<'a> Links<'a> {
    fn new(crawl: &'a CrawlPlan, base: &'a Url) -> Self {
        Self {
            crawl,
            base,
            seen: HashSet::new(),
            urls: Vec::new(),
        }
    }

    fn add_element(&mut self, element: ElementRef<'_>) {
        if let Some(link) = written(|name| element.attr(name).map(Cow::Borrowed)) {
            self.add(&link);
        }
    }

    fn add(&mut self, link: &str) {
        if self.urls.len() >= MAX_LINKS {
            return;
        }
        let url = absolute(self.base, link.trim()).map(|url| normal_url(&url));
        if let Some(url) = url.filter(|url| self.crawl.follows(url))
            && self.seen.insert(url.clone())
        {
            self.urls.push(url);
        }
    }
}

/// The link of an element, if it wants to be followed.
pub(super) fn written<'e>(attribute: impl Fn(&str) -> Option<Cow<'e, str>>) -> Option<Cow<'e, str>> {
    let rel = attribute("rel").unwrap_or_default();
    let mut words = rel.split_ascii_whitespace();
    if words.any(|word| word.eq_ignore_ascii_case("nofollow")) {
        return None;
    }
    attribute("href")
}

/// `<meta name=robots content="nofollow">`, or `none`.
pub(super) fn forbids<'e>(attribute: impl Fn(&str) -> Option<Cow<'e, str>>) -> bool {
    let name = attribute("name").unwrap_or_default();
    let content = attribute("content").unwrap_or_default();
    MEANT.iter().any(|meant| meant.eq_ignore_ascii_case(&name))
        && content.split(',').any(|word| {
            ["nofollow", "none"]
                .iter()
                .any(|no| no.eq_ignore_ascii_case(word.trim()))
        })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use selextract_task::{Plan, TaskSpec};
    use serde_json::{Value, json};

    use super::super::{Document, Extracted, extract};
    use super::*;
    use crate::content::Content;

    fn plan(crawl: &Value) -> Plan {
        let spec = json!({ "url": "http://site.test/a/list", "items": "li", "fields": [{ "name": "t", "selector": "b", "required": true }],
            "crawl": crawl });
        serde_json::from_value::<TaskSpec>(spec).unwrap().compile().unwrap()
    }

    fn read(plan: &Plan, content: Content, text: &str) -> Extracted {
        let document = Document {
            url: &plan.url,
            content,
            text,
        };
        extract(plan, document, Instant::now() + Duration::from_secs(10)).unwrap()
    }

    fn links(crawl: &Value, html: &str) -> Vec<String> {
        let links = read(&plan(crawl), Content::Html, html).links;
        links.into_iter().map(Url::into).collect()
    }

    #[test]
    fn every_link_within_the_crawl_is_found_once_in_its_one_spelling() {
        let html = "<a href='b#x'>1</a><a href='/a/b?utm_source=q'>2</a><area href='//site.test:80/c'><a>no</a><a href=''>itself</a>\
            <a href='https://other.test/'>far</a><a href='mailto:x@y'>mail</a><a href=' ../d '>3</a><link href='/style'>\
            <a href='/e' rel='external NoFollow'>no</a>";
        let found = ["b", "c", "list", "d"].map(|path| match path {
            "b" | "list" => format!("http://site.test/a/{path}"),
            _ => format!("http://site.test/{path}"),
        });
        assert_eq!(
            links(&json!({}), html),
            [&found[0], &found[1], &found[2], &found[3]].map(String::clone)
        );
    }

    #[test]
    fn a_selector_and_patterns_choose_the_links() {
        let html = "<nav><a href=/n>n</a></nav><a href=/p/1>1</a><a href=/p/2>2</a><a href=/q>q</a>";
        assert_eq!(links(&json!({ "linkSelector": "nav a" }), html), ["http://site.test/n"]);
        assert_eq!(
            links(&json!({ "linkSelector": "//a[. = '1']/@href" }), html),
            ["http://site.test/p/1"]
        );
        assert_eq!(
            links(&json!({ "include": ["/p/"], "exclude": ["2$"] }), html),
            ["http://site.test/p/1"]
        );
    }

    #[test]
    fn a_page_that_wants_no_links_followed_has_none() {
        for meta in [
            "<meta name=robots content='noindex, NOFOLLOW'>",
            "<meta name=Robots content=none>",
        ] {
            assert!(
                links(&json!({}), &format!("{meta}<a href=/x>x</a>")).is_empty(),
                "{meta}"
            );
        }
        let other = "<meta name=otherbot content=nofollow><meta name=robots content=noindex><a href=/x>x</a>";
        assert_eq!(links(&json!({}), other).len(), 1);
    }

    #[test]
    fn a_page_without_a_required_field_still_gives_its_links_and_counts_what_it_lacks() {
        let page = read(&plan(&json!({})), Content::Html, "<li>no b<li>none<a href=/x>x</a>");
        assert_eq!((page.records.len(), page.left_out, page.links.len()), (0, 2, 1));
    }

    #[test]
    fn a_page_that_no_extract_pattern_matches_gives_links_alone_whatever_it_is() {
        let mut plan = plan(&json!({ "extract": ["/p/"] }));
        let html = "<li><b>x</b><a href=/x>x</a>";
        let page = read(&plan, Content::Html, html);
        assert_eq!((page.records.len(), page.left_out, page.links.len()), (0, 0, 1));
        assert!(page.streamed, "links need no tree");
        assert!(read(&plan, Content::Json, "{}").links.is_empty());
        plan.url = "http://site.test/p/1".parse().unwrap();
        assert_eq!(read(&plan, Content::Html, html).records.len(), 1);
    }

    #[test]
    fn the_links_of_one_page_are_bounded() {
        let html = (0..20_000)
            .map(|n| format!("<a href=/{n}>x</a>"))
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(links(&json!({}), &html).len(), MAX_LINKS);
    }
}
