//! When schedules tick: cron expressions in time zones, through changes of summer time. Pure.

use std::str::FromStr;

use croner::Cron;
use jiff::{Timestamp, tz::TimeZone};
use selextract_task::feed::Schedule;

/// When a schedule runs next.
#[derive(Clone, Debug)]
pub struct Clock {
    cron: Cron,
    zone: TimeZone,
}

impl Clock {
    /// Reads a schedule.
    ///
    /// # Errors
    /// One sentence that names the field, the value and the cure.
    pub fn parse(schedule: &Schedule) -> Result<Self, String> {
        let cron = Cron::from_str(&schedule.cron).map_err(|error| {
            format!(
                "schedule.cron = {:?}: is not a cron expression ({error}); write five fields such as \"0 6 * * *\"",
                schedule.cron
            )
        })?;
        if schedule.cron.split_whitespace().count() != 5 {
            return Err(format!(
                "schedule.cron = {:?}: has not five fields; write minute, hour, day, month and weekday",
                schedule.cron
            ));
        }
        let zone = TimeZone::get(&schedule.time_zone).map_err(|_| {
            format!(
                "schedule.timeZone = {:?}: is no IANA time zone; write one such as \"Europe/Berlin\"",
                schedule.time_zone
            )
        })?;
        Ok(Self { cron, zone })
    }

    /// The first tick after a moment.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        self.cron
            .find_next_occurrence(&moment.to_zoned(self.zone.clone()), false)
            .ok()
            .map(|next| next.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule {
            cron: cron.to_owned(),
            time_zone: zone.to_owned(),
            ..Schedule::default()
        }
    }

    #[test]
    fn a_schedule_runs_by_its_own_clock_through_a_change_of_summer_time() {
        let clock = Clock::parse(&schedule("30 6 * * *", "Europe/Berlin")).unwrap();
        let next = clock.next_after("2026-10-24T12:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(next.to_string(), "2026-10-25T05:30:00Z");
        assert_eq!(
            clock
                .next_after("2026-10-24T00:00:00Z".parse().unwrap())
                .unwrap()
                .to_string(),
            "2026-10-24T04:30:00Z"
        );
    }

    fn ticks(cron: &str, from: &str, count: usize) -> Vec<String> {
        let clock = Clock::parse(&schedule(cron, "Europe/Berlin")).unwrap();
        let mut moment: Timestamp = from.parse().unwrap();
        let mut ticks = Vec::new();
        for _ in 0..count {
            moment = clock.next_after(moment).unwrap();
            ticks.push(moment.to_string());
        }
        ticks
    }

    #[test]
    fn a_time_of_the_skipped_hour_ticks_when_the_hour_is_over() {
        // In Berlin 2026-03-29 has no 02:00 to 03:00: at 01:00 UTC the clock goes from 02:00 to 03:00.
        assert_eq!(
            ticks("30 2 * * *", "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            ticks("30 * * * *", "2026-03-29T00:00:00Z", 3),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"],
            "an hourly one goes on every hour"
        );
    }

    #[test]
    fn a_time_of_the_doubled_hour_ticks_once_and_an_hourly_one_every_hour() {
        // In Berlin 2026-10-25 has 02:00 to 03:00 twice: at 01:00 UTC the clock goes from 03:00 back to 02:00.
        assert_eq!(
            ticks("30 2 * * *", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            ticks("30 * * * *", "2026-10-25T00:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
    }

    #[test]
    fn a_schedule_that_cannot_be_read_says_which_field_and_what_to_write() {
        assert!(
            Clock::parse(&schedule("61 * * * *", "UTC"))
                .unwrap_err()
                .starts_with("schedule.cron")
        );
        assert!(
            Clock::parse(&schedule("* * * * * *", "UTC"))
                .unwrap_err()
                .contains("five fields")
        );
        assert!(
            Clock::parse(&schedule("0 6 * * *", "Mars/Base"))
                .unwrap_err()
                .contains("Europe/Berlin")
        );
    }
}
