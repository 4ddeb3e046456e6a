//! From bytes to text, as the Encoding and HTML standards have it: byte order mark, `Content-Type`, what the page says about itself
//! (`<meta>` in HTML, the declaration in XML), and then a guess.

use std::sync::LazyLock;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use regex::bytes::Regex;

use crate::content::Content;

/// How far the standard looks for `<meta charset>`.
const PRESCAN: usize = 1024;

/// Decodes a page; what is not in its charset becomes U+FFFD.
pub(super) fn decode(bytes: &[u8], content_type: Option<&str>, content: Content) -> String {
    // `decode` itself prefers a byte order mark over the encoding that it is given.
    let encoding = content_type
        .and_then(of_content_type)
        .or_else(|| match content {
            Content::Html => of_itself(&META, &without_comments(bytes)),
            Content::Xml => of_itself(&DECLARATION, bytes),
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

static META: Pattern = LazyLock::new(|| Regex::new(r#"(?i-u)<meta\s[^>]*?charset\s*=\s*["']?\s*([a-z0-9_:.-]+)"#).ok());
static DECLARATION: Pattern =
    LazyLock::new(|| Regex::new(r#"(?-u)^\s*<\?xml\s[^>]*?encoding\s*=\s*["']\s*([A-Za-z0-9_:.-]+)"#).ok());

type Pattern = LazyLock<Option<Regex>>;

fn of_itself(pattern: &Pattern, bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes.get(..PRESCAN).unwrap_or(bytes);
    let found = pattern.as_ref()?.captures(head)?;
    let label = found.get(1)?.as_bytes();
    if label.eq_ignore_ascii_case(b"x-user-defined") {
        return Some(WINDOWS_1252);
    }
    let encoding = Encoding::for_label(label)?;
    // A page whose word about itself could be read as ASCII is not UTF-16, whatever it says.
    Some(if encoding == UTF_16LE || encoding == UTF_16BE {
        UTF_8
    } else {
        encoding
    })
}

/// The beginning of a page without its comments, in which `<meta>` is nobody's word.
fn without_comments(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes.get(..PRESCAN).unwrap_or(bytes);
    let mut kept = Vec::with_capacity(rest.len());
    let at = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).position(|window| window == mark);
    while let Some(start) = at(rest, b"<!--") {
        kept.extend_from_slice(&rest[..start]);
        // `<!-->` is a whole comment.
        let comment = &rest[start + 2..];
        rest = at(comment, b"-->").map_or(&[], |end| &comment[end + 3..]);
    }
    kept.extend_from_slice(rest);
    kept
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
