//! The JSON merge patch (RFC 7396) from one value to another: only what differs, `null` for what has to go. Pure.

use serde_json::{Map, Value};

/// The patch that makes `to` of `from`; `None` when they are the same.
pub fn between(from: &Value, to: &Value) -> Option<Value> {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            let gone = from
                .keys()
                .filter(|key| !to.contains_key(*key))
                .map(|key| (key.clone(), Value::Null));
            let changed = to
                .iter()
                .filter_map(|(key, to)| Some((key.clone(), between(from.get(key).unwrap_or(&Value::Null), to)?)));
            let patch: Map<String, Value> = gone.chain(changed).collect();
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (from, to) => (from != to).then(|| to.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_needs_no_patch() {
        assert_eq!(between(&json!({"a": {"b": [1]}}), &json!({"a": {"b": [1]}})), None);
    }

    #[test]
    fn what_went_is_null_and_what_stayed_is_not_sent() {
        let patch = between(
            &json!({"a": {"x": 1, "y": 2}, "b": 3, "c": [1]}),
            &json!({"a": {"x": 1}, "c": [2], "d": {}}),
        );
        assert_eq!(patch, Some(json!({"a": {"y": null}, "b": null, "c": [2], "d": {}})));
    }
}
