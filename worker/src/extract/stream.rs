//! Reading a page without a tree: its elements in the order in which they open and close, and of them what the plan takes.
//!
//! The plan alone decides whether it streams ([`Columns::of`]); the page decides whether it stays so: one whose tree is not what it writes is
//! read again by its tree. Either way gives the same records; tests hold them against each other.

mod capture;
mod selector;

use selextract_task::{CompiledField, Conversion, Items, Locator, Plan, Reads, Shape, Take};

use super::{
    Document, ExtractError, Extracted, Reading, Rows,
    budget::Budget,
    document::MAX_DEPTH,
    follow, gives_records, links,
    walk::{Stop, Walk},
    xpath,
};
use capture::Capture;
use selector::Selector;

/// What a plan takes of a page that streams.
pub(super) struct Columns<'p> {
    plan: &'p Plan,
    /// `None` for the page itself.
    items: Option<Selector>,
    fields: Vec<Column<'p>>,
    /// All fields, as bits.
    all: u64,
    next: Option<Selector>,
    links: Followed,
    /// What makes a page the last one where it is there, and where it is not.
    stops: [Option<Selector>; 2],
}

/// Which links a crawl follows.
enum Followed {
    None,
    /// Those of each `a` and `area`.
    All,
    Of(Selector),
}

/// A selector of the plan does not stream.
struct TakesTree;

/// What a field takes.
struct Column<'p> {
    of: &'p CompiledField,
    /// `None` for the item itself.
    selector: Option<Selector>,
    /// What is found first is its value, whatever comes later.
    first_is_all: bool,
}

impl<'p> Columns<'p> {
    /// Of a plan whose selectors can all be told when an element begins, and whose fields take texts and attributes; of another one nothing.
    pub(super) fn of(plan: &'p Plan) -> Option<Self> {
        if plan.reads != Reads::Tree || !plan.automatic.is_empty() || !(1..=64).contains(&plan.fields.len()) {
            return None;
        }
        let links = match plan.crawl.as_ref().filter(|crawl| crawl.reads_links) {
            None => Followed::None,
            Some(crawl) => match &crawl.links {
                None => Followed::All,
                Some(locator) => Followed::Of(css(locator)?),
            },
        };
        let items = match &plan.items {
            Items::Page => None,
            Items::Located(locator) => Some(css(locator)?),
            Items::Embedded { .. } => return None,
        };
        let next = any_css(plan.next.as_ref()).ok()?;
        let stops = [
            any_css(plan.stop.found.as_ref()).ok()?,
            any_css(plan.stop.missing.as_ref()).ok()?,
        ];
        let fields: Option<Vec<Column<'p>>> = plan.fields.iter().map(Column::of).collect();
        Some(Self {
            plan,
            items,
            fields: fields?,
            all: u64::MAX >> (64 - plan.fields.len()),
            next,
            links,
            stops,
        })
    }
}

impl<'p> Column<'p> {
    fn of(field: &'p CompiledField) -> Option<Self> {
        let Shape::Value(conversion) = &field.shape else {
            return None;
        };
        if field.take == Take::Html {
            return None;
        }
        let selector = any_css(field.locator.as_ref()).ok()?;
        let as_it_is = field.json_path.is_none() && field.regex.is_none() && field.changes.is_empty();
        Some(Self {
            of: field,
            selector,
            first_is_all: !field.multiple && as_it_is && matches!(conversion, Conversion::Text),
        })
    }
}

/// One that streams, or none where none is asked for.
fn any_css(locator: Option<&Locator>) -> Result<Option<Selector>, TakesTree> {
    locator.map(|locator| css(locator).ok_or(TakesTree)).transpose()
}

fn css(locator: &Locator) -> Option<Selector> {
    match locator {
        Locator::Css(css) if !css.siblings => Selector::parse(&locator.to_string()),
        _ => None,
    }
}

/// Reads a page of HTML; `None` when it takes a tree.
pub(super) fn extract(plan: &Plan, document: Document<'_>, budget: Budget) -> Result<Option<Extracted>, ExtractError> {
    let Some(columns) = Columns::of(plan) else {
        return Ok(None);
    };
    // What the rules make of it depends on where it stands.
    if memchr::memchr(0, document.text.as_bytes()).is_some() {
        return Ok(None);
    }
    let reading = Reading {
        base: document.url.clone(),
        budget,
        order: xpath::Order::default(),
    };
    let reads = gives_records(plan, document.url);
    let mut capture = Capture::new(&columns, Rows::new(plan), reading, (document.url, reads));
    match Walk::new(document.text, &mut capture, MAX_DEPTH).run() {
        Ok(()) => {}
        Err(Stop::Crooked) => return Ok(None),
        Err(Stop::Failed(error)) => return Err(error),
    }
    let [found, missing] = capture.stops();
    let (rows, reading, (next, written)) = capture.finished();
    let links = match &plan.crawl {
        Some(crawl) => links::of_written(crawl, &written, &reading)?,
        None => Vec::new(),
    };
    let extracted = if reads {
        let next = follow(next, document.url, &reading);
        Extracted {
            stops: found == Some(true) || missing == Some(false),
            ..rows.finished(next)?
        }
    } else {
        Extracted::default()
    };
    Ok(Some(Extracted {
        streamed: true,
        links,
        ..extracted
    }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rand::{SeedableRng, rngs::StdRng};
    use selextract_task::TaskSpec;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        content::Content,
        extract::{extract_by_tree, soup::soup},
    };

    fn plan(spec: &Value) -> Plan {
        let mut whole = json!({ "url": "http://site.test/a/list.html" });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value::<TaskSpec>(whole).unwrap().compile().unwrap()
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn document<'d>(plan: &'d Plan, text: &'d str) -> Document<'d> {
        let content = Content::Html;
        Document {
            url: &plan.url,
            content,
            text,
        }
    }

    /// What the walk gives, if it comes to the end.
    fn streamed(plan: &Plan, page: &str) -> Option<Result<Extracted, ExtractError>> {
        extract(plan, document(plan, page), Budget::new(late())).transpose()
    }

    /// Whether the page streams; then it gives what its tree gives.
    fn is_the_same(plan: &Plan, page: &str) -> bool {
        let Some(streamed) = streamed(plan, page) else {
            return false;
        };
        let tree = extract_by_tree(plan, document(plan, page), late());
        let tree = tree.map(|extracted| Extracted {
            streamed: true,
            ..extracted
        });
        assert_eq!(streamed, tree, "{page}");
        true
    }

    /// Plans of all that streams.
    fn plans() -> Vec<Plan> {
        let elements = [
            "*",
            "a",
            "p",
            "li",
            "td",
            "tr",
            "b",
            "span",
            "div > p",
            "div p",
            "ul > li",
            "table > tbody > tr > td",
            ".x",
            "#i",
            "[href]",
            "body > *",
            "li:nth-child(2)",
            "td:first-child",
            "option",
            "head *",
            "html > *",
            "dd, dt",
            "[class~=x]",
            "title",
            "script",
            "h1",
        ];
        let mut plans = vec![plan(&json!({ "fields": [
                { "name": "all" }, { "name": "title", "selector": "title" }, { "name": "links", "type": "Link", "selector": "a", "multiple": true },
                { "name": "every", "selector": "*", "multiple": true }, { "name": "n", "type": "Number", "selector": "b" },
            ], "pagination": { "nextSelector": "a[href*=n]" } }))];
        for stop in [
            json!({ "selector": "td.x" }),
            json!({ "missingSelector": "li" }),
            json!({ "selector": "b i", "missingSelector": "a" }),
        ] {
            plans.push(plan(
                &json!({ "fields": [{ "name": "all" }], "pagination": { "nextSelector": "a", "stopCondition": stop } }),
            ));
        }
        for (url, crawl) in [
            ("http://site.test/", json!({})),
            (
                "http://site.test/",
                json!({ "linkSelector": "td a, [href]", "exclude": ["y"] }),
            ),
            ("http://site.test/", json!({ "extract": ["/p/"] })),
            ("http://site.test/p/", json!({ "extract": ["/p/"] })),
        ] {
            plans.push(plan(
                &json!({ "url": url, "crawl": crawl, "items": "li, td", "fields": [
                    { "name": "t", "required": true }, { "name": "b", "selector": "b" },
                ]}),
            ));
        }
        for items in elements {
            plans.push(plan(&json!({ "items": items, "fields": [
                { "name": "text" }, { "name": "class", "type": "Attribute", "attribute": "class" },
                { "name": "inner", "selector": "b, a, p", "multiple": true }, { "name": "first", "selector": "li, td, span" },
                { "name": "link", "type": "Link", "selector": "a" }, { "name": "part", "selector": "*", "regex": "[a-c]+" },
                { "name": "deep", "selector": "div * b" },
            ]})));
        }
        plans
    }

    #[test]
    fn what_streams_gives_what_its_tree_gives_whatever_the_page() {
        let plans = plans();
        let mut random = StdRng::seed_from_u64(4);
        let (mut pages, mut same) = (0, 0);
        for round in 0..12_000 {
            let page = soup(&mut random, 4 + round / 300, [0.0, 0.05, 0.4][round % 3]);
            pages += 1;
            same += usize::from(is_the_same(&plans[round % plans.len()], &page));
        }
        assert!(same * 5 > pages, "{same} of {pages} pages stream");
    }

    #[test]
    fn end_tags_that_are_left_out_do_not_keep_a_page_from_streaming() {
        let plans = plans();
        for page in [
            "<ul><li>a<li>b<ul><li>c</ul><li>d</ul>",
            "<dl><dt>a<dd>b<p>c<p>d<dt>e</dl>",
            "<!doctype html><table><tr><td>a<td>b<tr><th>c<td><table><td>d</table>e</table><p>f<table><caption>g<tr><td>h</table>",
            "<p>a<div>b</div>c</span></b><select><optgroup label=a><option>b<option>c</select>",
            "<title>a &amp; b</title><textarea>\nc</textarea><script>\"<b>\"</script><b>d</b>",
            "<table><colgroup><col><col><tbody> <tr> <td>x</tbody> </table>",
            "a<html-x>b</html-x><!-- c -->d</body> </html>\n",
            "",
            "  ",
            "<a href=x",
            "<html lang=a><body class=x><p>a</p></body></html><script>b</script>c<html lang=d><head><title>e</title></head><body class=y>f",
        ] {
            for plan in &plans {
                assert!(is_the_same(plan, page), "{page}");
            }
        }
    }

    #[test]
    fn a_page_whose_tree_is_not_what_it_writes_is_left_to_its_tree() {
        let plan = plan(&json!({ "items": "b", "fields": [{ "name": "t" }] }));
        for page in [
            "<b>a<p>b</b>c",
            "<table>a<tr><td>b</table>",
            "<a>a<a>b</a>",
            "<p><b>a<div>b",
            "<svg><b>a</b></svg>",
            "<template><b></b></template>",
            "<div></p>",
            "a\0",
            "<html><p>a</p><html b=c>",
            "<body><p>a</p><body a=b>",
            "<select><input></select>",
        ] {
            assert!(streamed(&plan, page).is_none(), "{page}");
        }
    }

    #[test]
    fn plans_that_need_a_tree_do_not_stream() {
        for spec in [
            json!({ "items": "a", "fields": [{ "name": "h", "type": "Html" }] }),
            json!({ "items": "//a", "fields": [{ "name": "t" }] }),
            json!({ "items": "dt", "fields": [{ "name": "t", "selector": ":scope + dd" }] }),
            json!({ "items": "a", "fields": [{ "name": "o", "type": "Object", "fields": [{ "name": "t" }] }] }),
            json!({ "items": "a:not(.b)", "fields": [{ "name": "t" }] }),
        ] {
            assert!(Columns::of(&plan(&spec)).is_none(), "{spec}");
        }
    }

    #[test]
    fn sixty_four_fields_stream() {
        let fields: Vec<_> = (0..64)
            .map(|n| json!({ "name": format!("f{n}"), "selector": "b" }))
            .collect();
        let plan = plan(&json!({ "items": "li", "fields": fields }));
        assert!(is_the_same(&plan, "<ul><li><b>x</b><b>y</b></ul>"));
    }

    #[test]
    fn a_base_behind_what_it_changes_is_left_to_the_tree() {
        let plan = plan(&json!({ "items": "li", "fields": [{ "name": "l", "type": "Link", "selector": "a" }] }));
        assert!(is_the_same(&plan, "<base href=/b/><ul><li><a href=x>y</a></ul>"));
        assert!(streamed(&plan, "<ul><li><a href=x>y</a></ul><base href=/b/>").is_none());
    }
}
