//! How one replica counts one client's requests: a lease of tokens from the shared bucket, spent without asking, and a bucket of its own
//! for when the shared one does not answer.
//!
//! Pure: time is passed in. A lease doubles while it is used up within its life, up to a twentieth of the bucket, so that a busy client
//! costs a call in fifty requests and a rare one holds no tokens that another replica could give out.

use std::time::{Duration, Instant};

use selextract_platform::cache::{Grant, Limit};

/// How long leased tokens are kept.
const LEASE: Duration = Duration::from_secs(1);
/// The largest lease is this part of the bucket.
const LARGEST_PART: u32 = 20;
const LARGEST: u32 = 50;

/// Whether a request may go on, and where its client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It may.
    pub admitted: bool,
    /// Requests that may follow at once.
    pub left: u32,
    /// When it may not: how long until one may.
    pub wait: Duration,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is decided.
    Decided(Verdict),
    /// Ask the shared bucket for so many tokens first.
    Ask(u32),
}

/// One client's count.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    leased: u32,
    lease_ends: Instant,
    lease_size: u32,
    /// What the shared bucket had after the last lease.
    shared_left: u32,
    /// The shared bucket is empty until then.
    empty_until: Instant,
    own_tokens: f64,
    own_at: Instant,
}

impl Meter {
    /// Of a client that was not seen before.
    pub fn new(limit: Limit, now: Instant) -> Self {
        Self {
            leased: 0,
            lease_ends: now,
            lease_size: 0,
            shared_left: limit.burst.get(),
            empty_until: now,
            own_tokens: limit.burst.get().into(),
            own_at: now,
        }
    }

    /// Decides a request by what is known here, when that is enough.
    pub fn step(&mut self, limit: Limit, now: Instant) -> Step {
        if now < self.empty_until {
            return Step::Decided(refused(self.empty_until - now));
        }
        if now < self.lease_ends && self.leased > 0 {
            self.leased -= 1;
            return Step::Decided(admitted(self.shared_left + self.leased));
        }
        let largest = (limit.burst.get() / LARGEST_PART).clamp(1, LARGEST);
        let used_up = now < self.lease_ends && self.leased == 0;
        self.lease_size = if used_up {
            (self.lease_size * 2).clamp(1, largest)
        } else {
            1
        };
        Step::Ask(self.lease_size)
    }

    /// Decides a request by what the shared bucket gave.
    pub fn granted(&mut self, grant: Grant, now: Instant) -> Verdict {
        self.lease_ends = now + LEASE;
        self.shared_left = grant.left;
        self.leased = grant.given.saturating_sub(1);
        if grant.given == 0 {
            self.empty_until = now + grant.wait;
            return refused(grant.wait);
        }
        admitted(self.shared_left + self.leased)
    }

    /// Decides a request by the bucket of this replica alone.
    pub fn alone(&mut self, limit: Limit, now: Instant) -> Verdict {
        let burst = f64::from(limit.burst.get());
        let passed = now.saturating_duration_since(self.own_at).as_secs_f64();
        self.own_tokens = (self.own_tokens + passed * burst / limit.period.as_secs_f64()).min(burst);
        self.own_at = now;
        if self.own_tokens < 1.0 {
            let missing = (1.0 - self.own_tokens) * limit.period.as_secs_f64() / burst;
            return refused(Duration::from_secs_f64(missing));
        }
        self.own_tokens -= 1.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the burst, a u32"
        )]
        admitted(self.own_tokens as u32)
    }
}

const fn admitted(left: u32) -> Verdict {
    Verdict {
        admitted: true,
        left,
        wait: Duration::ZERO,
    }
}

fn refused(wait: Duration) -> Verdict {
    Verdict {
        admitted: false,
        left: 0,
        wait: wait.max(Duration::from_millis(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Limit {
        "1000/10s".parse().unwrap()
    }

    /// Sends requests and answers what is asked for in full; returns how often was asked.
    fn asked(meter: &mut Meter, moments: impl Iterator<Item = Instant>) -> usize {
        let mut asked = 0;
        for now in moments {
            match meter.step(limit(), now) {
                Step::Decided(verdict) => assert!(verdict.admitted),
                Step::Ask(given) => {
                    asked += 1;
                    let grant = Grant {
                        given,
                        left: 900,
                        wait: Duration::ZERO,
                    };
                    assert!(meter.granted(grant, now).admitted);
                }
            }
        }
        asked
    }

    #[test]
    fn a_busy_client_asks_once_in_fifty_requests_and_a_rare_one_holds_nothing_back() {
        let start = Instant::now();
        let mut busy = Meter::new(limit(), start);
        let often = (0..1000).map(|n| start + Duration::from_millis(n));
        assert!(asked(&mut busy, often) <= 30);
        let mut rare = Meter::new(limit(), start);
        let seldom = (0..10).map(|n| start + Duration::from_secs(2 * n));
        assert_eq!(asked(&mut rare, seldom), 10);
        assert_eq!(rare.leased, 0);
    }

    #[test]
    fn an_empty_bucket_refuses_without_asking_again_until_it_has_a_token() {
        let start = Instant::now();
        let mut meter = Meter::new(limit(), start);
        assert_eq!(meter.step(limit(), start), Step::Ask(1));
        let empty = Grant {
            given: 0,
            left: 0,
            wait: Duration::from_millis(300),
        };
        assert!(!meter.granted(empty, start).admitted);
        let later = start + Duration::from_millis(100);
        assert_eq!(
            meter.step(limit(), later),
            Step::Decided(refused(Duration::from_millis(200)))
        );
        assert!(matches!(
            meter.step(limit(), start + Duration::from_millis(301)),
            Step::Ask(_)
        ));
    }

    #[test]
    fn alone_a_replica_admits_the_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut meter = Meter::new(limit(), start);
        let at_once = (0..2000).filter(|_| meter.alone(limit(), start).admitted).count();
        assert_eq!(at_once, 1000);
        let second = start + Duration::from_secs(1);
        let after_a_second = (0..2000).filter(|_| meter.alone(limit(), second).admitted).count();
        assert!((99..=101).contains(&after_a_second), "{after_a_second}");
    }
}
