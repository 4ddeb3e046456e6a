//! The fields of one item.

use std::borrow::Cow;

use html5ever::ns;
use regex::{Captures, Regex};
use selextract_task::{Change, CompiledField, Conversion, Shape, Take};
use serde_json::Value;

use super::{
    ExtractError, Reading, Record,
    budget::{MAX_NODES, check_set, check_text},
    json, json_path,
    select::{self, Found, Scope},
    text,
};
use crate::content::Content;

/// One item's record, or the first required field that it lacks. Counts which fields were found.
pub(super) fn record<'p>(
    fields: &'p [CompiledField],
    item: Scope<'_>,
    reading: &Reading,
    found: &mut [u32],
) -> Result<Result<Record, &'p CompiledField>, ExtractError> {
    record_of(fields, found, |_, field| read(field, item, reading))
}

/// The same, of values that are read in another way.
pub(super) fn record_of<'p>(
    fields: &'p [CompiledField],
    found: &mut [u32],
    mut read: impl FnMut(usize, &'p CompiledField) -> Result<Option<Value>, ExtractError>,
) -> Result<Result<Record, &'p CompiledField>, ExtractError> {
    let mut record = Record::with_capacity(fields.len());
    let mut lacking = None;
    for (index, field) in fields.iter().enumerate() {
        let value = read(index, field)?;
        if value.is_some()
            && let Some(count) = found.get_mut(index)
        {
            *count += 1;
        }
        let value = value.or_else(|| field.default.clone());
        if value.is_none() && field.required {
            lacking.get_or_insert(field);
        }
        record.insert(field.name.clone(), value.unwrap_or_default());
    }
    Ok(lacking.map_or(Ok(record), Err))
}

/// What the field's selector finds in an item.
fn read(field: &CompiledField, item: Scope<'_>, reading: &Reading) -> Result<Option<Value>, ExtractError> {
    reading.budget.work(1)?;
    let mut values = Values {
        field,
        reading,
        taken: Taken::default(),
    };
    match &field.locator {
        None => values.add(&item.into())?,
        Some(locator) => select::each(locator, item, reading, &mut |found| {
            values.add(&found)?;
            Ok(!values.is_complete())
        })?,
    }
    Ok(values.taken.into_value())
}

/// What a field makes of the texts of the places that its selector leads to.
pub(super) fn of_texts(
    field: &CompiledField,
    texts: &mut dyn Iterator<Item = String>,
    reading: &Reading,
) -> Result<Option<Value>, ExtractError> {
    reading.budget.work(1)?;
    let mut values = Values {
        field,
        reading,
        taken: Taken::default(),
    };
    let as_it_is = field.json_path.is_none() && field.regex.is_none() && field.changes.is_empty();
    for text in texts {
        match &field.shape {
            Shape::Value(conversion) if as_it_is => values.convert(text, conversion)?,
            _ => values.add(&Found::Text(text))?,
        }
        if values.is_complete() {
            break;
        }
    }
    Ok(values.taken.into_value())
}

/// The text of what was found: of an element as a reader sees it, of JSON what stands in it.
pub(super) fn plain<'f>(found: &'f Found<'_>) -> Cow<'f, str> {
    match found {
        Found::Element(element) => Cow::Owned(text::folded(*element)),
        Found::Text(text) | Found::Json(Value::String(text)) => Cow::Borrowed(text),
        Found::Json(value) => Cow::Owned(value.to_string()),
    }
}

/// The values of one field as they come.
struct Values<'r> {
    field: &'r CompiledField,
    reading: &'r Reading,
    taken: Taken,
}

/// The one value, or with `multiple` all of them.
#[derive(Default)]
enum Taken {
    #[default]
    None,
    One(Value),
    Many(Vec<Value>),
}

impl Values<'_> {
    /// Adds what one place gives; nothing where it lacks it (an attribute, a URL that leads nowhere, a number).
    fn add(&mut self, found: &Found<'_>) -> Result<(), ExtractError> {
        let Some(path) = &self.field.json_path else {
            return self.add_value(found);
        };
        let Some(text) = self.text(found) else {
            return Ok(());
        };
        self.reading.budget.read(text.len())?;
        if let Ok(value) = json::parse(&text, Content::Json) {
            for value in json_path::find(path, &value, &self.reading.budget)? {
                self.add_value(&Found::Json(value))?;
                if self.is_complete() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        !self.field.multiple && !matches!(self.taken, Taken::None)
    }

    fn add_value(&mut self, found: &Found<'_>) -> Result<(), ExtractError> {
        let conversion = match &self.field.shape {
            Shape::Object(fields) => {
                if let Some(scope) = found.scope()
                    && let Ok(object) = record(fields, scope, self.reading, &mut [])?
                {
                    self.push(Value::Object(object))?;
                }
                return Ok(());
            }
            Shape::Value(conversion) => conversion,
        };
        let as_it_is = self.field.regex.is_none() && self.field.changes.is_empty();
        match (found, conversion) {
            (Found::Json(Value::Null), _) => return Ok(()),
            (Found::Json(value), Conversion::Json) if as_it_is => {
                self.reading.budget.spend(json::weight(value))?;
                return self.push((*value).clone());
            }
            (Found::Json(Value::Number(number)), Conversion::Number(_)) if as_it_is => {
                return self.push(number.clone().into());
            }
            _ => {}
        }
        let Some(text) = self.text(found) else {
            return Ok(());
        };
        if as_it_is {
            return self.convert(text, conversion);
        }
        for text in self.parts(text)? {
            self.convert(text, conversion)?;
            if self.is_complete() {
                break;
            }
        }
        Ok(())
    }

    /// What is behind the first value counts only with `multiple`.
    fn push(&mut self, value: Value) -> Result<(), ExtractError> {
        let taken = std::mem::take(&mut self.taken);
        self.taken = match (taken, self.field.multiple) {
            (Taken::None, false) => Taken::One(value),
            (Taken::None, true) => Taken::Many(vec![value]),
            (Taken::Many(mut values), _) => {
                values.push(value);
                check_set(values.len())?;
                Taken::Many(values)
            }
            (one @ Taken::One(_), _) => one,
        };
        Ok(())
    }

    fn convert(&mut self, text: String, conversion: &Conversion) -> Result<(), ExtractError> {
        self.reading.budget.spend(text.len())?;
        let value = match conversion {
            Conversion::Text => Some(Value::String(text)),
            Conversion::Json => json::parse(&text, Content::Json).ok(),
            conversion => conversion.read(&text, &self.reading.base),
        };
        value.map_or(Ok(()), |value| self.push(value))
    }

    fn text(&self, found: &Found<'_>) -> Option<String> {
        match (found, &self.field.take) {
            (Found::Element(element), Take::Html) => Some(element.inner_html()),
            // HTML's names are in small letters, whatever the page and the user wrote; XML's are as they are written.
            (Found::Element(element), Take::Attribute(name)) => {
                let is_html = element.value().name.ns == ns!(html);
                let is_it = |found: &str| found == name || (is_html && found.eq_ignore_ascii_case(name));
                let mut attributes = element.value().attrs();
                attributes
                    .find(|(name, _)| is_it(name))
                    .map(|(_, value)| value.to_owned())
            }
            _ => Some(plain(found).into_owned()),
        }
    }

    /// What the regular expression takes of a text and the transforms make of it.
    fn parts(&self, text: String) -> Result<Vec<String>, ExtractError> {
        let mut parts = match &self.field.regex {
            Some(regex) => self.matches(regex, &text)?,
            None => vec![text],
        };
        for change in &self.field.changes {
            let mut changed = Vec::with_capacity(parts.len());
            for part in parts {
                self.change(change, &part, &mut changed)?;
            }
            check_set(changed.len())?;
            parts = changed;
        }
        Ok(parts)
    }

    fn change(&self, change: &Change, text: &str, changed: &mut Vec<String>) -> Result<(), ExtractError> {
        self.reading.budget.read(text.len())?;
        match change {
            Change::Trim => changed.push(text.trim().to_owned()),
            Change::Lower => changed.push(text.to_lowercase()),
            Change::Upper => changed.push(text.to_uppercase()),
            Change::Part(regex) => changed.extend(self.matches(regex, text)?),
            Change::Split(separator) => {
                let parts = text.split(separator.as_str()).filter(|part| !part.trim().is_empty());
                changed.extend(parts.take(MAX_NODES + 1).map(str::to_owned));
                check_set(changed.len())?;
            }
            Change::Replace(regex, with) => changed.push(self.replaced(regex, with, text)?),
        }
        Ok(())
    }

    fn matches(&self, regex: &Regex, text: &str) -> Result<Vec<String>, ExtractError> {
        self.check_searchable(text)?;
        let mut parts = Vec::new();
        for found in regex.captures_iter(text) {
            self.reading.budget.work(1)?;
            parts.extend(part(&found).map(str::to_owned));
            check_set(parts.len())?;
            if !self.field.multiple && !parts.is_empty() {
                break;
            }
        }
        Ok(parts)
    }

    fn replaced(&self, regex: &Regex, with: &str, text: &str) -> Result<String, ExtractError> {
        self.check_searchable(text)?;
        let mut replaced = String::with_capacity(text.len());
        let mut rest = 0;
        for found in regex.captures_iter(text) {
            self.reading.budget.work(1)?;
            let whole = found.get_match();
            replaced.push_str(&text[rest..whole.start()]);
            found.expand(with, &mut replaced);
            check_text(replaced.len())?;
            rest = whole.end();
        }
        replaced.push_str(&text[rest..]);
        Ok(replaced)
    }

    /// A search cannot be interrupted, so what it is made in is bounded.
    fn check_searchable(&self, text: &str) -> Result<(), ExtractError> {
        if text.len() > MAX_SEARCHED {
            return Err(ExtractError::TooLongToSearch {
                field: self.field.name.clone(),
                limit: MAX_SEARCHED,
            });
        }
        self.reading.budget.check_time()
    }
}

impl Taken {
    fn into_value(self) -> Option<Value> {
        match self {
            Self::None => None,
            Self::One(value) => Some(value),
            Self::Many(values) => Some(Value::Array(values)),
        }
    }
}

/// The longest text that a regular expression searches, in bytes. The largest program that is allowed takes seconds for it at the worst.
const MAX_SEARCHED: usize = 4 << 20;

/// The first group that took part, or all of it when there are no groups.
fn part<'t>(found: &Captures<'t>) -> Option<&'t str> {
    if found.len() == 1 {
        return found.get(0).map(|whole| whole.as_str());
    }
    found.iter().skip(1).flatten().next().map(|group| group.as_str())
}
