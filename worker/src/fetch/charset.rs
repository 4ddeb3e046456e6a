//! From bytes to text, as the HTML standard has it: byte order mark, `Content-Type`, `<meta>`, and then a guess.

use std::sync::LazyLock;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use regex::bytes::Regex;

/// How far the standard looks for `<meta charset>`.
const PRESCAN: usize = 1024;

/// Decodes a page; what is not in its charset becomes U+FFFD.
pub(super) fn decode(bytes: &[u8], content_type: Option<&str>) -> String {
    // `decode` itself prefers a byte order mark over the encoding that it is given.
    let encoding = content_type
        .and_then(of_content_type)
        .or_else(|| of_meta(bytes))
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

fn of_meta(bytes: &[u8]) -> Option<&'static Encoding> {
    static META: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"(?i-u)<meta\s[^>]*?charset\s*=\s*["']?\s*([a-z0-9_:.-]+)"#).ok());
    let head = bytes.get(..PRESCAN).unwrap_or(bytes);
    let found = META.as_ref()?.captures(head)?;
    let encoding = Encoding::for_label(found.get(1)?.as_bytes())?;
    // A page whose <meta> could be read as ASCII is not UTF-16, whatever it says.
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
}
