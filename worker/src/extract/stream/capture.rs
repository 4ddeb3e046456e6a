//! What a plan takes of a page on the way through it: the texts of each item's fields, and from them its record as soon as no item around it
//! is open any more.

use selextract_task::{Take, absolute};
use url::Url;

use super::{
    super::{
        Reading, Rows,
        budget::{MAX_NODES, MAX_OUTPUT, check_set},
        links,
        references::{self, Within},
        text::Folded,
        tokens::{Attribute, attribute},
        value,
        walk::{Element, Open, Place, Sink, Stop, Walked, tags::Class},
    },
    Columns, Followed,
};

/// What is remembered with an element that is open.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// Texts that were gathered before it.
    gathering: u32,
    is_item: bool,
    is_block: bool,
}

/// The text of a field of an item.
struct Piece {
    item: u32,
    field: u32,
    text: Folded,
}

/// An item of which the record is not made yet.
struct Item {
    /// Its fields of which more may be found, as bits.
    wanted: u64,
}

/// What is taken.
pub(super) struct Capture<'r> {
    columns: &'r Columns<'r>,
    rows: Rows<'r>,
    reading: Reading,
    page: &'r Url,
    has_base: bool,
    /// Whether the page gives records.
    reads: bool,
    /// Where the next page is, as the page says.
    next: Option<String>,
    /// Whether what makes a page the last one was found.
    stops: [bool; 2],
    /// Links that a crawl follows, as the page says; none where it does not want that.
    links: Option<Vec<String>>,
    items: Vec<Item>,
    /// Items within each other, the innermost last.
    open: Vec<u32>,
    /// In the order in which they began.
    pieces: Vec<Piece>,
    /// Pieces whose elements are open, the innermost last.
    gathering: Vec<u32>,
    /// One for each element that is open.
    marks: Vec<Mark>,
    spent: usize,
    pieces_of_page: usize,
    has_rows: bool,
    decoded: String,
}

impl<'r> Capture<'r> {
    pub(super) fn new(
        columns: &'r Columns<'r>,
        rows: Rows<'r>,
        reading: Reading,
        (page, reads): (&'r Url, bool),
    ) -> Self {
        Self {
            columns,
            rows,
            reading,
            page,
            has_base: false,
            reads,
            next: None,
            stops: [false; 2],
            links: (!matches!(columns.links, Followed::None)).then(Vec::new),
            items: Vec::new(),
            open: Vec::new(),
            pieces: Vec::new(),
            gathering: Vec::new(),
            marks: Vec::with_capacity(32),
            spent: 0,
            pieces_of_page: 0,
            has_rows: false,
            decoded: String::new(),
        }
    }

    /// The rows, what they were read with, and where the page leads: to the next one, and everywhere.
    pub(super) fn finished(self) -> (Rows<'r>, Reading, (Option<String>, Vec<String>)) {
        (self.rows, self.reading, (self.next, self.links.unwrap_or_default()))
    }

    /// Of what makes a page the last one where it is there, and where it is not, whether it is there; nothing where nobody asks.
    pub(super) fn stops(&self) -> [Option<bool>; 2] {
        let [found, missing] = &self.columns.stops;
        [
            found.as_ref().map(|_| self.stops[0]),
            missing.as_ref().map(|_| self.stops[1]),
        ]
    }

    fn look_for_links(&mut self, element: &Element<'_>, open: &Open<'_>) {
        let Some(links) = &mut self.links else { return };
        let attribute = |name: &str| attribute(open.attributes_of(element), name).map(Attribute::value);
        if element.class == Class::Meta && element.text.eq_ignore_ascii_case("meta") && links::forbids(attribute) {
            self.links = None;
            return;
        }
        let leads = match &self.columns.links {
            Followed::None => false,
            Followed::All => element.class == Class::Anchor || element.text.eq_ignore_ascii_case("area"),
            Followed::Of(selector) => open.elements.len() > 1 && selector.means(open),
        };
        if leads && let Some(link) = links::written(attribute) {
            links.push(link.into_owned());
        }
    }

    fn look_for_base(&mut self, element: &Element<'_>, open: &Open<'_>) -> Result<(), Stop> {
        if self.has_base || !element.text.eq_ignore_ascii_case("base") {
            return Ok(());
        }
        let Some(href) = attribute(open.attributes_of(element), "href") else {
            return Ok(());
        };
        // What was read before it is relative to it too.
        if self.has_rows {
            return Err(Stop::Crooked);
        }
        self.has_base = true;
        if let Some(base) = absolute(self.page, &href.value()) {
            self.reading.base = base;
        }
        Ok(())
    }

    fn look_for_fields(&mut self, depth: usize, open: &Open<'_>) -> Result<(), Stop> {
        let Some(item) = self.open.get(depth).copied() else {
            return Ok(());
        };
        let mut wanted = self.items.get(item as usize).map_or(0, |item| item.wanted);
        while wanted != 0 {
            let field = wanted.trailing_zeros();
            wanted &= wanted - 1;
            self.reading.budget.work(1)?;
            let is_meant =
                |column: &super::Column<'_>| column.selector.as_ref().is_some_and(|selector| selector.means(open));
            if self.columns.fields.get(field as usize).is_some_and(is_meant) {
                self.take(item, field, open)?;
            }
        }
        Ok(())
    }

    fn begin_item(&mut self, open: &Open<'_>) -> Result<(), Stop> {
        let item = count(self.items.len());
        check_set(self.items.len())?;
        self.items.push(Item {
            wanted: self.columns.all,
        });
        self.open.push(item);
        for (field, column) in self.columns.fields.iter().enumerate() {
            if column.selector.is_none() {
                self.take(item, count(field), open)?;
                self.settle(item, count(field));
            }
        }
        Ok(())
    }

    /// Takes what a field takes of the newest open element.
    fn take(&mut self, item: u32, field: u32, open: &Open<'_>) -> Result<(), Stop> {
        let Some((element, column)) = open.elements.last().zip(self.columns.fields.get(field as usize)) else {
            return Ok(());
        };
        let mut text = Folded::default();
        match &column.of.take {
            Take::Attribute(name) => {
                let Some(found) = attribute(open.attributes_of(element), name) else {
                    return Ok(());
                };
                text.out = found.value().into_owned();
                self.spend(text.out.len())?;
            }
            // The inner HTML is not among what is read here.
            Take::Text | Take::Html => self.gathering.push(count(self.pieces.len())),
        }
        if self.pieces.len() >= MAX_NODES {
            return Err(Stop::Crooked);
        }
        self.pieces.push(Piece { item, field, text });
        if column.first_is_all {
            self.settle(item, field);
        }
        Ok(())
    }

    fn settle(&mut self, item: u32, field: u32) {
        if let Some(item) = self.items.get_mut(item as usize) {
            item.wanted &= !(1 << field);
        }
    }

    fn gather(&mut self, text: &str, first: usize) -> Result<(), Stop> {
        for index in first..self.gathering.len() {
            self.spend(text.len())?;
            let piece = self
                .gathering
                .get(index)
                .and_then(|piece| self.pieces.get_mut(*piece as usize));
            if let Some(piece) = piece {
                piece.text.push(text);
            }
        }
        Ok(())
    }

    /// What many take of the same text is bounded as what they make of it is; the tree says what is wrong with it.
    fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        self.reading.budget.read(bytes)?;
        self.spent += bytes;
        if self.spent > MAX_OUTPUT {
            Err(Stop::Crooked)
        } else {
            Ok(())
        }
    }

    fn leave_gap(&mut self) {
        for piece in &self.gathering {
            if let Some(piece) = self.pieces.get_mut(*piece as usize) {
                piece.text.gap = true;
            }
        }
    }

    /// The records of all items that have ended, in the order in which they began.
    fn make_rows(&mut self) -> Result<(), Stop> {
        self.has_rows = true;
        let mut pieces = std::mem::take(&mut self.pieces);
        // It keeps the order of those of the same field.
        pieces.sort_by_key(|piece| (piece.item, piece.field));
        let mut pieces = pieces.drain(..).peekable();
        for item in 0..count(self.items.len()) {
            self.rows.fill.items += 1;
            let record = value::record_of(&self.columns.plan.fields, &mut self.rows.fill.found, |index, field| {
                let is_its = |piece: &Piece| (piece.item, piece.field) == (item, count(index));
                let mut texts = std::iter::from_fn(|| pieces.next_if(is_its).map(|piece| piece.text.out));
                let value = value::of_texts(field, &mut texts, &self.reading)?;
                texts.for_each(drop);
                Ok(value)
            })?;
            self.rows.take(record);
        }
        drop(pieces);
        self.items.clear();
        self.spent = 0;
        Ok(())
    }
}

impl<'d> Sink<'d> for Capture<'_> {
    fn count(&mut self) -> Walked {
        self.pieces_of_page += 1;
        if self.pieces_of_page > 2 * MAX_NODES {
            return Err(Stop::Crooked);
        }
        Ok(self.reading.budget.work(1)?)
    }

    fn opened(&mut self, open: &Open<'d>) -> Walked {
        let Some(element) = open.elements.last() else {
            return Ok(());
        };
        let mut mark = Mark {
            gathering: count(self.gathering.len()),
            is_item: false,
            is_block: is_block(element),
        };
        if mark.is_block {
            self.leave_gap();
        }
        let is_root = open.elements.len() == 1;
        if element.class == Class::Meta {
            self.look_for_base(element, open)?;
        }
        self.look_for_links(element, open);
        if !is_root && self.reads {
            if self.next.is_none()
                && let Some(next) = &self.columns.next
                && next.means(open)
                && let Some(href) = attribute(open.attributes_of(element), "href")
            {
                self.next = Some(href.value().into_owned());
            }
            for (there, selector) in self.stops.iter_mut().zip(&self.columns.stops) {
                *there = *there || selector.as_ref().is_some_and(|selector| selector.means(open));
            }
            for depth in 0..self.open.len() {
                self.look_for_fields(depth, open)?;
            }
        }
        mark.is_item = self.reads
            && match &self.columns.items {
                Some(items) => !is_root && items.means(open),
                None => is_root,
            };
        if mark.is_item {
            self.begin_item(open)?;
        }
        self.marks.push(mark);
        Ok(())
    }

    fn closed(&mut self) -> Walked {
        let Some(mark) = self.marks.pop() else { return Ok(()) };
        if mark.is_block {
            self.leave_gap();
        }
        self.gathering.truncate(mark.gathering as usize);
        if mark.is_item {
            self.open.pop();
            if self.open.is_empty() {
                self.make_rows()?;
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &'d str) -> Walked {
        if self.gathering.is_empty() {
            return Ok(());
        }
        if memchr::memchr(b'&', text.as_bytes()).is_none() {
            return self.gather(text, 0);
        }
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        references::decode(text, Within::Text, &mut decoded);
        let gathered = self.gather(&decoded, 0);
        self.decoded = decoded;
        gathered
    }

    fn raw(&mut self, text: &'d str, hidden: bool) -> Walked {
        // What is hidden is for those alone who asked for this element.
        let first = self.marks.last().filter(|_| hidden).map_or(0, |mark| mark.gathering);
        self.gather(text, first as usize)
    }

    fn comment(&mut self, _text: &'d str, _place: Place) {}

    fn doctype(&mut self, _text: &'d str) {}
}

/// As [`super::super::text`] sees blocks, by what is known of the element already.
fn is_block(element: &Element<'_>) -> bool {
    let is_one_of = |names: &[&str]| names.iter().any(|name| element.text.eq_ignore_ascii_case(name));
    match element.class {
        Class::Loose
        | Class::List
        | Class::Paragraph
        | Class::Heading
        | Class::Form
        | Class::Item
        | Class::Definition
        | Class::Table
        | Class::Caption
        | Class::Row
        | Class::Cell
        | Class::Rule
        | Class::Choice => true,
        Class::Block => !is_one_of(&["center", "dialog", "dir", "hgroup", "menu", "search"]),
        Class::Void => is_one_of(&["br"]),
        _ => false,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
