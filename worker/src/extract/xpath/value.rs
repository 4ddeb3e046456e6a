//! The four types of XPath's values and how they turn into each other (XPath 1.0, sections 3.4, 4.2 to 4.4).

use ego_tree::NodeRef;
use scraper::Node;
use selextract_task::xpath::Comparison;

use super::XNode;

/// What an expression gives.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// Each once, in the order of the document.
    Nodes(Vec<XNode<'a>>),
    Text(String),
    Number(f64),
    Truth(bool),
}

pub(super) fn is_true(value: &Value<'_>) -> bool {
    match value {
        Value::Nodes(nodes) => !nodes.is_empty(),
        Value::Text(text) => !text.is_empty(),
        Value::Number(number) => *number != 0.0 && !number.is_nan(),
        Value::Truth(truth) => *truth,
    }
}

pub(super) fn number_of(value: Value<'_>) -> f64 {
    match value {
        Value::Number(number) => number,
        Value::Truth(truth) => f64::from(u8::from(truth)),
        other => parsed(&text_of(other)),
    }
}

/// Digits with at most one point and a sign, nothing else: `inf` and exponents are no numbers here.
fn parsed(text: &str) -> f64 {
    let text = text.trim();
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    if plain {
        text.parse().unwrap_or(f64::NAN)
    } else {
        f64::NAN
    }
}

pub(super) fn text_of(value: Value<'_>) -> String {
    match value {
        Value::Nodes(nodes) => nodes.first().map_or_else(String::new, |node| node_text(*node)),
        Value::Text(text) => text,
        Value::Truth(truth) => truth.to_string(),
        Value::Number(number) if number.is_nan() => "NaN".to_owned(),
        Value::Number(number) if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        // Without the sign of a negative zero.
        Value::Number(number) => (number + 0.0).to_string(),
    }
}

/// The text of a node: of an element all that is below it.
pub(super) fn node_text(node: XNode<'_>) -> String {
    match node {
        XNode::Attribute(element, index) => {
            let value = element.value().attrs().nth(index).map(|(_, value)| value);
            value.unwrap_or_default().to_owned()
        }
        XNode::Tree(node) if node.value().is_text() || node.value().is_comment() => own_text(node).to_owned(),
        XNode::Tree(node) => node
            .descendants()
            .filter_map(|below| below.value().as_text().map(|text| &**text))
            .collect(),
    }
}

/// The text of a node that has none below it.
pub(super) fn own_text(node: NodeRef<'_, Node>) -> &str {
    match node.value() {
        Node::Text(text) => text,
        Node::Comment(comment) => comment,
        _ => "",
    }
}

/// Bytes that have to be looked at to use a value.
pub(super) fn weight(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Nodes(nodes) => nodes.len(),
        Value::Number(_) | Value::Truth(_) => 8,
    }
}

/// Compares two values of which neither is a set. Equality is of truth values, else of numbers, else of texts; order is of numbers.
pub(super) fn holds(comparison: Comparison, left: &Value<'_>, right: &Value<'_>) -> bool {
    let number = |value: &Value<'_>| number_of(value.clone());
    let equal = || match (left, right) {
        (Value::Truth(left), Value::Truth(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        #[expect(clippy::float_cmp, reason = "XPath compares exactly")]
        _ => number(left) == number(right),
    };
    match comparison {
        Comparison::Equal => equal(),
        Comparison::NotEqual => !equal(),
        Comparison::Less => number(left) < number(right),
        Comparison::LessOrEqual => number(left) <= number(right),
        Comparison::Greater => number(left) > number(right),
        Comparison::GreaterOrEqual => number(left) >= number(right),
    }
}

/// Whether a number is this count.
#[expect(clippy::cast_precision_loss, reason = "a set has at most a million nodes")]
pub(super) fn is_count(number: f64, count: usize) -> bool {
    (number - count as f64).abs() < f64::EPSILON
}
