//! The names of elements, and what the rules of HTML's tree construction (WHATWG HTML, section 13.2.6) make of each.

/// A name in small letters, in a form that is compared in one step: up to eight letters themselves; of longer ones the first seven and the
/// length, so that two long names may look alike and are compared as texts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::extract) struct Name(u64);

const LONG: u64 = 0x80;

impl Name {
    /// Of a name as a page writes it.
    pub(in crate::extract) const fn of(name: &[u8]) -> Self {
        let long = name.len() > 8;
        let taken = if long { 7 } else { name.len() };
        let (mut packed, mut index) = (0_u64, 0);
        while index < taken {
            packed = packed << 8 | name[index].to_ascii_lowercase() as u64;
            index += 1;
        }
        if long {
            let length = if name.len() < 0x7f { name.len() as u64 } else { 0x7f };
            packed = packed << 8 | LONG | length;
        }
        Self(packed)
    }

    /// Whether another name may look like this one.
    pub(in crate::extract) const fn is_long(self) -> bool {
        self.0 & LONG != 0
    }
}

/// What the rules make of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::extract) enum Class {
    Html,
    Head,
    Body,
    /// Void, and belongs into the head.
    Meta,
    Title,
    /// Its content is text until its end tag, wherever it stands: `style`, `noframes`, `noscript`.
    Raw,
    Script,
    /// The same, in the body: `iframe`, `noembed`.
    RawInBody,
    Textarea,
    /// Closes a paragraph.
    Block,
    /// A block that a list item is not looked for behind: `address`, `div`.
    Loose,
    /// A block that a list item is looked for within: `ol`, `ul`.
    List,
    Paragraph,
    Heading,
    Form,
    Item,
    Definition,
    Button,
    Formatting,
    Anchor,
    Table,
    Caption,
    Columns,
    Column,
    Section,
    Row,
    Cell,
    Void,
    /// Void, and closes a paragraph.
    Rule,
    Select,
    Choice,
    Choices,
    /// Void; what it does to a select is not known here.
    Input,
    /// What is not known here: the tree is built by the whole of the rules.
    Unknown,
    /// Any other element: it opens and closes and changes nothing around it.
    Other,
}

impl Class {
    /// What stands under this name.
    pub(in crate::extract) fn of(name: &[u8]) -> (Name, Self) {
        let packed = Name::of(name);
        let class = Self::of_packed(packed);
        if packed.is_long() && class != Self::Other {
            // Another long name may look the same.
            let known = LONG_NAMES.iter().any(|long| name.eq_ignore_ascii_case(long.as_bytes()));
            return (packed, if known { class } else { Self::Other });
        }
        (packed, class)
    }

    fn of_packed(name: Name) -> Self {
        macro_rules! table {
            ($($class:ident: $($name:literal)*;)*) => {
                $($(
                    if const { Name::of($name.as_bytes()).0 } == name.0 {
                        return Self::$class;
                    }
                )*)*
            };
        }
        table! {
            Anchor: "a";
            Loose: "div" "address";
            Formatting: "b" "big" "code" "em" "font" "i" "s" "small" "strike" "strong" "tt" "u";
            Item: "li";
            Cell: "td" "th";
            Row: "tr";
            Paragraph: "p";
            List: "ol" "ul";
            Void: "area" "br" "embed" "img" "keygen" "wbr" "param" "source" "track";
            Definition: "dd" "dt";
            Heading: "h1" "h2" "h3" "h4" "h5" "h6";
            Block: "article" "aside" "blockquote" "center" "details" "dialog" "dir" "dl" "fieldset" "figcaption" "figure" "footer" "header"
                "hgroup" "main" "menu" "nav" "pre" "search" "section" "summary";
            Table: "table";
            Section: "tbody" "tfoot" "thead";
            Caption: "caption";
            Columns: "colgroup";
            Column: "col";
            Meta: "base" "basefont" "bgsound" "link" "meta";
            Script: "script";
            Raw: "style" "noframes" "noscript";
            RawInBody: "iframe" "noembed";
            Title: "title";
            Textarea: "textarea";
            Form: "form";
            Button: "button";
            Input: "input";
            Rule: "hr";
            Select: "select";
            Choice: "option";
            Choices: "optgroup";
            Html: "html";
            Head: "head";
            Body: "body";
            Unknown: "svg" "math" "template" "frameset" "frame" "image" "plaintext" "xmp" "listing" "nobr" "applet" "marquee" "object" "rb"
                "rtc" "rp" "rt" "selectedcontent";
        }
        Self::Other
    }

    /// Whether an end tag within it does not reach what is around it, but for the names that close it.
    pub(in crate::extract) const fn is_special(self, name: Name) -> bool {
        match self {
            Self::Other | Self::Formatting | Self::Anchor | Self::Choice | Self::Choices => false,
            Self::Block => !matches!(name.0, DIALOG | SEARCH),
            _ => true,
        }
    }

    /// Whether an element beyond it is out of scope.
    pub(in crate::extract) const fn bounds_scope(self) -> bool {
        matches!(
            self,
            Self::Html | Self::Table | Self::Caption | Self::Cell | Self::Select
        )
    }

    /// Whether its end tag may be left out where something around it ends.
    pub(in crate::extract) const fn ends_by_itself(self) -> bool {
        matches!(
            self,
            Self::Definition | Self::Item | Self::Choice | Self::Choices | Self::Paragraph
        )
    }

    pub(in crate::extract) const fn is_formatting(self) -> bool {
        matches!(self, Self::Formatting | Self::Anchor)
    }

    /// Whether it holds table parts and no text.
    pub(in crate::extract) const fn is_table_part(self) -> bool {
        matches!(self, Self::Table | Self::Section | Self::Row | Self::Columns)
    }
}

const DIALOG: u64 = Name::of(b"dialog").0;
const SEARCH: u64 = Name::of(b"search").0;
const LONG_NAMES: [&str; 5] = ["blockquote", "figcaption", "basefont", "plaintext", "selectedcontent"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_whatever_their_case_and_length() {
        assert_eq!(Class::of(b"TBODY").1, Class::Section);
        assert_eq!(Class::of(b"blockQuote").1, Class::Block);
        assert_eq!(
            Class::of(b"blockquots").1,
            Class::Other,
            "as long and with the same beginning"
        );
        assert_eq!(Class::of(b"optgroup").1, Class::Choices);
        assert_eq!(Class::of(b"h7").1, Class::Other);
        assert_ne!(Name::of(b"a"), Name::of(b"b"));
    }
}
