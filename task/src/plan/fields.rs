//! The fields of a record, checked and compiled.

use std::collections::HashSet;

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use url::Url;

use super::{Check, Reads};
use crate::{
    Conversion, DateReader, DecimalSeparator, Field, FieldType, JsonPath, Locator, MAX_LEVELS, Transform, TransformType,
};

/// The most memory that a compiled regular expression may take, in bytes; it bounds what one character of a page costs.
const MAX_REGEX: usize = 1 << 18;

/// A field of a record, ready to be read.
#[derive(Clone, Debug)]
pub struct CompiledField {
    /// The key in the record.
    pub name: String,
    /// Where, seen from the item; `None` takes the item itself.
    pub locator: Option<Locator>,
    /// Which text of an element is taken.
    pub take: Take,
    /// The text is JSON, and this is where in it.
    pub json_path: Option<JsonPath>,
    /// Which part of the text is taken.
    pub regex: Option<Regex>,
    /// What is done to it, in this order.
    pub changes: Vec<Change>,
    /// What it becomes.
    pub shape: Shape,
    /// Take every match.
    pub multiple: bool,
    /// A record without it is left out.
    pub required: bool,
    /// The value when nothing is found.
    pub default: Option<Value>,
}

/// Which text of an element is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// Its folded text.
    Text,
    /// Its inner HTML.
    Html,
    /// The attribute of this name.
    Attribute(String),
}

/// One thing that is done to a text.
#[derive(Clone, Debug)]
pub enum Change {
    /// White space at both ends goes.
    Trim,
    /// Letters become small.
    Lower,
    /// Letters become capital.
    Upper,
    /// Every match becomes this.
    Replace(Regex, String),
    /// A part is taken.
    Part(Regex),
    /// One becomes several.
    Split(String),
}

/// What a field's text becomes.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One value.
    Value(Conversion),
    /// An object of fields, read within what was found.
    Object(Vec<CompiledField>),
}

impl Check {
    /// The fields of a record that is read from this.
    pub(super) fn record(&mut self, fields: &[Field], reads: Reads) -> Vec<CompiledField> {
        self.fields("fields", fields, reads, 1)
    }

    fn fields(&mut self, path: &str, fields: &[Field], reads: Reads, level: usize) -> Vec<CompiledField> {
        if fields.is_empty() || fields.len() > 64 {
            let of = if level == 1 { "a task" } else { "an Object" };
            self.refuse(path, fields.len(), format!("{of} has 1 to 64 fields"));
        }
        if level > MAX_LEVELS {
            self.refuse(
                path,
                fields.len(),
                format!("fields nest at most {MAX_LEVELS} levels deep"),
            );
            return Vec::new();
        }
        let mut seen = HashSet::new();
        let mut compiled = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if !seen.insert(&field.name) {
                let cure = "stands twice; the keys of an object are unique";
                self.refuse(format!("{path}.name"), &field.name, cure);
            }
            compiled.push(self.field(&path, field, reads, level));
        }
        compiled
    }

    fn field(&mut self, path: &str, field: &Field, reads: Reads, level: usize) -> CompiledField {
        if !is_key(&field.name) {
            let cure = "must be 1 to 63 letters, digits and underscores, not beginning with a digit";
            self.refuse(format!("{path}.name"), &field.name, cure);
        }
        self.attribute(path, field);
        self.options(path, field, reads);
        let locator = field.selector.as_deref();
        let locator = locator.and_then(|text| self.locator_in(reads, format!("{path}.selector"), text));
        let json_path = field.json_path.as_deref();
        let json_path = json_path.and_then(|text| self.json_path(&format!("{path}.jsonPath"), text));
        let within = if field.json_path.is_some() { Reads::Json } else { reads };
        let shape = self.shape(path, field, within, level);
        let regex = field.regex.as_deref();
        CompiledField {
            name: field.name.clone(),
            locator,
            take: take(field),
            json_path,
            regex: regex.and_then(|text| self.regex(&format!("{path}.regex"), text)),
            changes: self.changes(path, &field.transforms),
            default: self.default_value(path, field, &shape),
            shape,
            multiple: field.multiple,
            required: field.required,
        }
    }

    fn attribute(&mut self, path: &str, field: &Field) {
        match (field.kind, &field.attribute) {
            (FieldType::Attribute, None) => {
                let cure = "is required with type Attribute; name the attribute to read";
                self.refuse(format!("{path}.attribute"), "", cure);
            }
            (
                FieldType::Text | FieldType::Html | FieldType::Link | FieldType::Image | FieldType::Object,
                Some(attribute),
            ) => {
                let cure =
                    "is read with type Attribute, Url, Number, Boolean, Date and Json; set one of them or remove it";
                self.refuse(format!("{path}.attribute"), attribute, cure);
            }
            _ => {}
        }
    }

    /// Options that do not go with the type or with what is read.
    fn options(&mut self, path: &str, field: &Field, reads: Reads) {
        let of_elements = matches!(field.kind, FieldType::Html | FieldType::Attribute) || field.attribute.is_some();
        if reads == Reads::Json && of_elements {
            let cure = "is of elements, and JSON has none; remove it and take the value by its JSONPath";
            self.refuse(format!("{path}.type"), format!("{:?}", field.kind), cure);
        }
        if field.decimal_separator != DecimalSeparator::Point && field.kind != FieldType::Number {
            let cure = "is read with type Number only; remove it";
            self.refuse(format!("{path}.decimalSeparator"), "Comma", cure);
        }
        let of_dates = [
            ("dateFormats", !field.date_formats.is_empty()),
            ("timeZone", field.time_zone.is_some()),
        ];
        for (option, _) in of_dates
            .iter()
            .filter(|(_, given)| *given && field.kind != FieldType::Date)
        {
            self.refuse(format!("{path}.{option}"), "", "is read with type Date only; remove it");
        }
        if field.kind != FieldType::Object && !field.fields.is_empty() {
            let cure = "are read with type Object only; set it or remove them";
            self.refuse(format!("{path}.fields"), field.fields.len(), cure);
        }
        let of_text = field.regex.is_some() || !field.transforms.is_empty() || field.default.is_some();
        if field.kind == FieldType::Object && of_text {
            let cure = "has no regex, transforms or default; give them to its fields";
            self.refuse(format!("{path}.type"), "Object", cure);
        }
        if field.date_formats.len() > 8 || field.date_formats.iter().any(|format| format.len() > 64) {
            let cure = "are at most 8 of at most 64 characters";
            self.refuse(format!("{path}.dateFormats"), field.date_formats.len(), cure);
        }
    }

    fn shape(&mut self, path: &str, field: &Field, reads: Reads, level: usize) -> Shape {
        Shape::Value(match field.kind {
            FieldType::Object => {
                return Shape::Object(self.fields(&format!("{path}.fields"), &field.fields, reads, level + 1));
            }
            FieldType::Text | FieldType::Html | FieldType::Attribute => Conversion::Text,
            FieldType::Link | FieldType::Image | FieldType::Url => Conversion::Url,
            FieldType::Number => Conversion::Number(field.decimal_separator),
            FieldType::Boolean => Conversion::Boolean,
            FieldType::Json => Conversion::Json,
            FieldType::Date => match DateReader::new(field.date_formats.clone(), field.time_zone.as_deref()) {
                Ok(reader) => Conversion::Date(reader),
                Err(cure) => {
                    self.refuse(
                        format!("{path}.timeZone"),
                        field.time_zone.as_deref().unwrap_or_default(),
                        cure,
                    );
                    Conversion::Text
                }
            },
        })
    }

    /// URLs stay as they are written: a default is the user's own.
    fn default_value(&mut self, path: &str, field: &Field, shape: &Shape) -> Option<Value> {
        let text = field.default.as_deref()?;
        let conversion = match shape {
            Shape::Object(_) | Shape::Value(Conversion::Text | Conversion::Url) => return Some(text.into()),
            Shape::Value(conversion) => conversion,
        };
        let value = nowhere().and_then(|base| conversion.read(text, &base));
        if value.is_none() {
            let cure = format!("is no value of type {:?}", field.kind);
            self.refuse(format!("{path}.default"), text, cure);
        }
        value
    }

    fn changes(&mut self, path: &str, transforms: &[Transform]) -> Vec<Change> {
        if transforms.len() > 8 {
            self.refuse(format!("{path}.transforms"), transforms.len(), "are at most 8");
        }
        let mut changes = Vec::with_capacity(transforms.len());
        for (index, transform) in transforms.iter().enumerate() {
            changes.extend(self.change(&format!("{path}.transforms[{index}]"), transform));
        }
        changes
    }

    fn change(&mut self, path: &str, transform: &Transform) -> Option<Change> {
        let options = [
            (
                "pattern",
                transform.pattern.is_some(),
                &[TransformType::Replace, TransformType::Regex][..],
            ),
            ("with", transform.with.is_some(), &[TransformType::Replace]),
            ("separator", transform.separator.is_some(), &[TransformType::Split]),
        ];
        for (option, given, of) in options {
            if given && !of.contains(&transform.kind) {
                let cure = format!("is not read with type {:?}; remove it", transform.kind);
                self.refuse(format!("{path}.{option}"), "", cure);
            } else if !given && option != "with" && of.contains(&transform.kind) {
                let cure = format!("is required with type {:?}", transform.kind);
                self.refuse(format!("{path}.{option}"), "", cure);
            }
        }
        let pattern = transform.pattern.as_deref();
        let pattern = pattern.and_then(|text| self.regex(&format!("{path}.pattern"), text));
        match transform.kind {
            TransformType::Trim => Some(Change::Trim),
            TransformType::Lower => Some(Change::Lower),
            TransformType::Upper => Some(Change::Upper),
            TransformType::Replace => {
                pattern.map(|regex| Change::Replace(regex, transform.with.clone().unwrap_or_default()))
            }
            TransformType::Regex => pattern.map(Change::Part),
            TransformType::Split => transform.separator.clone().filter(|s| !s.is_empty()).map(Change::Split),
        }
    }

    pub(super) fn regex(&mut self, path: &str, text: &str) -> Option<Regex> {
        if text.len() > 2048 {
            self.refuse(path, text, "has more than 2048 characters");
            return None;
        }
        let compiled = RegexBuilder::new(text)
            .size_limit(MAX_REGEX)
            .dfa_size_limit(MAX_REGEX)
            .build();
        compiled
            .map_err(|error| {
                let cure = match error {
                    regex::Error::CompiledTooBig(_) => {
                        "is too large; use smaller repetitions, or (?-u) with \\w, \\d and \\s".to_owned()
                    }
                    error => format!("is not a regular expression: {}", last_line(&error.to_string())),
                };
                self.refuse(path, text, cure);
            })
            .ok()
    }
}

fn take(field: &Field) -> Take {
    match (field.kind, &field.attribute) {
        (FieldType::Html, _) => Take::Html,
        (FieldType::Link, _) => Take::Attribute("href".to_owned()),
        (FieldType::Image, _) => Take::Attribute("src".to_owned()),
        (_, Some(attribute)) => Take::Attribute(attribute.clone()),
        (_, None) => Take::Text,
    }
}

/// A base for values that are no URLs.
fn nowhere() -> Option<Url> {
    Url::parse("http://localhost/").ok()
}

/// What is wrong, without the picture of where.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

fn is_key(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= 63 && name.starts_with(|c: char| letters(c) && !c.is_ascii_digit()) && name.chars().all(letters)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::TaskSpec;

    fn compile(field: &Value) -> Result<CompiledField, String> {
        let spec = json!({ "url": "https://example.com/", "items": "li", "fields": [field] });
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        match spec.compile() {
            Ok(mut plan) => Ok(plan.fields.remove(0)),
            Err(violations) => Err(violations.to_string()),
        }
    }

    #[test]
    fn a_regex_that_is_none_is_refused_with_what_is_wrong() {
        let error = compile(&json!({ "name": "a", "regex": "(x" })).unwrap_err();
        assert_eq!(
            error,
            "fields[0].regex = \"(x\": is not a regular expression: unclosed group"
        );
    }

    #[test]
    fn a_regex_whose_program_is_large_is_refused_with_the_cure() {
        let error = compile(&json!({ "name": "a", "regex": "(?:\\w{1,100}){1,100}" })).unwrap_err();
        assert!(error.contains("smaller repetitions"), "{error}");
    }

    #[test]
    fn a_key_is_a_name_in_every_language() {
        assert!(["a", "_", "snake_case", "A1"].into_iter().all(is_key));
        assert!(!["", "1a", "a-b", "ä", &"x".repeat(64)].into_iter().any(is_key));
    }

    #[test]
    fn what_does_not_go_with_a_type_is_refused_by_its_name() {
        for (field, refused) in [
            (json!({ "name": "a", "type": "Object" }), "fields[0].fields = \"0\""),
            (
                json!({ "name": "a", "fields": [{ "name": "b" }] }),
                "fields[0].fields = \"1\"",
            ),
            (
                json!({ "name": "a", "decimalSeparator": "Comma" }),
                "fields[0].decimalSeparator",
            ),
            (
                json!({ "name": "a", "timeZone": "Europe/Berlin" }),
                "fields[0].timeZone",
            ),
            (
                json!({ "name": "a", "type": "Date", "timeZone": "Moon/Base" }),
                "fields[0].timeZone",
            ),
            (
                json!({ "name": "a", "type": "Number", "default": "none" }),
                "fields[0].default",
            ),
            (json!({ "name": "a", "selector": "$.b" }), "fields[0].selector"),
            (json!({ "name": "a", "jsonPath": "b" }), "fields[0].jsonPath"),
            (
                json!({ "name": "a", "transforms": [{ "type": "Split" }] }),
                "fields[0].transforms[0].separator",
            ),
            (
                json!({ "name": "a", "transforms": [{ "type": "Trim", "with": "x" }] }),
                "fields[0].transforms[0].with",
            ),
        ] {
            let error = compile(&field).unwrap_err();
            assert!(
                error.starts_with(refused) && !error.contains("; fields"),
                "{field}: {error}"
            );
        }
    }

    #[test]
    fn fields_nest_three_levels_and_are_told_by_their_path() {
        let object = |inner: Value| json!({ "name": "o", "type": "Object", "fields": [inner] });
        assert!(compile(&object(object(json!({ "name": "leaf" })))).is_ok());
        let error = compile(&object(object(object(json!({ "name": "leaf" }))))).unwrap_err();
        assert!(error.starts_with("fields[0].fields[0].fields[0].fields = "), "{error}");
        let error = compile(&object(json!({ "name": "1" }))).unwrap_err();
        assert!(error.starts_with("fields[0].fields[0].name = "), "{error}");
    }

    #[test]
    fn the_fields_of_embedded_json_are_json_paths() {
        let object = |selector: &str| {
            json!({ "name": "o", "type": "Object", "selector": "script", "jsonPath": "$", "fields": [
                { "name": "a", "selector": selector },
            ]})
        };
        assert!(compile(&object("$.a")).is_ok());
        assert!(compile(&object("a")).unwrap_err().contains("write a JSONPath"));
    }

    #[test]
    fn a_typed_default_is_of_its_type() {
        let default = |field: Value| compile(&field).unwrap().default;
        assert_eq!(
            default(json!({ "name": "a", "type": "Number", "default": "0" })),
            Some(json!(0))
        );
        assert_eq!(
            default(json!({ "name": "a", "type": "Boolean", "default": "no" })),
            Some(json!(false))
        );
        assert_eq!(
            default(json!({ "name": "a", "type": "Link", "default": "none" })),
            Some(json!("none"))
        );
    }
}
