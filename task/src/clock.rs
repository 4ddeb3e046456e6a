//! When schedules tick: cron expressions in time zones, through changes of summer time. Pure.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};

/// When something that is written as a cron expression in a time zone comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    cron: Cron,
    zone: TimeZone,
}

/// What of a clock cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// `cron` or `timeZone`.
    pub field: &'static str,
    /// What was written there.
    pub value: String,
    /// What is wrong, and what to write.
    pub message: String,
}

impl Clock {
    /// Reads a cron expression of five fields, and an IANA time zone.
    ///
    /// # Errors
    /// The field, its value and the cure.
    pub fn parse(cron: &str, time_zone: &str) -> Result<Self, Unreadable> {
        let unreadable = |field, value: &str, message: String| Unreadable {
            field,
            value: value.to_owned(),
            message,
        };
        if cron.split_whitespace().count() != 5 {
            let message = "has not five fields; write minute, hour, day of the month, month and day of the week, such as \"0 6 * * *\"";
            return Err(unreadable("cron", cron, message.to_owned()));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let parsed = parser.parse(cron).map_err(|error| {
            let message = format!("is not a cron expression ({error}); write five fields such as \"0 6 * * *\"");
            unreadable("cron", cron, message)
        })?;
        let zone = TimeZone::get(time_zone).map_err(|_| {
            let message = "is no IANA time zone; write one such as \"Europe/Berlin\"";
            unreadable("timeZone", time_zone, message.to_owned())
        })?;
        Ok(Self { cron: parsed, zone })
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

    #[test]
    fn a_schedule_runs_by_its_own_clock_through_a_change_of_summer_time() {
        let clock = Clock::parse("30 6 * * *", "Europe/Berlin").unwrap();
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
        let clock = Clock::parse(cron, "Europe/Berlin").unwrap();
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
    fn a_clock_that_cannot_be_read_says_which_field_and_what_to_write() {
        for (cron, zone, field, cure) in [
            ("61 * * * *", "UTC", "cron", "five fields such as"),
            ("* * * * * *", "UTC", "cron", "has not five fields"),
            ("@daily", "UTC", "cron", "has not five fields"),
            ("", "UTC", "cron", "has not five fields"),
            ("0 6 * * *", "Mars/Base", "timeZone", "Europe/Berlin"),
        ] {
            let wrong = Clock::parse(cron, zone).unwrap_err();
            assert_eq!(wrong.field, field);
            assert_eq!(wrong.value, if field == "cron" { cron } else { zone });
            assert!(wrong.message.contains(cure), "{wrong:?}");
        }
    }
}
