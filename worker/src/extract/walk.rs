//! A page from its beginning to its end, with the elements that are open at each moment: the tree construction of HTML (WHATWG HTML, section
//! 13.2.6) as far as elements only open and close.
//!
//! End tags may be left out and end tags may be too many; what a page writes is then still the order of its tree. Where it is not (formatting
//! that is closed elsewhere, text within a table and outside of its cells, SVG, templates and what else is rare) it is crooked: the walk stops,
//! and the whole of the rules reads the page.

pub(super) mod tags;

use super::{
    ExtractError,
    tokens::{Attribute, Token, Tokens, attribute},
};
use tags::{Class, Name};

/// Why a walk ends before its page does.
#[derive(Debug)]
pub(super) enum Stop {
    /// The page needs the whole of the rules.
    Crooked,
    /// A limit was passed.
    Failed(ExtractError),
}

impl From<ExtractError> for Stop {
    fn from(error: ExtractError) -> Self {
        Self::Failed(error)
    }
}

/// The most attributes of one element.
const MOST_ATTRIBUTES: usize = 256;

pub(super) type Walked = Result<(), Stop>;

/// What becomes of a page on the way through it.
pub(super) trait Sink<'d> {
    /// One more piece of the page is read. Every node of a tree is at least one.
    fn count(&mut self) -> Walked;

    /// The newest of the open elements begins.
    fn opened(&mut self, open: &Open<'d>) -> Walked;

    /// The newest of the open elements, which is no longer among them, ends.
    fn closed(&mut self) -> Walked;

    /// Characters with references in them, in the newest of the open elements.
    fn text(&mut self, text: &'d str) -> Walked;

    /// The content of the newest of the open elements where that is text, as it is written; of some nobody sees it.
    fn raw(&mut self, text: &'d str, hidden: bool) -> Walked;

    /// What is in a comment.
    fn comment(&mut self, text: &'d str, place: Place);

    /// A doctype that counts, from `<!` on.
    fn doctype(&mut self, text: &'d str);
}

/// Where a comment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Document,
    Root,
    /// In the newest of the open elements.
    Here,
}

/// An element that is open.
#[derive(Clone, Debug)]
pub(super) struct Element<'d> {
    pub(super) name: Name,
    /// As the page writes it.
    pub(super) text: &'d str,
    pub(super) class: Class,
    /// Among the elements that its parent has, from 1.
    pub(super) place: u32,
    children: u32,
    attributes: (usize, usize),
}

/// The elements that are open, from the root on.
pub(super) struct Open<'d> {
    pub(super) elements: Vec<Element<'d>>,
    tokens: Tokens<'d>,
}

impl<'d> Open<'d> {
    pub(super) fn attributes_of(&self, element: &Element<'_>) -> &[Attribute<'d>] {
        let (begin, end) = element.attributes;
        self.tokens.attributes.get(begin..end).unwrap_or_default()
    }
}

/// How far a page has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// A doctype may come.
    Initial,
    BeforeHtml,
    BeforeHead,
    InHead,
    AfterHead,
    InBody,
    AfterBody,
}

/// A walk through one page.
pub(super) struct Walk<'d, 's, S> {
    open: Open<'d>,
    sink: &'s mut S,
    phase: Phase,
    /// Whether the root has ended too, behind the body.
    after_root: bool,
    /// Whether a table stays within a paragraph; not known with a doctype that is seldom.
    quirks: Option<bool>,
    has_form: bool,
    /// Attributes of the tag that is read, which belong to no open element yet.
    fresh: usize,
    most: usize,
}

impl<'d, 's, S: Sink<'d>> Walk<'d, 's, S> {
    /// Through a page, with at most so many elements in each other.
    pub(super) fn new(page: &'d str, sink: &'s mut S, most: usize) -> Self {
        Self {
            open: Open {
                elements: Vec::with_capacity(32),
                tokens: Tokens::new(page),
            },
            sink,
            phase: Phase::Initial,
            after_root: false,
            quirks: Some(true),
            has_form: false,
            fresh: 0,
            most,
        }
    }

    /// Goes to the end.
    pub(super) fn run(mut self) -> Walked {
        loop {
            let before = self.open.tokens.attributes.len();
            let Some(token) = self.open.tokens.next() else { break };
            self.sink.count()?;
            match token {
                Token::Text(text) => self.text(text)?,
                Token::Start(name) => {
                    self.fresh = self.open.tokens.attributes.len() - before;
                    // They are looked through for whatever stands within the element.
                    if self.fresh > MOST_ATTRIBUTES {
                        return Err(Stop::Crooked);
                    }
                    self.start(name)?;
                    self.drop_fresh();
                }
                Token::End(name) => self.end(name)?,
                Token::Doctype(text) => self.doctype(text),
                Token::Comment(text) => self.comment(text),
                Token::Nothing => {}
            }
        }
        // What the page ended within.
        self.fresh = 0;
        self.arrive_in(Phase::InBody)?;
        self.close_to(0, true)
    }

    fn doctype(&mut self, text: &'d str) {
        if self.phase == Phase::Initial {
            self.phase = Phase::BeforeHtml;
            self.sink.doctype(text);
            let name = text.get("<!doctype".len()..).unwrap_or_default();
            let plain = name
                .trim_matches(['>', ' ', '\t', '\n', '\r', '\x0c'])
                .eq_ignore_ascii_case("html");
            self.quirks = plain.then_some(false);
        }
    }

    fn comment(&mut self, text: &'d str) {
        let place = match self.phase {
            Phase::Initial | Phase::BeforeHtml => Place::Document,
            Phase::AfterBody if self.after_root => Place::Document,
            Phase::AfterBody => Place::Root,
            _ => Place::Here,
        };
        self.sink.comment(text, place);
    }

    fn text(&mut self, text: &'d str) -> Walked {
        let white = text.len() - text.trim_start_matches(is_white).len();
        // A reference may be white space, which is read otherwise here.
        if self.phase != Phase::InBody && text.as_bytes().get(white) == Some(&b'&') {
            return Err(Stop::Crooked);
        }
        match self.phase {
            Phase::InBody | Phase::AfterBody if white < text.len() && self.top().is_table_part() => Err(Stop::Crooked),
            Phase::InBody => self.sink.text(text),
            Phase::AfterBody => {
                self.go_back_into_body(white < text.len());
                self.sink.text(text)
            }
            _ => {
                let (before, rest) = text.split_at(white);
                if self.phase > Phase::BeforeHead {
                    self.sink.text(before)?;
                }
                if rest.is_empty() {
                    return Ok(());
                }
                self.arrive_in(Phase::InBody)?;
                self.sink.text(rest)
            }
        }
    }

    /// What comes after the body's end tag belongs into the body too: it is still open.
    fn go_back_into_body(&mut self, is_content: bool) {
        if is_content && self.phase == Phase::AfterBody {
            self.phase = Phase::InBody;
            self.after_root = false;
        }
    }

    /// Another start tag of `html` or `body` brings attributes that are missing.
    fn repeat(&mut self, class: Class) -> Walked {
        let first = self.open.elements.iter().find(|element| element.class == class);
        let known = first.map_or(&[][..], |element| self.open.attributes_of(element));
        let fresh = self.open.tokens.attributes.len() - self.fresh;
        let brought = self.open.tokens.attributes.get(fresh..).unwrap_or_default();
        if brought.iter().all(|brought| attribute(known, brought.name).is_some()) {
            return Ok(());
        }
        Err(Stop::Crooked)
    }

    /// Opens what a page may leave out, up to this phase.
    fn arrive_in(&mut self, phase: Phase) -> Walked {
        while self.phase < phase {
            match self.phase {
                Phase::Initial => {}
                Phase::BeforeHtml => self.imply("html", Class::Html)?,
                Phase::BeforeHead => self.imply("head", Class::Head)?,
                Phase::InHead => self.pop()?,
                _ => self.imply("body", Class::Body)?,
            }
            self.phase = match self.phase {
                Phase::Initial => Phase::BeforeHtml,
                Phase::BeforeHtml => Phase::BeforeHead,
                Phase::BeforeHead => Phase::InHead,
                Phase::InHead => Phase::AfterHead,
                _ => Phase::InBody,
            };
        }
        Ok(())
    }

    fn start(&mut self, name: &'d str) -> Walked {
        let (packed, class) = Class::of(name.as_bytes());
        if self.phase <= Phase::BeforeHtml {
            if class == Class::Html {
                self.phase = Phase::BeforeHead;
                return self.insert(name, packed, class);
            }
            self.arrive_in(Phase::BeforeHead)?;
        }
        match class {
            Class::Unknown => return Err(Stop::Crooked),
            Class::Html => return self.repeat(Class::Html),
            _ => self.go_back_into_body(true),
        }
        if self.phase == Phase::BeforeHead {
            if class == Class::Head {
                self.phase = Phase::InHead;
                return self.insert(name, packed, class);
            }
            self.arrive_in(Phase::InHead)?;
        }
        let of_head = matches!(class, Class::Meta | Class::Title | Class::Raw | Class::Script);
        match (self.phase, class) {
            (Phase::InHead | Phase::AfterHead, Class::Head) => return Ok(()),
            (Phase::InHead, _) if of_head => return self.insert_leaf(name, packed, class),
            // It goes into the head, which is closed.
            (Phase::AfterHead, _) if of_head => return Err(Stop::Crooked),
            (Phase::InHead | Phase::AfterHead, Class::Body) => {
                self.arrive_in(Phase::AfterHead)?;
                self.phase = Phase::InBody;
                return self.insert(name, packed, class);
            }
            _ => self.arrive_in(Phase::InBody)?,
        }
        self.start_in_body(name, packed, class)
    }

    fn start_in_body(&mut self, name: &'d str, packed: Name, class: Class) -> Walked {
        if self.top().is_table_part() {
            return self.start_in_table(name, packed, class);
        }
        match class {
            Class::Html | Class::Unknown => return Err(Stop::Crooked),
            Class::Body => return self.repeat(class),
            Class::Head => return Ok(()),
            Class::Caption | Class::Columns | Class::Column | Class::Section | Class::Row | Class::Cell => {
                let Some(around) = self.cell_or_caption() else {
                    return Ok(());
                };
                self.close_to(around, true)?;
                return self.start_in_table(name, packed, class);
            }
            Class::Meta
            | Class::Title
            | Class::Raw
            | Class::RawInBody
            | Class::Textarea
            | Class::Script
            | Class::Void => {
                return self.insert_leaf(name, packed, class);
            }
            Class::Input => {
                self.refuse_within(Class::Select)?;
                return self.insert_leaf(name, packed, class);
            }
            Class::Rule => {
                self.close_paragraph()?;
                self.refuse_within(Class::Select)?;
                return self.insert_leaf(name, packed, class);
            }
            Class::Form if self.has_form => return Ok(()),
            Class::Form => {
                self.close_paragraph()?;
                self.has_form = true;
            }
            Class::Block | Class::Loose | Class::List | Class::Paragraph => self.close_paragraph()?,
            Class::Heading => {
                self.close_paragraph()?;
                if self.top() == Class::Heading {
                    self.pop()?;
                }
            }
            Class::Item | Class::Definition => {
                self.close_item(class)?;
                self.close_paragraph()?;
            }
            Class::Button | Class::Select => self.refuse_within(class)?,
            Class::Anchor => {
                if self.open.elements.iter().any(|element| element.class == Class::Anchor) {
                    return Err(Stop::Crooked);
                }
            }
            Class::Table => match self.quirks {
                Some(false) => self.close_paragraph()?,
                None if self.paragraph().is_some() => return Err(Stop::Crooked),
                Some(true) | None => {}
            },
            Class::Choice | Class::Choices => self.close_choices(class)?,
            Class::Formatting | Class::Other => {}
        }
        self.insert(name, packed, class)
    }

    fn start_in_table(&mut self, name: &'d str, packed: Name, class: Class) -> Walked {
        loop {
            match (self.top(), class) {
                (Class::Columns, Class::Column) => return self.insert_leaf(name, packed, class),
                (Class::Columns, _)
                | (Class::Section, Class::Caption | Class::Columns | Class::Column | Class::Section)
                | (Class::Row, Class::Caption | Class::Columns | Class::Column | Class::Section | Class::Row) => {
                    self.pop()?;
                }
                (Class::Table, Class::Caption | Class::Columns | Class::Section)
                | (Class::Section, Class::Row)
                | (Class::Row, Class::Cell) => return self.insert(name, packed, class),
                (Class::Table, Class::Column) => self.imply("colgroup", Class::Columns)?,
                (Class::Table, Class::Row | Class::Cell) => self.imply("tbody", Class::Section)?,
                (Class::Section, Class::Cell) => self.imply("tr", Class::Row)?,
                (Class::Table | Class::Section | Class::Row, Class::Table) => {
                    let Some(table) = self.nearest(|class| class == Class::Table) else {
                        return Err(Stop::Crooked);
                    };
                    self.close_to(table, true)?;
                    return self.start_in_body(name, packed, class);
                }
                (Class::Table | Class::Section | Class::Row, Class::Script) => {
                    return self.insert_leaf(name, packed, class);
                }
                (Class::Table | Class::Section | Class::Row, Class::Raw) if name.eq_ignore_ascii_case("style") => {
                    return self.insert_leaf(name, packed, class);
                }
                _ => return Err(Stop::Crooked),
            }
        }
    }

    fn end(&mut self, name: &'d str) -> Walked {
        let (packed, class) = Class::of(name.as_bytes());
        match self.phase {
            Phase::InBody => return self.end_in_body(packed, class, name),
            Phase::AfterBody if matches!(class, Class::Body | Class::Html) => self.after_root = class == Class::Html,
            Phase::AfterBody => {
                self.go_back_into_body(true);
                return self.end_in_body(packed, class, name);
            }
            Phase::InHead if class == Class::Head => {
                self.pop()?;
                self.phase = Phase::AfterHead;
            }
            _ if matches!(class, Class::Html | Class::Head | Class::Body | Class::Unknown) || is_break(name) => {
                return Err(Stop::Crooked);
            }
            // A doctype that comes now is too late.
            Phase::Initial => self.phase = Phase::BeforeHtml,
            _ => {}
        }
        Ok(())
    }

    fn end_in_body(&mut self, packed: Name, class: Class, name: &'d str) -> Walked {
        if self.top().is_table_part() {
            return self.end_in_table(packed, class, name);
        }
        let found = match class {
            Class::Body | Class::Html => {
                self.end_body(class);
                None
            }
            Class::Caption | Class::Cell | Class::Table | Class::Section | Class::Row => {
                return self.end_of_table_part(packed, class, name);
            }
            Class::Block | Class::Loose | Class::List | Class::Button | Class::Select => {
                self.within_scope(|element| is_named(element, packed, name), |_| false)
            }
            Class::Definition => self.within_scope(|element| element.name == packed, |_| false),
            Class::Item => self.within_scope(|element| element.class == Class::Item, |class| class == Class::List),
            Class::Heading => self.within_scope(|element| element.class == Class::Heading, |_| false),
            Class::Paragraph => Some(self.paragraph().ok_or(Stop::Crooked)?),
            Class::Form => return self.end_form(),
            Class::Formatting | Class::Anchor => {
                if self.open.elements.last().is_some_and(|top| top.name == packed) {
                    return self.pop();
                }
                if self.open.elements.iter().any(|element| element.name == packed) {
                    return Err(Stop::Crooked);
                }
                None
            }
            Class::Other | Class::Choice | Class::Choices => self.nearest_generic(packed, name),
            Class::Void if is_break(name) => return Err(Stop::Crooked),
            // They are never open here.
            _ => None,
        };
        found.map_or(Ok(()), |found| self.close_to(found, false))
    }

    /// Any other end tag: what has its name, unless something special is in between.
    fn nearest_generic(&self, packed: Name, name: &str) -> Option<usize> {
        for (index, element) in self.open.elements.iter().enumerate().rev() {
            if is_named(element, packed, name) {
                return Some(index);
            }
            if element.class.is_special(element.name) {
                return None;
            }
        }
        None
    }

    fn end_body(&mut self, class: Class) {
        if self.cell_or_caption().is_none()
            && self
                .within_scope(|element| element.class == Class::Body, |_| false)
                .is_some()
        {
            self.phase = Phase::AfterBody;
            self.after_root = class == Class::Html;
        }
    }

    fn end_form(&mut self) -> Walked {
        if !self.has_form {
            return Ok(());
        }
        self.has_form = false;
        while self.top().ends_by_itself() {
            self.pop()?;
        }
        if self.top() != Class::Form {
            return Err(Stop::Crooked);
        }
        self.pop()
    }

    /// The end of a part of a table, seen from within a cell or a caption.
    fn end_of_table_part(&mut self, packed: Name, class: Class, name: &'d str) -> Walked {
        let Some(around) = self.cell_or_caption() else {
            return Ok(());
        };
        let (found, named) = self
            .open
            .elements
            .get(around)
            .map_or((Class::Html, packed), |element| (element.class, element.name));
        match (found, class) {
            (Class::Cell, Class::Cell) if named == packed => self.close_to(around, true),
            (Class::Caption, Class::Caption) => self.close_to(around, true),
            (Class::Caption, Class::Table) => {
                self.close_to(around, true)?;
                self.end_in_table(packed, class, name)
            }
            (Class::Cell, Class::Table | Class::Section | Class::Row) if self.within_table(packed) => {
                self.close_to(around, true)?;
                self.end_in_table(packed, class, name)
            }
            _ => Ok(()),
        }
    }

    fn end_in_table(&mut self, packed: Name, class: Class, name: &'d str) -> Walked {
        loop {
            let same = self.open.elements.last().is_some_and(|top| top.name == packed);
            match (self.top(), class) {
                (Class::Columns | Class::Table | Class::Section | Class::Row, _) if same => return self.pop(),
                (Class::Columns, Class::Column) => return Ok(()),
                (Class::Columns, _) | (Class::Section | Class::Row, Class::Table) => self.pop()?,
                (Class::Row, Class::Section) if self.within_table(packed) => self.pop()?,
                (_, Class::Paragraph | Class::Formatting | Class::Anchor | Class::Form | Class::Unknown) => {
                    return Err(Stop::Crooked);
                }
                (_, Class::Void) if is_break(name) => return Err(Stop::Crooked),
                _ => return Ok(()),
            }
        }
    }

    /// Whether the innermost table has a part of this name open, or has it itself.
    fn within_table(&self, packed: Name) -> bool {
        for element in self.open.elements.iter().rev() {
            if element.name == packed {
                return true;
            }
            if matches!(element.class, Class::Table | Class::Html) {
                return false;
            }
        }
        false
    }

    /// The cell or the caption that is read, if it is one: its end closes everything in it.
    fn cell_or_caption(&self) -> Option<usize> {
        let around =
            self.nearest(|class| matches!(class, Class::Cell | Class::Caption | Class::Table | Class::Html))?;
        let class = self.open.elements.get(around)?.class;
        matches!(class, Class::Cell | Class::Caption).then_some(around)
    }

    fn nearest(&self, is_it: impl Fn(Class) -> bool) -> Option<usize> {
        self.open.elements.iter().rposition(|element| is_it(element.class))
    }

    /// The nearest element that is meant, if nothing that bounds the scope is in between.
    fn within_scope(&self, is_it: impl Fn(&Element<'_>) -> bool, bounds: impl Fn(Class) -> bool) -> Option<usize> {
        for (index, element) in self.open.elements.iter().enumerate().rev() {
            if is_it(element) {
                return Some(index);
            }
            if element.class.bounds_scope() || bounds(element.class) {
                return None;
            }
        }
        None
    }

    fn refuse_within(&self, class: Class) -> Walked {
        match self.within_scope(|element| element.class == class, |_| false) {
            Some(_) => Err(Stop::Crooked),
            None => Ok(()),
        }
    }

    fn paragraph(&self) -> Option<usize> {
        self.within_scope(
            |element| element.class == Class::Paragraph,
            |class| class == Class::Button,
        )
    }

    fn close_paragraph(&mut self) -> Walked {
        self.paragraph()
            .map_or(Ok(()), |paragraph| self.close_to(paragraph, false))
    }

    /// A new item ends the one before it.
    fn close_item(&mut self, class: Class) -> Walked {
        for (index, element) in self.open.elements.iter().enumerate().rev() {
            if element.class == class {
                return self.close_to(index, false);
            }
            if element.class.is_special(element.name) && !matches!(element.class, Class::Loose | Class::Paragraph) {
                break;
            }
        }
        Ok(())
    }

    fn close_choices(&mut self, class: Class) -> Walked {
        if self
            .within_scope(|element| element.class == Class::Select, |_| false)
            .is_none()
        {
            return if self.top() == Class::Choice {
                self.pop()
            } else {
                Ok(())
            };
        }
        while self.top().ends_by_itself() && !(class == Class::Choice && self.top() == Class::Choices) {
            self.pop()?;
        }
        Ok(())
    }

    fn top(&self) -> Class {
        self.open.elements.last().map_or(Class::Html, |element| element.class)
    }

    fn imply(&mut self, name: &'static str, class: Class) -> Walked {
        let fresh = std::mem::take(&mut self.fresh);
        // Its attributes, none, stand before those of the tag that is read.
        let place = self.open.tokens.attributes.len() - fresh;
        let opened = self.push(name, Name::of(name.as_bytes()), class, (place, place));
        self.fresh = fresh;
        opened
    }

    fn insert(&mut self, name: &'d str, packed: Name, class: Class) -> Walked {
        let end = self.open.tokens.attributes.len();
        let begin = end - std::mem::take(&mut self.fresh);
        self.push(name, packed, class, (begin, end))
    }

    /// An element that holds no elements: a void one, or one whose content is text.
    fn insert_leaf(&mut self, name: &'d str, packed: Name, class: Class) -> Walked {
        self.insert(name, packed, class)?;
        match class {
            Class::Script | Class::Raw | Class::RawInBody => {
                let (text, _) = if class == Class::Script {
                    self.open.tokens.script(name)
                } else {
                    self.open.tokens.raw(name)
                };
                let hidden = class == Class::Script || class == Class::Raw && !name.eq_ignore_ascii_case("noframes");
                self.sink.raw(text, hidden)?;
            }
            Class::Title => {
                let (text, _) = self.open.tokens.raw(name);
                self.sink.text(text)?;
            }
            Class::Textarea => {
                let (text, _) = self.open.tokens.raw(name);
                // It might be a line end, which does not count here.
                if text.starts_with("&#") {
                    return Err(Stop::Crooked);
                }
                let line = text.strip_prefix("\r\n").or_else(|| text.strip_prefix(['\n', '\r']));
                self.sink.text(line.unwrap_or(text))?;
            }
            _ => {}
        }
        self.pop()
    }

    fn push(&mut self, text: &'d str, name: Name, class: Class, attributes: (usize, usize)) -> Walked {
        if self.open.elements.len() >= self.most {
            return Err(Stop::Crooked);
        }
        let place = self.open.elements.last_mut().map_or(1, |parent| {
            parent.children += 1;
            parent.children
        });
        self.open.elements.push(Element {
            name,
            text,
            class,
            place,
            children: 0,
            attributes,
        });
        self.sink.opened(&self.open)
    }

    /// Closes elements down to this one. Formatting that was not closed by its own end tag would open again, unless a cell ends with it.
    fn close_to(&mut self, index: usize, cell: bool) -> Walked {
        while self.open.elements.len() > index {
            if !cell && self.open.elements.len() > index + 1 && self.top().is_formatting() {
                return Err(Stop::Crooked);
            }
            self.pop()?;
        }
        Ok(())
    }

    fn pop(&mut self) -> Walked {
        let Some(top) = self.open.elements.pop() else {
            return Ok(());
        };
        let end = self.open.tokens.attributes.len() - self.fresh;
        if self.fresh == 0 {
            self.open.tokens.attributes.truncate(top.attributes.0);
        } else if top.attributes.0 < end {
            self.open.tokens.attributes.drain(top.attributes.0..end);
        }
        self.sink.closed()
    }

    fn drop_fresh(&mut self) {
        let kept = self.open.tokens.attributes.len() - std::mem::take(&mut self.fresh);
        self.open.tokens.attributes.truncate(kept);
    }
}

fn is_named(element: &Element<'_>, packed: Name, name: &str) -> bool {
    element.name == packed && (!packed.is_long() || element.text.eq_ignore_ascii_case(name))
}

fn is_break(name: &str) -> bool {
    name.eq_ignore_ascii_case("br")
}

/// What the rules call white space.
fn is_white(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ')
}
