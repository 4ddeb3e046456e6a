//! From a page's HTML and a plan to records and the next page. Pure and synchronous: callers run it off the async runtime.
//!
//! The input is hostile: bytes are capped before it comes here, and nodes, depth, output and time are capped here.

mod budget;
mod document;
mod select;
mod text;
mod value;

use std::time::Instant;

use scraper::ElementRef;
use selextract_task::{CompiledField, Locator, Plan};
use serde_json::{Map, Value};
use snafu::Snafu;
use url::Url;

use budget::Budget;

/// One extracted row: the fields of the plan in its order.
pub type Record = Map<String, Value>;

/// What a page held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extracted {
    /// In the order of the document.
    pub records: Vec<Record>,
    /// Items that lacked a required field.
    pub left_out: u32,
    /// Where the next page is: http or https, of the page's own origin, without a fragment.
    pub next: Option<Url>,
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
    /// The page's time was over.
    #[snafu(display("reading the page took too long"))]
    Late,
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

/// Reads a page that came from `url`, before the deadline.
///
/// # Errors
/// When a limit is passed, or when every item lacks a required field.
pub fn extract(plan: &Plan, url: &Url, html: &str, deadline: Instant) -> Result<Extracted, ExtractError> {
    let mut budget = Budget::new(deadline);
    let document = document::parse(html, &budget)?;
    let root = document.root_element();
    let base = document::base_url(root, url);
    let (records, left_out) = match &plan.items {
        Some(items) => records(plan, select::all(items, root), &base, &mut budget)?,
        None => records(plan, std::iter::once(root), &base, &mut budget)?,
    };
    let next = plan.next.as_ref().and_then(|next| next_page(root, next, &base, url));
    Ok(Extracted {
        records,
        left_out,
        next,
    })
}

fn records<'a>(
    plan: &Plan,
    items: impl Iterator<Item = ElementRef<'a>>,
    base: &Url,
    budget: &mut Budget,
) -> Result<(Vec<Record>, u32), ExtractError> {
    let mut records = Vec::new();
    let mut left_out = 0;
    let mut lacking = None;
    for item in items {
        match record(&plan.fields, item, base, budget)? {
            Ok(record) => records.push(record),
            Err(field) => {
                left_out += 1;
                lacking.get_or_insert(field);
            }
        }
    }
    match lacking {
        Some(field) if records.is_empty() => Err(ExtractError::NoRecords {
            field: field.name.clone(),
            selector: field
                .locator
                .as_ref()
                .map_or_else(|| ":scope".to_owned(), Locator::to_string),
            items: left_out,
        }),
        _ => Ok((records, left_out)),
    }
}

/// One item's record, or the first required field that it lacks.
fn record<'p>(
    fields: &'p [CompiledField],
    item: ElementRef<'_>,
    base: &Url,
    budget: &mut Budget,
) -> Result<Result<Record, &'p CompiledField>, ExtractError> {
    let mut record = Record::with_capacity(fields.len());
    for field in fields {
        match value::read(field, item, base, budget)? {
            Some(value) => {
                record.insert(field.name.clone(), value);
            }
            None if field.required => return Ok(Err(field)),
            None => {
                record.insert(field.name.clone(), Value::Null);
            }
        }
    }
    Ok(Ok(record))
}

fn next_page(root: ElementRef<'_>, locator: &Locator, base: &Url, page: &Url) -> Option<Url> {
    let href = select::all(locator, root).find_map(|link| link.attr("href"))?;
    let mut next = value::resolve(base, href)?;
    next.set_fragment(None);
    (next.origin() == page.origin()).then_some(next)
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
        extract(&plan, &plan.url, html, Instant::now() + Duration::from_secs(10))
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
        let error = extract(&plan, &plan.url, &html, Instant::now() + Duration::from_mins(1)).map(|page| page.left_out);
        assert!(matches!(error, Err(ExtractError::TooManyNodes { .. })), "{error:?}");
    }

    #[test]
    fn a_tag_with_very_many_attributes_ends_at_the_deadline() {
        let attributes = (0..900_000).map(|n| format!(" a{n}")).collect::<Vec<_>>().concat();
        let plan = plan(&json!({ "fields": [{ "name": "t" }] }));
        let started = Instant::now();
        let html = format!("<p{attributes}>");
        let error = extract(&plan, &plan.url, &html, Instant::now() + Duration::from_millis(300)).unwrap_err();
        assert_eq!(error, ExtractError::Late);
        assert!(started.elapsed() < Duration::from_secs(5));
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
}
