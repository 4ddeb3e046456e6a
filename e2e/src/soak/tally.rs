//! What became of all tasks together. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::{client::Outcome, sites::Kind};
use crate::bench::Report;

/// The sums over outcomes.
#[derive(Default)]
pub struct Tally {
    accepted: BTreeMap<&'static str, usize>,
    ended: BTreeMap<String, usize>,
    errors: BTreeMap<String, usize>,
    lost: usize,
    doubled: usize,
    repeated: u32,
    slowest: f64,
}

impl Tally {
    /// Counts one more task.
    pub fn add(&mut self, outcome: &Outcome) {
        let kind = match outcome.kind {
            Kind::Paginated => "paginated",
            Kind::Browser => "browser",
        };
        *self.accepted.entry(kind).or_default() += 1;
        if let Some(state) = &outcome.state {
            *self.ended.entry(state.clone()).or_default() += 1;
        }
        if let Some(error) = &outcome.error {
            *self.errors.entry(error.clone()).or_default() += 1;
        }
        if let Some((lost, doubled)) = outcome.difference {
            self.lost += lost;
            self.doubled += doubled;
        }
        self.repeated += outcome.repeated;
        self.slowest = self.slowest.max(outcome.took.as_secs_f64());
    }

    /// Counts what another counted.
    pub fn join(&mut self, other: Self) {
        for (kind, number) in other.accepted {
            *self.accepted.entry(kind).or_default() += number;
        }
        for (state, number) in other.ended {
            *self.ended.entry(state).or_default() += number;
        }
        for (error, number) in other.errors {
            *self.errors.entry(error).or_default() += number;
        }
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.repeated += other.repeated;
        self.slowest = self.slowest.max(other.slowest);
    }

    /// Puts the sums into a report.
    pub fn tell(&self, report: &mut Report) {
        let accepted: usize = self.accepted.values().sum();
        let ended: usize = self.ended.values().sum();
        let kinds: Vec<_> = self.accepted.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        report.add("tasks accepted", format!("{accepted} ({})", kinds.join(", ")), "");
        let states: Vec<_> = self.ended.iter().map(|(state, n)| format!("{n} {state}")).collect();
        report.add(
            "tasks ended",
            format!("{ended} ({})", states.join(", ")),
            "as many as accepted",
        );
        report.add("records lost of succeeded tasks", self.lost.to_string(), "0");
        report.add("records doubled", self.doubled.to_string(), "0");
        report.add("requests that had to be sent again", self.repeated.to_string(), "");
        report.add(
            "slowest task, from posting to its end",
            format!("{:.1} s", self.slowest),
            "",
        );
        for (error, number) in &self.errors {
            report.add("failed with", format!("{number} × {error}"), "");
        }
    }

    /// # Errors
    /// When a task did not end, or a record is lost or doubled.
    pub fn ensure_sound(&self) -> Result<()> {
        let (accepted, ended): (usize, usize) = (self.accepted.values().sum(), self.ended.values().sum());
        ensure!(accepted == ended, "{accepted} tasks were accepted and {ended} ended");
        ensure!(self.lost == 0, "{} records are lost", self.lost);
        ensure!(self.doubled == 0, "{} records are doubled", self.doubled);
        let succeeded = self.ended.get("succeeded").copied().unwrap_or_default();
        ensure!(succeeded > 0, "no task succeeded");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcome(state: Option<&str>, difference: Option<(usize, usize)>) -> Outcome {
        Outcome {
            kind: Kind::Paginated,
            state: state.map(str::to_owned),
            error: None,
            difference,
            repeated: 0,
            took: Duration::from_secs(1),
        }
    }

    #[test]
    fn only_ended_tasks_with_every_record_once_are_sound() {
        let of = |outcomes: &[Outcome]| {
            let mut tally = Tally::default();
            for outcome in outcomes {
                tally.add(outcome);
            }
            tally.ensure_sound().is_ok()
        };
        let good = || outcome(Some("succeeded"), Some((0, 0)));
        assert!(of(&[good()]));
        assert!(!of(&[good(), outcome(None, None)]));
        assert!(!of(&[good(), outcome(Some("succeeded"), Some((1, 0)))]));
        assert!(!of(&[good(), outcome(Some("succeeded"), Some((0, 1)))]));
    }
}
