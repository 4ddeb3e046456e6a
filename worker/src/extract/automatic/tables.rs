//! HTML tables that have a header: each row a record by the names of the columns. Cells that span rows or columns stand in each of them.

use scraper::ElementRef;
use serde_json::Map;

use super::{Head, Page};
use crate::extract::{
    ExtractError, Reading,
    budget::{check_set, check_text},
    text,
};

/// The most columns of a table: the HTML standard's limit of a `colspan`.
const MAX_COLUMNS: usize = 1000;

pub(super) fn find(page: &mut Page<'_>) -> Result<(), ExtractError> {
    let mut group = 0;
    for element in page.elements() {
        let element = element?;
        if element.value().name() != "table" {
            continue;
        }
        group += 1;
        let table = Table::read(element, page.reading)?;
        let headers = table.header_rows();
        if headers == 0 {
            continue;
        }
        let names = table.names(headers);
        for (row, cells) in table.rows[headers..].iter().enumerate() {
            let mut data = Map::with_capacity(names.len());
            for (name, cell) in names
                .iter()
                .zip(cells.texts.iter().map(Some).chain(std::iter::repeat(None)))
            {
                data.insert(name.clone(), cell.cloned().into());
            }
            let head = Head {
                kind: "Tables",
                type_name: table.caption.clone(),
                group,
                row: Some(row + 1),
            };
            page.add(head, data)?;
        }
    }
    Ok(())
}

struct Table {
    caption: Option<String>,
    rows: Vec<Row>,
    /// Cells and bytes of all rows: what spans is there as often as it is seen.
    cells: usize,
    bytes: usize,
}

/// A row as it is seen, with the cells that reach into it.
struct Row {
    texts: Vec<String>,
    /// It is in the table's head, or its own cells are all headers.
    is_header: bool,
}

/// A cell that reaches into the rows below.
#[derive(Clone)]
struct Reaching {
    text: String,
    rows: usize,
}

impl Table {
    fn read(table: ElementRef<'_>, reading: &Reading) -> Result<Self, ExtractError> {
        let mut read = Self {
            caption: None,
            rows: Vec::new(),
            cells: 0,
            bytes: 0,
        };
        let mut reaching = Vec::new();
        for child in table.child_elements() {
            match child.value().name() {
                "caption" => read.caption = Some(text::folded(child)).filter(|text| !text.is_empty()),
                "tr" => read.add(child, false, &mut reaching, reading)?,
                section @ ("thead" | "tbody" | "tfoot") => {
                    // Nothing reaches from one section into the next.
                    reaching.clear();
                    for row in child.child_elements().filter(|row| row.value().name() == "tr") {
                        read.add(row, section == "thead", &mut reaching, reading)?;
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    fn add(
        &mut self,
        row: ElementRef<'_>,
        in_head: bool,
        reaching: &mut Vec<Option<Reaching>>,
        reading: &Reading,
    ) -> Result<(), ExtractError> {
        let mut texts = Vec::new();
        let (mut own, mut headers) = (0, 0);
        for cell in row.child_elements() {
            let name = cell.value().name();
            if !matches!(name, "td" | "th") {
                continue;
            }
            own += 1;
            headers += usize::from(name == "th");
            fill(&mut texts, reaching);
            let text = text::folded(cell);
            let rows = span(cell, "rowspan").min(65_534) - 1;
            for _ in 0..span(cell, "colspan") {
                if texts.len() == MAX_COLUMNS {
                    break;
                }
                self.bytes += text.len();
                check_text(self.bytes)?;
                if reaching.len() <= texts.len() {
                    reaching.resize(texts.len() + 1, None);
                }
                reaching[texts.len()] = (rows > 0).then(|| Reaching {
                    text: text.clone(),
                    rows,
                });
                texts.push(text.clone());
            }
        }
        fill(&mut texts, reaching);
        self.cells += texts.len();
        self.bytes += texts.iter().map(String::len).sum::<usize>();
        check_set(self.cells)?;
        check_text(self.bytes)?;
        reading.budget.work(texts.len())?;
        if own > 0 {
            self.rows.push(Row {
                texts,
                is_header: in_head || own == headers,
            });
        }
        Ok(())
    }

    /// How many rows at the top are headers; 0 where nothing is below them.
    fn header_rows(&self) -> usize {
        let headers = self.rows.iter().take_while(|row| row.is_header).count();
        let columns = self.rows.first().map_or(0, |row| row.texts.len());
        if headers == self.rows.len() || columns < 2 {
            0
        } else {
            headers
        }
    }

    /// The columns' names: their headers from top to bottom, made unique.
    fn names(&self, headers: usize) -> Vec<String> {
        let columns = self.rows[..headers]
            .iter()
            .map(|row| row.texts.len())
            .max()
            .unwrap_or(0);
        let mut names: Vec<String> = Vec::with_capacity(columns);
        for column in 0..columns {
            let mut parts: Vec<&str> = Vec::new();
            for row in &self.rows[..headers] {
                let text = row.texts.get(column).map_or("", String::as_str);
                // A header that spans rows is one header.
                if !text.is_empty() && parts.last() != Some(&text) {
                    parts.push(text);
                }
            }
            let name = if parts.is_empty() {
                format!("column {}", column + 1)
            } else {
                parts.join(" ")
            };
            let same = names.iter().filter(|other| **other == name).count();
            names.push(if same == 0 {
                name
            } else {
                format!("{name} ({})", column + 1)
            });
        }
        names
    }
}

/// Takes over what reaches into the columns that come next.
fn fill(texts: &mut Vec<String>, reaching: &mut [Option<Reaching>]) {
    while let Some(slot) = reaching.get_mut(texts.len())
        && let Some(cell) = slot
    {
        texts.push(cell.text.clone());
        cell.rows -= 1;
        if cell.rows == 0 {
            *slot = None;
        }
    }
}

fn span(cell: ElementRef<'_>, attribute: &str) -> usize {
    let span = cell.attr(attribute).and_then(|span| span.trim().parse().ok());
    span.unwrap_or(1_usize).clamp(1, MAX_COLUMNS.max(65_534))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::found, *};

    #[test]
    fn rows_are_records_by_the_header_and_spans_stand_in_every_cell() {
        let html = "<table><caption>Prices</caption><thead><tr><th rowspan=2>Item<th colspan=2>Price<tr><th>net<th>gross</thead>
            <tr><td rowspan=2>Shoe<td>1<td>2<tr><td colspan=2>free<tr><th>Sock<td>3</table>";
        let records = found("Tables", html);
        assert!(
            records
                .iter()
                .all(|record| record["type"] == "Prices" && record["group"] == 1)
        );
        assert_eq!(
            records.iter().map(|record| record["data"].clone()).collect::<Vec<_>>(),
            [
                json!({ "Item": "Shoe", "Price net": "1", "Price gross": "2" }),
                json!({ "Item": "Shoe", "Price net": "free", "Price gross": "free" }),
                json!({ "Item": "Sock", "Price net": "3", "Price gross": null }),
            ]
        );
        assert_eq!(records[2]["row"], 3);
    }

    #[test]
    fn a_table_without_a_header_is_layout_and_one_in_it_is_a_table() {
        let html = "<table><tr><td><table><tr><th>a<th>a<tr><td>1<td>2</table><td>x</table>";
        let records = found("Tables", html);
        assert_eq!(records.len(), 1);
        assert_eq!(
            (&records[0]["group"], &records[0]["data"]),
            (&json!(2), &json!({ "a": "1", "a (2)": "2" }))
        );
    }

    #[test]
    fn a_hostile_span_makes_no_more_than_a_thousand_columns() {
        let html = "<table><tr><th colspan=65534>a<th>b<tr><td>1</table>";
        assert_eq!(found("Tables", html)[0]["data"].as_object().unwrap().len(), 1000);
    }

    #[test]
    fn a_hostile_cell_that_reaches_everywhere_is_refused() {
        for text in ["x".repeat(100_000), "x".to_owned()] {
            let html = format!(
                "<table><tbody><tr><td colspan=1000 rowspan=65534>{text}{}</table>",
                "<tr><td>".repeat(60_000)
            );
            let error = super::super::tests::read("Tables", &html).unwrap_err();
            assert!(
                matches!(
                    error,
                    ExtractError::TooMuchOutput { .. } | ExtractError::TooManyNodes { .. }
                ),
                "{error:?}"
            );
        }
    }
}
