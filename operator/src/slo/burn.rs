//! How fast the error budget is spent, and the alerts about it: several windows at once, as is usual. Pure.
//!
//! A pace of 1 spends the whole budget in 30 days. A short window beside the long one ends an alert soon after the trouble.

use std::time::Duration;

use selextract_crds::BurnRateStatus;

use super::{budget::worse, text};
use crate::{
    monitoring::queries::{Query, Scope, range, slo as queries},
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

    /// What tells the share of the window in which the API did not answer.
    pub const fn downtime(self) -> Query {
        match self {
            Self::ThreeDays => queries::DOWNTIME_RATIO_OF_DAYS,
            Self::FiveMinutes | Self::HalfHour | Self::Hour | Self::SixHours => queries::DOWNTIME_RATIO,
        }
    }

    /// As in the status and in `PromQL`: `5m`, `3d`.
    pub fn text(self) -> String {
        range(self.duration())
    }
}

/// What failed within a window: the answers of `slo::BAD_REQUEST_RATIO` and of [`BurnWindow::downtime`] over it.
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

/// Whom an alert tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A page, at once: `critical`.
    Page,
    /// A ticket, in business hours: `warning`.
    Ticket,
}

impl Severity {
    /// As in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "critical",
            Self::Ticket => "warning",
        }
    }
}

/// An alert, for a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BurnAlert {
    /// Its name.
    pub name: &'static str,
    /// Whom it tells.
    pub severity: Severity,
    /// `PromQL` that answers while it fires.
    pub expression: String,
    /// How long that must hold.
    pub patience: Duration,
    /// What was measured.
    pub summary: &'static str,
    /// What it means.
    pub description: &'static str,
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

/// The alerts of a cluster: a fast burn pages, a slow burn is a ticket, by either share. None where nothing is promised.
pub fn alerts(slo: &Slo, scope: &Scope<'_>) -> Vec<BurnAlert> {
    let Some(target) = slo.availability else {
        return Vec::new();
    };
    let fast = BurnAlert {
        name: "ErrorBudgetFastBurn",
        severity: Severity::Page,
        expression: any(&FAST, target, scope),
        patience: Duration::from_mins(2),
        summary: "{{ $labels.namespace }}/{{ $labels.cluster }} fails at a pace that spends its error budget in days or hours.",
        description: "2 % of the month's error budget went within an hour, or 5 % within six, and it goes on.",
    };
    let slow = BurnAlert {
        name: "ErrorBudgetSlowBurn",
        severity: Severity::Ticket,
        expression: any(&SLOW, target, scope),
        patience: Duration::from_mins(15),
        summary: "{{ $labels.namespace }}/{{ $labels.cluster }} fails at a pace that spends its error budget before the month is over.",
        description: "10 % of the month's error budget went within three days, and it goes on.",
    };
    vec![fast, slow]
}

/// Any of the pairs, by either share.
fn any(pairs: &[Pair], target: f64, scope: &Scope<'_>) -> String {
    let above = |query: Query, window: BurnWindow, pace: f64| {
        // More than everything cannot fail: with a promise that small, nearly everything must.
        let most = (pace * (1.0 - target)).min(0.99);
        let expression = query.render(scope, Some(window.duration()));
        format!("({expression}) > {}", trimmed(most))
    };
    let both = |query: fn(BurnWindow) -> Query, pair: &Pair| {
        let [long, short] = [pair.long, pair.short].map(|window| above(query(window), window, pair.pace));
        format!("(({long}) and ({short}))")
    };
    let shares: [fn(BurnWindow) -> Query; 2] = [|_| queries::BAD_REQUEST_RATIO, BurnWindow::downtime];
    let all = shares
        .into_iter()
        .flat_map(|query| pairs.iter().map(move |pair| (query, pair)));
    all.map(|(query, pair)| both(query, pair))
        .collect::<Vec<_>>()
        .join(" or ")
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

    #[test]
    fn a_fast_burn_pages_and_a_slow_one_is_a_ticket_by_either_share() {
        let scope = Scope::Cluster {
            namespace: "web",
            name: "shop",
        };
        let alerts = alerts(&production(), &scope);
        let told: Vec<_> = alerts
            .iter()
            .map(|alert| (alert.name, alert.severity.as_str()))
            .collect();
        assert_eq!(
            told,
            [("ErrorBudgetFastBurn", "critical"), ("ErrorBudgetSlowBurn", "warning"),]
        );
        let fast = &alerts[0].expression;
        for part in [
            "[1h]", "[5m]", "[6h]", "[30m]", "> 0.0144", "> 0.006", "[1h:1m]", ") or ((",
        ] {
            assert!(fast.contains(part), "{part} in {fast}");
        }
        assert!(alerts[1].expression.contains("[3d]") && alerts[1].expression.ends_with("> 0.001))"));
        assert!(alerts[1].expression.contains("[3d:5m]"), "{}", alerts[1].expression);
        for alert in &alerts {
            assert_eq!(
                alert.expression.matches('(').count(),
                alert.expression.matches(')').count()
            );
        }
    }

    #[test]
    fn a_small_promise_can_still_be_broken_and_none_cannot() {
        let mut half = staging();
        half.availability = Some(0.5);
        assert!(alerts(&half, &Scope::All)[0].expression.contains("> 0.99"));
        assert_eq!(alerts(&development(), &Scope::All), []);
    }
}
