//! Pages of tag soup, for tests that hold two ways of reading against each other.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

const TAGS: [&str; 68] = [
    "a",
    "b",
    "i",
    "code",
    "span",
    "p",
    "p",
    "div",
    "div",
    "ul",
    "li",
    "li",
    "ol",
    "dl",
    "dt",
    "dd",
    "table",
    "table",
    "tr",
    "tr",
    "td",
    "td",
    "th",
    "tbody",
    "thead",
    "tfoot",
    "caption",
    "colgroup",
    "col",
    "h1",
    "h2",
    "br",
    "img",
    "hr",
    "input",
    "form",
    "button",
    "select",
    "option",
    "optgroup",
    "script",
    "style",
    "title",
    "textarea",
    "pre",
    "section",
    "address",
    "blockquote",
    "figcaption",
    "center",
    "dialog",
    "label",
    "base",
    "meta",
    "link",
    "head",
    "body",
    "html",
    "noscript",
    "iframe",
    "svg",
    "template",
    "em",
    "ruby",
    "rt",
    "main",
    "x-own",
    "nobr",
];

const TEXTS: [&str; 22] = [
    "a",
    " ",
    "\n",
    "b c",
    "&amp;",
    "&nbsp;",
    "&lt",
    "&copy=1",
    "3,5",
    "\u{e9}\u{a0}x",
    "<",
    "<!-- c -->",
    "<!x>",
    "<?pi?>",
    "</>",
    "&#x41;",
    "\r\n",
    "\u{2003}y",
    "--",
    ">",
    "&notit;",
    "</br>",
];

const ATTRIBUTES: [&str; 14] = [
    " class=x",
    " class='y x'",
    " id=i",
    " href=n?a=1&amp;b",
    " href='/z&copy=1'",
    " HREF=\"q\n\"",
    " src=s",
    " class",
    " hidden href=''",
    " href=y rel='a nofollow'",
    " name=robots content='noindex, none'",
    "/",
    " a=b a=c",
    " data-x='>'",
];

/// Mostly closed tags, as pages are, and now and then none or a wrong one.
pub(super) fn soup(random: &mut StdRng, most: usize, disorder: f64) -> String {
    let mut page = String::new();
    if random.random_bool(0.7) {
        page.push_str(if random.random_bool(0.8) {
            "<!doctype html>"
        } else {
            "<!DOCTYPE html PUBLIC \"-//W3C//DTD HTML 4.01//EN\">"
        });
    }
    let mut open: Vec<&str> = Vec::new();
    for _ in 0..random.random_range(1..most) {
        match random.random_range(0..10) {
            0..4 => {
                let tag = TAGS.choose(random).unwrap();
                page.push('<');
                page.push_str(tag);
                for _ in 0..random.random_range(0..3) {
                    page.push_str(ATTRIBUTES.choose(random).unwrap());
                }
                page.push('>');
                open.push(tag);
            }
            4..7 => page.push_str(TEXTS.choose(random).unwrap()),
            _ => {
                let tag = if random.random_bool(disorder) {
                    TAGS.choose(random).copied()
                } else {
                    open.pop()
                };
                if let Some(tag) = tag
                    && !random.random_bool(disorder)
                {
                    page.push_str("</");
                    page.push_str(tag);
                    page.push('>');
                }
            }
        }
    }
    page
}
