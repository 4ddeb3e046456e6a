//! A page's tree, grown by html5ever's tree construction from our own [`Tokens`].

use std::{borrow::Cow, cell::RefCell};

use html5ever::{
    TokenizerResult,
    buffer_queue::BufferQueue,
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
    atoms::Atoms,
    document::PIECE,
    references::{self, Within},
    tokens::{self, Token, Tokens},
};

/// Grows the tree of a page without NUL characters. `look` sees it from piece to piece, and may end it.
pub(super) fn grow(
    page: &str,
    empty: Html,
    mut look: impl FnMut(&mut Html) -> Result<(), ExtractError>,
) -> Result<Html, ExtractError> {
    let mut grower = Grower {
        atoms: Atoms::of(page),
        tokens: Tokens::new(page),
        builder: TreeBuilder::new(HtmlTreeSink::new(empty), TreeBuilderOpts::default()),
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
    atoms: Atoms<'d>,
    tokens: Tokens<'d>,
    builder: TreeBuilder<ego_tree::NodeId, HtmlTreeSink>,
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
                let text = self.atoms.text(&tokens::lines(text));
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
            let text = self.atoms.text(&tokens::lines(text));
            self.tell(CharacterTokens(text));
        }
    }

    fn start(&mut self, name: &'d str) {
        let (attrs, had_duplicate_attributes) = self.atoms.attributes(&self.tokens.attributes);
        let tag = Tag {
            kind: TagKind::StartTag,
            name: self.atoms.name(name),
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
            name: self.atoms.name(name),
            self_closing: false,
            attrs: Vec::new(),
            had_duplicate_attributes: false,
        };
        self.tell(TagToken(tag));
    }
}

/// A tree of a doctype alone, which says how the rest is read.
pub(super) fn grow_doctype(text: &str, empty: Html) -> Html {
    let builder = TreeBuilder::new(HtmlTreeSink::new(empty), TreeBuilderOpts::default());
    if let Some(doctype) = doctype(text) {
        drop(builder.process_token(DoctypeToken(doctype), 1));
    }
    builder.sink.0.into_inner()
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
