//! XPath 1.0 as users write it, parsed. Pure; the worker evaluates it.
//!
//! Left out: variables, namespaces (a name is compared as it is written in the page, with its prefix), processing instructions, `id()` and
//! `lang()`. See `docs/adr/0018-xpath-over-the-pages-tree.md`.

mod parse;

use std::fmt;

/// A parsed XPath.
#[derive(Clone, Debug)]
pub struct XPath {
    /// What is evaluated.
    pub expression: Expression,
    text: String,
}

impl XPath {
    /// Reads an XPath.
    ///
    /// # Errors
    /// What is wrong and where, as a sentence without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expression = parse::parse(text)?;
        Ok(Self {
            expression,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for XPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An expression; its value is a set of nodes, a text, a number or a truth value.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// `or`
    Or(Box<Expression>, Box<Expression>),
    /// `and`
    And(Box<Expression>, Box<Expression>),
    /// `=`, `<` and their kind.
    Compare(Comparison, Box<Expression>, Box<Expression>),
    /// `+`, `div` and their kind.
    Arithmetic(Operator, Box<Expression>, Box<Expression>),
    /// `-x`
    Negate(Box<Expression>),
    /// `a | b`
    Union(Box<Expression>, Box<Expression>),
    /// A way through the tree.
    Path(Path),
    /// A text in quotes.
    Text(String),
    /// A number.
    Number(f64),
    /// A call with as many arguments as the function takes.
    Call(Function, Vec<Expression>),
}

/// A way through the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Where it begins.
    pub start: Start,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// Where a path begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// The document.
    Root,
    /// The node at hand.
    Here,
    /// The nodes of an expression that meet the conditions, such as `(//a)[1]`.
    Nodes(Box<Expression>, Vec<Expression>),
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// In which direction.
    pub axis: Axis,
    /// To which nodes.
    pub test: NodeTest,
    /// What they must meet.
    pub predicates: Vec<Expression>,
    /// Whether a predicate looks at positions; without one the nodes that several contexts share are looked at once.
    pub positional: bool,
}

/// A direction in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of XPath 1.0, section 2.2")]
pub enum Axis {
    Ancestor,
    AncestorOrSelf,
    Attribute,
    Child,
    Descendant,
    DescendantOrSelf,
    Following,
    FollowingSibling,
    Parent,
    Preceding,
    PrecedingSibling,
    This,
}

impl Axis {
    /// Whether its nodes come nearest first, against the order of the document.
    pub const fn is_reverse(self) -> bool {
        matches!(
            self,
            Self::Ancestor | Self::AncestorOrSelf | Self::Preceding | Self::PrecedingSibling
        )
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ancestor" => Self::Ancestor,
            "ancestor-or-self" => Self::AncestorOrSelf,
            "attribute" => Self::Attribute,
            "child" => Self::Child,
            "descendant" => Self::Descendant,
            "descendant-or-self" => Self::DescendantOrSelf,
            "following" => Self::Following,
            "following-sibling" => Self::FollowingSibling,
            "parent" => Self::Parent,
            "preceding" => Self::Preceding,
            "preceding-sibling" => Self::PrecedingSibling,
            "self" => Self::This,
            _ => return None,
        })
    }
}

/// Which nodes of an axis are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeTest {
    /// Elements (or attributes) of this name.
    Name(String),
    /// Every element (or attribute).
    Any,
    /// `text()`
    Text,
    /// `comment()`
    Comment,
    /// `node()`
    Node,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// A function of XPath 1.0, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of XPath 1.0, section 4")]
pub enum Function {
    Boolean,
    Ceiling,
    Concat,
    Contains,
    Count,
    False,
    Floor,
    Last,
    Name,
    NormalizeSpace,
    Not,
    Number,
    Position,
    Round,
    StartsWith,
    String,
    StringLength,
    Substring,
    SubstringAfter,
    SubstringBefore,
    Sum,
    Translate,
    True,
}

/// Every function with its name and the least and most arguments that it takes.
const FUNCTIONS: [(&str, Function, usize, usize); 24] = [
    ("boolean", Function::Boolean, 1, 1),
    ("ceiling", Function::Ceiling, 1, 1),
    ("concat", Function::Concat, 2, 32),
    ("contains", Function::Contains, 2, 2),
    ("count", Function::Count, 1, 1),
    ("false", Function::False, 0, 0),
    ("floor", Function::Floor, 1, 1),
    ("last", Function::Last, 0, 0),
    ("local-name", Function::Name, 0, 1),
    ("name", Function::Name, 0, 1),
    ("normalize-space", Function::NormalizeSpace, 0, 1),
    ("not", Function::Not, 1, 1),
    ("number", Function::Number, 0, 1),
    ("position", Function::Position, 0, 0),
    ("round", Function::Round, 1, 1),
    ("starts-with", Function::StartsWith, 2, 2),
    ("string", Function::String, 0, 1),
    ("string-length", Function::StringLength, 0, 1),
    ("substring", Function::Substring, 2, 3),
    ("substring-after", Function::SubstringAfter, 2, 2),
    ("substring-before", Function::SubstringBefore, 2, 2),
    ("sum", Function::Sum, 1, 1),
    ("translate", Function::Translate, 3, 3),
    ("true", Function::True, 0, 0),
];

impl Expression {
    /// Whether its value as a predicate depends on where the node stands among its fellows.
    fn is_positional(&self) -> bool {
        self.is_number() || self.asks_position()
    }

    fn is_number(&self) -> bool {
        match self {
            Self::Number(_) | Self::Arithmetic(..) | Self::Negate(_) => true,
            Self::Call(function, _) => matches!(
                function,
                Function::Ceiling
                    | Function::Count
                    | Function::Floor
                    | Function::Last
                    | Function::Number
                    | Function::Position
                    | Function::Round
                    | Function::StringLength
                    | Function::Sum
            ),
            _ => false,
        }
    }

    /// Inner predicates have positions of their own; to look into them too errs on the safe side.
    fn asks_position(&self) -> bool {
        match self {
            Self::Or(a, b)
            | Self::And(a, b)
            | Self::Union(a, b)
            | Self::Compare(_, a, b)
            | Self::Arithmetic(_, a, b) => a.asks_position() || b.asks_position(),
            Self::Negate(a) => a.asks_position(),
            Self::Call(Function::Position | Function::Last, _) => true,
            Self::Call(_, arguments) => arguments.iter().any(Self::asks_position),
            Self::Path(path) => {
                let start = match &path.start {
                    Start::Nodes(nodes, predicates) => {
                        nodes.asks_position() || predicates.iter().any(Self::asks_position)
                    }
                    Start::Root | Start::Here => false,
                };
                start
                    || path
                        .steps
                        .iter()
                        .flat_map(|step| &step.predicates)
                        .any(Self::asks_position)
            }
            Self::Text(_) | Self::Number(_) => false,
        }
    }
}
