//! The dates of cookies, as leniently as browsers read them (RFC 6265, section 5.1.1). Pure.

use std::time::{Duration, SystemTime};

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// Reads a date, if it is one.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let is_delimiter = |c: char| !(c.is_ascii_alphanumeric() || c == ':' || !c.is_ascii());
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        if time.is_none() && clock(token).is_some() {
            time = clock(token);
        } else if day.is_none() && number(token, 1..=2).is_some() {
            day = number(token, 1..=2);
        } else if month.is_none() && month_of(token).is_some() {
            month = month_of(token);
        } else if year.is_none() && number(token, 2..=4).is_some() {
            year = number(token, 2..=4);
        }
    }
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let (day, month) = (day?, month?);
    if year < 1601 || !(1..=31).contains(&day) {
        return None;
    }
    seconds(year, month, day, time?)
}

fn number(token: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let length = token.bytes().take_while(u8::is_ascii_digit).count();
    digits.contains(&length).then(|| token[..length].parse().ok())?
}

fn month_of(token: &str) -> Option<u64> {
    let start = token.get(..3)?.to_ascii_lowercase();
    let place = MONTHS.iter().position(|month| *month == start)?;
    u64::try_from(place).ok().map(|place| place + 1)
}

/// Seconds of the day.
fn clock(token: &str) -> Option<u64> {
    let mut parts = token.split(':').map(|part| number(part, 1..=2));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    (hours < 24 && minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Days by the civil calendar, from the year 1601 on; what is before 1970 is 1970.
fn seconds(year: u64, month: u64, day: u64, time: u64) -> Option<SystemTime> {
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let since = days.saturating_sub(719_468) * 86_400 + if days < 719_468 { 0 } else { time };
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(text: &str) -> Option<u64> {
        parse(text).map(|date| date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn dates_are_read_in_all_the_forms_that_sites_write() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "06 November 1994 8:49:37",
        ] {
            assert_eq!(since(text), Some(784_111_777), "{text}");
        }
        assert_eq!(since("Thu, 01-Jan-1970 00:00:00 GMT"), Some(0));
        assert_eq!(since("Wed, 31 Dec 1969 23:59:59 GMT"), Some(0), "long gone is gone");
        assert_eq!(since("29 Feb 2028 00:00:00"), Some(1_835_395_200));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "soon",
            "6 Nov 1994",
            "32 Nov 1994 00:00:00",
            "6 Nov 1994 24:00:00",
            "6 Foo 1994 00:00:00",
            "6 Nov 1500 00:00:00",
        ] {
            assert_eq!(since(text), None, "{text}");
        }
    }
}
