//! What a run remembers of its records, to see that a page repeats. Pure.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::extract::Record;

/// The most records that are remembered, eight bytes each; later ones count as new.
const MOST: usize = 1_000_000;
/// Of a run that is taken up again the newest pages that are remembered, besides the first: beyond its end a site repeats its last page or
/// its first.
pub(crate) const PAGES: i32 = 10;

/// The records of a run so far.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashSet<u64>);

impl Seen {
    /// Whether there are records and all of them were seen before.
    pub(crate) fn has_all(&self, records: &[Record]) -> bool {
        !records.is_empty() && records.iter().all(|record| self.0.contains(&hash(record)))
    }

    /// From now on they were seen.
    pub(crate) fn extend(&mut self, records: &[Record]) {
        let room = MOST.saturating_sub(self.0.len());
        self.0.extend(records.iter().take(room).map(hash));
    }
}

fn hash(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (name, value) in record {
        name.hash(&mut hasher);
        value.to_string().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(text: &str) -> Record {
        json!({ "t": text }).as_object().unwrap().clone()
    }

    #[test]
    fn a_page_repeats_when_all_of_its_records_were_seen() {
        let mut seen = Seen::default();
        assert!(!seen.has_all(&[record("a")]));
        seen.extend(&[record("a"), record("b")]);
        assert!(seen.has_all(&[record("b")]) && seen.has_all(&[record("b"), record("a")]));
        assert!(!seen.has_all(&[record("a"), record("c")]));
        assert!(!seen.has_all(&[]), "an empty page repeats nothing");
    }
}
