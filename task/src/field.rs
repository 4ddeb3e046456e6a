//! One value of a record, as users write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One value of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The key in the record: letters, digits and underscores, not beginning with a digit.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,

    /// What is taken from the selected element.
    #[serde(rename = "type", default)]
    pub kind: FieldType,

    /// A CSS selector, read within the item. Without it the item itself is taken. One that begins with `:scope +` or `:scope ~` leads to the item's following siblings, such as `:scope + dd` from a `dt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub selector: Option<String>,

    /// The attribute to read. Required with type Attribute, refused with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub attribute: Option<String>,

    /// A regular expression (RE2 syntax) that takes a part of the text: the first group that took part in the match, or the whole match when it has no groups. Where it does not match, nothing is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub regex: Option<String>,

    /// Take every match, as a list, instead of the first.
    #[serde(default)]
    pub multiple: bool,

    /// A record without this field is left out and a warning counted; a page on which every record lacks it fails.
    #[serde(default)]
    pub required: bool,

    /// The value when nothing matches; without it the value is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub default: Option<String>,
}

/// What is taken from an element.
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
}
