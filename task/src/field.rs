//! One value of a record, as users write it.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Levels of fields in each other: those of the record and two below.
pub const MAX_LEVELS: usize = 3;

/// One value of a record.
///
/// It is read in this order: `selector`, then `attribute`, `jsonPath`, `regex`, `transforms`, and at last `type`. What cannot be read as its
/// type counts as not found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = levels)]
pub struct Field {
    /// The key in the record: letters, digits and underscores, not beginning with a digit.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,

    /// What is taken from what was selected.
    #[serde(rename = "type", default)]
    pub kind: FieldType,

    /// Where it is, seen from the item; without it the item itself is taken. CSS; or XPath 1.0, beginning with `/`, `./`, `../` or `(`; or JSONPath (RFC 9535), beginning with `$`, which is the item, where items are JSON. A CSS selector that begins with `:scope +` or `:scope ~` leads to the item's following siblings, such as `:scope + dd` from a `dt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub selector: Option<String>,

    /// The attribute to read instead of the text. Required with type Attribute, and read with Url, Number, Boolean, Date and Json too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub attribute: Option<String>,

    /// The text is JSON (such as a script's of type `application/ld+json`): a JSONPath of what is taken from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub json_path: Option<String>,

    /// A regular expression (RE2 syntax) that takes a part of the text: the first group that took part in the match, or the whole match when it has no groups. Where it does not match, nothing is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub regex: Option<String>,

    /// What is done to the text, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub transforms: Vec<Transform>,

    /// With type Number: what stands before the fraction. Groups of three digits may stand apart by a space, an apostrophe, or the other of point and comma.
    #[serde(default, skip_serializing_if = "DecimalSeparator::is_point")]
    pub decimal_separator: DecimalSeparator,

    /// With type Date: how dates are written, in strptime's notation such as `%d.%m.%Y`; the first that fits is taken. Without them ISO 8601, RFC 2822 and English dates with the month's name are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub date_formats: Vec<String>,

    /// With type Date: the IANA time zone of times that name none, such as Europe/Berlin. Without it, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// Take every match, as a list, instead of the first.
    #[serde(default)]
    pub multiple: bool,

    /// A record without this field is left out and a warning counted; a page on which every record lacks it fails. Within an Object it is the object that is left out.
    #[serde(default)]
    pub required: bool,

    /// The value when nothing is found; without it the value is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub default: Option<String>,

    /// With type Object: its fields, read within what was selected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(skip)]
    pub fields: Vec<Field>,
}

/// What is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FieldType {
    /// The text, with white space folded and trimmed.
    #[default]
    Text,
    /// The inner HTML.
    Html,
    /// The named attribute, as it is written.
    Attribute,
    /// The `href`, as an absolute URL.
    Link,
    /// The `src` of an image, as an absolute URL.
    Image,
    /// The text as an absolute URL.
    Url,
    /// The first number in the text.
    Number,
    /// true, yes, on, 1 and ✓, or false, no, off, 0 and ✗.
    Boolean,
    /// A date, or a date and time, as RFC 3339 writes it.
    Date,
    /// JSON as it is.
    Json,
    /// An object of the given fields.
    Object,
}

/// What stands before the fraction of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DecimalSeparator {
    /// As in 1,234.56.
    #[default]
    Point,
    /// As in 1.234,56.
    Comma,
}

impl DecimalSeparator {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
    fn is_point(&self) -> bool {
        *self == Self::Point
    }
}

/// One thing that is done to a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transform {
    /// What is done.
    #[serde(rename = "type")]
    pub kind: TransformType,

    /// With Replace and Regex: a regular expression (RE2 syntax).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: Option<String>,

    /// With Replace: what every match becomes; `$1` is the first group, `$$` a dollar sign. Without it matches are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub with: Option<String>,

    /// With Split: what stands between the parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub separator: Option<String>,
}

/// What a transform does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransformType {
    /// Removes white space at both ends.
    Trim,
    /// Makes letters small.
    Lower,
    /// Makes letters capital.
    Upper,
    /// Replaces every match of the pattern.
    Replace,
    /// Takes what the pattern matches, as the field's regex does.
    Regex,
    /// Makes several of one; with `multiple` they are all taken, else the first. Empty parts are left out.
    Split,
}

/// Writes the fields of objects into the schema, level by level: a CRD refuses a schema that refers to itself.
fn levels(schema: &mut Schema) {
    let innermost = schema.clone();
    let mut below = innermost.clone();
    for _ in 2..MAX_LEVELS {
        below = with_fields(innermost.clone(), &below);
    }
    *schema = with_fields(innermost, &below);
}

fn with_fields(mut schema: Schema, inner: &Schema) -> Schema {
    let fields = json!({
        "description": "With type Object: its fields, read within what was selected.",
        "type": "array",
        "maxItems": 64,
        "items": inner,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    });
    let properties = schema
        .ensure_object()
        .entry("properties")
        .or_insert(Value::Object(Map::new()));
    properties["fields"] = fields;
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_three_levels_and_no_more() {
        let schema = serde_json::to_value(schemars::schema_for!(Field)).unwrap();
        let below = |schema: &Value| schema["properties"]["fields"]["items"].clone();
        let second = below(&schema);
        let third = below(&second);
        assert!(
            third["properties"]["name"].is_object() && third["properties"]["fields"].is_null(),
            "{third}"
        );
    }

    #[test]
    fn a_field_of_an_earlier_version_is_written_as_it_was() {
        let earlier = json!({ "name": "a", "type": "Text", "selector": "b", "multiple": false, "required": false });
        let field: Field = serde_json::from_value(earlier.clone()).unwrap();
        assert_eq!(serde_json::to_value(field).unwrap(), earlier);
    }
}
