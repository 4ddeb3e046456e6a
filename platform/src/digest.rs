//! What tells one record from another, and a record from what it was. Pure.

use selextract_task::{TaskSpec, Watch};
use serde_json::Value;
use uuid::Uuid;

use crate::ledger::claims::Record;

/// A record by its key and by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Of the fields that tell it from others.
    pub key: Uuid,
    /// Of everything but what is ignored.
    pub content: Uuid,
}

/// The digest of a record; `None` when every field of its key is null.
pub fn digest(record: &Record, watch: &Watch) -> Option<Digest> {
    let mut key = String::new();
    let mut any = false;
    for name in &watch.key {
        let value = record.get(name).unwrap_or(&Value::Null);
        any |= !value.is_null();
        write(value, &mut key);
        key.push('\n');
    }
    let mut names: Vec<&String> = record.keys().filter(|name| !watch.ignore.contains(name)).collect();
    names.sort_unstable();
    let mut content = String::new();
    for name in names {
        write(&Value::String(name.clone()), &mut content);
        write(&record[name], &mut content);
        content.push('\n');
    }
    any.then(|| Digest {
        key: hash(&key),
        content: hash(&content),
    })
}

/// The fields that differ, in the order of the record; those that are ignored do not.
pub fn changed_fields(before: &Record, now: &Record, watch: &Watch) -> Vec<String> {
    let text = |record: &Record, name: &String| {
        let mut text = String::new();
        write(record.get(name).unwrap_or(&Value::Null), &mut text);
        text
    };
    let lost = before.keys().filter(|name| !now.contains_key(*name));
    now.keys()
        .chain(lost)
        .filter(|name| !watch.ignore.contains(name) && text(before, name) != text(now, name))
        .cloned()
        .collect()
}

/// What records are told from each other by. Runs in which it differs are not compared.
pub fn fingerprint(spec: &TaskSpec, watch: &Watch) -> String {
    let names: Vec<&str> = spec.fields.iter().map(|field| field.name.as_str()).collect();
    hash(&format!("{:?} {:?} {names:?}", watch.key, watch.ignore)).to_string()
}

/// What extracts: runs in which it differs tell nothing about each other's fields.
pub fn shape(spec: &TaskSpec) -> String {
    let mut what = serde_json::json!([spec.url, spec.items, spec.items_json_path, spec.fields, spec.automatic]);
    if let (Some(what), Some(crawl)) = (what.as_array_mut(), &spec.crawl) {
        what.push(serde_json::json!(crawl));
    }
    hash(&what.to_string()).to_string()
}

/// The series of a task that no schedule started: those of one owner that ask for the same.
pub fn series(owner: Uuid, spec: &TaskSpec) -> String {
    let text = serde_json::to_string(spec).unwrap_or_default();
    format!("owner:{owner}:{}", hash(&text))
}

/// What a page is known by among those of its owner: its URL, and the spec, which says how it is asked for and read.
pub fn page_key(spec: &TaskSpec, url: &str) -> Uuid {
    let text = serde_json::to_string(spec).unwrap_or_default();
    hash(&format!("{url} {text}"))
}

/// 122 bits of a SHA-1: they tell texts apart, and protect nothing.
fn hash(text: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}

/// One text for one value: the members of objects in the order of their names.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            text.push('{');
            for name in names {
                text.push_str(&Value::String(name.clone()).to_string());
                write(&members[name], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(value: &Value) -> Record {
        value.as_object().unwrap().clone()
    }

    fn watch() -> Watch {
        Watch {
            key: vec!["id".to_owned()],
            ignore: vec!["seen".to_owned()],
            ..Watch::default()
        }
    }

    fn of(value: &Value) -> Digest {
        digest(&record(value), &watch()).unwrap()
    }

    #[test]
    fn the_key_tells_records_apart_and_the_content_tells_changes() {
        let first = of(&json!({ "id": 1, "price": 2, "seen": 10 }));
        assert_eq!(
            first,
            of(&json!({ "seen": 11, "price": 2, "id": 1 })),
            "neither order nor what is ignored counts"
        );
        let changed = of(&json!({ "id": 1, "price": 3 }));
        assert!(changed.key == first.key && changed.content != first.content);
        assert_ne!(of(&json!({ "id": 2, "price": 2 })).key, first.key);
        assert_ne!(
            of(&json!({ "id": "1", "price": 2 })).key,
            first.key,
            "a text is no number"
        );
    }

    #[test]
    fn the_order_of_members_within_a_value_does_not_count() {
        let first = of(&json!({ "id": 1, "offer": { "a": 1, "b": [1, 2] } }));
        assert_eq!(first, of(&json!({ "id": 1, "offer": { "b": [1, 2], "a": 1 } })));
        assert_ne!(first, of(&json!({ "id": 1, "offer": { "a": 1, "b": [2, 1] } })));
        assert_ne!(first, of(&json!({ "id": 1, "offer": { "a": 1, "b": [12] } })));
    }

    #[test]
    fn a_record_without_any_part_of_its_key_cannot_be_told() {
        assert_eq!(digest(&record(&json!({ "id": null, "price": 2 })), &watch()), None);
        assert_eq!(digest(&record(&json!({ "price": 2 })), &watch()), None);
    }

    #[test]
    fn changed_fields_are_named_and_ignored_ones_are_not() {
        let before = record(&json!({ "id": 1, "price": 2, "seen": 10, "old": true }));
        let now = record(&json!({ "id": 1, "price": 3, "seen": 11, "new": "x" }));
        assert_eq!(changed_fields(&before, &now, &watch()), ["price", "new", "old"]);
    }
}
