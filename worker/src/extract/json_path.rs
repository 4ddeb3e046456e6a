//! Evaluates JSONPath (RFC 9535) over a JSON value. Pure; every value that is looked at is work of the page's budget.

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, Literal, Segment, Selector, SingularQuery, SingularQuerySegment,
    Test, TestFunction,
};
use selextract_task::JsonPath;
use serde_json::Value;

use super::{
    ExtractError,
    budget::{Budget, check_set},
};

/// The values that a path leads to, in their order; `$` is `root`.
pub(super) fn find<'v>(path: &JsonPath, root: &'v Value, budget: &Budget) -> Result<Vec<&'v Value>, ExtractError> {
    Evaluation { root, budget }.segments(&path.query.segments, root)
}

#[derive(Clone, Copy)]
struct Evaluation<'v, 'b> {
    root: &'v Value,
    budget: &'b Budget,
}

impl<'v> Evaluation<'v, '_> {
    fn segments(self, segments: &[Segment], from: &'v Value) -> Result<Vec<&'v Value>, ExtractError> {
        let mut nodes = vec![from];
        for segment in segments {
            let mut found = Vec::new();
            for node in nodes {
                self.segment(segment, node, &mut found)?;
            }
            nodes = found;
        }
        Ok(nodes)
    }

    fn segment(self, segment: &Segment, node: &'v Value, found: &mut Vec<&'v Value>) -> Result<(), ExtractError> {
        match segment {
            Segment::Selector(selector) => self.select(selector, node, found)?,
            Segment::Selectors(selectors) => {
                for selector in selectors {
                    self.select(selector, node, found)?;
                }
            }
            Segment::Descendant(inner) => {
                self.segment(inner, node, found)?;
                for child in children(node) {
                    self.segment(segment, child, found)?;
                }
            }
        }
        check_set(found.len())
    }

    fn select(self, selector: &Selector, node: &'v Value, found: &mut Vec<&'v Value>) -> Result<(), ExtractError> {
        self.budget.work(1)?;
        match selector {
            Selector::Name(name) => found.extend(node.get(name)),
            Selector::Index(index) => found.extend(node.as_array().and_then(|items| at(items, *index))),
            Selector::Wildcard => {
                let before = found.len();
                found.extend(children(node));
                self.budget.work(found.len() - before)?;
            }
            Selector::Slice(start, end, step) => {
                if let Some(items) = node.as_array() {
                    self.budget.work(items.len())?;
                    found.extend(slice(items, *start, *end, step.unwrap_or(1)));
                }
            }
            Selector::Filter(filter) => {
                for child in children(node) {
                    if self.holds(filter, child)? {
                        found.push(child);
                    }
                }
            }
        }
        Ok(())
    }

    fn holds(self, filter: &Filter, here: &'v Value) -> Result<bool, ExtractError> {
        self.budget.work(1)?;
        Ok(match filter {
            Filter::Or(parts) => {
                for part in parts {
                    if self.holds(part, here)? {
                        return Ok(true);
                    }
                }
                false
            }
            Filter::And(parts) => {
                for part in parts {
                    if !self.holds(part, here)? {
                        return Ok(false);
                    }
                }
                true
            }
            Filter::Atom(FilterAtom::Filter { expr, not }) => self.holds(expr, here)? != *not,
            Filter::Atom(FilterAtom::Test { expr, not }) => self.nodes(expr, here)?.is_empty() == *not,
            Filter::Atom(FilterAtom::Comparison(comparison)) => self.compare(comparison, here)?,
        })
    }

    fn nodes(self, test: &Test, here: &'v Value) -> Result<Vec<&'v Value>, ExtractError> {
        match test {
            Test::RelQuery(segments) => self.segments(segments, here),
            Test::AbsQuery(query) => self.segments(&query.segments, self.root),
            // Refused when the path was parsed.
            Test::Function(_) => Ok(Vec::new()),
        }
    }

    fn compare(self, comparison: &Comparison, here: &'v Value) -> Result<bool, ExtractError> {
        let (left, right) = comparison.vals();
        let (left, right) = (self.operand(left, here)?, self.operand(right, here)?);
        let (left, right) = (left.as_ref(), right.as_ref());
        Ok(match comparison {
            Comparison::Eq(..) => equal(left, right),
            Comparison::Ne(..) => !equal(left, right),
            Comparison::Lt(..) => less(left, right),
            Comparison::Gt(..) => less(right, left),
            Comparison::Lte(..) => less(left, right) || equal(left, right),
            Comparison::Gte(..) => less(right, left) || equal(left, right),
        })
    }

    /// A side of a comparison; `None` is RFC 9535's Nothing.
    fn operand(self, comparable: &Comparable, here: &'v Value) -> Result<Option<Operand<'v>>, ExtractError> {
        Ok(match comparable {
            Comparable::Literal(literal) => Some(Operand::Made(made(literal))),
            Comparable::SingularQuery(SingularQuery::Current(steps)) => single(here, steps).map(Operand::Found),
            Comparable::SingularQuery(SingularQuery::Root(steps)) => single(self.root, steps).map(Operand::Found),
            Comparable::Function(function) => self.call(function, here)?,
        })
    }

    fn call(self, function: &TestFunction, here: &'v Value) -> Result<Option<Operand<'v>>, ExtractError> {
        Ok(match function {
            TestFunction::Length(argument) => {
                let length = match self.argument(argument, here)?.as_ref().map(Operand::value) {
                    Some(Value::String(text)) => Some(text.chars().count()),
                    Some(Value::Array(items)) => Some(items.len()),
                    Some(Value::Object(members)) => Some(members.len()),
                    _ => None,
                };
                length.map(|length| Operand::Made(length.into()))
            }
            TestFunction::Count(FnArg::Test(test)) => Some(Operand::Made(self.nodes(test, here)?.len().into())),
            TestFunction::Value(argument) => self.argument(argument, here)?,
            // Refused when the path was parsed.
            _ => None,
        })
    }

    /// A function's argument as a value: the one node of a query.
    fn argument(self, argument: &FnArg, here: &'v Value) -> Result<Option<Operand<'v>>, ExtractError> {
        Ok(match argument {
            FnArg::Literal(literal) => Some(Operand::Made(made(literal))),
            FnArg::Test(test) => match &**test {
                Test::Function(function) => self.call(function, here)?,
                query => match self.nodes(query, here)?[..] {
                    [node] => Some(Operand::Found(node)),
                    _ => None,
                },
            },
            FnArg::Filter(_) => None,
        })
    }
}

enum Operand<'v> {
    Found(&'v Value),
    Made(Value),
}

impl Operand<'_> {
    fn value(&self) -> &Value {
        match self {
            Self::Found(value) => value,
            Self::Made(value) => value,
        }
    }
}

fn children(value: &Value) -> impl Iterator<Item = &Value> {
    let items = value.as_array().into_iter().flatten();
    let members = value.as_object().into_iter().flat_map(serde_json::Map::values);
    items.chain(members)
}

fn at(items: &[Value], index: i64) -> Option<&Value> {
    let length = i64::try_from(items.len()).ok()?;
    let index = if index < 0 { length + index } else { index };
    items.get(usize::try_from(index).ok()?)
}

/// RFC 9535, section 2.3.4.2.2.
fn slice(items: &[Value], start: Option<i64>, end: Option<i64>, step: i64) -> Vec<&Value> {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { length.saturating_add(index) } else { index };
    let mut found = Vec::new();
    let mut add = |index: i64| found.extend(usize::try_from(index).ok().and_then(|index| items.get(index)));
    if step > 0 {
        let mut index = from_end(start.unwrap_or(0)).clamp(0, length);
        let end = from_end(end.unwrap_or(length)).clamp(0, length);
        while index < end {
            add(index);
            index = index.saturating_add(step);
        }
    } else if step < 0 {
        let mut index = from_end(start.unwrap_or(length - 1)).clamp(-1, length - 1);
        let end = end.map_or(-1, |end| from_end(end).clamp(-1, length - 1));
        while index > end {
            add(index);
            index = index.saturating_add(step);
        }
    }
    found
}

fn single<'v>(mut value: &'v Value, steps: &[SingularQuerySegment]) -> Option<&'v Value> {
    for step in steps {
        value = match step {
            SingularQuerySegment::Name(name) => value.get(name)?,
            SingularQuerySegment::Index(index) => at(value.as_array()?, *index)?,
        };
    }
    Some(value)
}

fn made(literal: &Literal) -> Value {
    match literal {
        Literal::Int(number) => (*number).into(),
        Literal::Float(number) => (*number).into(),
        Literal::String(text) => text.as_str().into(),
        Literal::Bool(truth) => (*truth).into(),
        Literal::Null => Value::Null,
    }
}

fn equal(left: Option<&Operand<'_>>, right: Option<&Operand<'_>>) -> bool {
    match (left.map(Operand::value), right.map(Operand::value)) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => left.as_f64() == right.as_f64(),
        (left, right) => left == right,
    }
}

fn less(left: Option<&Operand<'_>>, right: Option<&Operand<'_>>) -> bool {
    match (left.map(Operand::value), right.map(Operand::value)) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => left.as_f64() < right.as_f64(),
        (Some(Value::String(left)), Some(Value::String(right))) => left < right,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn found(path: &str, value: &Value, within: Duration) -> Result<Vec<Value>, ExtractError> {
        let budget = Budget::new(Instant::now() + within);
        let found = find(&JsonPath::parse(path).unwrap(), value, &budget)?;
        Ok(found.into_iter().cloned().collect())
    }

    #[test]
    fn every_selector_gives_what_the_rfc_says() {
        let store = json!({
            "a b": 1,
            "books": [
                { "title": "A", "price": 8.5, "tags": ["x"] },
                { "title": "B", "price": 12, "isbn": "1" },
                { "title": "C", "price": 9, "isbn": "2", "tags": [] },
            ],
        });
        for (path, expected) in [
            ("$['a b']", json!([1])),
            ("$.books[0].title", json!(["A"])),
            ("$.books[-1].title", json!(["C"])),
            ("$.books[5].title", json!([])),
            ("$.books[*].price", json!([8.5, 12, 9])),
            ("$.books[0,2].title", json!(["A", "C"])),
            ("$.books[1:].title", json!(["B", "C"])),
            ("$.books[::-1].title", json!(["C", "B", "A"])),
            ("$.books[:-1].title", json!(["A", "B"])),
            ("$.books[2:0:-1].title", json!(["C", "B"])),
            ("$..isbn", json!(["1", "2"])),
            ("$..[0].title", json!(["A"])),
            ("$.books[?@.isbn].title", json!(["B", "C"])),
            ("$.books[?!@.isbn].title", json!(["A"])),
            ("$.books[?@.price < 10 && @.isbn].title", json!(["C"])),
            ("$.books[?@.price >= 12 || @.title == 'A'].title", json!(["A", "B"])),
            ("$.books[?@.price > $.books[0].price].title", json!(["B", "C"])),
            ("$.books[?length(@.tags) == 0].title", json!(["C"])),
            ("$.books[?count(@.*) == 4].title", json!(["C"])),
            ("$.books[?value(@..isbn) == '2'].title", json!(["C"])),
            ("$.books[?@.price == 12.0].title", json!(["B"])),
            ("$.books[?@.nothing == @.neither].title", json!(["A", "B", "C"])),
        ] {
            assert_eq!(
                Value::Array(found(path, &store, Duration::from_mins(1)).unwrap()),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn a_path_that_blows_up_ends_at_the_deadline_or_at_the_limit_of_a_set() {
        let mut deep = json!([1, 2, 3]);
        for _ in 0..100 {
            deep = json!([deep, 1, 2, 3, 4, 5, 6, 7]);
        }
        let wide = json!(vec![deep; 20]);
        for path in [
            "$..*..*..*..*",
            "$..[?@..[?@..[?@..*]]]",
            "$..[?count($..*) > count($..*)]",
        ] {
            let error = found(path, &wide, Duration::from_secs(1)).unwrap_err();
            assert!(
                matches!(error, ExtractError::Late | ExtractError::TooManyNodes { .. }),
                "{path}: {error:?}"
            );
        }
    }
}
