//! CSS selectors that can be told when an element begins: names, ids, classes, attributes and places, below and directly below each other.
//! Others need a tree; of those [`Selector::parse`] says nothing.

use super::super::{
    tokens::{Attribute, attribute},
    walk::{Element, Open, tags::Name},
};

/// Several ways to be meant, with a comma between them.
#[derive(Clone, Debug)]
pub(super) struct Selector(Vec<Complex>);

/// Compounds from the last to the first, each with how it stands to the one after it.
#[derive(Clone, Debug)]
struct Complex {
    last: Compound,
    above: Vec<(Relation, Compound)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Above,
    DirectlyAbove,
}

#[derive(Clone, Debug, Default)]
struct Compound {
    name: Option<(Name, Box<str>)>,
    id: Option<Box<str>>,
    classes: Vec<Box<str>>,
    tests: Vec<Test>,
    /// Its place among its siblings, from 1.
    place: Option<u32>,
}

#[derive(Clone, Debug)]
struct Test {
    attribute: Box<str>,
    /// How its value is looked at; `None` when it only has to be there.
    value: Option<(Operator, Box<str>)>,
    ignores_case: bool,
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    Equal,
    Word,
    Dash,
    Begins,
    Ends,
    Holds,
}

impl Selector {
    /// Reads a selector that was parsed before as CSS. `None` where it says something else than what is known here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader(text.trim_matches(is_space));
        let mut ways = Vec::new();
        loop {
            ways.push(reader.complex()?);
            reader.skip_space();
            if reader.0.is_empty() {
                return Some(Self(ways));
            }
            reader.take(',')?;
            reader.skip_space();
        }
    }

    /// Whether it means the newest of the open elements.
    pub(super) fn means(&self, open: &Open<'_>) -> bool {
        let Some((newest, above)) = open.elements.split_last() else {
            return false;
        };
        self.0
            .iter()
            .any(|way| way.last.means(newest, open) && leads(&way.above, above, open))
    }
}

/// Whether the rest of a selector is met by what an element stands in.
fn leads(wanted: &[(Relation, Compound)], above: &[Element<'_>], open: &Open<'_>) -> bool {
    let Some(((relation, compound), rest)) = wanted.split_first() else {
        return true;
    };
    let mut above = above;
    while let Some((nearest, further)) = above.split_last() {
        if compound.means(nearest, open) && leads(rest, further, open) {
            return true;
        }
        if *relation == Relation::DirectlyAbove {
            return false;
        }
        above = further;
    }
    false
}

impl Compound {
    fn means(&self, element: &Element<'_>, open: &Open<'_>) -> bool {
        if let Some((name, text)) = &self.name
            && !(*name == element.name && (!name.is_long() || element.text.eq_ignore_ascii_case(text)))
        {
            return false;
        }
        if self.place.is_some_and(|place| place != element.place) {
            return false;
        }
        let attributes = open.attributes_of(element);
        self.id
            .as_ref()
            .is_none_or(|id| attribute(attributes, "id").is_some_and(|found| *found.value() == **id))
            && (self.classes.is_empty() || self.has_classes(attributes))
            && self.tests.iter().all(|test| test.holds(attributes))
    }

    fn has_classes(&self, attributes: &[Attribute<'_>]) -> bool {
        let Some(class) = attribute(attributes, "class") else {
            return false;
        };
        let found = class.value();
        self.classes
            .iter()
            .all(|class| found.split_ascii_whitespace().any(|found| found == &**class))
    }
}

impl Test {
    fn holds(&self, attributes: &[Attribute<'_>]) -> bool {
        let Some(found) = attribute(attributes, &self.attribute) else {
            return false;
        };
        let Some((operator, value)) = &self.value else {
            return true;
        };
        let found = found.value();
        if self.ignores_case {
            operator.holds(&found.to_ascii_lowercase(), &value.to_ascii_lowercase())
        } else {
            operator.holds(&found, value)
        }
    }
}

impl Operator {
    fn holds(self, found: &str, wanted: &str) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::Word => found.split(is_space).any(|word| word == wanted),
            Self::Dash => found
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-')),
            Self::Begins => found.starts_with(wanted),
            Self::Ends => found.ends_with(wanted),
            Self::Holds => found.contains(wanted),
        }
    }
}

/// What is left of a selector.
struct Reader<'t>(&'t str);

impl<'t> Reader<'t> {
    fn complex(&mut self) -> Option<Complex> {
        let mut last = self.compound()?;
        let mut above = Vec::new();
        loop {
            let spaced = self.skip_space();
            let relation = match self.0.chars().next() {
                None | Some(',') => break,
                Some('>') => {
                    self.take('>')?;
                    self.skip_space();
                    Relation::DirectlyAbove
                }
                Some('+' | '~' | '|') => return None,
                Some(_) if spaced => Relation::Above,
                Some(_) => return None,
            };
            let next = self.compound()?;
            above.push((relation, std::mem::replace(&mut last, next)));
        }
        above.reverse();
        Some(Complex { last, above })
    }

    fn compound(&mut self) -> Option<Compound> {
        let mut compound = Compound::default();
        let begun = self.0;
        if self.take('*').is_none()
            && let Some(name) = self.identifier()
        {
            compound.name = Some((Name::of(name.as_bytes()), name.into()));
        }
        loop {
            match self.0.chars().next() {
                Some('#') if compound.id.is_none() => {
                    self.take('#')?;
                    compound.id = Some(self.identifier()?.into());
                }
                Some('.') => {
                    self.take('.')?;
                    compound.classes.push(self.identifier()?.into());
                }
                Some('[') => compound.tests.push(self.test()?),
                Some(':') if compound.place.is_none() => compound.place = Some(self.place()?),
                Some(c) if is_space(c) || matches!(c, ',' | '>' | '+' | '~') => break,
                None => break,
                Some(_) => return None,
            }
        }
        (self.0.len() < begun.len()).then_some(compound)
    }

    /// `:first-child` or `:nth-child(3)`.
    fn place(&mut self) -> Option<u32> {
        if let Some(rest) = self.0.strip_prefix(":first-child") {
            self.0 = rest;
            return self.ends_word().then_some(1);
        }
        let rest = self.0.strip_prefix(":nth-child(")?;
        let (number, rest) = rest.split_once(')')?;
        self.0 = rest;
        let digits = number.trim_matches(is_space);
        let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse().ok().filter(|place| plain && *place > 0)
    }

    fn ends_word(&self) -> bool {
        !self
            .0
            .starts_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '(' | '\\'))
    }

    fn test(&mut self) -> Option<Test> {
        self.take('[')?;
        self.skip_space();
        let attribute = self.identifier()?.to_ascii_lowercase();
        self.skip_space();
        let ignores_case = ignores_case(&attribute);
        let mut value = None;
        if !self.0.starts_with(']') {
            let operator = self.operator()?;
            self.skip_space();
            let wanted = self.value()?;
            self.skip_space();
            if wanted.is_empty() && !matches!(operator, Operator::Equal) {
                return None;
            }
            value = Some((operator, wanted.into()));
        }
        // A letter about case may stand here; it is not known.
        self.take(']')?;
        Some(Test {
            attribute: attribute.into(),
            value,
            ignores_case,
        })
    }

    fn operator(&mut self) -> Option<Operator> {
        let operators = [
            ("=", Operator::Equal),
            ("~=", Operator::Word),
            ("|=", Operator::Dash),
            ("^=", Operator::Begins),
            ("$=", Operator::Ends),
            ("*=", Operator::Holds),
        ];
        let (written, operator) = operators.into_iter().find(|(written, _)| self.0.starts_with(written))?;
        self.0 = &self.0[written.len()..];
        Some(operator)
    }

    fn value(&mut self) -> Option<&'t str> {
        let quote = self.0.chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else {
            return self.identifier();
        };
        let (value, rest) = self.0[1..].split_once(quote)?;
        self.0 = rest;
        (!value.contains(['\\', '\n', '\r', '\x0c', '\0'])).then_some(value)
    }

    /// One of plain letters.
    fn identifier(&mut self) -> Option<&'t str> {
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let end = self.0.find(|c| !letters(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        let first = word.strip_prefix('-').unwrap_or(word);
        if !first.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            || rest.starts_with(|c: char| c == '\\' || c == '|' && !rest.starts_with("|=") || !c.is_ascii())
        {
            return None;
        }
        self.0 = rest;
        Some(word)
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.0 = self.0.strip_prefix(wanted)?;
        Some(())
    }

    fn skip_space(&mut self) -> bool {
        let rest = self.0.trim_start_matches(is_space);
        let any = rest.len() < self.0.len();
        self.0 = rest;
        any
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

/// The attributes whose values HTML compares without regard to case (WHATWG HTML, section 4.16.2).
fn ignores_case(attribute: &str) -> bool {
    const NAMES: [&str; 46] = [
        "accept",
        "accept-charset",
        "align",
        "alink",
        "axis",
        "bgcolor",
        "charset",
        "checked",
        "clear",
        "codetype",
        "color",
        "compact",
        "declare",
        "defer",
        "dir",
        "direction",
        "disabled",
        "enctype",
        "face",
        "frame",
        "hreflang",
        "http-equiv",
        "lang",
        "language",
        "link",
        "media",
        "method",
        "multiple",
        "nohref",
        "noresize",
        "noshade",
        "nowrap",
        "readonly",
        "rel",
        "rev",
        "rules",
        "scope",
        "scrolling",
        "selected",
        "shape",
        "target",
        "text",
        "type",
        "valign",
        "valuetype",
        "vlink",
    ];
    NAMES.contains(&attribute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_that_need_a_tree_are_not_taken() {
        for text in [
            "a + b",
            "a ~ b",
            ":scope > a",
            "a:not(b)",
            "a:has(b)",
            "li:last-child",
            "li:nth-child(2n)",
            "a::before",
            "svg|a",
            "a[b=c i]",
            "a[b='\\41']",
            "\\61",
            "é",
            "a:hover",
            "a[b^='']",
            "a#b#c",
            "li:nth-child(+2)",
            "li:nth-child(0)",
            "*|a",
            "a[x|b]",
        ] {
            assert!(Selector::parse(text).is_none(), "{text}");
        }
        for text in [
            "a",
            "*",
            "a.b.c#d",
            " a > b  c,\n.d ",
            "[a]",
            "a[href^='/x y']",
            "[lang|=en]",
            "tr:nth-child( 2 ) > td:first-child",
            "*.a",
        ] {
            assert!(Selector::parse(text).is_some(), "{text}");
        }
    }
}
