//! One text for one meaning: JSON with sorted keys, and its SHA-256. Pure.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The SHA-256 of the canonical JSON of a value, in hex. `null` members count as absent.
///
/// # Errors
/// When the value is not JSON (a map with keys that are no strings).
pub fn hash(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(hash_json(&serde_json::to_value(value)?))
}

/// As [`hash`], of what is JSON already.
pub fn hash_json(value: &Value) -> String {
    hash_text(&sorted(value).to_string())
}

/// The SHA-256 of a text, in hex.
pub fn hash_text(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// The same value with sorted keys and without `null` members, at every depth.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().filter(|name| !members[*name].is_null()).collect();
            names.sort_unstable();
            Value::Object(
                names
                    .into_iter()
                    .map(|name| (name.clone(), sorted(&members[name])))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_keys_and_absent_members_do_not_matter() {
        let one = json!({"b": [{"y": 1, "x": null}], "a": 2});
        let other = json!({"a": 2, "b": [{"y": 1}]});
        assert_eq!(hash_json(&one), hash_json(&other));
        assert_eq!(sorted(&one).to_string(), r#"{"a":2,"b":[{"y":1}]}"#);
    }

    #[test]
    fn the_order_of_items_matters() {
        assert_ne!(hash_json(&json!([1, 2])), hash_json(&json!([2, 1])));
    }

    #[test]
    fn the_hash_is_sha256_in_hex() {
        assert_eq!(
            hash_text(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
