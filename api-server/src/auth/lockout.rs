//! How failed logins lock a user name out: the wait grows with each failure, and it ends.
//!
//! Pure. By user name, known or not, so that a lock-out does not tell which names exist.

use std::time::Duration;

/// Failures that cost nothing: people mistype.
pub const FREE_FAILURES: u32 = 5;
/// The wait after the first failure beyond the free ones.
const FIRST: Duration = Duration::from_secs(5);
/// The longest wait: whoever attacks a name cannot keep its owner out for longer.
const LONGEST: Duration = Duration::from_mins(15);
/// After so long without a failure all is forgotten.
pub const MEMORY: Duration = Duration::from_hours(1);

/// How long a name is locked out after so many failures in a row.
pub fn wait_after(failures: u32) -> Option<Duration> {
    let beyond = failures.checked_sub(FREE_FAILURES)?;
    let factor = 2_u32.saturating_pow(beyond);
    Some(FIRST.saturating_mul(factor).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_mistakes_cost_nothing() {
        assert_eq!(wait_after(0), None);
        assert_eq!(wait_after(FREE_FAILURES - 1), None);
    }

    #[test]
    fn the_wait_doubles_and_ends() {
        let waits: Vec<u64> = (5..15).filter_map(wait_after).map(|w| w.as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
        assert_eq!(wait_after(u32::MAX), Some(LONGEST));
    }
}
