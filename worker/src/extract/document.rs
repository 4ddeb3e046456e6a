//! Parsing a hostile document within limits, and its base URL.

use ego_tree::Tree;
use html5ever::{
    ParseOpts, parse_document,
    tendril::{StrTendril, TendrilSink},
};
use scraper::{ElementRef, Html, HtmlTreeSink, Node};
use selextract_task::absolute;
use url::Url;

use super::{
    ExtractError,
    budget::{Budget, check_set},
};

/// Elements in each other. html5ever is quadratic in it (html5ever issue 290); browsers stop at 512 as well.
pub(super) const MAX_DEPTH: usize = 512;
/// How much is parsed between two looks at the limits: small enough that a piece can do no harm by itself, and large enough that what
/// every piece costs does not count.
const PIECE: usize = 16 << 10;
/// Bytes of HTML for each node of its tree, as dense as real pages are: a tree that grows is copied each time.
const BYTES_A_NODE: usize = 24;

/// Parses piece by piece. Counting tags beforehand cannot know what the tree builder closes by itself, so the tree itself is looked at
/// as it grows: an unclosed element stays open in all later pieces, so the newest node shows how deep the document is.
pub(super) fn parse(html: &str, budget: &Budget) -> Result<Html, ExtractError> {
    let mut empty = Html::new_document();
    empty.tree = Tree::with_capacity(Node::Document, html.len() / BYTES_A_NODE);
    let mut parser = parse_document(HtmlTreeSink::new(empty), ParseOpts::default());
    let mut rest = html;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(PIECE));
        rest = tail;
        parser.process(StrTendril::from_slice(piece));
        budget.check_time()?;
        check_tree(&mut parser.tokenizer.sink.sink.0.borrow_mut())?;
    }
    Ok(parser.finish())
}

fn check_tree(html: &mut Html) -> Result<(), ExtractError> {
    // Nobody reads them, and a hostile page makes one for each byte.
    html.errors.clear();
    check_set(html.tree.nodes().len())?;
    let depth = html
        .tree
        .nodes()
        .next_back()
        .map_or(0, |newest| newest.ancestors().take(MAX_DEPTH + 2).count());
    // The document itself and the newest node are not counted.
    if depth > MAX_DEPTH + 1 {
        return Err(ExtractError::TooDeep { limit: MAX_DEPTH });
    }
    Ok(())
}

/// What relative URLs of the document are relative to: the first `<base href>`, else where it came from.
pub(super) fn base_url(root: ElementRef<'_>, url: &Url) -> Url {
    root.descendants()
        .find_map(|node| match node.value() {
            Node::Element(element) if element.name() == "base" => element.attr("href"),
            _ => None,
        })
        .and_then(|href| absolute(url, href))
        .unwrap_or_else(|| url.clone())
}
