//! A page's tree, grown by html5ever's tree construction from our own [`Tokens`].

use std::{borrow::Cow, cell::RefCell, collections::HashSet};

use html5ever::{
    Attribute, LocalName, QualName, TokenizerResult,
    buffer_queue::BufferQueue,
    ns,
    tendril::StrTendril,
    tokenizer::{
        CharacterTokens, CommentToken, Doctype, DoctypeToken, EOFToken, ParseError, Tag, TagKind, TagToken,
        Token as Grown, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts, states::RawKind,
    },
    tree_builder::{TreeBuilder, TreeBuilderOpts},
};
use scraper::{Html, HtmlTreeSink};

use super::{
    ExtractError,
    document::PIECE,
    references::{self, Within},
    tokens::{self, Token, Tokens},
};

/// So many attributes are looked through one by one.
const FEW: usize = 32;
/// Names that are kept at hand.
const NAMES: usize = 128;

/// Grows the tree of a page without NUL characters. `look` sees it from piece to piece, and may end it.
pub(super) fn grow(
    page: &str,
    empty: Html,
    mut look: impl FnMut(&mut Html) -> Result<(), ExtractError>,
) -> Result<Html, ExtractError> {
    let mut grower = Grower {
        page,
        whole: StrTendril::from_slice(page),
        tokens: Tokens::new(page),
        builder: TreeBuilder::new(HtmlTreeSink::new(empty), TreeBuilderOpts::default()),
        names: vec![None; NAMES],
    };
    let mut looked = 0;
    while grower.step() {
        if grower.tokens.position() - looked >= PIECE {
            looked = grower.tokens.position();
            look(&mut grower.builder.sink.0.borrow_mut())?;
        }
    }
    look(&mut grower.builder.sink.0.borrow_mut())?;
    grower.tell(EOFToken);
    grower.builder.end();
    Ok(grower.builder.sink.0.into_inner())
}

struct Grower<'d> {
    page: &'d str,
    /// The page, of which the tree's texts are parts.
    whole: StrTendril,
    tokens: Tokens<'d>,
    builder: TreeBuilder<ego_tree::NodeId, HtmlTreeSink>,
    names: Vec<Option<(&'d str, LocalName)>>,
}

impl<'d> Grower<'d> {
    /// Reads on; whether there was anything.
    fn step(&mut self) -> bool {
        if self.tokens.begins_section()
            && self.builder.adjusted_current_node_present_but_not_in_html_namespace()
            && let Some(text) = self.tokens.section()
        {
            self.raw_text(text);
            return true;
        }
        self.tokens.attributes.clear();
        let Some(token) = self.tokens.next() else { return false };
        match token {
            Token::Text(text) => self.text(text),
            Token::Start(name) => self.start(name),
            Token::End(name) => self.end(name),
            Token::Doctype(text) => {
                if let Some(doctype) = doctype(text) {
                    self.tell(DoctypeToken(doctype));
                }
            }
            Token::Comment(text) => {
                let text = self.part(&tokens::lines(text));
                self.tell(CommentToken(text));
            }
            // A line end behind it is no line end behind a start tag any more.
            Token::Nothing => drop(self.tell(ParseError(Cow::Borrowed("no name")))),
        }
        true
    }

    fn tell(&mut self, token: Grown) -> Option<RawKind> {
        match self.builder.process_token(token, 1) {
            TokenSinkResult::RawData(kind) => Some(kind),
            TokenSinkResult::Plaintext => {
                let rest = self.tokens.rest();
                self.raw_text(rest);
                None
            }
            TokenSinkResult::Continue | TokenSinkResult::Script(_) | TokenSinkResult::EncodingIndicator(_) => None,
        }
    }

    /// Characters with references in them.
    fn text(&mut self, text: &'d str) {
        if memchr::memchr(b'&', text.as_bytes()).is_none() {
            return self.raw_text(text);
        }
        let mut decoded = String::with_capacity(text.len());
        references::decode(&tokens::lines(text), Within::Text, &mut decoded);
        self.tell(CharacterTokens(StrTendril::from(decoded)));
    }

    fn raw_text(&mut self, text: &'d str) {
        if !text.is_empty() {
            let text = self.part(&tokens::lines(text));
            self.tell(CharacterTokens(text));
        }
    }

    fn start(&mut self, name: &'d str) {
        let (attrs, had_duplicate_attributes) = self.attributes();
        let tag = Tag {
            kind: TagKind::StartTag,
            name: self.name(name),
            self_closing: self.tokens.closes_itself,
            attrs,
            had_duplicate_attributes,
        };
        let Some(kind) = self.tell(TagToken(tag)) else { return };
        let (text, ends) = match kind {
            RawKind::ScriptData | RawKind::ScriptDataEscaped(_) => self.tokens.script(name),
            RawKind::Rcdata | RawKind::Rawtext => self.tokens.raw(name),
        };
        match kind {
            RawKind::Rcdata if !text.is_empty() => self.text(text),
            _ => self.raw_text(text),
        }
        if ends {
            self.end(name);
        }
    }

    fn end(&mut self, name: &'d str) {
        let tag = Tag {
            kind: TagKind::EndTag,
            name: self.name(name),
            self_closing: false,
            attrs: Vec::new(),
            had_duplicate_attributes: false,
        };
        self.tell(TagToken(tag));
    }

    /// The attributes of the newest start tag, the first of each name, and whether there were more.
    fn attributes(&mut self) -> (Vec<Attribute>, bool) {
        let found = std::mem::take(&mut self.tokens.attributes);
        let mut attributes: Vec<Attribute> = Vec::with_capacity(found.len());
        let mut more = false;
        let mut seen = HashSet::new();
        for attribute in &found {
            let local = self.name(attribute.name);
            let is_known = if found.len() <= FEW {
                attributes.iter().any(|earlier| earlier.name.local == local)
            } else {
                !seen.insert(local.clone())
            };
            if is_known {
                more = true;
                continue;
            }
            attributes.push(Attribute {
                name: QualName::new(None, ns!(), local),
                value: self.part(&attribute.value()),
            });
        }
        self.tokens.attributes = found;
        (attributes, more)
    }

    /// A name in small letters. Most of a page's names are few.
    fn name(&mut self, name: &'d str) -> LocalName {
        let bytes = name.as_bytes();
        let slot = bytes.iter().fold(bytes.len(), |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(usize::from(*byte))
        }) % NAMES;
        if let Some(Some((known, local))) = self.names.get(slot)
            && *known == name
        {
            return local.clone();
        }
        let local = if bytes.iter().any(u8::is_ascii_uppercase) {
            LocalName::from(name.to_ascii_lowercase())
        } else {
            LocalName::from(name)
        };
        if let Some(slot) = self.names.get_mut(slot) {
            *slot = Some((name, local.clone()));
        }
        local
    }

    /// A text as the tree holds it: a long one that the page has is a part of the page.
    fn part(&self, text: &str) -> StrTendril {
        const SHORT: usize = 8;
        let begin = (text.as_ptr() as usize).wrapping_sub(self.page.as_ptr() as usize);
        let is_part = begin.checked_add(text.len()).is_some_and(|end| end <= self.page.len());
        match (u32::try_from(begin), u32::try_from(text.len())) {
            (Ok(begin), Ok(length)) if is_part && text.len() > SHORT => self.whole.subtendril(begin, length),
            _ => StrTendril::from_slice(text),
        }
    }
}

/// A doctype is seldom, and its rules are many: html5ever reads it.
fn doctype(text: &str) -> Option<Doctype> {
    #[derive(Default)]
    struct Only(RefCell<Option<Doctype>>);

    impl TokenSink for Only {
        type Handle = ();

        fn process_token(&self, token: Grown, _line: u64) -> TokenSinkResult<()> {
            if let DoctypeToken(doctype) = token {
                self.0.replace(Some(doctype));
            }
            TokenSinkResult::Continue
        }
    }

    let tokenizer = Tokenizer::new(Only::default(), TokenizerOpts::default());
    let input = BufferQueue::default();
    input.push_back(StrTendril::from_slice(text));
    while let TokenizerResult::Script(()) = tokenizer.feed(&input) {}
    tokenizer.end();
    tokenizer.sink.0.take()
}
