//! Availability over 30 days and its error budget (guide: "Availability Targets"). Pure.

use std::time::Duration;

use selextract_crds::AvailabilityStatus;

use super::{objective::Level, text};
use crate::validated::Slo;

/// What availability looks back over.
pub const MONTH: Duration = Duration::from_hours(30 * 24);

/// Minutes of it.
const MINUTES: f64 = 30.0 * 24.0 * 60.0;

/// What was measured of availability over [`MONTH`]; what is no share counts as unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Availability {
    /// `slo::BAD_REQUEST_RATIO`.
    pub bad_requests: Option<f64>,
    /// `slo::DOWNTIME_RATIO_OF_DAYS`.
    pub downtime: Option<f64>,
    /// `slo::MEASURED_HOURS`.
    pub measured_hours: Option<f64>,
}

impl Availability {
    /// The worse of the two shares of what failed.
    pub fn failed(&self) -> Option<f64> {
        worse(self.bad_requests, self.downtime)
    }

    /// How much of the 30 days was measured, from 0 to 1. Where that is not known all of it counts, which spends the budget soonest.
    fn measured(&self) -> f64 {
        let hours = self.measured_hours.filter(|hours| hours.is_finite() && *hours >= 0.0);
        hours.map_or(1.0, |hours| (hours * 60.0 / MINUTES).min(1.0))
    }

    /// The share of the budget that is left; below 0 it is overspent. Failed requests count as if they came evenly in the measured time.
    pub fn budget_left(&self, target: f64) -> Option<f64> {
        Some(1.0 - self.failed()? * self.measured() / (1.0 - target))
    }

    /// What the status says.
    pub fn status(&self, slo: &Slo) -> AvailabilityStatus {
        let good = |bad: Option<f64>| known(bad).map(|bad| text::share(1.0 - bad));
        let minutes = slo.availability.map(|target| (1.0 - target) * MINUTES);
        let down = known(self.downtime).map(|share| share * self.measured() * MINUTES);
        let left = slo.availability.and_then(|target| self.budget_left(target));
        AvailabilityStatus {
            target: slo.availability.map(text::share),
            requests: good(self.bad_requests),
            time: good(self.downtime),
            measured: self
                .measured_hours
                .map(|hours| text::seconds(hours.min(720.0) * 3600.0)),
            level: self.level(slo).as_str().to_owned(),
            budget_minutes: minutes.map(text::number),
            budget_left_minutes: minutes.zip(down).map(|(minutes, down)| text::number(minutes - down)),
            budget_left: left.map(|left| text::number(left * 100.0) + "%"),
        }
    }

    /// The level of the worse share. Best effort is held against nothing, so it is Met as soon as anything is known.
    pub fn level(&self, slo: &Slo) -> Level {
        let Some(failed) = self.failed() else {
            return Level::Unknown;
        };
        let Some(target) = slo.availability else {
            return Level::Met;
        };
        // Staging promises less than the warning of production.
        let [warning, critical] = slo.availability_levels.map(|level| level.min(target));
        Level::of(failed, [1.0 - target, 1.0 - warning, 1.0 - critical])
    }
}

/// The worse of two shares of what failed, as far as they are known.
pub fn worse(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    known(one).into_iter().chain(known(other)).reduce(f64::max)
}

/// A share, if it is one.
pub fn known(share: Option<f64>) -> Option<f64> {
    // What was added up over a month may be a hair beside.
    share
        .filter(|share| (-1e-9..=1.0 + 1e-9).contains(share))
        .map(|share| share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::observe::tests::{development, production, staging};

    fn measured(bad_requests: Option<f64>, downtime: Option<f64>) -> Availability {
        Availability {
            bad_requests,
            downtime,
            measured_hours: Some(720.0),
        }
    }

    #[test]
    fn three_nines_are_43_minutes_and_two_tenths_in_thirty_days() {
        let status = measured(Some(0.0), Some(0.0)).status(&production());
        assert_eq!(status.budget_minutes.as_deref(), Some("43.2"));
        assert_eq!(status.budget_left_minutes.as_deref(), Some("43.2"));
        assert_eq!(status.budget_left.as_deref(), Some("100.0%"));
        let status = measured(None, Some(0.0)).status(&staging());
        assert_eq!(status.budget_minutes.as_deref(), Some("432.0"), "7.2 hours");
    }

    #[test]
    fn ten_minutes_down_leave_33_of_the_43() {
        let status = measured(Some(0.0), Some(10.0 / MINUTES)).status(&production());
        assert_eq!(status.budget_left_minutes.as_deref(), Some("33.2"));
        assert_eq!(status.budget_left.as_deref(), Some("76.9%"));
        assert_eq!(status.level, "Met");
        assert_eq!(status.time.as_deref(), Some("99.976%"));
    }

    #[test]
    fn an_overspent_budget_is_below_nothing() {
        let status = measured(None, Some(0.002)).status(&production());
        assert_eq!(status.budget_left_minutes.as_deref(), Some("-43.2"));
        assert_eq!(status.budget_left.as_deref(), Some("-100.0%"));
        assert_eq!(status.level, "Missed");
    }

    #[test]
    fn time_that_was_not_measured_spends_nothing() {
        let young = Availability {
            measured_hours: Some(72.0),
            ..measured(None, Some(0.005))
        };
        // 0.5 % of three days are 21.6 minutes.
        let status = young.status(&production());
        assert_eq!(status.budget_left_minutes.as_deref(), Some("21.6"));
        assert_eq!(status.measured.as_deref(), Some("3d"));
    }

    #[test]
    fn the_worse_share_gives_the_level_and_both_unknown_give_none() {
        for (bad, down, level) in [
            (Some(0.0), Some(0.0), Level::Met),
            (Some(0.002), Some(0.0), Level::Missed),
            (Some(0.0), Some(0.006), Level::Warning),
            (Some(0.02), None, Level::Critical),
            (None, None, Level::Unknown),
            (Some(f64::NAN), None, Level::Unknown),
            (Some(f64::NAN), Some(0.0), Level::Met),
        ] {
            assert_eq!(measured(bad, down).level(&production()), level, "{bad:?} {down:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_never_a_hundred_percent() {
        let status = measured(Some(f64::NAN), None).status(&production());
        assert_eq!((status.requests, status.time, status.budget_left), (None, None, None));
        assert_eq!(status.level, "Unknown");
    }

    #[test]
    fn staging_is_critical_as_soon_as_its_promise_is_broken_and_development_promises_nothing() {
        assert_eq!(measured(None, Some(0.009)).level(&staging()), Level::Met);
        assert_eq!(measured(None, Some(0.011)).level(&staging()), Level::Critical);
        let status = measured(None, Some(0.5)).status(&development());
        assert_eq!((status.target, status.budget_minutes), (None, None));
        assert_eq!((status.level.as_str(), status.time.as_deref()), ("Met", Some("50%")));
    }
}
