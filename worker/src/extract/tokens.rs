//! Tags and texts of a page, as slices of it: the tokenizer of HTML without its errors (WHATWG HTML, section 13.2.5).
//!
//! html5ever's own does the same character by character, at half of what a tree costs. NUL characters are not known here.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};

use super::references::{self, Within};

/// An attribute as the page writes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'d> {
    pub(super) name: &'d str,
    value: &'d str,
}

impl<'d> Attribute<'d> {
    /// The value with its references and line ends read.
    pub(super) fn value(&self) -> Cow<'d, str> {
        let bytes = self.value.as_bytes();
        if memchr::memchr2(b'&', b'\r', bytes).is_none() {
            return Cow::Borrowed(self.value);
        }
        let lines = lines(self.value);
        let mut value = String::with_capacity(lines.len());
        references::decode(&lines, Within::Attribute, &mut value);
        Cow::Owned(value)
    }
}

/// The attribute of this name in small letters; the first counts.
pub(super) fn attribute<'a, 'd>(attributes: &'a [Attribute<'d>], name: &str) -> Option<&'a Attribute<'d>> {
    attributes.iter().find(|found| found.name.eq_ignore_ascii_case(name))
}

/// A piece of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'d> {
    /// Characters, with references in them.
    Text(&'d str),
    /// Its attributes are in [`Tokens::attributes`].
    Start(&'d str),
    End(&'d str),
    /// All of it, from `<!` on.
    Doctype(&'d str),
    /// What is in a comment, or in what counts as one.
    Comment(&'d str),
    Nothing,
}

/// Reads a page.
pub(super) struct Tokens<'d> {
    page: &'d str,
    at: usize,
    /// The attributes of the newest start tag, behind those that are kept for who reads on.
    pub(super) attributes: Vec<Attribute<'d>>,
    /// Whether the newest start tag closes itself; in HTML's own elements that means nothing.
    pub(super) closes_itself: bool,
}

impl<'d> Tokens<'d> {
    pub(super) fn new(page: &'d str) -> Self {
        Self {
            page: page.strip_prefix('\u{feff}').unwrap_or(page),
            at: 0,
            attributes: Vec::with_capacity(64),
            closes_itself: false,
        }
    }

    /// How much was read.
    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// What is left, as it is written.
    pub(super) fn rest(&mut self) -> &'d str {
        let rest = &self.page[self.at..];
        self.at = self.page.len();
        rest
    }

    /// Whether a section of characters may begin here.
    pub(super) fn begins_section(&self) -> bool {
        self.page
            .as_bytes()
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(b"<![CDATA["))
    }

    /// A section of characters, if one begins here; they are only known in elements that are not HTML's own.
    pub(super) fn section(&mut self) -> Option<&'d str> {
        let text = self.page[self.at..].strip_prefix("<![CDATA[")?;
        let begin = self.page.len() - text.len();
        let (end, behind) = text
            .find("]]>")
            .map_or((self.page.len(), self.page.len()), |end| (begin + end, begin + end + 3));
        self.at = behind;
        Some(&self.page[begin..end])
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Token<'d>> {
        let bytes = self.page.as_bytes();
        let rest = bytes.get(self.at..)?;
        let first = *rest.first()?;
        if first != b'<' {
            return Some(self.text(self.at));
        }
        match rest.get(1) {
            Some(c) if c.is_ascii_alphabetic() => self.start_tag(),
            Some(b'/') => self.end_tag(),
            Some(b'!') => Some(self.declaration()),
            Some(b'?') => Some(self.bogus(self.at + 1)),
            _ => Some(self.text(self.at + 1)),
        }
    }

    /// Characters up to the next `<` at or behind `from`.
    fn text(&mut self, from: usize) -> Token<'d> {
        let start = self.at;
        let rest = self.page.as_bytes().get(from..).unwrap_or_default();
        self.at = memchr(b'<', rest).map_or(self.page.len(), |length| from + length);
        Token::Text(&self.page[start..self.at])
    }

    fn start_tag(&mut self) -> Option<Token<'d>> {
        let bytes = self.page.as_bytes();
        let begin = self.at + 1;
        let mut at = begin;
        while !matches!(
            bytes.get(at),
            None | Some(b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/' | b'>')
        ) {
            at += 1;
        }
        let name = &self.page[begin..at];
        self.at = self.attributes(at)?;
        Some(Token::Start(name))
    }

    /// Reads attributes from here on; returns what is behind the tag, or nothing when the page ends within it.
    fn attributes(&mut self, mut at: usize) -> Option<usize> {
        let bytes = self.page.as_bytes();
        loop {
            let from = at;
            while matches!(bytes.get(at)?, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/') {
                at += 1;
            }
            if bytes[at] == b'>' {
                self.closes_itself = bytes[from..at].ends_with(b"/");
                return Some(at + 1);
            }
            let begin = at;
            // An equals sign at the beginning belongs to the name.
            at += 1;
            while !matches!(
                bytes.get(at)?,
                b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/' | b'>' | b'='
            ) {
                at += 1;
            }
            let name = &self.page[begin..at];
            let mut after = at;
            while matches!(bytes.get(after)?, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ') {
                after += 1;
            }
            let mut value = "";
            if bytes[after] == b'=' {
                (value, at) = self.value(after + 1)?;
            }
            self.attributes.push(Attribute { name, value });
        }
    }

    /// A value behind its equals sign, and what is behind it.
    fn value(&self, mut at: usize) -> Option<(&'d str, usize)> {
        let bytes = self.page.as_bytes();
        while matches!(bytes.get(at)?, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ') {
            at += 1;
        }
        let first = bytes[at];
        if matches!(first, b'"' | b'\'') {
            let length = memchr(first, &bytes[at + 1..])?;
            return Some((&self.page[at + 1..at + 1 + length], at + length + 2));
        }
        let begin = at;
        while !matches!(bytes.get(at)?, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'>') {
            at += 1;
        }
        Some((&self.page[begin..at], at))
    }

    fn end_tag(&mut self) -> Option<Token<'d>> {
        let bytes = self.page.as_bytes();
        let begin = self.at + 2;
        match bytes.get(begin) {
            Some(c) if c.is_ascii_alphabetic() => {}
            Some(b'>') => {
                self.at = begin + 1;
                return Some(Token::Nothing);
            }
            Some(_) => return Some(self.bogus(begin)),
            // The page ends with these two characters.
            None => return Some(self.text(begin)),
        }
        let mut at = begin;
        while !matches!(bytes.get(at)?, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/' | b'>') {
            at += 1;
        }
        let name = &self.page[begin..at];
        if bytes[at] == b'>' {
            self.at = at + 1;
        } else {
            let kept = self.attributes.len();
            self.at = self.attributes(at)?;
            self.attributes.truncate(kept);
        }
        Some(Token::End(name))
    }

    /// What begins with `<!`.
    fn declaration(&mut self) -> Token<'d> {
        let begin = self.at + 2;
        let rest = &self.page.as_bytes()[begin..];
        if rest.starts_with(b"--") {
            return self.comment(begin + 2);
        }
        if rest.get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"doctype")) {
            let from = self.at;
            self.bogus(begin);
            return Token::Doctype(&self.page[from..self.at]);
        }
        self.bogus(begin)
    }

    fn comment(&mut self, begin: usize) -> Token<'d> {
        let text = &self.page[begin..];
        let rest = text.as_bytes();
        for short in [&b">"[..], b"->"] {
            if rest.starts_with(short) {
                self.at = begin + short.len();
                return Token::Comment("");
            }
        }
        for end in memchr_iter(b'-', rest) {
            let ending = [&b"-->"[..], b"--!>"]
                .into_iter()
                .find(|ending| rest[end..].starts_with(ending));
            if let Some(ending) = ending {
                self.at = begin + end + ending.len();
                return Token::Comment(&text[..end]);
            }
        }
        self.at = self.page.len();
        // What might have been the beginning of its end does not belong to it.
        let ending = ["--!", "--", "-"].into_iter().find(|ending| text.ends_with(ending));
        Token::Comment(&text[..text.len() - ending.map_or(0, str::len)])
    }

    /// Up to the next `>`.
    fn bogus(&mut self, begin: usize) -> Token<'d> {
        let rest = self.page.get(begin..).unwrap_or_default();
        let end = memchr(b'>', rest.as_bytes());
        self.at = end.map_or(self.page.len(), |length| begin + length + 1);
        Token::Comment(&rest[..end.unwrap_or(rest.len())])
    }

    /// The content of a script, and whether its end tag follows; that may stand in a comment, which is then no end.
    pub(super) fn script(&mut self, name: &str) -> (&'d str, bool) {
        let begin = self.at;
        let rest = &self.page[begin..];
        if !rest.contains("<!--") {
            return self.raw(name);
        }
        let bytes = rest.as_bytes();
        let (mut hidden, mut twice, mut at) = (false, false, 0);
        while at < bytes.len() {
            if !hidden && bytes[at..].starts_with(b"<!--") {
                hidden = true;
                at += 2;
                continue;
            }
            if hidden && bytes[at..].starts_with(b"-->") {
                (hidden, twice) = (false, false);
                at += 3;
                continue;
            }
            let is_end = is_tag(bytes, at, b"</", name);
            if is_end && !twice {
                return (&rest[..at], self.end_raw(begin + at + 2 + name.len()));
            }
            twice = if is_end {
                false
            } else {
                twice || hidden && is_tag(bytes, at, b"<", name)
            };
            at += 1;
        }
        self.at = self.page.len();
        (rest, false)
    }

    /// The content of an element whose content is text, and whether its end tag follows, which is taken too; all that is left where
    /// there is none.
    pub(super) fn raw(&mut self, name: &str) -> (&'d str, bool) {
        let begin = self.at;
        let rest = &self.page[begin..];
        for end in memchr_iter(b'<', rest.as_bytes()) {
            if is_tag(rest.as_bytes(), end, b"</", name) {
                return (&rest[..end], self.end_raw(begin + end + 2 + name.len()));
            }
        }
        self.at = self.page.len();
        (rest, false)
    }

    /// Reads the rest of an end tag behind its name; whether it has an end itself.
    fn end_raw(&mut self, at: usize) -> bool {
        let kept = self.attributes.len();
        let behind = self.attributes(at);
        self.attributes.truncate(kept);
        self.at = behind.unwrap_or(self.page.len());
        behind.is_some()
    }
}

/// Whether a tag of this name stands here.
fn is_tag(bytes: &[u8], at: usize, begin: &[u8], name: &str) -> bool {
    let Some(rest) = bytes[at..].strip_prefix(begin) else {
        return false;
    };
    rest.get(..name.len())
        .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
        && matches!(
            rest.get(name.len()),
            Some(b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' | b'/' | b'>')
        )
}

/// A text with its line ends read, as they are read before everything else.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    if memchr(b'\r', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(page: &str) -> Vec<String> {
        let mut tokens = Tokens::new(page);
        let mut told = Vec::new();
        while let Some(token) = tokens.next() {
            let attributes = std::mem::take(&mut tokens.attributes);
            let attributes = attributes
                .iter()
                .map(|a| format!("{}={}", a.name, a.value()))
                .collect::<Vec<_>>();
            told.push(format!("{token:?}{}", attributes.join(",")));
        }
        told
    }

    #[test]
    fn tags_attributes_and_texts_are_told_apart() {
        assert_eq!(
            told("a<b c='d>' e=f/g h =\n\"i&amp;\" j>k</B\n>l"),
            [
                "Text(\"a\")",
                "Start(\"b\")c=d>,e=f/g,h=i&,j=",
                "Text(\"k\")",
                "End(\"B\")",
                "Text(\"l\")"
            ]
        );
    }

    #[test]
    fn what_is_no_tag_is_text_or_nothing() {
        assert_eq!(
            told("a < b<3</ x></>"),
            [
                "Text(\"a \")",
                "Text(\"< b\")",
                "Text(\"<3\")",
                "Comment(\" x\")",
                "Nothing"
            ]
        );
        assert_eq!(
            told("<!---><!--x--!><!-- -- ---><?x?>y<!doctype html>"),
            [
                "Comment(\"\")",
                "Comment(\"x\")",
                "Comment(\" -- -\")",
                "Comment(\"?x?\")",
                "Text(\"y\")",
                "Doctype(\"<!doctype html>\")"
            ]
        );
        assert_eq!(
            told("x<a href='"),
            ["Text(\"x\")"],
            "a page that ends within a tag ends before it"
        );
    }

    #[test]
    fn a_script_ends_where_browsers_end_it() {
        for (page, text) in [
            ("a</script>b", "a"),
            ("<!--<script></script>--></SCRIPT >b", "<!--<script></script>-->"),
            ("<!--a</script>b", "<!--a"),
            ("<!--><script></script>b", "<!--><script>"),
            ("<!--<script>a", "<!--<script>a"),
        ] {
            assert_eq!(Tokens::new(page).script("script").0, text, "{page}");
        }
    }
}
