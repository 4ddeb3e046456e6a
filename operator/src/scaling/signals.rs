//! What was measured: readings, samples of them, and the window that decisions look back on. Pure.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

use super::Reason;

/// One figure at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// It was measured.
    Fresh(f64),
    /// Everything that measures it is up and fresh, and there was nothing to measure: no request, no task. It counts as calm.
    Idle,
    /// A target is missing or silent, or the value is absurd. It holds, and never scales down.
    Unknown,
}

impl Reading {
    /// The value, where there is one.
    pub fn value(self) -> Option<f64> {
        match self {
            Self::Fresh(value) => Some(value),
            Self::Idle | Self::Unknown => None,
        }
    }

    /// The value, with nothing to do counted as nothing.
    pub fn or_idle(self) -> Option<f64> {
        match self {
            Self::Fresh(value) => Some(value),
            Self::Idle => Some(0.0),
            Self::Unknown => None,
        }
    }

    /// Whether it is above this: never when it is not known.
    pub fn is_above(self, threshold: f64) -> bool {
        self.value().is_some_and(|value| value > threshold)
    }

    /// Whether it is known and not above this.
    pub fn is_calm(self, threshold: f64) -> bool {
        self.or_idle().is_some_and(|value| value <= threshold)
    }
}

/// Whether what API and workers stand on is healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// Those that are known to be down: `postgres`, `pgbouncer`, `redis-queue`, `redis-cache`.
    pub down: Vec<String>,
    /// Nobody tells: a keeper that went with its node takes what it knew of the database with it.
    pub untold: bool,
}

impl Dependencies {
    /// Whether all are known to answer.
    pub fn are_healthy(&self) -> bool {
        self.down.is_empty() && !self.untold
    }

    /// Why nothing may be changed for what is measured, in words that follow a name or a `but`.
    pub fn fault(&self) -> Option<(Reason, String)> {
        if !self.down.is_empty() {
            return Some((Reason::DependencyUnhealthy, format!("{} is down", self.down.join(", "))));
        }
        self.untold.then(|| {
            let words = "no keeper tells whether database and queue answer";
            (Reason::SignalsUnknown, words.to_owned())
        })
    }
}

/// What was measured of the API.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApiSignals {
    /// CPU of the pods over their capacity (limit, else request), 0 to 1, mean over the pods.
    pub cpu: Reading,
    /// 95th percentile of the response time, in seconds.
    pub latency: Reading,
    /// Answers of 500 and above over all answers, 0 to 1.
    pub errors: Reading,
    /// Pods that answered for themselves.
    pub pods: u32,
}

/// What was measured of the workers and of what waits for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorkerSignals {
    /// CPU of the pods with their browsers over their capacity, 0 to 1, mean over the pods.
    pub cpu: Reading,
    /// Tasks and pages that a free worker could begin now.
    pub runnable: Reading,
    /// How long those have waited so far, in seconds, mean.
    pub wait: Reading,
    /// How long a task takes, in seconds, mean.
    pub task_time: Reading,
    /// Tasks that the workers are busy with.
    pub busy: Reading,
    /// Tasks that wait for their sites, whatever the number of workers.
    pub limited: Reading,
    /// Pods that answered for themselves.
    pub pods: u32,
}

/// Everything that was measured at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Of the API.
    pub api: ApiSignals,
    /// Of the workers.
    pub worker: WorkerSignals,
    /// Of what both stand on.
    pub dependencies: Dependencies,
}

/// The last samples, oldest first. Bounded by time and by number.
#[derive(Clone, Debug, Default)]
pub struct Window {
    samples: VecDeque<Sample>,
}

/// The most samples that are kept, whatever the window's length.
const MOST: usize = 2048;
/// Between two samples there may be this much; more is a hole, in which nobody knows what was.
pub const HOLE: Duration = Duration::from_secs(30);

impl Window {
    /// Adds a sample, which is newer than all, and drops those that are older than `keep`.
    pub fn push(&mut self, sample: Sample, keep: Duration) {
        if self.samples.back().is_some_and(|last| last.at >= sample.at) {
            return;
        }
        let at = sample.at;
        self.samples.push_back(sample);
        // One more than the time needs: a window is covered from the sample before its begin.
        while self.samples.len() > MOST || self.samples.get(1).is_some_and(|next| since(next.at, at) > keep) {
            self.samples.pop_front();
        }
    }

    /// The newest sample, if it is not too old to say what is now.
    pub fn newest(&self, now: Timestamp) -> Option<&Sample> {
        self.samples.back().filter(|sample| since(sample.at, now) <= HOLE)
    }

    /// The newest sample, however old.
    pub fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// The samples of the last `length`, if they cover it without a hole.
    pub fn covered(&self, length: Duration, now: Timestamp) -> Option<Vec<&Sample>> {
        let mut found = Vec::new();
        let mut later = now;
        for sample in self.samples.iter().rev() {
            if since(sample.at, later) > HOLE {
                return None;
            }
            found.push(sample);
            later = sample.at;
            if since(sample.at, now) >= length {
                return Some(found);
            }
        }
        None
    }

    /// Since when, without a hole, a condition has held up to now.
    pub fn holds_since(&self, now: Timestamp, holds: impl Fn(&Sample) -> bool) -> Option<Timestamp> {
        let mut begin = None;
        let mut later = now;
        for sample in self.samples.iter().rev() {
            if since(sample.at, later) > HOLE || !holds(sample) {
                break;
            }
            begin = Some(sample.at);
            later = sample.at;
        }
        begin
    }
}

/// How long ago `earlier` was at `later`; nothing if it was not before.
pub fn since(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::properties::{at, quiet};

    fn window(seconds: &[i64]) -> Window {
        let mut window = Window::default();
        for second in seconds {
            window.push(quiet(at(*second)), Duration::from_mins(1));
        }
        window
    }

    #[test]
    fn a_window_is_covered_when_it_has_no_hole() {
        let full = window(&[0, 20, 40, 60]);
        assert_eq!(full.covered(Duration::from_mins(1), at(60)).unwrap().len(), 4);
        assert!(full.covered(Duration::from_mins(2), at(60)).is_none(), "too short");
        let holed = window(&[0, 20, 55, 60]);
        assert!(holed.covered(Duration::from_mins(1), at(60)).is_none());
        assert!(full.covered(Duration::from_secs(10), at(95)).is_none(), "silent since");
    }

    #[test]
    fn old_samples_go_and_none_comes_twice() {
        let mut window = window(&(0..600).step_by(5).collect::<Vec<_>>());
        assert!(window.samples.len() <= 14, "{}", window.samples.len());
        let before = window.samples.len();
        window.push(quiet(at(10)), Duration::from_mins(1));
        assert_eq!(window.samples.len(), before, "older than the newest");
    }

    #[test]
    fn the_newest_sample_says_nothing_when_it_is_old() {
        let window = window(&[0]);
        assert!(window.newest(at(30)).is_some());
        assert!(window.newest(at(31)).is_none());
    }
}
