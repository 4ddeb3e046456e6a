//! Whether an upstream is to be used, by what came of using it. Pure; the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// The longest rest.
const LONGEST: Duration = Duration::from_mins(10);

/// When an upstream rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Failures in a row until it does.
    pub failures: u32,
    /// How long at first; it doubles each time that the first try after a rest fails too, up to ten minutes.
    pub cooldown: Duration,
}

/// What is known of an upstream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    failures: u32,
    rests: u32,
    until: Option<Instant>,
}

impl Health {
    /// Whether it is at rest.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// It worked. Whether that ends an illness.
    pub(super) fn well(&mut self) -> bool {
        let was_ill = self.rests > 0;
        *self = Self::default();
        was_ill
    }

    /// It failed. For how long it rests now, if it does.
    pub(super) fn failed(&mut self, rule: Rule, now: Instant) -> Option<Duration> {
        if self.rests(now) {
            // A connection that began before it fell ill.
            return None;
        }
        self.failures += 1;
        // After a rest one failure is enough.
        if self.rests == 0 && self.failures < rule.failures {
            return None;
        }
        let rest = rule.cooldown.saturating_mul(1 << self.rests.min(16)).min(LONGEST);
        (self.failures, self.rests, self.until) = (0, self.rests + 1, Some(now + rest));
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        failures: 3,
        cooldown: Duration::from_secs(30),
    };

    #[test]
    fn it_rests_after_failures_in_a_row_and_longer_each_time_it_fails_again() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        assert_eq!(health.failed(RULE, now), None);
        assert_eq!(health.failed(RULE, now), None);
        assert!(!health.well(), "one that works between counts anew");
        let rests: Vec<_> = (0..3).filter_map(|_| health.failed(RULE, now)).collect();
        assert_eq!(rests, [Duration::from_secs(30)]);
        assert!(health.rests(now) && health.failed(RULE, now).is_none());
        for seconds in [60, 120, 240, 480, 600, 600] {
            now += Duration::from_mins(11);
            assert!(!health.rests(now), "it is tried again");
            assert_eq!(health.failed(RULE, now), Some(Duration::from_secs(seconds)));
        }
        now += Duration::from_mins(11);
        assert!(health.well() && !health.rests(now) && health.failed(RULE, now).is_none());
    }
}
