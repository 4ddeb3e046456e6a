//! Where something is in a page: a selector as users write it, parsed.

use std::fmt;

use scraper::Selector;

use crate::{JsonPath, xpath::XPath};

/// A parsed selector. Which language it is written in is told by how it begins, and no text begins in two of them.
#[derive(Clone, Debug)]
pub enum Locator {
    /// CSS.
    Css(CssLocator),
    /// `/`, `./`, `../` or `(`
    XPath(XPath),
    /// `$`
    JsonPath(JsonPath),
}

/// A CSS selector and how far from the item it looks.
#[derive(Clone, Debug)]
pub struct CssLocator {
    /// Matched with the item as `:scope`.
    pub selector: Selector,
    /// It begins with `:scope +` or `:scope ~`: what it names is a following sibling of the item, or within one.
    pub siblings: bool,
    text: String,
}

impl Locator {
    /// Reads a selector.
    ///
    /// # Errors
    /// What is wrong and how to mend it, as a sentence without its subject.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with('$') {
            return JsonPath::parse(text).map(Self::JsonPath);
        }
        if text.starts_with(['/', '(']) || text == "." || text.starts_with("./") || text.starts_with("..") {
            return XPath::parse(text).map(Self::XPath);
        }
        CssLocator::parse(text).map(Self::Css)
    }

    /// Whether it is read in JSON and not in a tree of elements.
    pub const fn is_json(&self) -> bool {
        matches!(self, Self::JsonPath(_))
    }
}

impl CssLocator {
    fn parse(text: &str) -> Result<Self, String> {
        let selector = Selector::parse(text).map_err(|error| {
            format!("is not a CSS selector ({error}); try it with document.querySelector in a browser, or begin an XPath with / or ./")
        })?;
        let siblings = text
            .strip_prefix(":scope")
            .is_some_and(|rest| rest.trim_start().starts_with(['+', '~']));
        if siblings && has_alternatives(text) {
            return Err("leads out of the item and has a comma; write one selector without a comma".to_owned());
        }
        Ok(Self {
            selector,
            siblings,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Css(css) => f.write_str(&css.text),
            Self::XPath(xpath) => xpath.fmt(f),
            Self::JsonPath(path) => path.fmt(f),
        }
    }
}

/// Whether a selector that parses has a comma outside of brackets and strings.
fn has_alternatives(selector: &str) -> bool {
    let mut open = 0_usize;
    let mut string = None;
    let mut characters = selector.chars();
    while let Some(c) = characters.next() {
        match (c, string) {
            ('\\', _) => drop(characters.next()),
            (c, Some(quote)) => string = (c != quote).then_some(quote),
            ('"' | '\'', None) => string = Some(c),
            ('(' | '[', None) => open += 1,
            (')' | ']', None) => open = open.saturating_sub(1),
            (',', None) if open == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn siblings(text: &str) -> bool {
        matches!(Locator::parse(text).unwrap(), Locator::Css(css) if css.siblings)
    }

    #[test]
    fn the_language_is_told_by_the_beginning() {
        for text in ["//a", "/html", "./a", "../a", "..", ".", "(//a)[1]", " //a"] {
            assert!(matches!(Locator::parse(text), Ok(Locator::XPath(_))), "{text}");
        }
        for text in ["a", ".a", "#a", "[a]", ":scope", "*", " .a > b"] {
            assert!(matches!(Locator::parse(text), Ok(Locator::Css(_))), "{text}");
        }
        assert!(matches!(Locator::parse("$.a"), Ok(Locator::JsonPath(_))));
    }

    #[test]
    fn a_selector_that_leads_out_of_the_item_is_known_by_its_beginning() {
        assert!(siblings(":scope + dd") && siblings(" :scope~dd > p"));
        assert!(!siblings(":scope > dd") && !siblings("dt + dd") && !siblings(":scope"));
    }

    #[test]
    fn one_that_leads_out_of_the_item_has_no_alternatives() {
        assert!(Locator::parse(":scope + dd, p").is_err());
        assert!(siblings(":scope + dd:is(.a, [b=',']) [c='),']"));
    }
}
