//! Microdata (HTML standard, section 5): every item that is nobody's property, with the items in it, written as JSON-LD writes them.
//! `itemref` is not followed.

use scraper::ElementRef;
use selextract_task::absolute;
use serde_json::{Map, Value};

use super::{Head, Page, add_value, short_type};
use crate::extract::{ExtractError, Reading, json, text};

pub(super) fn find(page: &mut Page<'_>) -> Result<(), ExtractError> {
    let mut group = 0;
    for element in page.elements() {
        let element = element?;
        if element.attr("itemscope").is_none() || element.attr("itemprop").is_some() {
            continue;
        }
        group += 1;
        let data = item(element, page.reading)?;
        let head = Head {
            kind: "Microdata",
            type_name: data.get("@type").and_then(Value::as_str).map(str::to_owned),
            group,
            row: None,
        };
        page.add_paid(head, Value::Object(data))?;
    }
    Ok(())
}

/// Elements are at most 512 deep in each other, which bounds the recursion.
fn item(element: ElementRef<'_>, reading: &Reading) -> Result<Map<String, Value>, ExtractError> {
    let mut object = Map::new();
    let types = element.attr("itemtype").unwrap_or_default();
    if let Some(name) = types.split_ascii_whitespace().next() {
        object.insert("@type".to_owned(), short_type(name).into());
    }
    if let Some(id) = element.attr("itemid") {
        object.insert("@id".to_owned(), id.into());
    }
    properties(element, reading, &mut object)?;
    Ok(object)
}

fn properties(within: ElementRef<'_>, reading: &Reading, object: &mut Map<String, Value>) -> Result<(), ExtractError> {
    for element in within.child_elements() {
        reading.budget.work(1)?;
        let is_item = element.attr("itemscope").is_some();
        if let Some(names) = element.attr("itemprop") {
            let value = if is_item {
                Value::Object(item(element, reading)?)
            } else {
                let value = value(element, reading);
                reading.budget.spend(value.len())?;
                value.into()
            };
            let mut names = names.split_ascii_whitespace();
            let first = names.next();
            for name in names {
                // A copy of what was paid for once.
                reading.budget.spend(json::weight(&value))?;
                add_value(object, name, value.clone());
            }
            if let Some(first) = first {
                add_value(object, first, value);
            }
        }
        // What is below an item is the item's own.
        if !is_item {
            properties(element, reading, object)?;
        }
    }
    Ok(())
}

/// HTML standard, section 5.2.4.
fn value(element: ElementRef<'_>, reading: &Reading) -> String {
    let attribute = match element.value().name() {
        "meta" => "content",
        "audio" | "embed" | "iframe" | "img" | "source" | "track" | "video" => "src",
        "a" | "area" | "link" => "href",
        "object" => "data",
        "data" | "meter" => "value",
        "time" => "datetime",
        _ => return text::folded(element),
    };
    let Some(value) = element.attr(attribute) else {
        return text::folded(element);
    };
    let address = matches!(attribute, "src" | "href" | "data").then(|| absolute(&reading.base, value));
    address.flatten().map_or_else(|| value.trim().to_owned(), String::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::found, *};

    #[test]
    fn items_are_records_with_the_items_that_are_their_properties() {
        let html = r#"<div itemscope itemtype="https://schema.org/Product"><h1 itemprop="name">A <b>shoe</b></h1>
            <p><img itemprop=image src=i.png><a itemprop="url sameAs" href=/p>x</a></p>
            <div itemprop=offers itemscope itemtype=http://schema.org/Offer><meta itemprop=price content=9.5><span itemprop=name>no</span></div>
            <i itemprop=colour>red</i><i itemprop=colour>blue</i><time itemprop=made datetime=2026-11-24>today</time></div>
            <div itemscope><data itemprop=n value=7>seven</data></div>"#;
        let records = found("Microdata", html);
        assert_eq!(records.len(), 2);
        assert_eq!(records[0]["type"], "Product");
        assert_eq!(
            records[0]["data"],
            json!({
                "@type": "Product", "name": "A shoe", "image": "http://site.test/a/i.png",
                "url": "http://site.test/p", "sameAs": "http://site.test/p",
                "offers": { "@type": "Offer", "price": "9.5", "name": "no" },
                "colour": ["red", "blue"], "made": "2026-11-24",
            })
        );
        assert_eq!(
            (&records[1]["type"], &records[1]["data"]),
            (&json!(null), &json!({ "n": "7" }))
        );
    }

    #[test]
    fn properties_that_multiply_each_other_are_refused() {
        let html = format!("<div itemscope>{}x", "<div itemprop='a b c d' itemscope>".repeat(200));
        let error = super::super::tests::read("Microdata", &html).unwrap_err();
        assert!(matches!(error, ExtractError::TooMuchOutput { .. }), "{error:?}");
        let html = format!("<div itemscope>{}{}", "<b itemprop=a>".repeat(400), "x".repeat(100_000));
        let error = super::super::tests::read("Microdata", &html).unwrap_err();
        assert!(matches!(error, ExtractError::TooMuchOutput { .. }), "{error:?}");
    }
}
