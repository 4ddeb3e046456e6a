//! Records as lines: NDJSON, and CSV whose cells no spreadsheet takes for a formula.
//!
//! Pure: one page of records in, bytes out.

use bytes::Bytes;
use serde_json::{Map, Value};

/// One extracted row.
pub type Record = Map<String, Value>;

/// Characters with which a spreadsheet begins a formula, or that it strips before it looks.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// How records are written as lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180, with a header.
    Csv,
}

impl Lines {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// What comes before the first record.
    pub fn head(self, columns: &[String]) -> std::io::Result<Bytes> {
        match self {
            Self::Ndjson => Ok(Bytes::new()),
            Self::Csv => rows(std::iter::once(columns.iter().map(|c| neutral(c.clone())).collect())),
        }
    }

    /// The records of one page.
    pub fn page(self, columns: &[String], records: &[Record]) -> std::io::Result<Bytes> {
        match self {
            Self::Ndjson => ndjson(records),
            Self::Csv => rows(records.iter().map(|record| {
                let cells = columns.iter().map(|column| cell(record.get(column)));
                cells.collect()
            })),
        }
    }
}

fn ndjson(records: &[Record]) -> std::io::Result<Bytes> {
    let mut out = Vec::new();
    for record in records {
        serde_json::to_writer(&mut out, record)?;
        out.push(b'\n');
    }
    Ok(out.into())
}

fn rows(rows: impl Iterator<Item = Vec<String>>) -> std::io::Result<Bytes> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    for row in rows {
        writer.write_record(row)?;
    }
    let out = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(out.into())
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => neutral(text.clone()),
        // A negative number is a number to a spreadsheet, and stays one.
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => neutral(other.to_string()),
    }
}

fn neutral(text: String) -> String {
    if text.starts_with(FORMULA) {
        format!("'{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn csv(record: &Value) -> String {
        let columns: Vec<String> = record.as_object().unwrap().keys().cloned().collect();
        let page = Lines::Csv
            .page(&columns, &[record.as_object().unwrap().clone()])
            .unwrap();
        String::from_utf8(page.to_vec()).unwrap()
    }

    #[test]
    fn cells_that_begin_like_a_formula_are_neutralised() {
        for start in FORMULA {
            let row = csv(&json!({ "a": format!("{start}cmd"), "b": "x" }));
            let cell = row.trim_end().trim_start_matches('"');
            assert!(cell.starts_with(&format!("'{start}cmd")), "{start:?}: {row:?}");
        }
        assert_eq!(csv(&json!({ "a": "1+1", "b": -5 })), "1+1,-5\r\n");
    }

    #[test]
    fn quotes_commas_and_line_ends_stay_in_their_cell() {
        assert_eq!(csv(&json!({ "a": "x,\"y\"\n", "b": null })), "\"x,\"\"y\"\"\n\",\r\n");
    }

    #[test]
    fn a_list_is_one_cell_of_json() {
        assert_eq!(
            csv(&json!({ "a": ["x", "y"], "b": "z" })),
            "\"[\"\"x\"\",\"\"y\"\"]\",z\r\n"
        );
    }

    #[test]
    fn the_columns_are_those_of_the_spec_whatever_a_record_holds() {
        let columns = ["b".to_owned(), "a".to_owned(), "c".to_owned()];
        let record = json!({ "a": "1", "b": "2", "z": "9" });
        let page = Lines::Csv
            .page(&columns, &[record.as_object().unwrap().clone()])
            .unwrap();
        assert_eq!(page, "2,1,\r\n");
        assert_eq!(Lines::Csv.head(&columns).unwrap(), "b,a,c\r\n");
    }

    #[test]
    fn ndjson_is_one_object_a_line() {
        let record = json!({ "a": "x\ny" });
        let page = Lines::Ndjson.page(&[], &[record.as_object().unwrap().clone()]).unwrap();
        assert_eq!(page, "{\"a\":\"x\\ny\"}\n");
    }
}
