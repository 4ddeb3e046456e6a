//! Token buckets in the cache, shared by whoever takes from them. One call takes several tokens, so that most takers need no call.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::LazyLock, time::Duration};

use redis::Script;
use selextract_task::Duration as Written;
use snafu::{OptionExt, Snafu};

use super::Cache;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));

/// How much may be taken: `burst` at once, and that many again in each `period`. Written as `120/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The most tokens of a bucket.
    pub burst: NonZeroU32,
    /// How long an empty bucket takes to be full again; at least a millisecond.
    pub period: Duration,
}

/// What a bucket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How many tokens; none when it is empty.
    pub given: u32,
    /// How many it still has.
    pub left: u32,
    /// Until it has one again; zero while it has some.
    pub wait: Duration,
}

/// A text is not a [`Limit`].
#[derive(Debug, Snafu)]
#[snafu(display("{text:?} is not a limit: write a count and a time, such as 120/1m"))]
pub struct ParseLimitError {
    text: String,
}

impl FromStr for Limit {
    type Err = ParseLimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (count, period) = text.split_once('/').context(ParseLimitSnafu { text })?;
        let burst = count.parse().ok().context(ParseLimitSnafu { text })?;
        let period: Written = period.parse().ok().context(ParseLimitSnafu { text })?;
        let period = Some(period.get()).filter(|p| !p.is_zero());
        Ok(Self {
            burst,
            period: period.context(ParseLimitSnafu { text })?,
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX);
        write!(f, "{}/{}", self.burst, Written::from_millis(millis))
    }
}

impl Cache {
    /// Takes up to `wanted` tokens from a bucket. `None` when the cache does not answer in time.
    pub async fn take_tokens(&self, key: &str, limit: Limit, wanted: u32) -> Option<Grant> {
        let period = u64::try_from(limit.period.as_millis()).unwrap_or(u64::MAX);
        let (given, left, wait): (u32, u32, u64) = self
            .within("taking tokens from", async {
                let mut connection = self.connection("take_tokens").await?;
                TAKE.key(key)
                    .arg(limit.burst.get())
                    .arg(period)
                    .arg(wanted)
                    .invoke_async(&mut connection)
                    .await
            })
            .await?;
        Some(Grant {
            given,
            left,
            wait: Duration::from_millis(wait),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_count_and_a_time_and_reads_back() {
        let limit: Limit = "120/1m".parse().unwrap();
        assert_eq!((limit.burst.get(), limit.period), (120, Duration::from_mins(1)));
        assert_eq!(limit.to_string(), "120/1m");
        for wrong in ["", "120", "0/1m", "120/0s", "-1/1m", "120/minute"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
    }
}
