//! Known peaks: times at which more than the fewest pods are there. Pure.

use std::time::Duration;

use jiff::Timestamp;
use selextract_task::Clock;

/// A known peak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peak {
    clock: Clock,
    duration: Duration,
    min: u32,
}

impl Peak {
    /// Reads one.
    ///
    /// # Errors
    /// The field's name and what is wrong with it.
    pub fn parse(cron: &str, zone: &str, duration: Duration, min: u32) -> Result<Self, (&'static str, String)> {
        let clock = Clock::parse(cron, zone).map_err(|wrong| (wrong.field, wrong.message))?;
        Ok(Self { clock, duration, min })
    }

    /// The fewest pods, where the peak lasts at this moment.
    pub fn floor(&self, now: Timestamp) -> Option<u32> {
        let begin = now.checked_sub(self.duration).ok()?;
        let first = self.clock.next_after(begin)?;
        (first <= now).then_some(self.min)
    }
}

/// The most that any peak asks for at this moment.
pub fn floor(peaks: &[Peak], now: Timestamp) -> u32 {
    peaks.iter().filter_map(|peak| peak.floor(now)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_lasts_from_its_tick_for_its_duration_in_its_own_zone() {
        let peak = Peak::parse("45 7 * * 1-5", "Europe/Berlin", Duration::from_mins(150), 6).unwrap();
        let floor = |at: &str| floor(std::slice::from_ref(&peak), at.parse().unwrap());
        // Monday 2026-11-23; Berlin is one hour ahead.
        assert_eq!(floor("2026-11-23T06:44:59Z"), 0);
        assert_eq!(floor("2026-11-23T06:45:00Z"), 6);
        assert_eq!(floor("2026-11-23T09:14:59Z"), 6);
        assert_eq!(floor("2026-11-23T09:15:00Z"), 0);
        assert_eq!(floor("2026-11-22T07:00:00Z"), 0, "a Sunday");
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_field() {
        assert_eq!(Peak::parse("at noon", "UTC", Duration::ZERO, 1).unwrap_err().0, "cron");
        assert_eq!(
            Peak::parse("0 12 * * *", "Mars/Base", Duration::ZERO, 1).unwrap_err().0,
            "timeZone"
        );
    }
}
