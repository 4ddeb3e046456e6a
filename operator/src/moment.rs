//! A moment as the status tells it. Pure.

use jiff::{Timestamp, Unit};

/// To the second: what is finer says nothing to people, and would make each look another status.
pub fn second(at: Timestamp) -> String {
    at.round(Unit::Second).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_to_the_second() {
        for (at, told) in [
            ("2026-11-23T00:00:00.4Z", "2026-11-23T00:00:00Z"),
            ("2026-11-23T00:00:59.6Z", "2026-11-23T00:01:00Z"),
        ] {
            assert_eq!(second(at.parse().unwrap()), told);
        }
    }
}
