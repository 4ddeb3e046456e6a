//! The fields of a record, checked and compiled.

use std::collections::HashSet;

use regex::{Regex, RegexBuilder};

use super::Check;
use crate::{Field, FieldType, Locator};

/// The most memory that a compiled regular expression may take, in bytes; it bounds what one character of a page costs.
const MAX_REGEX: usize = 1 << 18;

/// A field of a record with its compiled selector.
#[derive(Clone, Debug)]
pub struct CompiledField {
    /// The key in the record.
    pub name: String,
    /// What is taken.
    pub kind: FieldType,
    /// Where, seen from the item; `None` takes the item itself.
    pub locator: Option<Locator>,
    /// The attribute's name, for [`FieldType::Attribute`].
    pub attribute: Option<String>,
    /// Which part of the text is taken.
    pub regex: Option<Regex>,
    /// Take every match.
    pub multiple: bool,
    /// A record without it is left out.
    pub required: bool,
    /// The value when nothing matches.
    pub default: Option<String>,
}

impl Check {
    pub(super) fn fields(&mut self, fields: &[Field]) -> Vec<CompiledField> {
        if fields.is_empty() || fields.len() > 64 {
            self.refuse("fields", fields.len(), "a task has 1 to 64 fields");
        }
        let mut seen = HashSet::new();
        fields
            .iter()
            .enumerate()
            .map(|(index, field)| {
                if !seen.insert(&field.name) {
                    self.refuse(
                        format!("fields[{index}].name"),
                        &field.name,
                        "stands twice; a record's keys are unique",
                    );
                }
                self.field(&format!("fields[{index}]"), field)
            })
            .collect()
    }

    fn field(&mut self, path: &str, field: &Field) -> CompiledField {
        if !is_key(&field.name) {
            let cure = "must be 1 to 63 letters, digits and underscores, not beginning with a digit";
            self.refuse(format!("{path}.name"), &field.name, cure);
        }
        self.attribute(path, field);
        let locator = field.selector.as_deref();
        CompiledField {
            name: field.name.clone(),
            kind: field.kind,
            locator: locator.and_then(|text| self.locator(format!("{path}.selector"), text)),
            attribute: field.attribute.as_ref().map(|name| name.to_ascii_lowercase()),
            regex: field
                .regex
                .as_deref()
                .and_then(|text| self.regex(&format!("{path}.regex"), text)),
            multiple: field.multiple,
            required: field.required,
            default: field.default.clone(),
        }
    }

    fn attribute(&mut self, path: &str, field: &Field) {
        match (field.kind, &field.attribute) {
            (FieldType::Attribute, None) => {
                let cure = "is required with type Attribute; name the attribute to read";
                self.refuse(format!("{path}.attribute"), "", cure);
            }
            (FieldType::Attribute, Some(_)) | (_, None) => {}
            (_, Some(attribute)) => {
                let cure = "is read only with type Attribute; set that type or remove it";
                self.refuse(format!("{path}.attribute"), attribute, cure);
            }
        }
    }

    fn regex(&mut self, path: &str, text: &str) -> Option<Regex> {
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
    use super::*;
    use crate::TaskSpec;

    fn compile(field: &serde_json::Value) -> Result<CompiledField, String> {
        let spec = serde_json::json!({ "url": "https://example.com/", "fields": [field] });
        let spec: TaskSpec = serde_json::from_value(spec).unwrap();
        match spec.compile() {
            Ok(mut plan) => Ok(plan.fields.remove(0)),
            Err(violations) => Err(violations.to_string()),
        }
    }

    #[test]
    fn a_regex_that_is_none_is_refused_with_what_is_wrong() {
        let error = compile(&serde_json::json!({ "name": "a", "regex": "(x" })).unwrap_err();
        assert_eq!(
            error,
            "fields[0].regex = \"(x\": is not a regular expression: unclosed group"
        );
    }

    #[test]
    fn a_regex_whose_program_is_large_is_refused_with_the_cure() {
        let error = compile(&serde_json::json!({ "name": "a", "regex": "(?:\\w{1,100}){1,100}" })).unwrap_err();
        assert!(error.contains("smaller repetitions"), "{error}");
    }

    #[test]
    fn a_key_is_a_name_in_every_language() {
        assert!(["a", "_", "snake_case", "A1"].into_iter().all(is_key));
        assert!(!["", "1a", "a-b", "ä", &"x".repeat(64)].into_iter().any(is_key));
    }
}
