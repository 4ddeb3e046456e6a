//! What a locator leads to.

use scraper::ElementRef;
use selextract_task::Locator;
use serde_json::Value;

use super::{ExtractError, Reading, json_path, xpath};

/// What a locator is seen from: an item, or the page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    Tree(ElementRef<'a>),
    Json(&'a Value),
}

/// One thing that a locator leads to.
#[derive(Clone, Debug)]
pub(super) enum Found<'a> {
    Element(ElementRef<'a>),
    /// What an XPath says about the tree: an attribute, a piece of text, a number.
    Text(String),
    Json(&'a Value),
}

impl<'a> Found<'a> {
    /// As something that can be looked into.
    pub(super) const fn scope(&self) -> Option<Scope<'a>> {
        match self {
            Self::Element(element) => Some(Scope::Tree(*element)),
            Self::Json(value) => Some(Scope::Json(value)),
            Self::Text(_) => None,
        }
    }
}

impl<'a> From<Scope<'a>> for Found<'a> {
    fn from(scope: Scope<'a>) -> Self {
        match scope {
            Scope::Tree(element) => Self::Element(element),
            Scope::Json(value) => Self::Json(value),
        }
    }
}

/// Gives each, in the order of the document, to `take`, until that says `false`.
pub(super) fn each<'a>(
    locator: &Locator,
    scope: Scope<'a>,
    reading: &Reading,
    take: &mut dyn FnMut(Found<'a>) -> Result<bool, ExtractError>,
) -> Result<(), ExtractError> {
    match (locator, scope) {
        (Locator::Css(css), Scope::Tree(item)) if css.siblings => {
            for node in item.next_siblings().flat_map(|sibling| sibling.descendants()) {
                reading.budget.work(1)?;
                let element = ElementRef::wrap(node);
                let element = element.filter(|element| css.selector.matches_with_scope(element, Some(item)));
                if let Some(element) = element
                    && !take(Found::Element(element))?
                {
                    break;
                }
            }
        }
        (Locator::Css(css), Scope::Tree(item)) => {
            for element in item.select(&css.selector) {
                if !take(Found::Element(element))? {
                    break;
                }
            }
        }
        (Locator::XPath(path), Scope::Tree(item)) => {
            for found in xpath::find(path, *item, &reading.order, &reading.budget)? {
                if !take(found)? {
                    break;
                }
            }
        }
        (Locator::JsonPath(path), Scope::Json(value)) => {
            for value in json_path::find(path, value, &reading.budget)? {
                if !take(Found::Json(value))? {
                    break;
                }
            }
        }
        // Refused when the plan was compiled.
        (Locator::Css(_) | Locator::XPath(_), Scope::Json(_)) | (Locator::JsonPath(_), Scope::Tree(_)) => {}
    }
    Ok(())
}
