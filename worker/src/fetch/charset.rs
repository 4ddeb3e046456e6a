//! From bytes to text, as the Encoding and HTML standards have it: byte order mark, `Content-Type`, what the page says about itself
//! (`<meta>` in HTML, the declaration in XML), and then a guess.

mod prescan;

use std::sync::LazyLock;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use regex::bytes::Regex;

use crate::content::Content;

/// How far a page's word about itself is looked for.
const PRESCAN: usize = 1024;

/// Decodes a page; what is not in its charset becomes U+FFFD.
pub(super) fn decode(bytes: &[u8], content_type: Option<&str>, content: Content) -> String {
    // `decode` itself prefers a byte order mark over the encoding that it is given.
    let encoding = content_type
        .and_then(of_content_type)
        .or_else(|| match content {
            Content::Html => prescan::prescan(bytes),
            Content::Xml => of_declaration(bytes),
            Content::Json | Content::JsonLines | Content::Csv => None,
        })
        .unwrap_or_else(|| guessed(bytes));
    encoding.decode(bytes).0.into_owned()
}

fn of_content_type(content_type: &str) -> Option<&'static Encoding> {
    let parameter = content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim())
    })?;
    Encoding::for_label(parameter.trim_matches('"').as_bytes())
}

static DECLARATION: Pattern =
    LazyLock::new(|| Regex::new(r#"(?-u)^\s*<\?xml\s[^>]*?encoding\s*=\s*["']\s*([A-Za-z0-9_:.-]+)"#).ok());

type Pattern = LazyLock<Option<Regex>>;

fn of_declaration(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes.get(..PRESCAN).unwrap_or(bytes);
    let found = DECLARATION.as_ref()?.captures(head)?;
    said(found.get(1)?.as_bytes())
}

/// The encoding that a page names for itself. One whose word about itself could be read as ASCII is not UTF-16, whatever it says.
fn said(label: &[u8]) -> Option<&'static Encoding> {
    if label.trim_ascii().eq_ignore_ascii_case(b"x-user-defined") {
        return Some(WINDOWS_1252);
    }
    let encoding = Encoding::for_label(label)?;
    Some(if encoding == UTF_16LE || encoding == UTF_16BE {
        UTF_8
    } else {
        encoding
    })
}

fn guessed(bytes: &[u8]) -> &'static Encoding {
    match std::str::from_utf8(bytes) {
        Ok(_) => UTF_8,
        Err(_) => WINDOWS_1252,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], content_type: Option<&str>) -> String {
        super::decode(bytes, content_type, Content::Html)
    }

    #[test]
    fn the_content_type_names_the_charset() {
        assert_eq!(decode(b"\xe9", Some("text/html; charset=\"ISO-8859-1\"")), "é");
        assert_eq!(decode(b"\xef\xf0", Some("text/html;charset=koi8-r")), "ОП");
    }

    #[test]
    fn the_content_type_goes_before_the_meta_element() {
        assert_eq!(
            decode(b"<meta charset=koi8-r>\xe9", Some("text/html; charset=latin1")),
            "<meta charset=koi8-r>é"
        );
    }

    #[test]
    fn the_meta_element_names_it_in_both_forms() {
        assert!(decode(b"<meta charset='shift_jis'>\x82\xa0", None).ends_with('あ'));
        let old = b"<META http-equiv=content-type content=\"text/html; charset=windows-1251\">\xcf";
        assert!(decode(old, Some("text/html")).ends_with('П'));
    }

    #[test]
    fn a_byte_order_mark_goes_before_everything() {
        assert_eq!(decode(b"\xff\xfeA\0", Some("text/html; charset=utf-8")), "A");
    }

    #[test]
    fn without_any_word_utf_8_is_tried_and_then_windows_1252() {
        assert_eq!(decode("é".as_bytes(), None), "é");
        assert_eq!(decode(b"\x80", None), "€");
    }

    #[test]
    fn a_meta_element_in_a_comment_says_nothing() {
        assert_eq!(
            decode(b"<!-- <meta charset=koi8-r> -->\xe9", None),
            "<!-- <meta charset=koi8-r> -->é"
        );
        assert!(decode(b"<!--><meta charset=koi8-r>\xef", None).ends_with('О'));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(decode(b"\xef\xbb\xbfa", None), "a");
        assert_eq!(decode(b"\xfe\xff\0a", Some("text/html; charset=latin1")), "a");
    }

    #[test]
    fn xml_says_its_charset_in_its_declaration_and_json_is_utf_8() {
        let xml = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>";
        assert!(super::decode(xml, Some("text/xml"), Content::Xml).ends_with("<a>é</a>"));
        let json = "{\"a\": \"é <meta charset=koi8-r>\"}";
        assert_eq!(super::decode(json.as_bytes(), None, Content::Json), json);
    }
}
