//! JSON, and CSV as JSON, out of hostile text.

use serde_json::{Map, Value};

use super::{
    ExtractError, MalformedSnafu,
    budget::{Budget, MAX_NODES, check_set},
};
use crate::content::Content;

/// One value. `serde_json` refuses more than 128 levels.
pub(super) fn parse(text: &str, content: Content) -> Result<Value, ExtractError> {
    // A value takes 72 bytes in memory and two of text; each but the first stands behind one of these.
    let values = text.bytes().filter(|b| matches!(b, b',' | b'[' | b'{')).count();
    check_set(values)?;
    serde_json::from_str(text).map_err(|error| malformed(content, &error.to_string()))
}

/// One value of each line that is not empty, as an array.
pub(super) fn of_lines(text: &str) -> Result<Value, ExtractError> {
    let mut values = Vec::new();
    let mut members = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let value = parse(line, Content::JsonLines)?;
        members += count(&value);
        check_set(members)?;
        values.push(value);
    }
    Ok(Value::Array(values))
}

/// An array of one object for each row, by the names of the header. Cells without a name are left out, and so are names without a cell.
pub(super) fn of_csv(text: &str, budget: &Budget) -> Result<Value, ExtractError> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .delimiter(delimiter(text))
        .from_reader(text.as_bytes());
    let failed = |error: csv::Error| malformed(Content::Csv, &error.to_string());
    let header = reader.headers().map_err(failed)?.clone();
    let mut rows = Vec::new();
    let mut cells = 0;
    for row in reader.records() {
        let row = row.map_err(failed)?;
        cells += 1 + row.len();
        check_set(cells)?;
        budget.work(row.len())?;
        let mut object = Map::with_capacity(header.len().min(row.len()));
        for (name, cell) in header.iter().zip(&row) {
            object.entry(name).or_insert_with(|| cell.into());
        }
        rows.push(Value::Object(object));
    }
    Ok(Value::Array(rows))
}

/// What stands most often in the first line.
fn delimiter(text: &str) -> u8 {
    let first = text.lines().next().unwrap_or_default();
    let often = |delimiter: &u8| first.bytes().filter(|b| b == delimiter).count();
    // The last of equals wins, and a comma is what it is called after.
    [b'|', b'\t', b';', b','].into_iter().max_by_key(often).unwrap_or(b',')
}

fn malformed(content: Content, message: &str) -> ExtractError {
    MalformedSnafu {
        content,
        message: message.chars().take(200).collect::<String>(),
    }
    .build()
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// About how many bytes a value takes as text.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 2 + text.len(),
        Value::Array(items) => 2 + items.iter().map(|item| 1 + weight(item)).sum::<usize>(),
        Value::Object(members) => {
            2 + members
                .iter()
                .map(|(name, value)| 4 + name.len() + weight(value))
                .sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

const _: () = assert!(MAX_NODES * 72 <= 100 << 20, "a page's JSON stays below 100 MiB");
