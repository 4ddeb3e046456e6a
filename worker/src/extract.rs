//! From a page's text and a plan to records and the next page. Pure and synchronous: callers run it off the async runtime, but for a small
//! page that streams ([`extract_at_once`]).
//!
//! The input is hostile: bytes are capped before it comes here, and nodes, depth, output and time are capped here.

mod atoms;
mod automatic;
mod budget;
mod document;
mod grow;
mod json;
mod json_path;
mod links;
mod plant;
mod references;
mod select;
#[cfg(test)]
mod soup;
mod stream;
mod text;
mod tokens;
mod value;
mod walk;
mod xml;
mod xpath;

use std::time::Instant;

use scraper::Html;
use selextract_task::{CompiledField, Items, Locator, Plan, Reads, Stop, absolute, normal_url};
use serde_json::{Map, Value};
use snafu::Snafu;
use url::Url;

use crate::content::Content;
use budget::Budget;
use select::{Found, Scope};

/// The largest page that is read where it arrived: for one that streams a tenth of a millisecond, and handing it to another thread and back
/// costs as much.
const SMALL: usize = 32 << 10;

/// One extracted row: the fields of the plan in its order.
pub type Record = Map<String, Value>;

/// A page to read.
#[derive(Clone, Copy, Debug)]
pub struct Document<'d> {
    /// Where it came from.
    pub url: &'d Url,
    /// What it is.
    pub content: Content,
    /// Its text.
    pub text: &'d str,
}

/// What a page held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extracted {
    /// In the order of the document.
    pub records: Vec<Record>,
    /// Items that lacked a required field.
    pub left_out: u32,
    /// How often each of the plan's fields was found, in its order, of how many items: those that were left out count, defaults do not.
    pub fill: Fill,
    /// Where the next page is: http or https, of the page's own origin, without a fragment.
    pub next: Option<Url>,
    /// A selector of the plan's stop condition says that this page is the last one.
    pub stops: bool,
    /// Whether it was read without a tree; what is read is the same.
    pub streamed: bool,
    /// The links that a crawl follows, each once.
    pub links: Vec<Url>,
}

/// How well a page filled the plan's fields: what tells a selector that matches less than it did before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Items on the page.
    pub items: u32,
    /// In how many of them each field was found, in the order of the plan.
    pub found: Vec<u32>,
}

impl Fill {
    /// As pages are committed with it: the items, then the fields. Empty where there were neither.
    pub fn counts(&self) -> Vec<i32> {
        if self.found.is_empty() {
            return Vec::new();
        }
        let numbers = [self.items].into_iter().chain(self.found.iter().copied());
        numbers
            .map(|number| i32::try_from(number).unwrap_or(i32::MAX))
            .collect()
    }
}

/// Why nothing could be extracted.
#[derive(Debug, Snafu, PartialEq, Eq)]
pub enum ExtractError {
    /// Elements lie too deep in each other.
    #[snafu(display("the page nests elements more than {limit} deep"))]
    TooDeep {
        /// The most that is allowed.
        limit: usize,
    },
    /// The document has too many nodes.
    #[snafu(display("the page has more than {limit} nodes"))]
    TooManyNodes {
        /// The most that is allowed.
        limit: usize,
    },
    /// The records of the page are too large together.
    #[snafu(display("the page's records hold more than {limit} bytes; make the selectors narrower"))]
    TooMuchOutput {
        /// The most that is allowed.
        limit: usize,
    },
    /// A regular expression would search too long a text.
    #[snafu(display(
        "field {field:?} has a text of more than {limit} bytes, which is too long for its regex; make its selector narrower"
    ))]
    TooLongToSearch {
        /// The field.
        field: String,
        /// The most that is allowed.
        limit: usize,
    },
    /// The page's time was over.
    #[snafu(display("reading the page took too long"))]
    Late,
    /// The page is something else than the plan reads.
    #[snafu(display("the page is {content}, and {cure}"))]
    WrongContent {
        /// What it is.
        content: Content,
        /// What the plan reads.
        cure: &'static str,
    },
    /// The page is not what it says that it is.
    #[snafu(display("the page says that it is {content} and is not: {message}"))]
    Malformed {
        /// What it says.
        content: Content,
        /// What is wrong.
        message: String,
    },
    /// Every item lacks a required field.
    #[snafu(display("none of the page's {items} items has the required field {field:?} (selector {selector:?})"))]
    NoRecords {
        /// The field that the first item lacks.
        field: String,
        /// Where it was looked for; `:scope` is the item itself.
        selector: String,
        /// How many items there are.
        items: u32,
    },
}

/// What every part of reading a page needs.
struct Reading {
    /// What relative URLs are relative to.
    base: Url,
    budget: Budget,
    order: xpath::Order,
}

/// Reads a page before the deadline.
///
/// # Errors
/// When a limit is passed, when the page is not what the plan reads, or when every item lacks a required field.
pub fn extract(plan: &Plan, document: Document<'_>, deadline: Instant) -> Result<Extracted, ExtractError> {
    if document.content == Content::Html
        && let Some(extracted) = stream::extract(plan, document, Budget::new(deadline))?
    {
        return Ok(extracted);
    }
    extract_by_tree(plan, document, deadline)
}

/// Whether [`extract_at_once`] may be asked: the page is small, and the plan costs no more than its bytes do.
pub fn is_quick(plan: &Plan, document: Document<'_>) -> bool {
    document.content == Content::Html
        && document.text.len() <= SMALL
        // What a crawl follows is told link by link.
        && plan.crawl.is_none()
        && plan
            .fields
            .iter()
            .all(|field| field.regex.is_none() && field.changes.is_empty())
}

/// Reads a page that streams, and takes so little time that the async runtime does not notice; `None` when it takes a tree.
///
/// # Errors
/// As those of [`extract`].
pub fn extract_at_once(
    plan: &Plan,
    document: Document<'_>,
    deadline: Instant,
) -> Result<Option<Extracted>, ExtractError> {
    stream::extract(plan, document, Budget::new(deadline))
}

/// The same by the page's tree, whatever the plan: slower, and what [`extract`] is held against.
///
/// # Errors
/// As those of [`extract`].
pub fn extract_by_tree(plan: &Plan, document: Document<'_>, deadline: Instant) -> Result<Extracted, ExtractError> {
    let budget = Budget::new(deadline);
    let content = document.content;
    if gives_records(plan, document.url) && content.is_tree() != (plan.reads == Reads::Tree) {
        let cure = match plan.reads {
            Reads::Tree => {
                "the selectors are CSS or XPath, which HTML and XML are read by; write JSONPath, beginning with $"
            }
            Reads::Json => "the selectors are JSONPath, which JSON and CSV are read by; write CSS or XPath",
        };
        return WrongContentSnafu { content, cure }.fail();
    }
    let mut reading = Reading {
        base: document.url.clone(),
        budget,
        order: xpath::Order::default(),
    };
    match content {
        Content::Html | Content::Xml => {
            let tree = match content {
                Content::Html => document::parse(document.text, &reading.budget)?,
                _ => xml::parse(document.text, &reading.budget)?,
            };
            let root = tree.root_element();
            if content == Content::Html {
                reading.base = document::base_url(root, document.url);
            }
            read(plan, Scope::Tree(root), document.url, &reading)
        }
        Content::Json | Content::JsonLines | Content::Csv => {
            let value = match content {
                Content::Csv => json::of_csv(document.text, &reading.budget)?,
                Content::JsonLines => json::of_lines(document.text)?,
                _ => json::parse(document.text, content)?,
            };
            read(plan, Scope::Json(&value), document.url, &reading)
        }
    }
}

/// Whether a page gives records; of some of a crawl's pages only the links are read.
fn gives_records(plan: &Plan, url: &Url) -> bool {
    plan.crawl
        .as_ref()
        .is_none_or(|crawl| crawl.gives_records(&normal_url(url)))
}

fn read(plan: &Plan, root: Scope<'_>, url: &Url, reading: &Reading) -> Result<Extracted, ExtractError> {
    let links = match &plan.crawl {
        Some(crawl) => links::find(crawl, root, reading)?,
        None => Vec::new(),
    };
    if !gives_records(plan, url) {
        return Ok(Extracted {
            links,
            ..Extracted::default()
        });
    }
    let extracted = read_records(plan, root, url, reading)?;
    Ok(Extracted { links, ..extracted })
}

fn read_records(plan: &Plan, root: Scope<'_>, url: &Url, reading: &Reading) -> Result<Extracted, ExtractError> {
    let mut rows = Rows::new(plan);
    if let (Scope::Tree(root), [_, ..]) = (root, &plan.automatic[..]) {
        rows.records = automatic::records(&plan.automatic, root, reading)?;
    }
    match &plan.items {
        Items::Page if plan.fields.is_empty() => {}
        Items::Page => rows.add(root, reading)?,
        Items::Located(locator) => select::each(locator, root, reading, &mut |found| {
            if let Some(item) = found.scope() {
                rows.add(item, reading)?;
            }
            Ok(true)
        })?,
        Items::Embedded { holder, path } => select::each(holder, root, reading, &mut |found| {
            // What is no JSON holds no records, as an element that a selector does not match.
            if let Ok(value) = json::parse(&value::plain(&found), Content::Json) {
                for item in json_path::find(path, &value, &reading.budget)? {
                    rows.add(Scope::Json(item), reading)?;
                }
            }
            Ok(true)
        })?,
    }
    let next = match &plan.next {
        Some(next) => next_page(next, root, url, reading)?,
        None => None,
    };
    let stops = stops(&plan.stop, root, reading)?;
    Ok(Extracted {
        stops,
        ..rows.finished(next)?
    })
}

/// Whether a selector of the stop condition says that the page is the last one.
fn stops(stop: &Stop, root: Scope<'_>, reading: &Reading) -> Result<bool, ExtractError> {
    let found = match &stop.found {
        Some(locator) => is_there(locator, root, reading)?,
        None => false,
    };
    match &stop.missing {
        Some(locator) if !found => Ok(!is_there(locator, root, reading)?),
        _ => Ok(found),
    }
}

fn is_there(locator: &Locator, root: Scope<'_>, reading: &Reading) -> Result<bool, ExtractError> {
    let mut there = false;
    select::each(locator, root, reading, &mut |_| {
        there = true;
        Ok(false)
    })?;
    Ok(there)
}

/// The records of a page as they come.
struct Rows<'p> {
    plan: &'p Plan,
    records: Vec<Record>,
    left_out: u32,
    fill: Fill,
    /// The first required field that an item lacked.
    lacking: Option<&'p CompiledField>,
}

impl<'p> Rows<'p> {
    fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            records: Vec::new(),
            left_out: 0,
            fill: Fill {
                items: 0,
                found: vec![0; plan.fields.len()],
            },
            lacking: None,
        }
    }

    fn add(&mut self, item: Scope<'_>, reading: &Reading) -> Result<(), ExtractError> {
        self.fill.items += 1;
        let record = value::record(&self.plan.fields, item, reading, &mut self.fill.found)?;
        self.take(record);
        Ok(())
    }

    /// One item's record, or the field that it lacks.
    fn take(&mut self, record: Result<Record, &'p CompiledField>) {
        match record {
            Ok(record) => self.records.push(record),
            Err(field) => {
                self.left_out += 1;
                self.lacking.get_or_insert(field);
            }
        }
    }

    fn finished(self, next: Option<Url>) -> Result<Extracted, ExtractError> {
        match self.lacking {
            // Of a crawl's pages not each has records; its links are worth as much.
            Some(field) if self.records.is_empty() && self.plan.crawl.is_none() => NoRecordsSnafu {
                field: &field.name,
                selector: field
                    .locator
                    .as_ref()
                    .map_or_else(|| ":scope".to_owned(), Locator::to_string),
                items: self.left_out,
            }
            .fail(),
            _ => Ok(Extracted {
                records: self.records,
                left_out: self.left_out,
                fill: self.fill,
                next,
                stops: false,
                streamed: false,
                links: Vec::new(),
            }),
        }
    }
}

/// The first of the locator's places that leads anywhere: an element's `href`, else its text.
fn next_page(locator: &Locator, root: Scope<'_>, page: &Url, reading: &Reading) -> Result<Option<Url>, ExtractError> {
    let mut next = None;
    select::each(locator, root, reading, &mut |found| {
        next = match &found {
            Found::Element(link) => link.attr("href").map(str::to_owned),
            other => Some(value::plain(other).into_owned()),
        };
        Ok(next.is_none())
    })?;
    Ok(follow(next, page, reading))
}

/// Where a link leads, if that is of the page's own origin.
fn follow(next: Option<String>, page: &Url, reading: &Reading) -> Option<Url> {
    let mut next = next.and_then(|next| absolute(&reading.base, next.trim()))?;
    next.set_fragment(None);
    (next.origin() == page.origin()).then_some(next)
}

/// A page's tree for other readers within the same limits, and what its relative URLs are relative to.
pub(crate) fn tree(html: &str, url: &Url, deadline: Instant) -> Result<(Html, Url), ExtractError> {
    let html = document::parse(html, &Budget::new(deadline))?;
    let base = document::base_url(html.root_element(), url);
    Ok((html, base))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn plan(spec: &Value) -> Plan {
        let mut whole = json!({ "url": "http://site.test/a/list.html" });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value::<selextract_task::TaskSpec>(whole)
            .unwrap()
            .compile()
            .unwrap()
    }

    fn read(spec: &Value, html: &str) -> Result<Extracted, ExtractError> {
        let plan = plan(spec);
        read_as(&plan, Content::Html, html)
    }

    fn html_of<'d>(plan: &'d Plan, text: &'d str) -> Document<'d> {
        let content = Content::Html;
        Document {
            url: &plan.url,
            content,
            text,
        }
    }

    fn read_as(plan: &Plan, content: Content, text: &str) -> Result<Extracted, ExtractError> {
        let url = &plan.url;
        extract(
            plan,
            Document { url, content, text },
            Instant::now() + Duration::from_secs(10),
        )
    }

    fn rows(spec: &Value, content: Content, text: &str) -> Vec<Value> {
        let page = read_as(&plan(spec), content, text).unwrap();
        page.records.into_iter().map(Value::from).collect()
    }

    const LIST: &str = r#"<!doctype html><title>t</title>
        <ul>
          <li id=one><a href="../b.html#x">First <b>one</b></a> <img src=//cdn.test/i.png alt="an image">
              <span class=tag>red</span><span class=tag> dark
              blue </span><script>no()</script>
          <li><a href="javascript:no()">Second</a>
          <li>Third<br>line
        </ul><a rel=next href="?page=2#top">more</a>"#;

    #[test]
    fn every_field_type_reads_its_part_of_an_item() {
        let page = read(
            &json!({ "items": "li", "fields": [
                { "name": "title", "selector": "a" },
                { "name": "all" },
                { "name": "inner", "type": "Html", "selector": "a" },
                { "name": "id", "type": "Attribute", "attribute": "ID" },
                { "name": "link", "type": "Link", "selector": "a" },
                { "name": "image", "type": "Image", "selector": "img" },
                { "name": "tags", "selector": ".tag", "multiple": true },
                { "name": "kind", "selector": ".kind", "default": "plain" },
            ]}),
            LIST,
        )
        .unwrap();
        assert_eq!(
            page.records.iter().map(|r| Value::from(r.clone())).collect::<Vec<_>>(),
            [
                json!({
                    "title": "First one", "all": "First one red dark blue", "inner": "First <b>one</b>", "id": "one",
                    "link": "http://site.test/b.html#x", "image": "http://cdn.test/i.png", "tags": ["red", "dark blue"], "kind": "plain",
                }),
                json!({
                    "title": "Second", "all": "Second", "inner": "Second", "id": null, "link": null, "image": null, "tags": null,
                    "kind": "plain",
                }),
                json!({
                    "title": null, "all": "Third line", "inner": null, "id": null, "link": null, "image": null, "tags": null,
                    "kind": "plain",
                }),
            ]
        );
    }

    #[test]
    fn a_record_keeps_the_order_of_the_plan() {
        let page = read(&json!({ "fields": [{ "name": "z" }, { "name": "a" }] }), "x").unwrap();
        assert_eq!(page.records[0].keys().collect::<Vec<_>>(), ["z", "a"]);
    }

    #[test]
    fn an_item_without_a_required_field_is_left_out_and_counted() {
        let page = read(
            &json!({ "items": "li", "fields": [{ "name": "title", "selector": "a", "required": true }] }),
            LIST,
        )
        .unwrap();
        assert_eq!((page.records.len(), page.left_out), (2, 1));
    }

    #[test]
    fn a_page_on_which_every_item_lacks_a_required_field_fails_and_names_it() {
        let error = read(
            &json!({ "items": "li", "fields": [{ "name": "price", "selector": "b.price", "required": true }] }),
            LIST,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"none of the page's 3 items has the required field "price" (selector "b.price")"#
        );
    }

    #[test]
    fn a_field_is_found_in_the_items_next_sibling_and_nowhere_else() {
        let html = "<dl><dt>a<dd>first <p>one</p><dd>second<dt>b<dd>third<dt>c</dl><dd>outside";
        let spec = json!({ "items": "dt", "fields": [
            { "name": "next", "selector": ":scope + dd" },
            { "name": "inner", "selector": ":scope + dd > p" },
            { "name": "all", "selector": ":scope ~ dd", "multiple": true },
        ]});
        let page = read(&spec, html).unwrap();
        assert_eq!(
            page.records.into_iter().map(Value::from).collect::<Vec<_>>(),
            [
                json!({ "next": "first one", "inner": "one", "all": ["first one", "second", "third"] }),
                json!({ "next": "third", "inner": null, "all": ["third"] }),
                json!({ "next": null, "inner": null, "all": null }),
            ]
        );
    }

    #[test]
    fn a_regex_takes_its_first_group_that_took_part_or_the_whole_match() {
        let spec = |field: Value| json!({ "items": "li", "fields": [field] });
        let html = "<li>costs 12 EUR, was 15 EUR<li>free of charge<li>on request";
        let column = |field: Value| {
            let page = read(&spec(field), html).unwrap();
            page.records
                .into_iter()
                .map(|mut record| record["a"].take())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            column(json!({ "name": "a", "regex": "[0-9]+" })),
            [json!("12"), json!(null), json!(null)]
        );
        assert_eq!(
            column(json!({ "name": "a", "regex": "costs ([0-9]+)|(free)", "default": "?" })),
            [json!("12"), json!("free"), json!("?")]
        );
        assert_eq!(
            column(json!({ "name": "a", "regex": "([0-9]+) EUR", "multiple": true })),
            [json!(["12", "15"]), json!(null), json!(null)]
        );
    }

    #[test]
    fn a_default_satisfies_a_required_field() {
        let fields =
            json!({ "items": "li", "fields": [{ "name": "p", "selector": "q", "required": true, "default": "" }] });
        assert_eq!(read(&fields, LIST).unwrap().records.len(), 3);
    }

    #[test]
    fn the_next_link_is_resolved_and_loses_its_fragment() {
        let spec = json!({ "fields": [{ "name": "t" }], "pagination": { "nextSelector": "a[rel=next]" } });
        let next = read(&spec, LIST).unwrap().next.unwrap();
        assert_eq!(next.as_str(), "http://site.test/a/list.html?page=2");
    }

    #[test]
    fn a_next_link_to_another_origin_or_scheme_is_not_followed() {
        let spec = json!({ "fields": [{ "name": "t" }], "pagination": { "nextSelector": "a" } });
        for href in [
            "https://site.test/",
            "http://other.test/",
            "http://site.test:81/",
            "file:///etc/passwd",
            "javascript:1",
            "//site.test@evil.test/",
        ] {
            let page = read(&spec, &format!("<a href='{href}'>x</a>")).unwrap();
            assert_eq!(page.next, None, "{href}");
        }
    }

    #[test]
    fn a_selector_that_matches_or_that_is_missing_makes_a_page_the_last_one() {
        let stops = |stop: Value| {
            let spec =
                json!({ "fields": [{ "name": "t" }], "pagination": { "nextSelector": "a", "stopCondition": stop } });
            read(&spec, LIST).unwrap().stops
        };
        assert!(!stops(json!({ "noRecords": true })));
        assert!(stops(json!({ "selector": "#one" })) && !stops(json!({ "selector": "#two" })));
        assert!(!stops(json!({ "missingSelector": "#one" })) && stops(json!({ "missingSelector": "#two" })));
        assert!(stops(json!({ "selector": "#one", "missingSelector": "#one" })));
        assert!(stops(json!({ "selector": "//li[3]/br" })));
    }

    #[test]
    fn links_are_relative_to_the_first_base_element() {
        let spec = json!({ "fields": [{ "name": "l", "type": "Link", "selector": "a" }] });
        let html = "<base target=x><base href='/deep/er/'><base href='/no/'><a href=p>x</a>";
        assert_eq!(read(&spec, html).unwrap().records[0]["l"], "http://site.test/deep/er/p");
    }

    #[test]
    fn a_bomb_of_nested_elements_is_refused_quickly() {
        let started = Instant::now();
        for tag in ["div", "b", "table><tr><td", "svg><td", "ul><li"] {
            let html = format!("<{tag}>").repeat(2_000_000 / tag.len());
            let error = read(&json!({ "fields": [{ "name": "t" }] }), &html).unwrap_err();
            assert_eq!(error, ExtractError::TooDeep { limit: 512 }, "{tag}");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn unclosed_paragraphs_and_list_items_are_not_deep() {
        let html = format!("<ul>{}</ul>{}", "<li>x".repeat(3000), "<p>y".repeat(3000));
        let page = read(&json!({ "items": "li", "fields": [{ "name": "t" }] }), &html).unwrap();
        assert_eq!(page.records.len(), 3000);
    }

    #[test]
    fn formatting_elements_that_multiply_are_refused() {
        // Each paragraph opens all of them again.
        let open = (0..400).map(|n| format!("<b id={n}>")).collect::<Vec<_>>().concat();
        let html = format!("<p>{open}{}", "</p><p>x".repeat(500_000));
        let plan = plan(&json!({ "fields": [{ "name": "t" }] }));
        let error =
            extract(&plan, html_of(&plan, &html), Instant::now() + Duration::from_mins(1)).map(|page| page.left_out);
        assert!(matches!(error, Err(ExtractError::TooManyNodes { .. })), "{error:?}");
    }

    #[test]
    fn a_tag_with_very_many_attributes_is_read_in_time_both_ways() {
        let attributes = (0..300_000).map(|n| format!(" a{n}")).collect::<Vec<_>>().concat();
        let plan = plan(&json!({ "fields": [{ "name": "t" }] }));
        let html = format!("<p{attributes}>x");
        for way in [extract, extract_by_tree] {
            let started = Instant::now();
            let page = way(&plan, html_of(&plan, &html), started + Duration::from_secs(10)).unwrap();
            assert_eq!(page.records[0]["t"], "x");
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        }
    }

    #[test]
    fn overlapping_items_cannot_blow_up_the_output() {
        let html = format!("{}{}", "<div>".repeat(400), "x".repeat(200_000));
        let error = read(
            &json!({ "items": "div", "fields": [{ "name": "h", "type": "Html" }] }),
            &html,
        )
        .unwrap_err();
        assert!(matches!(error, ExtractError::TooMuchOutput { .. }));
    }

    #[test]
    fn xpath_reads_relative_to_the_item_and_gives_attributes_and_texts() {
        let html = "<dl><dt id=a>A<dd>one <b>bold</b><dd>two<dt id=b>B<dd>three</dl>";
        let spec = json!({ "items": "//dt", "fields": [
            { "name": "id", "selector": "./@id" },
            { "name": "next", "selector": "./following-sibling::dd[1]" },
            { "name": "bold", "selector": "./following-sibling::dd[1]/b" },
            { "name": "count", "type": "Number", "selector": "(count(./following-sibling::dd))" },
        ]});
        assert_eq!(
            rows(&spec, Content::Html, html),
            [
                json!({ "id": "a", "next": "one bold", "bold": "bold", "count": 3 }),
                json!({ "id": "b", "next": "three", "bold": null, "count": 1 }),
            ]
        );
    }

    #[test]
    fn typed_values_and_transforms_are_read_in_their_order() {
        let html = "<li data-at='24.11.2026'>1.299,50 EUR; <i>Red, Dark Blue,,</i> <b>YES</b><a href=' /x '>x</a>";
        let spec = json!({ "items": "li", "fields": [
            { "name": "price", "type": "Number", "decimalSeparator": "Comma" },
            { "name": "at", "type": "Date", "attribute": "data-at", "dateFormats": ["%d.%m.%Y"] },
            { "name": "colours", "selector": "i", "multiple": true, "transforms": [
                { "type": "Lower" }, { "type": "Split", "separator": "," }, { "type": "Trim" },
                { "type": "Replace", "pattern": "dark (\\w+)", "with": "$1 (dark)" },
            ]},
            { "name": "stock", "type": "Boolean", "selector": "b" },
            { "name": "url", "type": "Url", "selector": "a", "attribute": "href" },
            { "name": "none", "type": "Number", "selector": "i", "default": "0" },
        ]});
        assert_eq!(
            rows(&spec, Content::Html, html),
            [json!({
                "price": 1299.5, "at": "2026-11-24", "colours": ["red", "blue (dark)"], "stock": true, "url": "http://site.test/x",
                "none": 0,
            })]
        );
    }

    #[test]
    fn objects_and_lists_nest_and_an_object_without_its_required_field_is_left_out() {
        let html = "<div class=shop><h2>A</h2><ul><li><b>x</b><i>1</i><li><b>y</b><li><i>3</i></ul></div>";
        let spec = json!({ "items": ".shop", "fields": [
            { "name": "shop", "type": "Object", "fields": [
                { "name": "name", "selector": "h2" },
                { "name": "goods", "type": "Object", "selector": "li", "multiple": true, "fields": [
                    { "name": "name", "selector": "b", "required": true },
                    { "name": "price", "type": "Number", "selector": "i" },
                ]},
            ]},
        ]});
        assert_eq!(
            rows(&spec, Content::Html, html),
            [
                json!({ "shop": { "name": "A", "goods": [{ "name": "x", "price": 1 }, { "name": "y", "price": null }] } })
            ]
        );
    }

    #[test]
    fn embedded_json_is_read_as_a_field_and_as_items() {
        let html = r#"<script type="application/ld+json">{"name": "N", "offers": {"price": "9.50", "tags": ["a", "b"]}}</script>
            <script id=data>{"list": [{"id": 1}, {"id": 2, "ok": true}]}</script><script id=torn>{"list": [</script>"#;
        let spec = json!({ "fields": [
            { "name": "price", "type": "Number", "selector": "script[type='application/ld+json']", "jsonPath": "$.offers.price" },
            { "name": "tags", "selector": "script", "jsonPath": "$..tags[*]", "multiple": true },
            { "name": "offer", "type": "Object", "selector": "script", "jsonPath": "$.offers", "fields": [
                { "name": "first", "selector": "$.tags[0]" },
            ]},
            { "name": "raw", "type": "Json", "selector": "#data", "jsonPath": "$.list[1]" },
        ]});
        assert_eq!(
            rows(&spec, Content::Html, html),
            [json!({ "price": 9.5, "tags": ["a", "b"], "offer": { "first": "a" }, "raw": { "id": 2, "ok": true } })]
        );
        let spec = json!({ "items": "script", "itemsJsonPath": "$.list[*]", "fields": [
            { "name": "id", "type": "Number", "selector": "$.id" }, { "name": "ok", "type": "Boolean", "selector": "$.ok" },
        ]});
        assert_eq!(
            rows(&spec, Content::Html, html),
            [json!({ "id": 1, "ok": null }), json!({ "id": 2, "ok": true })]
        );
    }

    #[test]
    fn a_json_page_is_read_by_json_paths_and_leads_to_its_next_page() {
        let text = r#"{"items": [{"n": "a", "u": "/a"}, {"n": null}, {"n": 7}], "next": "?page=2"}"#;
        let spec = json!({ "items": "$.items[*]", "pagination": { "nextSelector": "$.next" }, "fields": [
            { "name": "n", "selector": "$.n" }, { "name": "u", "type": "Link", "selector": "$.u" }, { "name": "all", "type": "Json" },
        ]});
        let page = read_as(&plan(&spec), Content::Json, text).unwrap();
        assert_eq!(page.next.unwrap().as_str(), "http://site.test/a/list.html?page=2");
        assert_eq!(
            page.records.into_iter().map(Value::from).collect::<Vec<_>>(),
            [
                json!({ "n": "a", "u": "http://site.test/a", "all": { "n": "a", "u": "/a" } }),
                json!({ "n": null, "u": null, "all": { "n": null } }),
                json!({ "n": "7", "u": null, "all": { "n": 7 } }),
            ]
        );
        let spec = json!({ "items": "$[*]", "fields": [{ "name": "n", "type": "Number", "selector": "$.n" }] });
        assert_eq!(
            rows(&spec, Content::JsonLines, "{\"n\":1}\n\n{\"n\":2}\n"),
            [json!({ "n": 1 }), json!({ "n": 2 })]
        );
    }

    #[test]
    fn the_rows_of_csv_are_objects_by_its_header() {
        let spec = json!({ "items": "$[*]", "fields": [
            { "name": "name", "selector": "$.Name" }, { "name": "price", "type": "Number", "selector": "$['Unit price']" },
        ]});
        for text in [
            "Name,Unit price\n\"a, b\",1.5\nc\n",
            "Name;Unit price;x\na, b;1.5;\nc;;\n",
        ] {
            assert_eq!(
                rows(&spec, Content::Csv, text),
                [
                    json!({ "name": "a, b", "price": 1.5 }),
                    json!({ "name": "c", "price": null })
                ]
            );
        }
    }

    #[test]
    fn xml_is_read_by_css_and_by_xpath_with_names_as_they_are_written() {
        let text = r#"<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a "x">]><rss xmlns:m="urn:m"><channel><link>/l</link>
            <item><title>A &amp; <![CDATA[<b>]]> &#228; &a;</title><m:thumb url="i.png"/><pubDate>Tue, 24 Nov 2026 10:00:00 GMT</pubDate></item>
            <item><Title>no</Title></item></channel></rss>"#;
        let spec = json!({ "items": "item", "fields": [
            { "name": "title", "selector": "title" },
            { "name": "thumb", "type": "Url", "selector": "./m:thumb/@url" },
            { "name": "date", "type": "Date", "selector": "pubDate" },
            { "name": "link", "selector": "/rss/channel/link" },
        ]});
        assert_eq!(
            rows(&spec, Content::Xml, text),
            [
                json!({
                    "title": "A & <b> ä &a;", "thumb": "http://site.test/a/i.png", "date": "2026-11-24T10:00:00Z", "link": "/l",
                }),
                json!({ "title": null, "thumb": null, "date": null, "link": "/l" }),
            ]
        );
    }

    #[test]
    fn a_page_of_another_kind_says_what_reads_it() {
        let css = json!({ "items": "li", "fields": [{ "name": "t" }] });
        let error = read_as(&plan(&css), Content::Json, "{}").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the page is JSON, and the selectors are CSS"),
            "{error}"
        );
        let json = json!({ "items": "$", "fields": [{ "name": "t" }] });
        assert!(matches!(
            read_as(&plan(&json), Content::Html, "{}"),
            Err(ExtractError::WrongContent { .. })
        ));
        assert!(matches!(
            read_as(&plan(&json), Content::Json, "<p>"),
            Err(ExtractError::Malformed { .. })
        ));
        assert!(matches!(
            read_as(&plan(&css), Content::Xml, "{}"),
            Err(ExtractError::Malformed { .. })
        ));
    }

    #[test]
    fn how_often_a_field_was_found_is_counted_without_its_defaults() {
        let spec = json!({ "items": "li", "fields": [
            { "name": "title", "selector": "a", "required": true }, { "name": "tag", "selector": ".tag", "default": "x" },
        ]});
        let fill = read(&spec, LIST).unwrap().fill;
        assert_eq!(
            fill,
            Fill {
                items: 3,
                found: vec![2, 1]
            }
        );
    }

    #[test]
    fn json_that_is_deep_or_has_very_many_values_is_refused() {
        let plan = plan(&json!({ "items": "$..a", "fields": [{ "name": "t" }] }));
        let deep = "[".repeat(5_000_000);
        assert!(matches!(
            read_as(&plan, Content::Json, &deep),
            Err(ExtractError::TooManyNodes { .. })
        ));
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(matches!(
            read_as(&plan, Content::Json, &deep),
            Err(ExtractError::Malformed { .. })
        ));
        let wide = format!("[{}0]", "0,".repeat(3_000_000));
        assert!(matches!(
            read_as(&plan, Content::Json, &wide),
            Err(ExtractError::TooManyNodes { .. })
        ));
        let rows = format!("a,b\n{}", "1,2\n".repeat(2_000_000));
        assert!(matches!(
            read_as(&plan, Content::Csv, &rows),
            Err(ExtractError::TooManyNodes { .. })
        ));
    }

    #[test]
    fn no_entity_of_an_xml_bomb_is_expanded() {
        let entities = (1..40)
            .map(|n| format!("<!ENTITY e{n} '{}'>", format!("&e{};", n - 1).repeat(10)))
            .collect::<Vec<_>>()
            .concat();
        let text = format!(
            "<!DOCTYPE x [<!ENTITY e0 'ha'>{entities}<!ENTITY f SYSTEM 'file:///etc/passwd'>]><x a='&e39;'>&e39;&f;</x>"
        );
        let spec = json!({ "fields": [{ "name": "t" }, { "name": "a", "selector": "/x/@a" }] });
        assert_eq!(
            rows(&spec, Content::Xml, &text),
            [json!({ "t": "&e39;&f;", "a": "&e39;" })]
        );
    }

    #[test]
    fn xml_that_is_deep_or_has_very_many_nodes_is_refused_and_one_with_very_many_attributes_is_read() {
        let plan = plan(&json!({ "fields": [{ "name": "t" }] }));
        let deep = "<a>".repeat(1_000_000);
        assert_eq!(
            read_as(&plan, Content::Xml, &deep),
            Err(ExtractError::TooDeep { limit: 512 })
        );
        let wide = format!("<x>{}</x>", "<a/>".repeat(2_000_000));
        assert!(matches!(
            read_as(&plan, Content::Xml, &wide),
            Err(ExtractError::TooManyNodes { .. })
        ));
        let attributes = (0..500_000).map(|n| format!(" a{n}=''")).collect::<Vec<_>>().concat();
        assert!(read_as(&plan, Content::Xml, &format!("<x{attributes}/>")).is_ok());
    }

    #[test]
    fn a_replacement_cannot_blow_up_a_text() {
        let html = "x".repeat(1_000_000);
        let spec = json!({ "fields": [{ "name": "t", "transforms": [
            { "type": "Replace", "pattern": "x", "with": "y".repeat(1000) }, { "type": "Replace", "pattern": "y", "with": "z".repeat(1000) },
        ]}]});
        assert!(matches!(read(&spec, &html), Err(ExtractError::TooMuchOutput { .. })));
    }

    #[test]
    fn a_small_page_is_read_where_it_arrived_unless_its_text_is_searched_or_changed() {
        let quick = |field: Value, html: &str| {
            let plan = plan(&json!({ "url": "https://a.test/", "fields": [field] }));
            is_quick(&plan, html_of(&plan, html))
        };
        let title = || json!({ "name": "title", "selector": "h1" });
        assert!(quick(title(), "<h1>x</h1>"));
        assert!(!quick(title(), &"x".repeat(SMALL + 1)));
        assert!(!quick(
            json!({ "name": "title", "selector": "h1", "regex": "x+" }),
            "<h1>x</h1>"
        ));
    }

    #[test]
    fn a_regex_on_two_megabytes_ends() {
        let html: String = (0..2_000_000_u32)
            .map(|n| {
                if n.wrapping_mul(2_654_435_761) >> 31 == 0 {
                    'a'
                } else {
                    'b'
                }
            })
            .collect();
        for pattern in ["(a|b)*c", "(?:[ab]*a[ab]{60}){2}c", "(?-u)(?:\\w+\\s?)+$", "a.*b.*c.*d"] {
            let spec = json!({ "fields": [{ "name": "t", "regex": pattern }] });
            let page = read(&spec, &html);
            assert!(matches!(page, Ok(_) | Err(ExtractError::Late)), "{pattern}");
        }
    }
}
