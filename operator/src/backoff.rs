//! When an object is looked at again: exponential backoff with jitter per object after an error, and the calm round. No I/O.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rand::Rng;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);

/// How often each object failed since it last succeeded.
#[derive(Debug, Default)]
pub struct Backoffs {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoffs {
    /// Counts a failure of this object and says how long to wait before the next try.
    pub fn after_failure(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        delay(*count, rand::rng().random())
    }

    /// Forgets the failures of an object that succeeded or is gone.
    pub fn reset(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// The wait until an object at rest is looked at again: within five minutes, spread out so that objects do not come at once.
pub fn calm_round() -> Duration {
    let span: f64 = rand::rng().random();
    Duration::from_mins(4) + Duration::from_mins(1).mul_f64(span)
}

/// The wait after the n-th failure in a row; `jitter` from 0 to 1 picks within the upper half of the step.
pub fn delay(failures: u32, jitter: f64) -> Duration {
    let step = FIRST
        .saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(LONGEST);
    step.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_never_exceeds_five_minutes() {
        let waits: Vec<u64> = [1, 2, 3, 9, 10, 40, u32::MAX]
            .iter()
            .map(|n| delay(*n, 1.0).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 256, 300, 300, 300]);
        assert_eq!(delay(3, 0.0), Duration::from_secs(2));
    }

    #[test]
    fn success_starts_over() {
        let backoffs = Backoffs::default();
        for _ in 0..12 {
            backoffs.after_failure("a");
        }
        assert!(backoffs.after_failure("a") >= Duration::from_secs(150));
        backoffs.reset("a");
        assert!(backoffs.after_failure("a") <= Duration::from_secs(1));
    }

    #[test]
    fn every_object_is_looked_at_within_five_minutes() {
        for _ in 0..1000 {
            assert!(calm_round() <= Duration::from_mins(5));
        }
    }
}
