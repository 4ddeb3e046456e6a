//! JSONPath (RFC 9535) as users write it, parsed by `jsonpath-rust`. Pure; the worker evaluates it, because that crate's own evaluation
//! has no bound on what it costs.

use std::fmt;

use jsonpath_rust::parser::{
    model::{Comparable, Filter, FilterAtom, FnArg, JpQuery, Segment, Selector, Test, TestFunction},
    parse_json_path,
};

/// Brackets in each other. The parser tries alternatives anew at each depth, so this bounds its time too.
const MAX_DEPTH: usize = 6;

/// A parsed JSONPath without `match()`, `search()` and functions that RFC 9535 does not have.
#[derive(Clone, Debug)]
pub struct JsonPath {
    /// What is evaluated.
    pub query: JpQuery,
    text: String,
}

impl JsonPath {
    /// Reads a JSONPath.
    ///
    /// # Errors
    /// What is wrong, as a sentence without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        if depth(text) > MAX_DEPTH {
            return Err(format!("nests brackets more than {MAX_DEPTH} deep"));
        }
        let query = parse_json_path(text)
            .map_err(|_| "is not a JSONPath (RFC 9535), such as $.items[*].name or $..price".to_owned())?;
        if !query.segments.iter().all(knows_segment) {
            return Err("calls a function that is not supported; length(), count() and value() are".to_owned());
        }
        Ok(Self {
            query,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The deepest nesting of brackets, those in texts included: it errs on the safe side.
fn depth(text: &str) -> usize {
    let mut open = 0_usize;
    let mut deepest = 0;
    for c in text.chars() {
        match c {
            '(' | '[' => open += 1,
            ')' | ']' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

fn knows_segment(segment: &Segment) -> bool {
    match segment {
        Segment::Descendant(inner) => knows_segment(inner),
        Segment::Selector(selector) => knows_selector(selector),
        Segment::Selectors(selectors) => selectors.iter().all(knows_selector),
    }
}

fn knows_selector(selector: &Selector) -> bool {
    match selector {
        Selector::Filter(filter) => knows_filter(filter),
        Selector::Name(_) | Selector::Wildcard | Selector::Index(_) | Selector::Slice(..) => true,
    }
}

fn knows_filter(filter: &Filter) -> bool {
    match filter {
        Filter::Or(parts) | Filter::And(parts) => parts.iter().all(knows_filter),
        Filter::Atom(FilterAtom::Filter { expr, .. }) => knows_filter(expr),
        Filter::Atom(FilterAtom::Test { expr, .. }) => knows_test(expr),
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            let (left, right) = comparison.vals();
            knows_comparable(left) && knows_comparable(right)
        }
    }
}

fn knows_comparable(comparable: &Comparable) -> bool {
    match comparable {
        Comparable::Function(function) => knows_function(function),
        Comparable::Literal(_) | Comparable::SingularQuery(_) => true,
    }
}

fn knows_test(test: &Test) -> bool {
    match test {
        Test::RelQuery(segments) => segments.iter().all(knows_segment),
        Test::AbsQuery(query) => query.segments.iter().all(knows_segment),
        // The three that are supported give a value, which is no test.
        Test::Function(_) => false,
    }
}

fn knows_function(function: &TestFunction) -> bool {
    let argument = match function {
        TestFunction::Length(argument) => &**argument,
        TestFunction::Value(argument) | TestFunction::Count(argument) => argument,
        TestFunction::Custom(..) | TestFunction::Search(..) | TestFunction::Match(..) => return false,
    };
    match argument {
        FnArg::Literal(_) => true,
        FnArg::Test(test) => match &**test {
            Test::Function(inner) => knows_function(inner),
            other => knows_test(other),
        },
        FnArg::Filter(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_9535_has_is_read_except_for_its_regular_expressions() {
        for text in [
            "$",
            "$.a['b c'][0][-1]",
            "$..price",
            "$.a[1:5:2,*]",
            "$.a[?@.b == 'x' && (@.c > 1 || !@.d)]",
            "$[?length(@.a) > 2]",
            "$[?count(@.*) == 1]",
        ] {
            assert!(JsonPath::parse(text).is_ok(), "{text}");
        }
        for text in ["$[?match(@.a, 'x')]", "$[?search(@.a, 'x')]", "$[?in(@.a, $.b)]"] {
            assert!(JsonPath::parse(text).unwrap_err().contains("not supported"), "{text}");
        }
        for text in ["", "a.b", "$.", "$[", "$.a[?]", "$[?@.a = 1]"] {
            assert!(
                JsonPath::parse(text).unwrap_err().contains("is not a JSONPath"),
                "{text}"
            );
        }
    }

    #[test]
    fn nesting_that_would_make_the_parser_slow_is_refused() {
        for (open, inner, close) in [
            ("[?count(@", "", ")]"),
            ("[?(", "1==1", ")]"),
            ("[?!(", "@.a", ")]"),
            ("[?@", "", "]"),
        ] {
            for depth in 1..60 {
                let path = format!("${}{inner}{}", open.repeat(depth), close.repeat(depth));
                let parsed = JsonPath::parse(&path);
                assert!(depth <= MAX_DEPTH || parsed.is_err(), "{path}");
            }
        }
    }
}
