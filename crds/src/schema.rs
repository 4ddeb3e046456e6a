//! Pieces of schema that the derives cannot say. Pure.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A CEL rule with the message that names the way out.
pub fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// The rule for a volume's size.
pub fn may_only_grow(field: &str) -> Value {
    let message = format!("{field} may only grow; a smaller volume needs a second SelextractCluster and moved data");
    rule("quantity(self).compareTo(quantity(oldSelf)) >= 0", &message)
}

/// Conditions as a list map by type, with bounds.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the state, with a reason and a message.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "The aspect, in CamelCase.",
                    "type": "string", "maxLength": 316,
                },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string", "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "The generation of the spec that the condition speaks of.",
                    "type": "integer", "format": "int64", "minimum": -1,
                },
                "lastTransitionTime": {
                    "description": "When the status changed last.",
                    "type": "string", "format": "date-time", "maxLength": 64,
                },
                "reason": {
                    "description": "Why, as one CamelCase word.",
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "description": "Why, for people.",
                    "type": "string", "maxLength": 32768,
                },
            },
        },
    })
}
