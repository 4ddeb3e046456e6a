//! How a run goes on from one page to the next, and when it stops.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::Locator;

/// What stands for the number in a template. Both mean the same; each reads well in its own kind of URL.
const PLACEHOLDERS: [&str; 2] = ["{page}", "{offset}"];
/// The largest number in a template.
pub const MAX_NUMBER: u64 = 1_000_000_000;

/// How to go on to further pages: exactly one of nextSelector, urlTemplate, loadMore and scroll.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.nextSelector), has(self.urlTemplate), has(self.loadMore), has(self.scroll) && self.scroll].filter(given, given).size() == 1",
    "message": "give exactly one of nextSelector, which follows a link, urlTemplate, which counts, loadMore, which clicks, and scroll: true",
}]))]
pub struct Pagination {
    /// A selector (CSS, XPath or JSONPath, as items) of the link to the next page; its `href` or text is followed, on the same origin only. The run ends where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub next_selector: Option<String>,

    /// The URL of the pages after the first, with `{page}` or `{offset}` where the number stands, such as `https://example.com/list?page={page}`; on the origin of url. The run ends at a page that answers 404 or 410, that has no records, or whose records it has all seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = "\\{(page|offset)\\}"))]
    pub url_template: Option<String>,

    /// With urlTemplate: the number of the page after url. Without it 2 where the template says `{page}`, and step where it says `{offset}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub start: Option<u32>,

    /// With urlTemplate: how much the number grows from page to page. Without it 1; with `{offset}` it is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub step: Option<u32>,

    /// A CSS selector of what is clicked for more items in the same page, until it is gone, nothing new comes, or maxPages. Each click's new items are a page. Only with render Browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub load_more: Option<String>,

    /// Scroll to the end of the page for more items in it, until nothing new comes, or maxPages. Each scroll's new items are a page. Only with render Browser.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scroll: bool,

    /// When the run ends before maxPages and before the pages end by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_condition: Option<StopCondition>,

    /// The most pages that a run reads.
    #[serde(default = "default_max_pages")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_pages: u32,
}

/// When a run ends. Each that is given ends it by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StopCondition {
    /// A page without a record is the last one. Without it: true with urlTemplate, false with nextSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_records: Option<bool>,

    /// A page all of whose records the run has seen before ends it and is not kept. Without it: true with urlTemplate, false with nextSelector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated_records: Option<bool>,

    /// A page in which this selector (as items) matches is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub selector: Option<String>,

    /// A page in which this selector (as items) matches nothing is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub missing_selector: Option<String>,
}

fn default_max_pages() -> u32 {
    100
}

/// When a run ends, compiled.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// A page without a record is the last one.
    pub no_records: bool,
    /// A page all of whose records were seen before ends the run and is not kept.
    pub repeated_records: bool,
    /// A page in which this matches is the last one.
    pub found: Option<Locator>,
    /// A page in which this matches nothing is the last one.
    pub missing: Option<Locator>,
}

/// The URLs of the pages after the first, by their number in the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageTemplate {
    text: String,
    placeholder: &'static str,
    first: u64,
    step: u64,
}

impl PageTemplate {
    /// A template of pages of this origin. What leads back to the first page is left out.
    ///
    /// # Errors
    /// What is wrong and how to mend it, as a sentence without its subject.
    pub fn parse(text: &str, home: &Url, start: Option<u32>, step: Option<u32>) -> Result<Self, String> {
        let found: Vec<&'static str> = PLACEHOLDERS.into_iter().filter(|p| text.contains(p)).collect();
        let [placeholder] = found[..] else {
            return Err(
                "needs {page} or {offset} where the number stands, one of the two, such as https://example.com/list?page={page}"
                    .to_owned(),
            );
        };
        let step = match (step, placeholder) {
            (Some(step), _) => u64::from(step),
            (None, "{offset}") => return Err("counts by {offset}; say in step how many records a page has".to_owned()),
            (None, _) => 1,
        };
        let start = start.map_or(if placeholder == "{page}" { 2 } else { step }, u64::from);
        let mut template = Self {
            text: text.to_owned(),
            placeholder,
            first: start,
            step,
        };
        // Two numbers, as one alone could hide in a port or a host.
        let (one, two) = (template.url(start)?, template.url(start + step)?);
        for url in [&one, &two] {
            if url.origin() != home.origin() || !url.username().is_empty() || url.password().is_some() {
                return Err(format!(
                    "leaves the origin of url; it must begin with {}/",
                    home.origin().ascii_serialization()
                ));
            }
        }
        if without_fragment(&one) == without_fragment(&two) {
            return Err(
                "has its number behind a #, which no server sees; move it into the path or the query".to_owned(),
            );
        }
        if without_fragment(&one) == without_fragment(home) {
            template.first += step;
        }
        Ok(template)
    }

    /// The URL of a page of the run: 1 is the first page, which is no part of the template.
    pub fn page(&self, number: u32) -> Option<Url> {
        let number = self.first + u64::from(number.checked_sub(2)?) * self.step;
        self.url(number).ok().map(|url| without_fragment(&url))
    }

    fn url(&self, number: u64) -> Result<Url, String> {
        Url::parse(&self.text.replace(self.placeholder, &number.to_string())).map_err(|error| {
            format!("is not a URL ({error}); write an absolute one such as https://example.com/list?page={{page}}")
        })
    }
}

fn without_fragment(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str, start: Option<u32>, step: Option<u32>) -> Result<PageTemplate, String> {
        PageTemplate::parse(text, &"https://e.com/list".parse().unwrap(), start, step)
    }

    fn pages(text: &str, start: Option<u32>, step: Option<u32>) -> Vec<String> {
        let template = template(text, start, step).unwrap();
        (1..=3).filter_map(|n| template.page(n)).map(String::from).collect()
    }

    #[test]
    fn a_template_counts_from_the_second_page_on() {
        assert_eq!(
            pages("https://e.com/list?page={page}", None, None),
            ["https://e.com/list?page=2", "https://e.com/list?page=3"]
        );
        assert_eq!(
            pages("https://e.com/list/{page}/x#{page}", Some(0), Some(5)),
            ["https://e.com/list/0/x", "https://e.com/list/5/x"]
        );
        assert_eq!(
            pages("https://e.com/list?from={offset}&to={offset}", None, Some(20)),
            ["https://e.com/list?from=20&to=20", "https://e.com/list?from=40&to=40"]
        );
    }

    #[test]
    fn the_first_page_is_not_read_twice() {
        let home = "https://e.com/list?page=1".parse().unwrap();
        let template = PageTemplate::parse("https://e.com/list?page={page}", &home, Some(1), None).unwrap();
        assert_eq!(template.page(2).unwrap().as_str(), "https://e.com/list?page=2");
    }

    #[test]
    fn a_template_stays_on_the_origin_and_shows_its_number_to_the_server() {
        for (text, word) in [
            ("https://e.com/list", "{page}"),
            ("https://e.com/{page}/{offset}", "one of the two"),
            ("https://other.com/{page}", "https://e.com/"),
            ("http://e.com/{page}", "https://e.com/"),
            ("https://e.com:44{page}/", "https://e.com/"),
            ("https://e{page}.com/", "https://e.com/"),
            ("https://u:p@e.com/{page}", "https://e.com/"),
            ("/list/{page}", "is not a URL"),
            ("https://e.com/list#{page}", "behind a #"),
            ("https://e.com/list?from={offset}", "step"),
        ] {
            let message = template(text, Some(3), None).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }

    #[test]
    fn the_largest_numbers_fit() {
        let template = template("https://e.com/{page}", Some(1_000_000_000), Some(1_000_000)).unwrap();
        assert_eq!(template.page(10_000).unwrap().as_str(), "https://e.com/10998000000");
    }
}
