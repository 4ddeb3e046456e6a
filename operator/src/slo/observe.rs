//! From what was measured to `status.slo`. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use selextract_crds::SloStatus;

use super::{
    budget::Availability,
    burn::{self, BurnWindow, Failed},
    objective::{Level, Objective},
    outage::{self, Health},
};
use crate::{moment::second, monitoring::live::Live, validated::Slo};

/// The status is written anew after so long.
const EVERY: SignedDuration = SignedDuration::from_hours(1);
/// Levels that go up and down write it at most so often.
const CALM: SignedDuration = SignedDuration::from_mins(1);

/// What was measured; what is not known is absent, and `NaN` counts as that.
///
/// What is asked once an hour (availability, the windows of six hours and more) is passed again until it is asked anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// The API now: with each look.
    pub health: Health,
    /// Availability over [`super::MONTH`]: once an hour.
    pub availability: Availability,
    /// What failed within each window.
    pub failed: BTreeMap<BurnWindow, Failed>,
    /// The answers of [`Objective::query`] over [`Objective::WINDOW`].
    pub objectives: BTreeMap<Objective, f64>,
}

/// What the status says after a look at `now`, given what it said before.
pub fn observe(slo: &Slo, inputs: &Inputs, old: Option<&SloStatus>, now: Timestamp) -> SloStatus {
    let (up_since, outages) = outage::step(slo, old, inputs.health, now);
    let failed = |window| inputs.failed.get(&window).copied().unwrap_or_default();
    let objectives = Objective::ALL.into_iter();
    SloStatus {
        time: second(now),
        up_since,
        availability: Some(inputs.availability.status(slo)),
        burn_rates: burn::rates(slo, failed),
        objectives: objectives
            .map(|objective| objective.status(slo, inputs.objectives.get(&objective).copied()))
            .collect(),
        outages,
    }
}

/// Whether the status is due: when an outage begins or ends, when a level changes (at most once a minute), and once an hour.
///
/// What is not written is forgotten, so an outage is never kept back.
pub fn should_write(old: Option<&SloStatus>, new: &SloStatus, now: Timestamp) -> bool {
    let Some((old, written)) = old.and_then(|old| Some((old, old.time.parse::<Timestamp>().ok()?))) else {
        return true;
    };
    if old.outages != new.outages || old.up_since != new.up_since {
        return true;
    }
    let levels = |status: &SloStatus| -> Vec<String> {
        let availability = status
            .availability
            .iter()
            .map(|availability| availability.level.clone());
        let others = status.objectives.iter().map(|objective| objective.level.clone());
        availability.chain(others).collect()
    };
    let age = now.duration_since(written);
    age >= EVERY || (age >= CALM && levels(old) != levels(new))
}

/// The figures of now, for Prometheus. What is not known is absent.
pub fn live(slo: &Slo, inputs: &Inputs, status: &SloStatus) -> Vec<Live> {
    let availability = &inputs.availability;
    let good = [("requests", availability.bad_requests), ("time", availability.downtime)];
    let good = good.into_iter().filter_map(|(by, failed)| {
        let share = 1.0 - super::budget::known(failed)?;
        Some(Live::labeled("selextract_slo_availability_ratio", "by", by, share))
    });
    let left = slo.availability.and_then(|target| availability.budget_left(target));
    let left = left.map(|left| Live::plain("selextract_slo_error_budget_left_ratio", left));
    let rates = BurnWindow::ALL.into_iter().filter_map(|window| {
        let rate = burn::rate(slo.availability?, *inputs.failed.get(&window)?)?;
        Some(Live::labeled("selextract_slo_burn_rate", "window", window.text(), rate))
    });
    let levels = status.objectives.iter().filter_map(|objective| {
        let level = Level::number(&objective.level)?;
        let name = "selextract_slo_objective_level";
        Some(Live::labeled(name, "objective", objective.name.as_str(), level))
    });
    let down = status.outages.first().is_some_and(|outage| outage.end.is_none());
    let outage = Live::plain("selextract_slo_outage", if down { 1.0 } else { 0.0 });
    good.chain(left).chain(rates).chain(levels).chain([outage]).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use selextract_crds::AlertsSpec;

    use super::*;
    use crate::build::fixture;

    /// A moment of the tests' clock.
    pub fn at(second: i64) -> Timestamp {
        let begin: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        begin + SignedDuration::from_secs(second)
    }

    /// What the profile Production promises, with the guide's figures.
    pub fn production() -> Slo {
        fixture::minimal().slo
    }

    /// What the profile Staging promises.
    pub fn staging() -> Slo {
        Slo {
            availability: Some(0.99),
            ..production()
        }
    }

    /// What the profile Development promises.
    pub fn development() -> Slo {
        Slo {
            availability: None,
            ..production()
        }
    }

    fn healthy() -> Inputs {
        Inputs {
            health: Health::of(Some(true), Some(1.0)),
            availability: Availability {
                bad_requests: Some(0.0002),
                downtime: Some(0.0),
                measured_hours: Some(720.0),
            },
            failed: BurnWindow::ALL.map(|window| (window, (Some(0.0002), Some(0.0)))).into(),
            objectives: [(Objective::ResponseTimeP95, 0.3), (Objective::Memory, 0.6)].into(),
        }
    }

    #[test]
    fn the_status_tells_availability_budget_pace_levels_and_outages() {
        let status = observe(&production(), &healthy(), None, at(0));
        let availability = status.availability.unwrap();
        assert_eq!(availability.requests.as_deref(), Some("99.98%"));
        assert_eq!(availability.budget_left.as_deref(), Some("80.0%"));
        assert_eq!(status.burn_rates.len(), 5);
        assert_eq!(status.burn_rates[0].rate, "0.2");
        assert_eq!(status.objectives.len(), 15);
        assert_eq!(status.up_since, Some("2026-11-23T00:00:00Z".to_owned()));
    }

    #[test]
    fn nothing_measured_is_unknown_throughout() {
        let status = observe(&production(), &Inputs::default(), None, at(0));
        assert_eq!(status.availability.unwrap().level, "Unknown");
        assert_eq!((status.burn_rates, status.up_since), (Vec::new(), None));
        assert!(status.objectives.iter().all(|objective| objective.level == "Unknown"));
    }

    #[test]
    fn the_status_is_written_hourly_when_a_level_changes_and_at_once_for_an_outage() {
        let slo = production();
        let old = observe(&slo, &healthy(), None, at(0));
        assert!(should_write(None, &old, at(0)));
        let again = observe(&slo, &healthy(), Some(&old), at(3599));
        assert!(!should_write(Some(&old), &again, at(3599)));
        assert!(should_write(Some(&old), &again, at(3600)));
        let mut slow = healthy();
        slow.objectives.insert(Objective::ResponseTimeP95, 0.6);
        let slow = observe(&slo, &slow, Some(&old), at(30));
        assert!(!should_write(Some(&old), &slow, at(30)), "levels wait for a minute");
        assert!(should_write(Some(&old), &slow, at(60)));
        let mut down = healthy();
        down.health = Health::of(Some(false), Some(0.0));
        let down = observe(&slo, &down, Some(&old), at(5));
        assert!(should_write(Some(&old), &down, at(5)));
    }

    #[test]
    fn figures_alone_are_not_written() {
        let slo = production();
        let old = observe(&slo, &healthy(), None, at(0));
        let mut other = healthy();
        other.objectives.insert(Objective::ResponseTimeP95, 0.31);
        let new = observe(&slo, &other, Some(&old), at(600));
        assert_ne!(old.objectives, new.objectives);
        assert!(!should_write(Some(&old), &new, at(600)));
    }

    #[test]
    fn live_figures_leave_out_what_is_not_known() {
        let slo = production();
        let mut inputs = healthy();
        inputs.availability.downtime = Some(f64::NAN);
        inputs.failed.remove(&BurnWindow::ThreeDays);
        let status = observe(&slo, &inputs, None, at(0));
        let live = live(&slo, &inputs, &status);
        let count = |name: &str| live.iter().filter(|one| one.name == name).count();
        assert_eq!(count("selextract_slo_availability_ratio"), 1);
        assert_eq!(count("selextract_slo_error_budget_left_ratio"), 1);
        assert_eq!(count("selextract_slo_burn_rate"), 4);
        assert_eq!(count("selextract_slo_objective_level"), 2);
        assert_eq!(live.last().map(|one| one.value), Some(0.0));
    }

    #[test]
    fn the_fixture_has_the_guides_thresholds() {
        let spec = AlertsSpec::default();
        assert_eq!(production().network_bytes, spec.network_bandwidth.units().unwrap());
    }
}
