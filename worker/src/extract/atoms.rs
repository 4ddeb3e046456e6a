//! Names, attributes and texts of a page as its tree holds them.

use std::collections::HashSet;

use html5ever::{Attribute, LocalName, QualName, ns, tendril::StrTendril};

use super::tokens;

/// So many attributes are looked through one by one.
const FEW: usize = 32;
/// Names that are kept at hand.
const NAMES: usize = 128;

/// What a page's tree is made of.
pub(super) struct Atoms<'d> {
    page: &'d str,
    /// The page, of which the tree's texts are parts.
    whole: StrTendril,
    names: Vec<Option<(&'d str, LocalName)>>,
}

impl<'d> Atoms<'d> {
    pub(super) fn of(page: &'d str) -> Self {
        Self {
            page,
            whole: StrTendril::from_slice(page),
            names: vec![None; NAMES],
        }
    }

    /// The first attribute of each name, and whether there were more.
    pub(super) fn attributes(&mut self, found: &[tokens::Attribute<'d>]) -> (Vec<Attribute>, bool) {
        let mut attributes: Vec<Attribute> = Vec::with_capacity(found.len());
        let mut more = false;
        let mut seen = HashSet::new();
        for attribute in found {
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
                value: self.text(&attribute.value()),
            });
        }
        (attributes, more)
    }

    /// A name in small letters. Most of a page's names are few.
    pub(super) fn name(&mut self, name: &'d str) -> LocalName {
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
    pub(super) fn text(&self, text: &str) -> StrTendril {
        const SHORT: usize = 8;
        let begin = (text.as_ptr() as usize).wrapping_sub(self.page.as_ptr() as usize);
        let is_part = begin.checked_add(text.len()).is_some_and(|end| end <= self.page.len());
        match (u32::try_from(begin), u32::try_from(text.len())) {
            (Ok(begin), Ok(length)) if is_part && text.len() > SHORT => self.whole.subtendril(begin, length),
            _ => StrTendril::from_slice(text),
        }
    }
}
