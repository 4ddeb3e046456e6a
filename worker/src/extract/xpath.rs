//! Evaluates XPath 1.0 over a page's tree. Pure; every node that is looked at is work of the page's budget.

mod function;
mod value;

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
};

use ego_tree::{NodeId, NodeRef};
use scraper::{ElementRef, Node};
use selextract_task::xpath::{Axis, Comparison, Expression, NodeTest, Operator, Path, Start, Step, XPath};

use super::{
    ExtractError,
    budget::{Budget, check_set, check_text},
    select::Found,
};
use value::Value;

/// The place of every node in its document, found out when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Order(OnceCell<HashMap<NodeId, usize>>);

impl Order {
    fn of(&self, node: NodeRef<'_, Node>) -> usize {
        let places = self.0.get_or_init(|| {
            let nodes = node.tree().root().descendants();
            nodes.enumerate().map(|(place, node)| (node.id(), place)).collect()
        });
        places.get(&node.id()).copied().unwrap_or(usize::MAX)
    }
}

/// A node as XPath sees it.
#[derive(Clone, Copy, Debug)]
enum XNode<'a> {
    Tree(NodeRef<'a, Node>),
    /// An element and which of its attributes.
    Attribute(ElementRef<'a>, usize),
}

impl<'a> XNode<'a> {
    fn key(self) -> (NodeId, usize) {
        match self {
            Self::Tree(node) => (node.id(), usize::MAX),
            Self::Attribute(element, index) => (element.id(), index),
        }
    }

    /// The element whose attribute it is, or itself.
    fn holder(self) -> NodeRef<'a, Node> {
        match self {
            Self::Tree(node) => node,
            Self::Attribute(element, _) => *element,
        }
    }

    fn name(self) -> Option<&'a str> {
        match self {
            Self::Tree(node) => node.value().as_element().map(scraper::node::Element::name),
            Self::Attribute(element, index) => element.value().attrs().nth(index).map(|(name, _)| name),
        }
    }
}

/// What an XPath finds, seen from a node; several nodes come in the order of the document.
pub(super) fn find<'a>(
    xpath: &XPath,
    from: NodeRef<'a, Node>,
    order: &Order,
    budget: &Budget,
) -> Result<Vec<Found<'a>>, ExtractError> {
    let evaluation = Evaluation { order, budget };
    let here = Here {
        node: XNode::Tree(from),
        position: 1,
        size: 1,
    };
    Ok(match evaluation.value(&xpath.expression, here)? {
        Value::Nodes(nodes) => nodes.into_iter().map(found).collect(),
        other => vec![Found::Text(value::text_of(other))],
    })
}

fn found(node: XNode<'_>) -> Found<'_> {
    match node {
        XNode::Tree(node) => match ElementRef::wrap(node) {
            Some(element) => Found::Element(element),
            // The document is where its element is.
            None => match node.first_child() {
                Some(_) => node
                    .children()
                    .find_map(ElementRef::wrap)
                    .map_or_else(|| Found::Text(String::new()), Found::Element),
                None => Found::Text(value::own_text(node).to_owned()),
            },
        },
        XNode::Attribute(element, index) => {
            let value = element.value().attrs().nth(index).map(|(_, value)| value);
            Found::Text(value.unwrap_or_default().to_owned())
        }
    }
}

/// Where an expression is evaluated.
#[derive(Clone, Copy, Debug)]
struct Here<'a> {
    node: XNode<'a>,
    /// From 1, among `size` fellows.
    position: usize,
    size: usize,
}

#[derive(Clone, Copy)]
struct Evaluation<'e> {
    order: &'e Order,
    budget: &'e Budget,
}

impl Evaluation<'_> {
    fn value<'a>(self, expression: &Expression, here: Here<'a>) -> Result<Value<'a>, ExtractError> {
        self.budget.work(1)?;
        Ok(match expression {
            Expression::Or(left, right) => Value::Truth(self.truth(left, here)? || self.truth(right, here)?),
            Expression::And(left, right) => Value::Truth(self.truth(left, here)? && self.truth(right, here)?),
            Expression::Compare(comparison, left, right) => {
                let (left, right) = (self.value(left, here)?, self.value(right, here)?);
                Value::Truth(self.compare(*comparison, left, right)?)
            }
            Expression::Arithmetic(operator, left, right) => {
                let (left, right) = (self.number(left, here)?, self.number(right, here)?);
                Value::Number(calculated(*operator, left, right))
            }
            Expression::Negate(operand) => Value::Number(-self.number(operand, here)?),
            Expression::Union(left, right) => {
                let mut nodes = self.nodes(left, here)?;
                nodes.extend(self.nodes(right, here)?);
                Value::Nodes(self.in_order(nodes)?)
            }
            Expression::Path(path) => Value::Nodes(self.path(path, here)?),
            Expression::Text(text) => Value::Text(text.clone()),
            Expression::Number(number) => Value::Number(*number),
            Expression::Call(function, arguments) => self.call(*function, arguments, here)?,
        })
    }

    fn truth(self, expression: &Expression, here: Here<'_>) -> Result<bool, ExtractError> {
        Ok(value::is_true(&self.value(expression, here)?))
    }

    fn number(self, expression: &Expression, here: Here<'_>) -> Result<f64, ExtractError> {
        let value = self.value(expression, here)?;
        self.number_of(value)
    }

    fn number_of(self, value: Value<'_>) -> Result<f64, ExtractError> {
        self.budget.read(value::weight(&value))?;
        Ok(value::number_of(value))
    }

    fn text(self, expression: &Expression, here: Here<'_>) -> Result<String, ExtractError> {
        let text = value::text_of(self.value(expression, here)?);
        self.budget.read(text.len())?;
        check_text(text.len())?;
        Ok(text)
    }

    /// The nodes of an expression; what is no set of nodes counts as an empty one.
    fn nodes<'a>(self, expression: &Expression, here: Here<'a>) -> Result<Vec<XNode<'a>>, ExtractError> {
        Ok(match self.value(expression, here)? {
            Value::Nodes(nodes) => nodes,
            _ => Vec::new(),
        })
    }

    /// Two sets are compared by their texts: whether there is a pair for which it holds.
    fn compare(self, comparison: Comparison, left: Value<'_>, right: Value<'_>) -> Result<bool, ExtractError> {
        // Against a truth value a set counts as one.
        let truths = matches!(left, Value::Truth(_)) || matches!(right, Value::Truth(_));
        let (lefts, rights) = if truths {
            (
                vec![Value::Truth(value::is_true(&left))],
                vec![Value::Truth(value::is_true(&right))],
            )
        } else {
            (self.members(left)?, self.members(right)?)
        };
        for left in &lefts {
            for right in &rights {
                self.budget.read(value::weight(left).min(value::weight(right)))?;
                if value::holds(comparison, left, right) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// A set as the texts of its nodes; another value as itself.
    fn members(self, value: Value<'_>) -> Result<Vec<Value<'_>>, ExtractError> {
        let Value::Nodes(nodes) = value else {
            return Ok(vec![value]);
        };
        let mut bytes = 0;
        let mut texts = Vec::with_capacity(nodes.len());
        for node in nodes {
            let text = value::node_text(node);
            bytes += text.len();
            self.budget.read(text.len())?;
            check_text(bytes)?;
            texts.push(Value::Text(text));
        }
        Ok(texts)
    }

    fn path<'a>(self, path: &Path, here: Here<'a>) -> Result<Vec<XNode<'a>>, ExtractError> {
        let mut nodes = match &path.start {
            Start::Here => vec![here.node],
            Start::Root => vec![XNode::Tree(here.node.holder().tree().root())],
            Start::Nodes(nodes, predicates) => {
                let nodes = self.nodes(nodes, here)?;
                self.filtered(nodes, predicates)?
            }
        };
        for step in &path.steps {
            nodes = self.step(step, &nodes)?;
        }
        Ok(nodes)
    }

    fn step<'a>(self, step: &Step, contexts: &[XNode<'a>]) -> Result<Vec<XNode<'a>>, ExtractError> {
        if let [context] = contexts {
            let mut found = self.filtered(self.along(step, *context, None)?, &step.predicates)?;
            if step.axis.is_reverse() {
                found.reverse();
            }
            return Ok(found);
        }
        let mut all = Vec::new();
        // Where no position is asked for, what one context has looked at need not be looked at again from another.
        let mut seen = (!step.positional).then(HashSet::new);
        for context in contexts {
            let candidates = self.along(step, *context, seen.as_mut())?;
            all.extend(self.filtered(candidates, &step.predicates)?);
            check_set(all.len())?;
        }
        self.in_order(all)
    }

    /// The nodes that meet all conditions; positions count in the given order.
    fn filtered<'a>(
        self,
        mut nodes: Vec<XNode<'a>>,
        predicates: &[Expression],
    ) -> Result<Vec<XNode<'a>>, ExtractError> {
        for predicate in predicates {
            let size = nodes.len();
            let mut kept = Vec::new();
            for (index, node) in nodes.into_iter().enumerate() {
                let position = index + 1;
                let holds = match self.value(predicate, Here { node, position, size })? {
                    Value::Number(number) => value::is_count(number, position),
                    other => value::is_true(&other),
                };
                if holds {
                    kept.push(node);
                }
            }
            nodes = kept;
        }
        Ok(nodes)
    }

    /// Each node once, in the order of the document.
    fn in_order<'a>(self, mut nodes: Vec<XNode<'a>>) -> Result<Vec<XNode<'a>>, ExtractError> {
        check_set(nodes.len())?;
        self.budget.work(nodes.len())?;
        let place = |node: &XNode<'a>| {
            let (_, attribute) = node.key();
            // An element goes before its attributes.
            (self.order.of(node.holder()), attribute.wrapping_add(1))
        };
        nodes.sort_by_cached_key(place);
        nodes.dedup_by_key(|node| node.key());
        Ok(nodes)
    }

    /// The nodes of a step's axis that pass its test, in the axis's order. With `seen` the subtrees that were looked at before are passed over.
    fn along<'a>(
        self,
        step: &Step,
        from: XNode<'a>,
        seen: Option<&mut HashSet<NodeId>>,
    ) -> Result<Vec<XNode<'a>>, ExtractError> {
        let mut walk = Walk {
            evaluation: self,
            step,
            found: Vec::new(),
        };
        let node = from.holder();
        match (step.axis, from) {
            (Axis::Descendant | Axis::DescendantOrSelf, XNode::Tree(node)) => {
                walk.below(node, step.axis == Axis::DescendantOrSelf, seen)?;
            }
            (Axis::This | Axis::DescendantOrSelf, _) => walk.look(from)?,
            (Axis::Child, XNode::Tree(_)) => walk.all(node.children())?,
            (Axis::Parent, XNode::Tree(_)) => walk.all(node.parent())?,
            (Axis::Parent, XNode::Attribute(..)) => walk.look(XNode::Tree(node))?,
            (Axis::Ancestor, XNode::Tree(_)) => walk.all(node.ancestors())?,
            (Axis::Ancestor, XNode::Attribute(..)) | (Axis::AncestorOrSelf, _) => {
                walk.look(from)?;
                if let XNode::Attribute(..) = from {
                    walk.look(XNode::Tree(node))?;
                }
                walk.all(node.ancestors())?;
            }
            (Axis::FollowingSibling, XNode::Tree(_)) => walk.all(node.next_siblings())?,
            (Axis::PrecedingSibling, XNode::Tree(_)) => walk.all(node.prev_siblings())?,
            (Axis::Following, XNode::Tree(_)) => {
                for ancestor in std::iter::once(node).chain(node.ancestors()) {
                    for sibling in ancestor.next_siblings() {
                        walk.all(sibling.descendants())?;
                    }
                }
            }
            (Axis::Preceding, XNode::Tree(_)) => {
                for ancestor in std::iter::once(node).chain(node.ancestors()) {
                    for sibling in ancestor.prev_siblings() {
                        let below: Vec<_> = sibling.descendants().collect();
                        walk.all(below.into_iter().rev())?;
                    }
                }
            }
            (Axis::Attribute, XNode::Tree(_)) => {
                if let Some(element) = ElementRef::wrap(node) {
                    for index in 0..element.value().attrs.len() {
                        walk.look(XNode::Attribute(element, index))?;
                    }
                }
            }
            // An attribute has neither children nor siblings.
            (_, XNode::Attribute(..)) => {}
        }
        Ok(walk.found)
    }
}

/// Collects what passes a step's test.
struct Walk<'e, 'a> {
    evaluation: Evaluation<'e>,
    step: &'e Step,
    found: Vec<XNode<'a>>,
}

impl<'a> Walk<'_, 'a> {
    fn look(&mut self, node: XNode<'a>) -> Result<(), ExtractError> {
        self.evaluation.budget.work(1)?;
        if passes(&self.step.test, node) {
            self.found.push(node);
            check_set(self.found.len())?;
        }
        Ok(())
    }

    fn all(&mut self, nodes: impl IntoIterator<Item = NodeRef<'a, Node>>) -> Result<(), ExtractError> {
        nodes.into_iter().try_for_each(|node| self.look(XNode::Tree(node)))
    }

    fn below(
        &mut self,
        top: NodeRef<'a, Node>,
        with_top: bool,
        seen: Option<&mut HashSet<NodeId>>,
    ) -> Result<(), ExtractError> {
        let Some(seen) = seen else {
            return self.all(top.descendants().skip(usize::from(!with_top)));
        };
        // Contexts come in the order of the document, so what is seen was entered from above and is seen with all that is below.
        if with_top {
            self.look(XNode::Tree(top))?;
        }
        if !seen.insert(top.id()) {
            return Ok(());
        }
        for node in top.descendants().skip(1) {
            seen.insert(node.id());
            self.look(XNode::Tree(node))?;
        }
        Ok(())
    }
}

fn passes(test: &NodeTest, node: XNode<'_>) -> bool {
    match test {
        NodeTest::Name(wanted) => node.name() == Some(wanted),
        NodeTest::Any => node.name().is_some(),
        NodeTest::Node => true,
        NodeTest::Text => matches!(node, XNode::Tree(node) if node.value().is_text()),
        NodeTest::Comment => matches!(node, XNode::Tree(node) if node.value().is_comment()),
    }
}

fn calculated(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use scraper::Html;

    use super::*;

    const PAGE: &str = r#"<!doctype html><html lang=en><body><h1 id=top>Shop</h1><!-- note -->
        <dl><dt id=a>One<dd>first<dd>more<dt id=b>Two<dd>second</dl>
        <ul class="list wide"><li>1<li>2 <a href=x>two</a><li>3</ul><p>x <b>y</b> z</p></body></html>"#;

    fn texts(xpath: &str) -> Vec<String> {
        texts_of(xpath, PAGE, "html").unwrap()
    }

    fn texts_of(xpath: &str, html: &str, from: &str) -> Result<Vec<String>, ExtractError> {
        texts_within(xpath, html, from, Duration::from_mins(2))
    }

    fn texts_within(xpath: &str, html: &str, from: &str, within: Duration) -> Result<Vec<String>, ExtractError> {
        let html = Html::parse_document(html);
        let from = html.select(&scraper::Selector::parse(from).unwrap()).next().unwrap();
        let budget = Budget::new(Instant::now() + within);
        let found = find(&XPath::parse(xpath).unwrap(), *from, &Order::default(), &budget)?;
        let text = |found| match found {
            Found::Text(text) => text,
            Found::Element(element) => element.text().collect::<String>().trim().to_owned(),
            Found::Json(json) => json.to_string(),
        };
        Ok(found.into_iter().map(text).collect())
    }

    #[test]
    fn every_axis_leads_where_it_says() {
        for (xpath, expected) in [
            ("//dt/following-sibling::dd[1]", vec!["first", "second"]),
            ("//dt[@id='b']/preceding-sibling::dd[1]", vec!["more"]),
            ("//dt[@id='b']/preceding-sibling::dd", vec!["first", "more"]),
            ("//dd[2]/preceding::dt", vec!["One"]),
            ("//dt[2]/following::b", vec!["y"]),
            ("//b/ancestor::body/h1", vec!["Shop"]),
            ("//b/ancestor-or-self::*[1]", vec!["y"]),
            ("//b/..", vec!["x y z"]),
            ("//b/parent::p/text()", vec!["x ", " z"]),
            ("//li/self::li[a]", vec!["2 two"]),
            ("//ul/@class", vec!["list wide"]),
            ("/html/@*", vec!["en"]),
            ("//comment()", vec![" note "]),
            ("//ul/descendant-or-self::*[@href]", vec!["two"]),
        ] {
            assert_eq!(texts(xpath), expected, "{xpath}");
        }
    }

    #[test]
    fn predicates_positions_and_operators_work_as_written() {
        for (xpath, expected) in [
            ("//li[2]", vec!["2 two"]),
            ("//li[last()]", vec!["3"]),
            ("(//dd)[last()]", vec!["second"]),
            ("//li[position() mod 2 = 1]", vec!["1", "3"]),
            ("//li[. > 2]", vec!["3"]),
            ("//dt | //h1", vec!["Shop", "One", "Two"]),
            ("//*[@id and not(self::dt)]", vec!["Shop"]),
            (
                "//dd[contains(., 'o') or starts-with(., 'f')]",
                vec!["first", "more", "second"],
            ),
            ("//li[text() = '3']", vec!["3"]),
            (
                "//*[contains(concat(' ', normalize-space(@class), ' '), ' wide ')]/li[1]",
                vec!["1"],
            ),
        ] {
            assert_eq!(texts(xpath), expected, "{xpath}");
        }
    }

    #[test]
    fn functions_give_what_the_recommendation_says() {
        for (xpath, expected) in [
            ("count(//li)", "3"),
            ("sum(//li[not(a)])", "4"),
            ("string(//b)", "y"),
            ("substring('12345', 2, 3)", "234"),
            ("substring('12345', 1.5, 2.6)", "234"),
            ("substring('12345', 0, 3)", "12"),
            ("substring('12345', 0 div 0, 3)", ""),
            ("substring-before('1999/04/01', '/')", "1999"),
            ("substring-after('1999/04/01', '/')", "04/01"),
            ("translate('--aaa--', 'abc-', 'ABC')", "AAA"),
            ("normalize-space('  a  b ')", "a b"),
            ("string-length('äö')", "2"),
            ("round(-2.5)", "-2"),
            ("floor(2.7) + ceiling(0.2)", "3"),
            ("1 div 0", "Infinity"),
            ("7 mod 4 * 2 - 1", "5"),
            ("name(//*[@lang])", "html"),
            ("not(//table)", "true"),
            ("1 = 1.0 and 'a' != 'b' and 2 >= 2", "true"),
            ("boolean(//table) or false()", "false"),
            ("0.1", "0.1"),
        ] {
            assert_eq!(texts(xpath), [expected], "{xpath}");
        }
    }

    #[test]
    fn a_relative_path_begins_at_the_item_and_an_absolute_one_at_the_document() {
        assert_eq!(texts_of("./following-sibling::dd[1]", PAGE, "#b").unwrap(), ["second"]);
        assert_eq!(texts_of("../li[1]", PAGE, "li + li").unwrap(), ["1"]);
        assert_eq!(texts_of("//h1", PAGE, "#b").unwrap(), ["Shop"]);
    }

    #[test]
    fn a_path_that_looks_at_everything_again_and_again_gives_each_node_once() {
        let html = format!("{}{}", "<div>".repeat(400), "<p>x</p>".repeat(100_000));
        assert_eq!(texts_of("count(//*//*//*//*)", &html, "html").unwrap(), ["100399"]);
    }

    #[test]
    fn a_path_that_blows_up_ends_at_the_deadline_or_at_the_limit_of_a_set() {
        let html = format!("{}{}", "<div>".repeat(400), "<p>x</p>".repeat(100_000));
        for xpath in [
            "//*[count(.//*[count(.//*) > 1]) > 1]",
            "//*[//*[//*[//*[.='y']]]]",
            "//*[preceding::*[preceding::*[preceding::*[last()]]]]",
            "//p[. = //p[. != 'x']]",
        ] {
            let error = texts_within(xpath, &html, "html", Duration::from_secs(1)).unwrap_err();
            assert!(
                matches!(error, ExtractError::Late | ExtractError::TooManyNodes { .. }),
                "{xpath}: {error:?}"
            );
        }
    }
}
