//! What the status says about a decision: the last one that differed, and the last changes. Pure.

use jiff::Timestamp;
use selextract_crds::{ConstraintStatus, DecisionStatus, ScaleChange, ScaleStatus, SignalStatus};

use super::{Decision, Reading, Signal};
use crate::moment::second;

/// The most changes that are remembered.
const CHANGES: usize = 20;

/// Whether a decision says something else than what is stored. Figures alone do not: they change with every look.
pub fn differs(stored: Option<&DecisionStatus>, decision: &Decision) -> bool {
    stored.is_none_or(|stored| {
        stored.to != number(decision.to) || stored.reason != decision.reason.as_str() || decision.to != decision.from
    })
}

/// What is stored after a decision.
pub fn next(old: &ScaleStatus, decision: &Decision, current: i32) -> ScaleStatus {
    let mut status = ScaleStatus {
        desired: number(decision.to),
        current,
        decision: old.decision.clone(),
        history: old.history.clone(),
    };
    if differs(old.decision.as_ref(), decision) {
        status.decision = Some(told(decision));
    }
    if decision.to != decision.from {
        let change = ScaleChange {
            time: second(decision.at),
            from: number(decision.from),
            to: number(decision.to),
            reason: decision.reason.as_str().to_owned(),
            message: decision.message.clone(),
        };
        status.history.insert(0, change);
        status.history.truncate(CHANGES);
    }
    status
}

/// When the number changed last, by what is stored.
pub fn changed(status: &ScaleStatus) -> Option<Timestamp> {
    status.history.first()?.time.parse().ok()
}

fn told(decision: &Decision) -> DecisionStatus {
    let constraints = decision.constraints.iter().map(|constraint| ConstraintStatus {
        name: constraint.reason.as_str().to_owned(),
        message: constraint.message.clone(),
    });
    DecisionStatus {
        time: second(decision.at),
        from: number(decision.from),
        to: number(decision.to),
        wanted: number(decision.wanted),
        reason: decision.reason.as_str().to_owned(),
        message: decision.message.clone(),
        signals: decision.signals.iter().map(signal).collect(),
        constraints: constraints.collect(),
    }
}

fn signal(signal: &Signal) -> SignalStatus {
    let state = match signal.reading {
        Reading::Fresh(_) => "Fresh",
        Reading::Idle => "Idle",
        Reading::Unknown => "Unknown",
    };
    SignalStatus {
        name: signal.name.to_owned(),
        state: state.to_owned(),
        value: signal.value.clone(),
        threshold: signal.threshold.clone(),
        exceeded: signal.reading.is_above(signal.limit),
        since: signal.since.map(second),
    }
}

fn number(pods: u32) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::{Reason, Target, properties::at};

    fn decision(from: u32, to: u32, reason: Reason, second: i64) -> Decision {
        Decision {
            target: Target::Api,
            at: at(second),
            from,
            to,
            wanted: to,
            reason,
            message: format!("looked at {second}"),
            signals: Vec::new(),
            constraints: Vec::new(),
        }
    }

    #[test]
    fn figures_alone_change_nothing_that_is_stored() {
        let first = next(&ScaleStatus::default(), &decision(3, 3, Reason::Steady, 0), 3);
        assert_eq!(next(&first, &decision(3, 3, Reason::Steady, 5), 3), first);
        assert_ne!(next(&first, &decision(3, 3, Reason::Stabilizing, 5), 3), first);
    }

    #[test]
    fn the_last_twenty_changes_are_remembered_newest_first() {
        let mut status = ScaleStatus::default();
        for number in 0..25 {
            status = next(
                &status,
                &decision(number, number + 1, Reason::CpuHigh, i64::from(number)),
                1,
            );
        }
        assert_eq!(status.history.len(), 20);
        assert_eq!((status.history[0].from, status.history[0].to), (24, 25));
        assert_eq!(changed(&status), Some(at(24)));
    }
}
