//! Parsing a hostile document within limits, and its base URL.

use ego_tree::Tree;
use html5ever::{
    ParseOpts, local_name, parse_document,
    tendril::{StrTendril, TendrilSink},
};
use scraper::{ElementRef, Html, HtmlTreeSink, Node};
use selextract_task::absolute;
use url::Url;

use super::{
    ExtractError,
    budget::{Budget, check_set},
    grow::grow,
    plant::plant,
};

/// Elements in each other. html5ever is quadratic in it (html5ever issue 290); browsers stop at 512 as well.
pub(super) const MAX_DEPTH: usize = 512;
/// How much is parsed between two looks at the limits: small enough that a piece can do no harm by itself, and large enough that what
/// every piece costs does not count.
pub(super) const PIECE: usize = 16 << 10;
/// Bytes of HTML for each node of its tree, as dense as real pages are: a tree that grows is copied each time.
const BYTES_A_NODE: usize = 24;

/// Parses piece by piece. Counting tags beforehand cannot know what the tree builder closes by itself, so the tree itself is looked at
/// as it grows: an unclosed element stays open in all later pieces, so the newest node shows how deep the document is.
pub(super) fn parse(html: &str, budget: &Budget) -> Result<Html, ExtractError> {
    let empty = || Html {
        tree: Tree::with_capacity(Node::Document, html.len() / BYTES_A_NODE),
        ..Html::new_document()
    };
    let look = |html: &mut Html| {
        budget.check_time()?;
        check_tree(html)
    };
    // What becomes of a NUL character depends on where it stands.
    if memchr::memchr(0, html.as_bytes()).is_some() {
        return parse_any(html, empty(), look);
    }
    match plant(html, empty(), budget)? {
        Some(tree) => Ok(tree),
        None => grow(html, empty(), look),
    }
}

/// By html5ever alone.
fn parse_any(
    html: &str,
    empty: Html,
    look: impl Fn(&mut Html) -> Result<(), ExtractError>,
) -> Result<Html, ExtractError> {
    let mut parser = parse_document(HtmlTreeSink::new(empty), ParseOpts::default());
    let mut rest = html;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(PIECE));
        rest = tail;
        parser.process(StrTendril::from_slice(piece));
        look(&mut parser.tokenizer.sink.sink.0.borrow_mut())?;
    }
    Ok(parser.finish())
}

fn check_tree(html: &mut Html) -> Result<(), ExtractError> {
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
    // Most pages have none, and the nodes in a row are told faster than the tree is walked.
    let is_base = |node: &Node| matches!(node, Node::Element(element) if element.name.local == local_name!("base"));
    root.tree()
        .values()
        .any(is_base)
        .then(|| root.descendants())
        .into_iter()
        .flatten()
        .find_map(|node| match node.value() {
            Node::Element(element) if is_base(node.value()) => element.attr("href"),
            _ => None,
        })
        .and_then(|href| absolute(url, href))
        .unwrap_or_else(|| url.clone())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::extract::soup::soup;

    fn late() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    /// Our trees are html5ever's; whether the walk planted one.
    fn is_the_same(page: &str) -> bool {
        let look = |_: &mut Html| Ok(());
        let ours = grow(page, Html::new_document(), look).unwrap();
        let theirs = parse_any(page, Html::new_document(), look).unwrap();
        let planted = plant(page, Html::new_document(), &Budget::new(late())).unwrap();
        let is_straight = planted.is_some();
        for ours in [Some(ours), planted].into_iter().flatten() {
            assert_eq!(ours.quirks_mode, theirs.quirks_mode, "{page:?}");
            assert!(ours.tree == theirs.tree, "{page:?}\n{}\n{}", ours.html(), theirs.html());
        }
        is_straight
    }

    #[test]
    fn our_trees_are_those_that_html5ever_grows_by_itself() {
        let mut random = StdRng::seed_from_u64(7);
        let mut straight = 0;
        for round in 0..12_000 {
            let page = soup(&mut random, 4 + round / 200, [0.0, 0.1, 0.5][round % 3]);
            straight += usize::from(is_the_same(&page));
        }
        assert!(straight > 2_000, "the walk planted {straight} of 12,000 trees");
    }

    #[test]
    fn pages_of_the_dark_corners_are_the_same_too() {
        for page in [
            "",
            "\u{feff}<!DOCTYPE HTML PUBLIC '-//W3C//DTD HTML 4.01//EN' 'x>y'><p><table>",
            "<!doctype",
            "<!doctype html system><pre>\n\na</pre><pre>&#10;b</pre><listing>\r\nc",
            "<svg viewbox=1><a xlink:href=x/><![CDATA[a<b>&amp;]]><desc><![CDATA[c]]></desc></svg><![CDATA[d]]>",
            "<math><mi><b></mi><annotation-xml encoding=text/html><p></math>",
            "<script><!--<script></script>--></script>a<script><!--</script>b<SCRIPT>c</script d",
            "<title>&amp;<b></TITLE x=y>a<textarea>\r\n&lt;</textarea>b<style>&lt;</style><xmp><b></xmp><plaintext></plaintext>&amp;",
            "<a b b=c B=d =e f= >x<br/><a/ b /><c d='&copy=1&amp' e=\"a\r\nb\" g=&lt>",
            "<!--a--!><!--a--!><!--><!---><!----><!--a--><!-- --",
            "<!--a-",
            "<!--a--!",
            "<!a>",
            "<!",
            "<",
            "</",
            "</>",
            "</ a>",
            "<?a?>",
            "<a",
            "<a b",
            "<a b='",
            "</a b",
            "a&",
            "a&#x",
            "a&amp",
            "&#xD;\r",
            "<template><tr><td>a</template><table><template>b</template>c<tr>d",
            "<select><option>a<option selected>b<optgroup><input>",
            "<frameset><frame></frameset>a",
            "<body><frameset>",
            "<form><form></form><table><form>",
            "<b><p><i></b>a</i><a><a><nobr><nobr>",
            "<isindex><image src=a><button><button>",
            "<head></head><link><body a=b><body a=c d=e><html f=g>",
            "<table>a<b>c<tr><td></b>d</table>e<caption><col>",
            "<noscript><p></noscript><iframe><p></iframe><noembed><b></noembed>",
            "<ruby>a<rb>b<rt>c<rtc>d<rp>e</ruby><p></p></p></br>",
            "<applet><marquee><object></applet>a",
        ] {
            is_the_same(page);
        }
    }

    #[test]
    fn any_bytes_are_the_same() {
        use rand::Rng;
        let mut random = StdRng::seed_from_u64(9);
        let alphabet: Vec<char> = "<>/!-?='\"& \n\rabpix#;&[]CDATAé".chars().collect();
        for _ in 0..20_000 {
            let length = random.random_range(0..40);
            let page: String = (0..length)
                .map(|_| alphabet[random.random_range(0..alphabet.len())])
                .collect();
            is_the_same(&page);
        }
    }
}
