//! Durations as people write them in Kubernetes objects: `30s`, `1m30s`, `500ms`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use snafu::{OptionExt, Snafu, ensure};

/// A span of time, written as whole numbers with a unit each, largest first: `1h`, `1m30s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// The form that [`Duration`] accepts, as an ECMA 262 regular expression.
const PATTERN: &str = "^([0-9]+(ms|s|m|h|d))+$";
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a text is not a [`Duration`].
#[derive(Debug, Snafu, PartialEq, Eq)]
pub enum ParseDurationError {
    /// The text does not have the form of a duration.
    #[snafu(display("{text:?} is not a duration: write whole numbers with a unit each, like 30s, 1m30s or 500ms"))]
    Form {
        /// What was given.
        text: String,
    },
    /// The duration does not fit.
    #[snafu(display("{text:?} is too long for a duration"))]
    Overflow {
        /// What was given.
        text: String,
    },
}

impl Duration {
    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// A duration of whole milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(std::time::Duration::from_millis(milliseconds))
    }

    /// The same as the standard library's type.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut total: u64 = 0;
        ensure!(!rest.is_empty(), FormSnafu { text });
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).context(FormSnafu { text })?;
            ensure!(digits > 0, FormSnafu { text });
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let factor = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .context(FormSnafu { text })?
                .1;
            total = number
                .parse::<u64>()
                .ok()
                .and_then(|n| n.checked_mul(factor))
                .and_then(|n| n.checked_add(total))
                .context(OverflowSnafu { text })?;
            rest = tail;
        }
        Ok(Self::from_millis(total))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in UNITS {
            let count = rest / factor;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_back_as_it_is_written() {
        for text in ["30s", "1m30s", "500ms", "1h", "2d3h", "0s"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_duration_without_a_unit_or_with_a_sign_or_a_fraction_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "1 s", "1w"] {
            let error = text.parse::<Duration>().unwrap_err();
            assert!(matches!(error, ParseDurationError::Form { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn a_duration_that_overflows_is_refused() {
        let error = "99999999999999999999d".parse::<Duration>().unwrap_err();
        assert!(matches!(error, ParseDurationError::Overflow { .. }));
    }
}
