//! How fast the error budget is spent, and when that is too fast: several windows at once, as is usual. Pure.
//!
//! A pace of 1 spends the whole budget in 30 days. A short window beside the long one ends an alert soon after the trouble.

use std::time::Duration;

use selextract_crds::BurnRateStatus;

use super::{budget::worse, text};
use crate::{
    monitoring::queries::{Query, Scope, range, recorded::RECORDED, slo as queries},
    validated::Slo,
};

/// What the pace is looked at over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BurnWindow {
    /// Five minutes.
    FiveMinutes,
    /// Half an hour.
    HalfHour,
    /// An hour.
    Hour,
    /// Six hours.
    SixHours,
    /// Three days.
    ThreeDays,
}

impl BurnWindow {
    /// Every window, shortest first.
    pub const ALL: [Self; 5] = [
        Self::FiveMinutes,
        Self::HalfHour,
        Self::Hour,
        Self::SixHours,
        Self::ThreeDays,
    ];

    /// How long it is.
    pub const fn duration(self) -> Duration {
        match self {
            Self::FiveMinutes => Duration::from_mins(5),
            Self::HalfHour => Duration::from_mins(30),
            Self::Hour => Duration::from_hours(1),
            Self::SixHours => Duration::from_hours(6),
            Self::ThreeDays => Duration::from_hours(72),
        }
    }

    /// Whether it is too long to be asked for every minute, or to be looked at in the scrapes themselves.
    pub const fn is_long(self) -> bool {
        match self {
            Self::FiveMinutes | Self::HalfHour | Self::Hour => false,
            Self::SixHours | Self::ThreeDays => true,
        }
    }

    /// What tells the shares of [`Failed`] in an alert, which is evaluated four times a minute: over days the scrapes would be millions of samples
    /// each time. Where the alerts are, the rules that record are too.
    pub const fn shares(self) -> [Query; 2] {
        if self.is_long() {
            [RECORDED.bad_requests, RECORDED.downtime]
        } else {
            [queries::BAD_REQUEST_RATIO, queries::DOWNTIME_RATIO]
        }
    }

    /// As in the status and in `PromQL`: `5m`, `3d`.
    pub fn text(self) -> String {
        range(self.duration())
    }
}

const HOUR: Duration = Duration::from_hours(1);

/// What failed within a window: the shares of requests and of time.
pub type Failed = (Option<f64>, Option<f64>);

/// The pace of one window, by the worse share.
pub fn rate(target: f64, (bad_requests, downtime): Failed) -> Option<f64> {
    Some(worse(bad_requests, downtime)? / (1.0 - target))
}

/// The pace of each window of which anything is known.
pub fn rates(slo: &Slo, failed: impl Fn(BurnWindow) -> Failed) -> Vec<BurnRateStatus> {
    let Some(target) = slo.availability else {
        return Vec::new();
    };
    let of = |window: BurnWindow| {
        Some(BurnRateStatus {
            window: window.text(),
            rate: text::number(rate(target, failed(window))?),
        })
    };
    BurnWindow::ALL.into_iter().filter_map(of).collect()
}

/// How fast is too fast: what the alerts about the budget are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burn {
    /// The budget is gone in days or hours.
    Fast,
    /// It is gone before the month is over.
    Slow,
}

/// A pair of windows in which the pace must both be above a figure.
struct Pair {
    long: BurnWindow,
    short: BurnWindow,
    pace: f64,
}

/// 2 % of the budget in an hour, or 5 % in six.
const FAST: [Pair; 2] = [
    Pair {
        long: BurnWindow::Hour,
        short: BurnWindow::FiveMinutes,
        pace: 14.4,
    },
    Pair {
        long: BurnWindow::SixHours,
        short: BurnWindow::HalfHour,
        pace: 6.0,
    },
];

/// 10 % of the budget in three days.
const SLOW: [Pair; 1] = [Pair {
    long: BurnWindow::ThreeDays,
    short: BurnWindow::SixHours,
    pace: 1.0,
}];

impl Burn {
    const fn pairs(self) -> &'static [Pair] {
        match self {
            Self::Fast => &FAST,
            Self::Slow => &SLOW,
        }
    }

    /// `PromQL` that answers while a cluster burns so, by either share; `None` where nothing is promised.
    pub fn expression(self, slo: &Slo, scope: &Scope<'_>) -> Option<String> {
        let target = slo.availability?;
        // More than everything cannot fail: with a promise that small, nearly everything must.
        let most = |pair: &Pair| trimmed((pair.pace * (1.0 - target)).min(0.99));
        let pairs = self.pairs();
        let requests = pairs.iter().map(|pair| {
            let above = |window: BurnWindow| above(window.shares()[0], window, &most(pair), scope);
            format!("({} and {})", above(pair.long), above(pair.short))
        });
        let time = pairs.iter().map(|pair| {
            let above = |window: BurnWindow| above(window.shares()[1], window, &most(pair), scope);
            let known = known_for(pair, scope);
            format!("({} and {} and {known})", above(pair.long), above(pair.short))
        });
        Some(requests.chain(time).collect::<Vec<_>>().join(" or "))
    }
}

fn above(query: Query, window: BurnWindow, most: &str, scope: &Scope<'_>) -> String {
    format!("({}) > {most}", query.render(scope, Some(window.duration())))
}

/// A platform that is being made does not answer, and that is most of what is known of it: it is measured for longer than the short
/// window first. Hours are counted by their beginnings, so the first one may have been short.
fn known_for(pair: &Pair, scope: &Scope<'_>) -> String {
    let hours = pair.short.duration().as_secs().div_ceil(3600) + 1;
    let measured = queries::MEASURED_HOURS.render(scope, Some(pair.long.duration().max(2 * HOUR)));
    format!("({measured}) >= {hours}")
}

/// Without what floating point leaves behind the ninth decimal.
fn trimmed(number: f64) -> String {
    let text = format!("{number:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::observe::tests::{development, production, staging};

    #[test]
    fn a_pace_is_what_fails_over_what_may() {
        let pace = |target, bad, down| rate(target, (bad, down)).map(text::number);
        assert_eq!(pace(0.999, Some(0.001), None).as_deref(), Some("1.0"));
        assert_eq!(pace(0.999, Some(0.0), Some(1.0)).as_deref(), Some("1000.0"));
        assert_eq!(pace(0.99, Some(0.144), Some(0.0)).as_deref(), Some("14.4"));
        assert_eq!(pace(0.999, Some(f64::NAN), None), None);
    }

    #[test]
    fn a_window_of_which_nothing_is_known_is_left_out() {
        let known = |window| match window {
            BurnWindow::FiveMinutes => (None, Some(0.0)),
            BurnWindow::ThreeDays => (Some(0.0005), Some(0.0)),
            _ => (Some(f64::NAN), None),
        };
        let told: Vec<_> = rates(&production(), known)
            .into_iter()
            .map(|one| (one.window, one.rate))
            .collect();
        assert_eq!(told, [("5m".into(), "0.0".into()), ("3d".into(), "0.5".into())]);
        assert_eq!(rates(&development(), known), []);
    }

    const SHOP: Scope<'static> = Scope::Cluster {
        namespace: "web",
        name: "shop",
    };

    #[test]
    fn both_windows_of_a_pair_must_burn_by_either_share() {
        let fast = Burn::Fast.expression(&production(), &SHOP).unwrap();
        for part in [
            "[1h]",
            "[5m]",
            "[30m]",
            "> 0.0144",
            "> 0.006",
            "[1h:1m]",
            ") or (",
            "selextract:slo_failed_request_rate{namespace=\"web\",cluster=\"shop\"}[6h]",
        ] {
            assert!(fast.contains(part), "{part} in {fast}");
        }
        let slow = Burn::Slow.expression(&production(), &SHOP).unwrap();
        for part in ["[3d]", "[6h]", "> 0.001"] {
            assert!(slow.contains(part), "{part} in {slow}");
        }
        // Over days what was recorded is looked at, and no scrape.
        assert!(
            !slow.contains("http_requests_total") && !slow.contains("[3d:5m]"),
            "{slow}"
        );
    }

    #[test]
    fn the_windows_of_the_alerts_are_those_of_the_status() {
        let told: Vec<_> = rates(&production(), |_| (Some(0.0), None));
        let told: Vec<_> = told.iter().map(|one| one.window.as_str()).collect();
        let pairs = [Burn::Fast, Burn::Slow].into_iter().flat_map(Burn::pairs);
        for window in pairs.flat_map(|pair| [pair.long, pair.short]) {
            assert!(told.contains(&window.text().as_str()), "{window:?}");
        }
    }

    #[test]
    fn a_young_platform_is_measured_for_longer_than_the_short_window_first() {
        let known = |pair: &Pair| known_for(pair, &SHOP);
        assert!(known(&FAST[0]).contains("[2h:1h]") && known(&FAST[0]).ends_with(">= 2"));
        assert!(known(&FAST[1]).contains("[6h:1h]") && known(&FAST[1]).ends_with(">= 2"));
        assert!(known(&SLOW[0]).contains("[3d:1h]") && known(&SLOW[0]).ends_with(">= 7"));
    }

    #[test]
    fn a_small_promise_can_still_be_broken_and_none_cannot() {
        let mut half = staging();
        half.availability = Some(0.5);
        let fast = Burn::Fast.expression(&half, &Scope::All).unwrap();
        assert!(fast.contains("> 0.99"));
        assert_eq!(Burn::Fast.expression(&development(), &Scope::All), None);
    }
}
