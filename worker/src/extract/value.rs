//! One field of one item.

use regex::Captures;
use scraper::ElementRef;
use selextract_task::{CompiledField, FieldType};
use serde_json::Value;
use url::Url;

use super::{ExtractError, budget::Budget, select, text};

/// The field's value: what the selector finds, else the default; `None` when there is neither.
pub(super) fn read(
    field: &CompiledField,
    item: ElementRef<'_>,
    base: &Url,
    budget: &mut Budget,
) -> Result<Option<Value>, ExtractError> {
    budget.check_time()?;
    let mut values = Vec::new();
    let itself = field.locator.is_none().then_some(item);
    let matches = field.locator.iter().flat_map(|locator| select::all(locator, item));
    for element in itself.into_iter().chain(matches) {
        let Some(text) = take(field, element, base) else {
            continue;
        };
        for text in parts(field, text) {
            budget.spend(text.len())?;
            values.push(Value::String(text));
        }
        if !field.multiple && !values.is_empty() {
            break;
        }
    }
    Ok(match values.len() {
        0 => field.default.clone().map(Value::String),
        _ if field.multiple => Some(Value::Array(values)),
        _ => values.pop(),
    })
}

/// What the field's regular expression takes of a text: one part, or with `multiple` every one.
fn parts(field: &CompiledField, text: String) -> Vec<String> {
    let Some(regex) = &field.regex else {
        return vec![text];
    };
    let most = if field.multiple { usize::MAX } else { 1 };
    let part = |found: Captures<'_>| {
        let group = found.iter().skip(1).flatten().next();
        let part = group.or_else(|| (found.len() == 1).then(|| found.get(0)).flatten());
        part.map(|part| part.as_str().to_owned())
    };
    regex.captures_iter(&text).filter_map(part).take(most).collect()
}

/// What one element gives; `None` when it lacks it (an attribute, a URL that leads nowhere).
fn take(field: &CompiledField, element: ElementRef<'_>, base: &Url) -> Option<String> {
    match field.kind {
        FieldType::Text => Some(text::folded(element)),
        FieldType::Html => Some(element.inner_html()),
        FieldType::Attribute => field
            .attribute
            .as_deref()
            .and_then(|name| element.attr(name))
            .map(str::to_owned),
        FieldType::Link => element
            .attr("href")
            .and_then(|url| resolve(base, url))
            .map(String::from),
        FieldType::Image => element.attr("src").and_then(|url| resolve(base, url)).map(String::from),
    }
}

/// An absolute http or https URL; `None` for others (`javascript:`, `data:`) and for what is not a URL.
pub(super) fn resolve(base: &Url, url: &str) -> Option<Url> {
    base.join(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
}
