//! Checks what a run is compared by.

use std::collections::BTreeSet;

use super::Check;
use crate::{TaskSpec, Watch};

/// The members of a record that was found without selectors.
const AUTOMATIC: [&str; 5] = ["kind", "type", "group", "row", "data"];

impl Check {
    pub(super) fn watch(&mut self, spec: &TaskSpec) {
        let Some(watch) = &spec.watch else { return };
        if *watch == Watch::default() {
            let cure = "says nothing; name the fields that tell one record from another in key, or say onDrift";
            self.refuse("watch", "{}", cure);
        }
        if watch.key.is_empty() && (!watch.ignore.is_empty() || watch.report.is_some()) {
            let cure = "is needed for ignore and report; name the fields that tell one record from another";
            self.refuse("watch.key", "[]", cure);
        }
        self.names("watch.key", &watch.key, 8, spec);
        self.names("watch.ignore", &watch.ignore, 64, spec);
        for (index, name) in watch.ignore.iter().enumerate() {
            if watch.key.contains(name) {
                self.refuse(
                    format!("watch.ignore[{index}]"),
                    name,
                    "is in key too; take it out of one of them",
                );
            }
        }
    }

    /// Each is the name of a field of a record, once.
    fn names(&mut self, field: &str, names: &[String], most: usize, spec: &TaskSpec) {
        if names.len() > most {
            self.refuse(field, names.len(), format!("at most {most} are allowed"));
        }
        let mut seen = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            let known = if spec.automatic.is_empty() {
                spec.fields.iter().any(|field| field.name == *name)
            } else {
                AUTOMATIC.contains(&name.as_str())
            };
            let place = format!("{field}[{index}]");
            if !known {
                let among = if spec.automatic.is_empty() {
                    "a name in fields".to_owned()
                } else {
                    AUTOMATIC.join(", ")
                };
                self.refuse(place, name, format!("is no field of a record; write {among}"));
            } else if !seen.insert(name) {
                self.refuse(place, name, "is there twice; remove one");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::TaskSpec;

    fn refused(watch: &Value, more: &Value) -> Vec<String> {
        let mut spec = json!({ "url": "https://e.com/", "watch": watch });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        match spec.compile() {
            Ok(_) => Vec::new(),
            Err(violations) => violations.iter().map(|v| v.field.clone()).collect(),
        }
    }

    #[test]
    fn a_key_is_made_of_fields_of_a_record() {
        let fields = json!({ "items": "li", "fields": [{ "name": "id" }, { "name": "price" }] });
        let check = |watch: Value| refused(&watch, &fields);
        assert!(
            check(json!({ "key": ["id"], "ignore": ["price"], "report": "Changes", "onDrift": "Fail" })).is_empty()
        );
        assert!(check(json!({ "onDrift": "Warn" })).is_empty());
        assert_eq!(check(json!({})), ["watch"]);
        assert_eq!(check(json!({ "report": "All" })), ["watch.key"]);
        assert_eq!(
            check(json!({ "key": ["id", "sku", "id"] })),
            ["watch.key[1]", "watch.key[2]"]
        );
        assert_eq!(check(json!({ "key": ["id"], "ignore": ["id"] })), ["watch.ignore[0]"]);
    }

    #[test]
    fn records_without_selectors_have_members_of_their_own() {
        let automatic = json!({ "automatic": ["Tables"] });
        assert!(refused(&json!({ "key": ["group", "row"] }), &automatic).is_empty());
        assert_eq!(refused(&json!({ "key": ["price"] }), &automatic), ["watch.key[0]"]);
    }
}
