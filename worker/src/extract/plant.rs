//! A page's tree, planted by the [`Walk`] through it: where elements only open and close, that takes half of what html5ever takes.

use ego_tree::NodeId;
use html5ever::{QualName, ns, tendril::StrTendril, tree_builder::QuirksMode};
use scraper::{
    Html, Node,
    node::{Comment, Element, Text},
};

use super::{
    ExtractError,
    atoms::Atoms,
    budget::{Budget, check_set},
    document::MAX_DEPTH,
    grow::grow_doctype,
    references::{self, Within},
    tokens::lines,
    walk::{Open, Place, Sink, Stop, Walk, Walked},
};

/// Plants the tree of a page without NUL characters; `None` where it needs the whole of the rules.
pub(super) fn plant(page: &str, empty: Html, budget: &Budget) -> Result<Option<Html>, ExtractError> {
    let mut planter = Planter {
        atoms: Atoms::of(page),
        html: Html {
            quirks_mode: QuirksMode::Quirks,
            ..empty
        },
        open: Vec::with_capacity(32),
        budget,
        was_preformatted: false,
        is_preformatted: false,
    };
    match Walk::new(page, &mut planter, MAX_DEPTH).run() {
        Ok(()) => Ok(Some(planter.html)),
        Err(Stop::Crooked) => Ok(None),
        Err(Stop::Failed(error)) => Err(error),
    }
}

struct Planter<'d, 'b> {
    atoms: Atoms<'d>,
    html: Html,
    /// The nodes of the elements that are open.
    open: Vec<NodeId>,
    budget: &'b Budget,
    /// Whether the newest piece opened a `pre`, and whether the one before it did: a line end behind that does not count.
    is_preformatted: bool,
    was_preformatted: bool,
}

impl Planter<'_, '_> {
    fn append(&mut self, parent: Option<NodeId>, node: Node) -> Option<NodeId> {
        let parent = parent.unwrap_or(self.html.tree.root().id());
        self.html
            .tree
            .get_mut(parent)
            .map(|mut parent| parent.append(node).id())
    }

    fn append_text(&mut self, text: StrTendril) {
        let Some(mut parent) = self.open.last().and_then(|parent| self.html.tree.get_mut(*parent)) else {
            return;
        };
        if let Some(mut last) = parent.last_child()
            && let Node::Text(before) = last.value()
        {
            before.text.push_tendril(&text);
            return;
        }
        parent.append(Node::Text(Text { text }));
    }
}

impl<'d> Sink<'d> for Planter<'d, '_> {
    fn count(&mut self) -> Walked {
        self.was_preformatted = std::mem::take(&mut self.is_preformatted);
        check_set(self.html.tree.nodes().len())?;
        Ok(self.budget.work(1)?)
    }

    fn opened(&mut self, open: &Open<'d>) -> Walked {
        let Some(element) = open.elements.last() else {
            return Ok(());
        };
        let name = QualName::new(None, ns!(html), self.atoms.name(element.text));
        self.is_preformatted = *name.local == *"pre";
        let (attributes, _) = self.atoms.attributes(open.attributes_of(element));
        let node = Node::Element(Element::new(name, attributes));
        if let Some(node) = self.append(self.open.last().copied(), node) {
            self.open.push(node);
        }
        Ok(())
    }

    fn closed(&mut self) -> Walked {
        self.open.pop();
        Ok(())
    }

    fn text(&mut self, text: &'d str) -> Walked {
        if memchr::memchr(b'&', text.as_bytes()).is_none() && !self.was_preformatted {
            return self.raw(text, false);
        }
        let mut decoded = String::with_capacity(text.len());
        references::decode(&lines(text), Within::Text, &mut decoded);
        if std::mem::take(&mut self.was_preformatted) && decoded.starts_with('\n') {
            decoded.remove(0);
        }
        if !decoded.is_empty() {
            self.append_text(StrTendril::from(decoded));
        }
        Ok(())
    }

    fn raw(&mut self, text: &'d str, _hidden: bool) -> Walked {
        if !text.is_empty() {
            self.append_text(self.atoms.text(&lines(text)));
        }
        Ok(())
    }

    fn comment(&mut self, text: &'d str, place: Place) {
        let parent = match place {
            Place::Document => None,
            Place::Root => self.open.first().copied(),
            Place::Here => self.open.last().copied(),
        };
        let comment = self.atoms.text(&lines(text));
        self.append(parent, Node::Comment(Comment { comment }));
    }

    fn doctype(&mut self, text: &'d str) {
        let before = std::mem::replace(&mut self.html, Html::new_document());
        self.html = grow_doctype(text, before);
    }
}
