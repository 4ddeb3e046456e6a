//! Records that a page offers without a selector: what its author marked up for machines, its tables, its article. Pure; one file per kind.
//!
//! Every record has the same members: `kind`, `type`, `group`, `row` and `data`.

mod article;
mod json_ld;
mod microdata;
mod open_graph;
mod tables;

use scraper::ElementRef;
use selextract_task::Automatic;
use serde_json::{Map, Value};

use super::{ExtractError, Reading, Record, budget::check_set};

/// The records of these kinds, kind by kind and in the order of the document.
pub(super) fn records(
    kinds: &[Automatic],
    root: ElementRef<'_>,
    reading: &Reading,
) -> Result<Vec<Record>, ExtractError> {
    let mut page = Page {
        root,
        reading,
        records: Vec::new(),
    };
    for kind in kinds {
        match kind {
            Automatic::JsonLd => json_ld::find(&mut page)?,
            Automatic::OpenGraph => open_graph::find(&mut page)?,
            Automatic::Microdata => microdata::find(&mut page)?,
            Automatic::Tables => tables::find(&mut page)?,
            Automatic::Article => article::find(&mut page)?,
        }
    }
    Ok(page.records)
}

/// A page that is looked through, and what was found.
struct Page<'p> {
    root: ElementRef<'p>,
    reading: &'p Reading,
    records: Vec<Record>,
}

/// What a record says about itself.
#[derive(Default)]
struct Head {
    kind: &'static str,
    /// The schema.org type, `og:type`, or a table's caption.
    type_name: Option<String>,
    /// From 1: which of its kind on the page.
    group: usize,
    /// From 1: which row of a table.
    row: Option<usize>,
}

impl<'p> Page<'p> {
    /// Every element of the page, each of which is work.
    fn elements(&self) -> impl Iterator<Item = Result<ElementRef<'p>, ExtractError>> + use<'p> {
        let (root, reading) = (self.root, self.reading);
        root.descendants()
            .filter_map(ElementRef::wrap)
            .map(move |element| reading.budget.work(1).map(|()| element))
    }

    fn add(&mut self, head: Head, data: Map<String, Value>) -> Result<(), ExtractError> {
        let data = Value::Object(data);
        self.reading.budget.spend(super::json::weight(&data))?;
        self.add_paid(head, data)
    }

    /// Adds what was taken from the budget as it was read.
    fn add_paid(&mut self, head: Head, data: Value) -> Result<(), ExtractError> {
        let mut record = Record::with_capacity(5);
        record.insert("kind".to_owned(), head.kind.into());
        record.insert("type".to_owned(), head.type_name.into());
        record.insert("group".to_owned(), head.group.into());
        record.insert("row".to_owned(), head.row.into());
        record.insert("data".to_owned(), data);
        self.records.push(record);
        check_set(self.records.len())
    }
}

/// Adds a value under a name; what stands there already becomes a list.
fn add_value(object: &mut Map<String, Value>, name: &str, value: Value) {
    match object.get_mut(name) {
        None => drop(object.insert(name.to_owned(), value)),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
}

/// A type's name without the vocabulary that nearly all of them are of.
fn short_type(name: &str) -> String {
    let short = ["https://schema.org/", "http://schema.org/", "schema:"]
        .into_iter()
        .find_map(|vocabulary| name.strip_prefix(vocabulary));
    short.unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;
    use url::Url;

    use super::super::{Document, extract};
    use super::*;
    use crate::content::Content;

    pub(super) fn found(kind: &str, html: &str) -> Vec<Value> {
        read(kind, html).unwrap().into_iter().map(Value::from).collect()
    }

    pub(super) fn read(kind: &str, html: &str) -> Result<Vec<Record>, ExtractError> {
        let spec = json!({ "url": "http://site.test/a/", "automatic": [kind] });
        let plan = serde_json::from_value::<selextract_task::TaskSpec>(spec)
            .unwrap()
            .compile()
            .unwrap();
        let url: Url = "http://site.test/a/".parse().unwrap();
        let document = Document {
            url: &url,
            content: Content::Html,
            text: html,
        };
        let page = extract(&plan, document, Instant::now() + Duration::from_secs(30))?;
        Ok(page.records)
    }

    #[test]
    fn a_page_that_offers_nothing_has_no_records() {
        for kind in ["JsonLd", "OpenGraph", "Microdata", "Tables", "Article"] {
            assert_eq!(found(kind, "<p>hello"), [json!(null); 0], "{kind}");
        }
    }

    #[test]
    fn every_record_has_the_same_members() {
        let html = "<meta property=og:type content=book><table><tr><th>a<th>b<tr><td>1<td>2</table>";
        for kind in ["OpenGraph", "Tables"] {
            let records = found(kind, html);
            let names: Vec<_> = records[0].as_object().unwrap().keys().cloned().collect();
            assert_eq!(names, ["kind", "type", "group", "row", "data"]);
        }
    }
}
