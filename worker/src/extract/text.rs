//! The text of an element as a reader sees it: white space folded, blocks apart, scripts and styles left out.

use ego_tree::iter::Edge;
use scraper::{ElementRef, Node};

/// The folded text of an element.
pub(super) fn folded(element: ElementRef<'_>) -> String {
    let mut text = Folded::default();
    let mut hidden = 0_usize;
    for edge in element.traverse() {
        match edge {
            Edge::Open(node) => match node.value() {
                Node::Text(piece) if hidden == 0 => text.push(piece),
                Node::Element(inner) => {
                    text.gap |= is_block(inner.name());
                    // A selector that names a script itself wants its text.
                    hidden += usize::from(is_hidden(inner.name()) && node.id() != element.id());
                }
                _ => {}
            },
            Edge::Close(node) => {
                if let Node::Element(inner) = node.value() {
                    text.gap |= is_block(inner.name());
                    hidden -= usize::from(is_hidden(inner.name()) && node.id() != element.id());
                }
            }
        }
    }
    text.out
}

/// A text that is folded as it comes.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) out: String,
    /// A space comes before the next word.
    pub(super) gap: bool,
}

impl Folded {
    pub(super) fn push(&mut self, piece: &str) {
        let mut rest = piece;
        loop {
            let begin = white(rest);
            self.gap |= begin > 0;
            rest = &rest[begin..];
            if rest.is_empty() {
                return;
            }
            // At once, and not word by word.
            self.out.reserve(1 + rest.len());
            let (word, after) = rest.split_at(word(rest));
            if self.gap && !self.out.is_empty() {
                self.out.push(' ');
            }
            self.gap = false;
            self.out.push_str(word);
            rest = after;
        }
    }
}

/// How long the white space at the beginning is. Most of it is ASCII, which is told by its bytes.
fn white(text: &str) -> usize {
    let ascii = text.bytes().take_while(|byte| is_ascii_white(*byte)).count();
    if text.as_bytes().get(ascii).is_none_or(u8::is_ascii) {
        return ascii;
    }
    text.len() - text.trim_start().len()
}

/// How long the word at the beginning is.
fn word(text: &str) -> usize {
    let ascii = text
        .bytes()
        .take_while(|byte| byte.is_ascii() && !is_ascii_white(*byte))
        .count();
    match text.get(ascii..) {
        Some(rest) if rest.bytes().next().is_some_and(|byte| !byte.is_ascii()) => {
            ascii + rest.find(char::is_whitespace).unwrap_or(rest.len())
        }
        _ => ascii,
    }
}

/// As [`char::is_whitespace`].
const fn is_ascii_white(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

fn is_hidden(name: &str) -> bool {
    matches!(name, "script" | "style" | "template" | "noscript")
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "br"
            | "caption"
            | "dd"
            | "details"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "header"
            | "hr"
            | "li"
            | "main"
            | "nav"
            | "ol"
            | "option"
            | "p"
            | "pre"
            | "section"
            | "summary"
            | "table"
            | "td"
            | "th"
            | "tr"
            | "ul"
    )
}

#[cfg(test)]
mod tests {
    use scraper::Html;

    use super::*;

    fn text(html: &str) -> String {
        folded(Html::parse_document(html).root_element())
    }

    #[test]
    fn white_space_is_folded_also_across_elements_and_no_break_spaces() {
        assert_eq!(text("  a <b> b</b>\n\u{a0}c "), "a b c");
    }

    #[test]
    fn blocks_stand_apart_and_inline_elements_do_not() {
        assert_eq!(
            text("<p>a</p><p>b</p>c<br>d<div>e</div><i>f</i><i>g</i>"),
            "a b c d e fg"
        );
    }

    #[test]
    fn scripts_and_styles_are_no_text_unless_they_are_asked_for() {
        assert_eq!(text("a<script>x</script><style>y</style>b"), "ab");
        let html = Html::parse_document("<script>{\"a\": 1}</script>");
        let script = html
            .select(&scraper::Selector::parse("script").unwrap())
            .next()
            .unwrap();
        assert_eq!(folded(script), "{\"a\": 1}");
    }
}
