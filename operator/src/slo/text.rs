//! Figures as people read them in the status. Pure.

use std::time::Duration;

/// A share of 1 in percent with at most three decimals, cut off: 0.99999 is 99.999%, and nothing but 1 is 100%.
pub fn share(share: f64) -> String {
    let thousandths = (share * 100_000.0 + 1e-6).floor() / 1000.0;
    format!("{}%", trimmed(&format!("{thousandths:.3}")))
}

/// Seconds as a duration, to the millisecond.
pub fn seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let millis = u64::try_from((duration + Duration::from_micros(500)).as_millis()).unwrap_or(u64::MAX);
    selextract_task::Duration::from_millis(millis).to_string()
}

/// A number with one decimal.
pub fn number(number: f64) -> String {
    let text = format!("{number:.1}");
    if text == "-0.0" { "0.0".to_owned() } else { text }
}

fn trimmed(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_cut_off_and_never_rounded_up_to_all() {
        for (value, text) in [
            (1.0, "100%"),
            (0.999_999, "99.999%"),
            (0.999, "99.9%"),
            (0.9995, "99.95%"),
            (0.628, "62.8%"),
            (0.0, "0%"),
        ] {
            assert_eq!(share(value), text);
        }
    }

    #[test]
    fn seconds_are_written_as_durations() {
        for (value, text) in [
            (0.5, "500ms"),
            (1.2, "1s200ms"),
            (90.0, "1m30s"),
            (0.0, "0s"),
            (-1.0, "0s"),
        ] {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn a_number_has_one_decimal_and_is_never_minus_nothing() {
        for (value, text) in [(43.2, "43.2"), (14.44, "14.4"), (-0.01, "0.0"), (-3.0, "-3.0")] {
            assert_eq!(number(value), text);
        }
    }
}
