//! From what the signals ask for to what is done: bounds, holds, steps and pauses, in one fixed order, each of which says that it bound. Pure.

use jiff::Timestamp;

use super::{Constraint, Decision, Limits, Reason, Signal, State, Target, schedule::floor, signals::since};

/// What the signals ask for.
pub struct Wish {
    /// How many pods.
    pub to: u32,
    /// Why; where the number stays, what holds it.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// What was measured.
    pub signals: Vec<Signal>,
}

/// How far one change may go.
#[derive(Clone, Copy)]
pub enum Step {
    /// One pod (guide: "Scale increment: 1 instance").
    One,
    /// Half of the pods, at least one.
    Half,
}

impl Step {
    fn of(self, current: u32) -> u32 {
        match self {
            Self::One => 1,
            Self::Half => current.div_ceil(2).max(1),
        }
    }
}

/// Bounds a wish.
pub fn bound(target: Target, limits: &Limits, state: &State, wish: Wish, step: Step, now: Timestamp) -> Decision {
    let mut bounding = Bounding {
        limits,
        state,
        now,
        constraints: Vec::new(),
    };
    let (mut to, mut reason, mut message) = (wish.to, wish.reason, wish.message);
    let (floor, ceiling) = bounding.range();
    if let Some((ordered, why, words)) = bounding.ordered(&floor, &ceiling) {
        (to, reason, message) = (ordered, why, words);
    } else if to > state.current {
        to = bounding.up(to, &ceiling, step);
    } else if to < state.current {
        to = bounding.down(to, floor, step);
    }
    to = bounding.paused(to);
    let constraints = bounding.constraints;
    if to == state.current
        && let Some(last) = constraints.last()
    {
        reason = last.reason;
        message = format!("{message}; {}", last.message);
    }
    Decision {
        target,
        at: now,
        from: state.current,
        to,
        wanted: wish.to,
        reason,
        message,
        signals: wish.signals,
        constraints,
    }
}

struct Bounding<'a> {
    limits: &'a Limits,
    state: &'a State,
    now: Timestamp,
    constraints: Vec<Constraint>,
}

/// The least and the most, each with its reason and its words.
type Bound = (u32, Reason, String);

impl Bounding<'_> {
    fn range(&self) -> (Bound, Bound) {
        let limits = self.limits;
        let mut ceiling = (limits.max, Reason::AtMaximum, format!("maxReplicas is {}", limits.max));
        for (constraint, most) in &self.state.ceilings {
            if *most < ceiling.0 {
                ceiling = (*most, constraint.reason, constraint.message.clone());
            }
        }
        let peak = floor(&limits.peaks, self.now).min(limits.max);
        let floor = if peak > limits.min {
            let words = format!("a schedule asks for at least {peak}");
            (peak, Reason::Scheduled, words)
        } else {
            (limits.min, Reason::AtMinimum, format!("minReplicas is {}", limits.min))
        };
        (floor, ceiling)
    }

    /// What the spec orders whatever is measured: to be within the bounds, at once. A budget of the surroundings takes nothing away.
    fn ordered(&self, floor: &Bound, ceiling: &Bound) -> Option<Bound> {
        let current = self.state.current;
        if current < floor.0 && current < ceiling.0 {
            let reason = match floor.1 {
                Reason::AtMinimum => Reason::BelowMinimum,
                other => other,
            };
            return Some((floor.0.min(ceiling.0), reason, floor.2.clone()));
        }
        let max = self.limits.max;
        (current > max).then(|| (max, Reason::AboveMaximum, format!("maxReplicas is {max}")))
    }

    fn up(&mut self, wanted: u32, ceiling: &Bound, step: Step) -> u32 {
        let current = self.state.current;
        let mut to = wanted;
        if to > ceiling.0 {
            to = ceiling.0.max(current);
            self.add(ceiling.1, ceiling.2.clone());
        }
        let most = current + step.of(current);
        if to > most {
            to = most;
            self.add(Reason::Step, format!("one step goes to {most}"));
        }
        if to > current && self.state.ready < current {
            to = current;
            let words = format!("{} of {current} pods are ready", self.state.ready);
            self.add(Reason::PodsPending, words);
        }
        if current > 0 { self.cooled(to) } else { to }
    }

    fn down(&mut self, wanted: u32, floor: Bound, step: Step) -> u32 {
        let current = self.state.current;
        let mut to = wanted;
        if to < floor.0 {
            to = floor.0.min(current);
            self.add(floor.1, floor.2);
        }
        let least = current - step.of(current).min(current);
        if to < least {
            to = least;
            self.add(Reason::Step, format!("one step goes to {least}"));
        }
        self.cooled(to)
    }

    fn cooled(&mut self, to: u32) -> u32 {
        let current = self.state.current;
        let fresh = self
            .state
            .changed
            .filter(|at| since(*at, self.now) < self.limits.cooldown);
        if to == current || fresh.is_none() {
            return to;
        }
        let words = format!("the last change was less than {} ago", text(self.limits.cooldown));
        self.add(Reason::Cooldown, words);
        current
    }

    fn paused(&mut self, to: u32) -> u32 {
        let (pause, current) = (self.limits.pause, self.state.current);
        if (to > current && pause.outward) || (to < current && pause.inward) {
            self.add(Reason::Paused, format!("scaling is paused; it would be {to}"));
            return current;
        }
        if to != current && pause.dry_run {
            self.add(Reason::DryRun, format!("dryRun is set; it would be {to}"));
            return current;
        }
        to
    }

    fn add(&mut self, reason: Reason, message: String) {
        self.constraints.push(Constraint { reason, message });
    }
}

/// A duration as people write it.
pub fn text(duration: std::time::Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    selextract_task::Duration::from_millis(millis).to_string()
}
