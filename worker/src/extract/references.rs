//! Character references, as the tokenizer of HTML reads them (WHATWG HTML, section 13.2.5.72).

use html5ever::data::{C1_REPLACEMENTS, NAMED_ENTITIES};

/// Where a reference stands: within an attribute `&copy=1` is no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    Text,
    Attribute,
}

/// Appends the text with its references replaced.
pub(super) fn decode(text: &str, within: Within, out: &mut String) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let taken = match rest.as_bytes().first() {
            Some(b'#') => numeric(&rest[1..], out).map(|length| length + 1),
            Some(c) if c.is_ascii_alphanumeric() => named(rest, within, out),
            _ => None,
        };
        match taken {
            Some(length) => rest = &rest[length..],
            None => out.push('&'),
        }
    }
    out.push_str(rest);
}

/// Reads what is behind `&#`; returns how much of it was taken.
fn numeric(text: &str, out: &mut String) -> Option<usize> {
    let (base, begin) = match text.as_bytes().first() {
        Some(b'x' | b'X') => (16, 1),
        _ => (10, 0),
    };
    let digits = text[begin..]
        .bytes()
        .take_while(|digit| char::from(*digit).is_digit(base))
        .count();
    if digits == 0 {
        return None;
    }
    let end = begin + digits;
    // What is too large for the number is no character either.
    let number = u32::from_str_radix(&text[begin..end], base).unwrap_or(u32::MAX);
    let replaced = match number {
        0x80..=0x9f => C1_REPLACEMENTS.get(number as usize - 0x80).copied().flatten(),
        _ => None,
    };
    let read = replaced.or_else(|| char::from_u32(number).filter(|c| *c != '\0'));
    out.push(read.unwrap_or(char::REPLACEMENT_CHARACTER));
    Some(end + usize::from(text.as_bytes().get(end) == Some(&b';')))
}

/// Reads a name behind `&`: the longest one that there is.
fn named(text: &str, within: Within, out: &mut String) -> Option<usize> {
    let mut found = None;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        match NAMED_ENTITIES.get(&text[..end]) {
            Some((0, _)) => {}
            Some(characters) => found = Some((end, *characters)),
            None => break,
        }
    }
    let (end, (first, second)) = found?;
    let next = text.as_bytes().get(end);
    let open = !text[..end].ends_with(';');
    if open && within == Within::Attribute && next.is_some_and(|c| *c == b'=' || c.is_ascii_alphanumeric()) {
        return None;
    }
    out.extend(
        [first, second]
            .into_iter()
            .filter(|c| *c != 0)
            .filter_map(char::from_u32),
    );
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str, within: Within) -> String {
        let mut out = String::new();
        decode(text, within, &mut out);
        out
    }

    #[test]
    fn references_are_read_as_browsers_read_them() {
        for (text, expected) in [
            ("a &amp; b &lt;&#65;&#x42;&#66", "a & b <ABB"),
            ("&notit; &notin; &copy2", "¬it; ∉ ©2"),
            ("&#0;&#x80;&#xd800;&#99999999999;", "\u{fffd}€\u{fffd}\u{fffd}"),
            ("& &; &# &#x; &zyx; &", "& &; &# &#x; &zyx; &"),
            ("&NotEqualTilde;", "≂\u{338}"),
        ] {
            assert_eq!(decoded(text, Within::Text), expected, "{text}");
        }
    }

    #[test]
    fn the_ampersands_of_a_query_are_no_references() {
        let query = "?a=1&copy=2&lt3&amp;reg=4&copy";
        assert_eq!(decoded(query, Within::Attribute), "?a=1&copy=2&lt3&reg=4©");
    }
}
