//! The elements that a locator leads to.

use scraper::ElementRef;
use selextract_task::Locator;

/// All of them, in the order of the document, seen from an item.
pub(super) fn all<'a>(locator: &'a Locator, item: ElementRef<'a>) -> Box<dyn Iterator<Item = ElementRef<'a>> + 'a> {
    match locator {
        Locator::Css(css) if css.siblings => Box::new(
            item.next_siblings()
                .flat_map(|sibling| sibling.descendants())
                .filter_map(ElementRef::wrap)
                .filter(move |element| css.selector.matches_with_scope(element, Some(item))),
        ),
        Locator::Css(css) => Box::new(item.select(&css.selector)),
    }
}
