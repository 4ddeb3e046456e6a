//! The two `CustomResourceDefinition`s, finished with what the derives cannot say. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::{ScrapeTask, SelextractCluster, schema::rule};

/// The definition of `SelextractCluster`.
pub fn cluster_definition() -> CustomResourceDefinition {
    let name = rule(
        "self.metadata.name.size() <= 30 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be a DNS label of at most 30 characters that begins with a letter, because the names of its objects are made from it; choose a shorter name",
    );
    finish(SelextractCluster::crd(), &name)
}

/// The definition of `ScrapeTask`.
pub fn scrape_task_definition() -> CustomResourceDefinition {
    let name = rule(
        "self.metadata.name.size() <= 200",
        "metadata.name must have at most 200 characters; choose a shorter name and give the long one in spec.task.name",
    );
    finish(ScrapeTask::crd(), &name)
}

fn finish(mut definition: CustomResourceDefinition, name_rule: &Value) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let Some(props) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        let mut schema = json!(props);
        walk(&mut schema);
        schema["x-kubernetes-validations"] = json!([name_rule]);
        schema["properties"]["spec"]["description"] = json!("What is wanted.");
        let status = &mut schema["properties"]["status"];
        status["description"] = json!("What the operator last saw; written by the operator alone.");
        status["default"] = pending();
        if let Ok(finished) = serde_json::from_value::<JSONSchemaProps>(schema) {
            *props = finished;
        }
    }
    definition
}

/// Stored when an object is created, so that nobody sees it as ready before the operator has looked at it.
fn pending() -> Value {
    json!({
        "observedGeneration": -1,
        "conditions": [{
            "type": "Ready",
            "status": "Unknown",
            "reason": "Pending",
            "message": "The operator has not looked at it yet; without change for a minute, look whether the operator runs.",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }],
    })
}

fn walk(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            tidy(object);
            object
                .iter_mut()
                .filter(|(key, _)| *key != "default")
                .for_each(|(_, value)| walk(value));
        }
        Value::Array(values) => values.iter_mut().for_each(walk),
        _ => {}
    }
}

fn tidy(object: &mut Map<String, Value>) {
    // A section that is left out is not stored: its defaults sit on the leaves and follow a later operator.
    if object.get("type").is_some_and(|t| t == "object") {
        object.remove("default");
    }
    // The API server knows the signed formats only.
    let format = match object.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16") => Some("int32"),
        Some("uint32" | "uint64" | "uint") => Some("int64"),
        _ => None,
    };
    if let Some(format) = format {
        object.insert("format".into(), json!(format));
    }
    // What is left out is left out: null would be stored.
    if object.get("nullable").is_some_and(|n| n == true) {
        object.remove("nullable");
    }
    bound_map(object);
}

/// Values of free maps are bounded, so that the cost of every rule is.
fn bound_map(object: &mut Map<String, Value>) {
    if let Some(values) = object.get_mut("additionalProperties").and_then(Value::as_object_mut)
        && values.get("type").is_some_and(|t| t == "string")
    {
        values.entry("maxLength").or_insert(json!(4096));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemas() -> [(&'static str, Value); 2] {
        [
            ("selextractclusters", cluster_definition()),
            ("scrapetasks", scrape_task_definition()),
        ]
        .map(|(name, crd)| {
            (
                name,
                json!(
                    crd.spec.versions[0]
                        .schema
                        .as_ref()
                        .unwrap()
                        .open_api_v3_schema
                        .as_ref()
                        .unwrap()
                ),
            )
        })
    }

    /// Calls `check` with the path and the schema of every property, item and map value below this one.
    fn each(path: &str, schema: &Value, check: &mut dyn FnMut(&str, &Value)) {
        check(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            each(&format!("{path}.{name}"), property, check);
        }
        for (suffix, key) in [("[]", "items"), ("{}", "additionalProperties")] {
            if schema[key].is_object() {
                each(&format!("{path}{suffix}"), &schema[key], check);
            }
        }
    }

    fn offenders(offends: impl Fn(&str, &Value) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        for (name, schema) in schemas() {
            each(name, &schema, &mut |path, schema| {
                let by_kubernetes = [".apiVersion", ".kind", ".metadata"].map(|p| format!("{name}{p}"));
                if !by_kubernetes.iter().any(|p| p == path) && offends(path, schema) {
                    found.push(path.to_owned());
                }
            });
        }
        found
    }

    #[test]
    fn every_field_has_a_description() {
        let undocumented = offenders(|path, schema| {
            !path.ends_with("[]") && !path.ends_with("{}") && schema["description"].as_str().is_none_or(str::is_empty)
        });
        assert_eq!(undocumented, [""; 0]);
    }

    #[test]
    fn every_string_list_and_map_has_a_bound() {
        let unbounded = offenders(|_, schema| match schema["type"].as_str() {
            Some("string") => schema["maxLength"].is_null() && schema["enum"].is_null(),
            Some("array") => schema["maxItems"].is_null(),
            Some("object") => schema["additionalProperties"].is_object() && schema["maxProperties"].is_null(),
            _ => false,
        });
        assert_eq!(unbounded, [""; 0]);
    }

    #[test]
    fn the_schemas_are_structural() {
        for (name, schema) in schemas() {
            let text = schema.to_string();
            for word in [
                "$ref",
                "oneOf",
                "anyOf",
                "allOf",
                "int-or-string",
                "uint",
                "preserve-unknown",
            ] {
                assert!(!text.contains(word), "{name} contains {word}");
            }
        }
        assert_eq!(offenders(|_, schema| schema["type"].is_null()), [""; 0]);
    }

    #[test]
    fn a_section_that_is_left_out_is_not_stored() {
        let stored = offenders(|path, schema| !path.ends_with(".status") && schema["default"].is_object());
        assert_eq!(stored, [""; 0]);
    }

    #[test]
    fn a_new_object_is_not_ready_before_the_operator_has_looked() {
        for (_, schema) in schemas() {
            let default = &schema["properties"]["status"]["default"];
            assert_eq!(default["observedGeneration"], -1);
            assert_eq!(default["conditions"][0]["status"], "Unknown");
        }
    }

    #[test]
    fn an_empty_spec_reads_as_the_defaults_of_the_schema() {
        let (_, schema) = &schemas()[0];
        let read: crate::SelextractClusterSpec = serde_json::from_value(json!({})).unwrap();
        let read = json!(read);
        each("", &schema["properties"]["spec"], &mut |path, leaf| {
            if !leaf["default"].is_null() && !path.contains('[') {
                let value = path.split('.').skip(1).fold(&read, |value, key| &value[key]);
                // Sections that an empty spec does not have.
                if ![
                    ".external.",
                    ".artifacts.s3.",
                    ".alerts.routing.",
                    ".scaling.api.",
                    ".scaling.worker.",
                ]
                .iter()
                .any(|section| path.contains(section))
                {
                    assert_eq!(value, &leaf["default"], "{path}");
                }
            }
        });
    }

    #[test]
    fn every_rule_has_a_message_that_fits() {
        let _ = offenders(|path, schema| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let message = rule["message"].as_str().unwrap_or_default();
                assert!((20..=400).contains(&message.len()), "{path}: {message}");
            }
            false
        });
    }
}
