//! JSON-LD: the objects of `<script type="application/ld+json">`, those of a `@graph` one by one.

use serde_json::{Map, Value};

use super::{Head, Page, short_type};
use crate::{
    content::Content,
    extract::{ExtractError, json},
};

pub(super) fn find(page: &mut Page<'_>) -> Result<(), ExtractError> {
    let mut group = 0;
    for element in page.elements() {
        let element = element?;
        if element.value().name() != "script" || !is_json_ld(element.attr("type").unwrap_or_default()) {
            continue;
        }
        let text: String = element.text().collect();
        // A block that is no JSON is no block.
        let Ok(value) = json::parse(text.trim(), Content::Json) else {
            continue;
        };
        for object in objects(value) {
            group += 1;
            let head = Head {
                kind: "JsonLd",
                type_name: type_of(&object),
                group,
                row: None,
            };
            page.add(head, object)?;
        }
    }
    Ok(())
}

fn is_json_ld(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/ld+json")
}

fn objects(value: Value) -> Vec<Map<String, Value>> {
    match value {
        Value::Array(values) => values.into_iter().flat_map(objects).collect(),
        Value::Object(mut object) => match object.remove("@graph") {
            Some(graph @ Value::Array(_)) => objects(graph),
            Some(other) => {
                object.insert("@graph".to_owned(), other);
                vec![object]
            }
            None => vec![object],
        },
        _ => Vec::new(),
    }
}

fn type_of(object: &Map<String, Value>) -> Option<String> {
    let name = match object.get("@type")? {
        Value::Array(types) => types.first()?.as_str()?,
        name => name.as_str()?,
    };
    Some(short_type(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::found;

    #[test]
    fn every_object_is_a_record_and_a_graph_is_its_objects() {
        let html = r#"<script type="application/ld+json">{"@context": "x", "@type": "https://schema.org/Product", "name": "N"}</script>
            <script type="Application/LD+JSON; charset=utf-8">{"@graph": [{"@type": ["Person", "Thing"]}, {"a": 1}]}</script>
            <script type="application/ld+json">{"torn": </script><script>{"@type": "No"}</script>"#;
        let records = found("JsonLd", html);
        let types: Vec<_> = records.iter().map(|record| record["type"].clone()).collect();
        assert_eq!(types, [json!("Product"), json!("Person"), json!(null)]);
        assert_eq!(
            (&records[0]["data"]["name"], &records[2]["data"]),
            (&json!("N"), &json!({ "a": 1 }))
        );
        assert_eq!((&records[2]["group"], &records[2]["row"]), (&json!(3), &json!(null)));
    }
}
