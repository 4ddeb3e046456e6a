//! Conditions as Kubernetes' conventions want them: `lastTransitionTime` moves with the status alone, one summary is True. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The state of one aspect before it gets its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's type.
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word.
    pub reason: String,
    /// One sentence, without pod names and clocks.
    pub message: String,
}

/// Which of the three summaries is True.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    /// Everything is as it should be.
    Ready,
    /// It is being worked on, or will be when something comes back by itself.
    Reconciling,
    /// A person has to do something.
    Stalled,
}

impl Verdict {
    /// It holds.
    pub fn yes(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: "True",
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    /// It does not hold.
    pub fn no(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: "False",
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    /// It is not known.
    pub fn unknown(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: "Unknown",
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.status == "True"
    }
}

/// The three summaries, of which exactly one is True.
pub fn summaries(summary: Summary, reason: &str, message: &str) -> Vec<Verdict> {
    [
        ("Ready", Summary::Ready),
        ("Reconciling", Summary::Reconciling),
        ("Stalled", Summary::Stalled),
    ]
    .into_iter()
    .map(|(kind, which)| match (which == summary, which) {
        (true, _) => Verdict::yes(kind, reason, message),
        // Ready tells why it is not; the other two only that they are not.
        (false, Summary::Ready) => Verdict::no(kind, reason, message),
        (false, _) => Verdict::no(kind, reason, ""),
    })
    .collect()
}

/// The conditions to store: those of `verdicts`, in their order, with the times of `old` where the status did not change.
pub fn merge(old: &[Condition], verdicts: Vec<Verdict>, generation: i64, now: Timestamp) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|verdict| {
            let before = old
                .iter()
                .find(|condition| condition.type_ == verdict.kind && condition.status == verdict.status);
            Condition {
                type_: verdict.kind.to_owned(),
                status: verdict.status.to_owned(),
                reason: verdict.reason,
                message: verdict.message,
                observed_generation: Some(generation),
                last_transition_time: before
                    .map_or_else(|| Time(now), |condition| condition.last_transition_time.clone()),
            }
        })
        .collect()
}

/// A word that a reason may be: letters and digits, beginning with a letter.
pub fn as_reason(word: &str) -> String {
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) {
        word
    } else {
        format!("Error{word}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn exactly_one_summary_is_true() {
        for summary in [Summary::Ready, Summary::Reconciling, Summary::Stalled] {
            let verdicts = summaries(summary, "R", "m");
            assert_eq!(verdicts.iter().filter(|verdict| verdict.holds()).count(), 1);
            assert_eq!(verdicts.len(), 3);
        }
    }

    #[test]
    fn the_time_moves_with_the_status_and_with_nothing_else() {
        let first = merge(&[], vec![Verdict::no("Ready", "A", "a")], 1, at(10));
        let second = merge(&first, vec![Verdict::no("Ready", "B", "b")], 2, at(20));
        assert_eq!(second[0].last_transition_time.0, at(10));
        assert_eq!(
            (second[0].reason.as_str(), second[0].observed_generation),
            ("B", Some(2))
        );
        let third = merge(&second, vec![Verdict::yes("Ready", "C", "")], 2, at(30));
        assert_eq!(third[0].last_transition_time.0, at(30));
    }

    #[test]
    fn whatever_the_platform_calls_an_error_is_a_legal_reason() {
        assert_eq!(as_reason("HttpStatus"), "HttpStatus");
        assert_eq!(as_reason("404 not found"), "Error404notfound");
        assert_eq!(as_reason(""), "Error");
    }
}
