//! XML as the same kind of tree that HTML becomes, so that CSS, XPath and everything behind them read both.
//!
//! Names are kept as they are written, with their prefix. No entity is expanded but the five of XML itself and character references, so there is
//! nothing to blow up; a document type is passed over. Mistakes are forgiven where a reader can: a feed with a stray `&` is still read.

use ego_tree::NodeId;
use html5ever::{Attribute, LocalName, QualName, ns, tendril::StrTendril};
use quick_xml::{
    Reader,
    escape::{resolve_predefined_entity, unescape},
    events::{BytesRef, BytesStart, Event},
};
use scraper::{
    Html, Node,
    node::{Element, Text},
};

use super::{
    ExtractError, MalformedSnafu,
    budget::{Budget, check_set},
    document::MAX_DEPTH,
};
use crate::content::Content;

/// Parses a document.
pub(super) fn parse(text: &str, budget: &Budget) -> Result<Html, ExtractError> {
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    let mut builder = Builder::new();
    loop {
        budget.work(1)?;
        let event = reader.read_event().map_err(|error| malformed(&error.to_string()))?;
        match event {
            Event::Start(start) => builder.open(&start, budget)?,
            Event::Empty(start) => {
                builder.open(&start, budget)?;
                builder.close();
            }
            Event::End(_) => builder.close(),
            Event::Text(text) => builder.push(&text.decode().unwrap_or_default()),
            Event::CData(text) => builder.push(&text.decode().unwrap_or_default()),
            Event::GeneralRef(reference) => builder.refer(&reference),
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
            Event::Eof => return builder.finish(),
        }
    }
}

fn malformed(message: &str) -> ExtractError {
    MalformedSnafu {
        content: Content::Xml,
        message: message.chars().take(200).collect::<String>(),
    }
    .build()
}

struct Builder {
    html: Html,
    /// The open elements, the document first.
    open: Vec<NodeId>,
    nodes: usize,
    /// Text that is not in the tree yet.
    text: String,
}

impl Builder {
    fn new() -> Self {
        let html = Html::new_document();
        Self {
            open: vec![html.tree.root().id()],
            html,
            nodes: 1,
            text: String::new(),
        }
    }

    fn open(&mut self, start: &BytesStart<'_>, budget: &Budget) -> Result<(), ExtractError> {
        self.flush();
        if self.open.len() > MAX_DEPTH {
            return Err(ExtractError::TooDeep { limit: MAX_DEPTH });
        }
        let mut attributes = Vec::new();
        // The reader's own look for doubled names is quadratic.
        for attribute in start.attributes().with_checks(false).flatten() {
            budget.work(1)?;
            let value = String::from_utf8_lossy(&attribute.value);
            let value = unescape(&value).map_or_else(|_| value.to_string(), std::borrow::Cow::into_owned);
            attributes.push(Attribute {
                name: name(attribute.key.as_ref()),
                value: StrTendril::from(value),
            });
        }
        self.nodes += attributes.len();
        let element = Element::new(name(start.name().as_ref()), attributes);
        let id = self.append(Node::Element(element));
        self.open.extend(id);
        check_set(self.nodes)
    }

    fn close(&mut self) {
        self.flush();
        if self.open.len() > 1 {
            self.open.pop();
        }
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn refer(&mut self, reference: &BytesRef<'_>) {
        let name = reference.decode().unwrap_or_default();
        match reference.resolve_char_ref() {
            Ok(Some(c)) => self.text.push(c),
            _ => match resolve_predefined_entity(&name) {
                Some(text) => self.text.push_str(text),
                // What the document type may say about it is not looked at.
                None => self.text.extend(["&", &*name, ";"]),
            },
        }
    }

    fn flush(&mut self) {
        // Outside of the outermost element there is no text.
        if !self.text.is_empty() && self.open.len() > 1 {
            let text = StrTendril::from(self.text.as_str());
            self.append(Node::Text(Text { text }));
        }
        self.text.clear();
    }

    fn append(&mut self, node: Node) -> Option<NodeId> {
        self.nodes += 1;
        let parent = *self.open.last()?;
        Some(self.html.tree.get_mut(parent)?.append(node).id())
    }

    fn finish(mut self) -> Result<Html, ExtractError> {
        self.flush();
        let has_root = self.html.tree.root().children().any(|node| node.value().is_element());
        if has_root {
            Ok(self.html)
        } else {
            Err(malformed("it has no element"))
        }
    }
}

fn name(bytes: &[u8]) -> QualName {
    QualName::new(None, ns!(), LocalName::from(String::from_utf8_lossy(bytes)))
}
