//! What the beginning of an HTML page says about its encoding: the HTML standard's "prescan a byte stream to determine its encoding", with
//! its "get an attribute" and "extracting a character encoding from a meta element". Pure.

use encoding_rs::Encoding;

use super::{PRESCAN, said};

/// The encoding that the first `<meta>` which names a known one does, in either of its two forms; comments, other tags' attributes and text
/// say nothing.
pub(super) fn prescan(bytes: &[u8]) -> Option<&'static Encoding> {
    let mut rest = bytes.get(..PRESCAN).unwrap_or(bytes);
    loop {
        rest = &rest[rest.iter().position(|byte| *byte == b'<')?..];
        rest = match rest {
            // `<!-->` is a whole comment.
            [b'<', b'!', b'-', b'-', ..] => after(&rest[2..], b"-->")?,
            _ if is_meta(rest) => {
                let mut attributes = Attributes(&rest[5..]);
                if let Some(encoding) = of_meta(&mut attributes) {
                    return Some(encoding);
                }
                attributes.0
            }
            [b'<', b'/', letter, ..] | [b'<', letter, ..] if letter.is_ascii_alphabetic() => {
                let end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'>';
                let mut attributes = Attributes(&rest[rest.iter().position(end)?..]);
                while attributes.next().is_some() {}
                attributes.0
            }
            [b'<', b'!' | b'/' | b'?', ..] => after(rest, b">")?,
            _ => &rest[1..],
        };
    }
}

fn after<'b>(bytes: &'b [u8], mark: &[u8]) -> Option<&'b [u8]> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some(&bytes[at + mark.len()..])
}

fn is_meta(bytes: &[u8]) -> bool {
    bytes.split_at_checked(5).is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(b"<meta")
            && rest
                .first()
                .is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b'/')
    })
}

/// The encoding of one `<meta>`: its `charset`, or that in its `content` when it stands for a `Content-Type`. Of attributes with one name the
/// first counts.
fn of_meta(attributes: &mut Attributes<'_>) -> Option<&'static Encoding> {
    let (mut seen, mut got_pragma, mut found) = (Vec::new(), false, None::<(Option<&'static Encoding>, bool)>);
    for (name, value) in attributes {
        if seen.contains(&name) {
            continue;
        }
        match name.as_slice() {
            b"http-equiv" => got_pragma |= value.eq_ignore_ascii_case(b"content-type"),
            b"content" if found.is_none() => found = of_content(&value).map(|encoding| (Some(encoding), true)),
            b"charset" => found = Some((said(&value), false)),
            _ => {}
        }
        seen.push(name);
    }
    let (encoding, needs_pragma) = found?;
    encoding.filter(|_| got_pragma || !needs_pragma)
}

/// "Extracting a character encoding from a meta element".
fn of_content(content: &[u8]) -> Option<&'static Encoding> {
    let mut rest = content;
    let value = loop {
        let at = rest
            .windows(7)
            .position(|window| window.eq_ignore_ascii_case(b"charset"))?;
        rest = rest[at + 7..].trim_ascii_start();
        if let [b'=', value @ ..] = rest {
            break value.trim_ascii_start();
        }
    };
    let label = if let [quote @ (b'"' | b'\''), inner @ ..] = value {
        &inner[..inner.iter().position(|byte| byte == quote)?]
    } else {
        let end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
        &value[..value.iter().position(end).unwrap_or(value.len())]
    };
    said(label)
}

/// "Get an attribute" again and again: names and values in lower case, to the end of the tag. What is cut off in the middle is none.
struct Attributes<'b>(&'b [u8]);

impl Iterator for Attributes<'_> {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let space = |byte: &u8| byte.is_ascii_whitespace();
        let start = self.0.iter().position(|byte| !space(byte) && *byte != b'/');
        self.0 = &self.0[start.unwrap_or(self.0.len())..];
        if let None | Some(b'>') = self.0.first() {
            return None;
        }
        // A name may begin with an equals sign, and does not end there.
        let ends = |(at, byte): (usize, &u8)| (*byte == b'=' && at > 0) || space(byte) || matches!(byte, b'/' | b'>');
        let end = self.take(|bytes| bytes.iter().enumerate().position(ends))?;
        let name = end.to_ascii_lowercase();
        let behind = self.0.trim_ascii_start();
        let [b'=', value @ ..] = behind else {
            return Some((name, Vec::new()));
        };
        self.0 = value.trim_ascii_start();
        let value = match self.0 {
            [quote @ (b'"' | b'\''), ..] => {
                self.0 = &self.0[1..];
                let value = self.take(|bytes| bytes.iter().position(|byte| byte == quote))?;
                self.0 = &self.0[1..];
                value
            }
            _ => self.take(|bytes| bytes.iter().position(|byte| space(byte) || *byte == b'>'))?,
        };
        Some((name, value.to_ascii_lowercase()))
    }
}

impl<'b> Attributes<'b> {
    /// What comes before the place that `find` tells; where there is none the bytes are at their end, and so is the tag.
    fn take(&mut self, find: impl Fn(&'b [u8]) -> Option<usize>) -> Option<&'b [u8]> {
        let Some(at) = find(self.0) else {
            self.0 = &[];
            return None;
        };
        let (taken, rest) = self.0.split_at(at);
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(html: &str) -> Option<&'static str> {
        prescan(html.as_bytes()).map(Encoding::name)
    }

    #[test]
    fn real_pages_say_it_in_many_shapes() {
        for (html, named) in [
            (
                "<!doctype html><html lang=ru><head><meta charset=\"windows-1251\">",
                "windows-1251",
            ),
            ("<meta charset='utf-8'/>", "UTF-8"),
            ("<META CHARSET = 'Shift_JIS' >", "Shift_JIS"),
            ("<meta/charset=euc-kr>", "EUC-KR"),
            (
                "<meta http-equiv=\"Content-Type\" content=\"text/html; charset=iso-8859-2\" />",
                "ISO-8859-2",
            ),
            // The order of the attributes, spaces, quotes within, and what comes behind.
            (
                "<meta content='text/html;charset = \"koi8-r\" ; x=y' name=x http-equiv=CONTENT-TYPE>",
                "KOI8-R",
            ),
            ("<meta http-equiv=content-type content=text/html;charset=gb2312>", "GBK"),
            ("<meta http-equiv=content-type content='charset charset=big5'>", "Big5"),
            // Between other things that look like it.
            (
                "<!-- <meta charset=koi8-r> --><title>a > b</title><meta charset=euc-jp>",
                "EUC-JP",
            ),
            ("<a title='<meta charset=koi8-r>'></a><meta charset=euc-jp>", "EUC-JP"),
            (
                "<?xml version='1.0'?><!DOCTYPE html><meta name=charset content=koi8-r><meta charset=euc-jp>",
                "EUC-JP",
            ),
            ("<meta charset=nonsense><meta charset=euc-jp>", "EUC-JP"),
            (
                "<meta property=og:title content='charset=koi8-r'><meta charset=euc-jp>",
                "EUC-JP",
            ),
            // What is UTF-16 could not have been read.
            ("<meta charset=utf-16le>", "UTF-8"),
            ("<meta charset=x-user-defined>", "windows-1252"),
        ] {
            assert_eq!(name(html), Some(named), "{html}");
        }
    }

    #[test]
    fn what_is_no_such_word_says_nothing() {
        for html in [
            "",
            "<",
            "<meta",
            "<meta ",
            "<meta charset",
            "<meta charset=",
            "<meta charset=koi8-r",
            "<metadata charset=koi8-r>",
            "<meta content='text/html; charset=koi8-r'>",
            "<meta http-equiv=refresh content='0; url=/?charset=koi8-r'>",
            "<meta http-equiv=content-type content='text/html; charset=\"koi8-r'>",
            "<meta charset='' http-equiv=content-type content='charset=koi8-r'>",
            "<meta data-charset=koi8-r>",
            "<meta charset=koi8-r/>",
            "charset=koi8-r",
            "<!-- <meta charset=koi8-r>",
            "<p><meta =charset=koi8-r>",
        ] {
            assert_eq!(name(html), None, "{html}");
        }
        let late = format!("{}<meta charset=koi8-r>", " ".repeat(PRESCAN));
        assert_eq!(name(&late), None);
    }

    #[test]
    fn every_beginning_of_a_page_is_read_to_its_end() {
        let html = "<!--a--><meta http-equiv = x content=\"a\" =b/ charset='koi8-r'></p><!x><?y?><a b='c>";
        for end in 0..=html.len() {
            name(&html[..end]);
        }
    }
}
