//! Whether a run found far less than the runs before it: a site that changed under its selectors. Pure.

use serde::{Deserialize, Serialize};

/// The fewest earlier runs that are compared with.
pub const MIN_RUNS: usize = 3;
/// The most earlier runs that are compared with, the newest.
pub const MAX_RUNS: usize = 20;
/// The fewest records that the earlier runs have together.
pub const MIN_RECORDS: u64 = 20;
/// A field counts that was filled in so many of a thousand items in the median of the earlier runs.
const FILLED: u64 = 800;
/// A run has drifted whose records are fewer than the median of the earlier ones divided by this.
const FEWER: u64 = 5;

/// How often a field was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldFill {
    /// Its name.
    pub field: String,
    /// In how many items it was found; a default does not count.
    pub found: u64,
    /// How many items there were.
    pub items: u64,
}

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Its records.
    pub records: u64,
    /// Its fields.
    pub fields: Vec<FieldFill>,
}

/// Something of which a run found far less than is usual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The field that is filled less; none where there are fewer records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What the run has: percent of the items in which the field is filled, or records.
    pub now: u64,
    /// The median of the earlier runs.
    pub usual: u64,
}

impl FieldFill {
    /// In how many of a thousand items it was found.
    fn rate(&self) -> Option<u64> {
        (self.found * 1000).checked_div(self.items)
    }
}

/// Compares a run with earlier ones that succeeded and did not drift; `None` where they are too few to tell.
///
/// A field has drifted that used to be filled in four of five items (the median of the runs) and is filled in less than half as many now; the
/// number of records has when it is below a fifth of its median.
pub fn judge(now: &Figures, earlier: &[Figures]) -> Option<Vec<Drift>> {
    let records: u64 = earlier.iter().map(|run| run.records).sum();
    if earlier.len() < MIN_RUNS || records < MIN_RECORDS {
        return None;
    }
    let usual = median(earlier.iter().map(|run| run.records).collect());
    let fewer = usual.filter(|usual| now.records * FEWER < *usual).map(|usual| Drift {
        field: None,
        now: now.records,
        usual,
    });
    let fields = now.fields.iter().filter_map(|field| emptier(field, earlier));
    Some(fewer.into_iter().chain(fields).collect())
}

fn emptier(field: &FieldFill, earlier: &[Figures]) -> Option<Drift> {
    let rate = field.rate()?;
    let same = earlier
        .iter()
        .filter_map(|run| run.fields.iter().find(|other| other.field == field.field));
    let rates: Vec<u64> = same.filter_map(FieldFill::rate).collect();
    let usual = Some(rates).filter(|rates| rates.len() >= MIN_RUNS).and_then(median)?;
    (usual >= FILLED && rate * 2 < usual).then(|| Drift {
        field: Some(field.field.clone()),
        now: rate / 10,
        usual: usual / 10,
    })
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// What drifted, without figures: the names of fields, and `records` for their number.
pub fn names(drifts: &[Drift]) -> Vec<String> {
    let name = |drift: &Drift| {
        drift
            .field
            .as_ref()
            .map_or_else(|| "records".to_owned(), |field| format!("field {field}"))
    };
    drifts.iter().map(name).collect()
}

/// What drifted, with its figures, as a sentence.
pub fn sentence(drifts: &[Drift]) -> String {
    let part = |drift: &Drift| match &drift.field {
        Some(field) => format!(
            "field {field:?} is filled in {} % of the items (usually {} %)",
            drift.now, drift.usual
        ),
        None => format!("there are {} records (usually {})", drift.now, drift.usual),
    };
    let parts: Vec<String> = drifts.iter().map(part).collect();
    format!("the site seems to have changed: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(records: u64, price: u64, note: u64) -> Figures {
        let field = |field: &str, found| FieldFill {
            field: field.to_owned(),
            found,
            items: records,
        };
        Figures {
            records,
            fields: vec![field("price", price), field("note", note)],
        }
    }

    #[test]
    fn a_field_that_was_filled_and_is_filled_less_than_half_has_drifted() {
        let earlier = [run(100, 98, 10), run(100, 100, 12), run(100, 99, 8)];
        let judged = |now: &Figures| judge(now, &earlier).unwrap();
        assert!(
            judged(&run(100, 50, 0)).is_empty(),
            "a field that was often empty tells nothing"
        );
        let drifts = judged(&run(100, 49, 0));
        assert_eq!(
            drifts,
            [Drift {
                field: Some("price".to_owned()),
                now: 49,
                usual: 99
            }]
        );
        assert_eq!(
            sentence(&drifts),
            "the site seems to have changed: field \"price\" is filled in 49 % of the items (usually 99 %)"
        );
    }

    #[test]
    fn the_number_of_records_has_drifted_below_a_fifth() {
        let earlier = [run(100, 98, 10), run(50, 50, 12), run(1000, 999, 8)];
        let of = |records| judge(&run(records, records, 0), &earlier).unwrap();
        assert!(of(20).is_empty());
        assert_eq!(
            of(19),
            [Drift {
                field: None,
                now: 19,
                usual: 100
            }]
        );
    }

    #[test]
    fn too_few_runs_or_records_tell_nothing() {
        assert_eq!(judge(&run(1, 0, 0), &[run(100, 100, 0), run(100, 100, 0)]), None);
        assert_eq!(judge(&run(1, 0, 0), &[run(6, 6, 0), run(6, 6, 0), run(6, 6, 0)]), None);
        let single = vec![run(1, 1, 0); MAX_RUNS];
        assert_eq!(
            judge(&run(1, 0, 0), &single).unwrap(),
            [Drift {
                field: Some("price".to_owned()),
                now: 0,
                usual: 100
            }],
            "a page of one record tells after twenty runs"
        );
    }

    #[test]
    fn one_odd_run_does_not_move_the_median() {
        let earlier = [
            run(100, 0, 0),
            run(100, 95, 0),
            run(100, 96, 0),
            run(100, 97, 0),
            run(3, 0, 0),
        ];
        assert_eq!(judge(&run(100, 10, 0), &earlier).unwrap().len(), 1);
        assert!(judge(&run(100, 90, 0), &earlier).unwrap().is_empty());
    }

    #[test]
    fn a_new_field_and_a_run_without_items_are_not_judged() {
        let mut now = run(100, 100, 0);
        now.fields.push(FieldFill {
            field: "new".to_owned(),
            found: 0,
            items: 100,
        });
        let earlier = vec![run(100, 100, 0); 3];
        assert!(judge(&now, &earlier).unwrap().is_empty());
        assert_eq!(
            judge(&run(0, 0, 0), &earlier).unwrap().len(),
            1,
            "only that there are no records"
        );
    }
}
