//! Outages of the API, and how long each took to be over (guide: "Recovery Time", "Service restoration"). Pure: a step per look, kept in the status.

use jiff::{SignedDuration, Timestamp};
use selextract_crds::{OutageStatus, SloStatus};

use crate::{moment::second, validated::Slo};

/// The most outages that are remembered.
const MOST: usize = 10;

/// What is known of the API at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether an API pod is ready, by Kubernetes.
    pub ready: Option<bool>,
    /// Whether the API answers: `slo::API_ANSWERS` is 1, or 0.
    pub answers: Option<bool>,
}

impl Health {
    /// What is known, with the answer of `slo::API_ANSWERS`.
    pub fn of(ready: Option<bool>, answers: Option<f64>) -> Self {
        let known = answers.filter(|answer| answer.is_finite());
        Self {
            ready,
            answers: known.map(|answer| answer > 0.5),
        }
    }

    /// Why it is down.
    fn fault(self) -> Option<&'static str> {
        match (self.ready, self.answers) {
            (Some(false), _) => Some("NotReady"),
            (_, Some(false)) => Some("NotAnswering"),
            _ => None,
        }
    }

    fn is_up(self) -> bool {
        self.fault().is_none() && (self.ready == Some(true) || self.answers == Some(true))
    }

    /// Whether an outage for this reason is over: what told of it must tell otherwise, so that a lost Prometheus ends none.
    fn ends(self, reason: &str) -> bool {
        match reason {
            "NotAnswering" => self.is_up() && self.answers == Some(true),
            _ => self.is_up() && self.ready == Some(true),
        }
    }
}

/// The time since which the API answers and the outages, after a look at `now`.
///
/// An outage begins only where the API was up before: a platform that is being made is none. What is not known changes nothing.
pub fn step(slo: &Slo, old: Option<&SloStatus>, health: Health, now: Timestamp) -> (Option<String>, Vec<OutageStatus>) {
    let up_since = old.and_then(|old| old.up_since.clone());
    let mut outages = old.map(|old| old.outages.clone()).unwrap_or_default();
    let open = outages.first_mut().filter(|outage| outage.end.is_none());
    match (open, health.fault()) {
        (Some(open), _) if health.ends(&open.reason) => {
            end(slo, open, now);
            (Some(second(now)), outages)
        }
        (Some(_), _) => (None, outages),
        (None, Some(reason)) if up_since.is_some() => {
            outages.insert(0, begun(reason, now));
            outages.truncate(MOST);
            (None, outages)
        }
        (None, None) if health.is_up() => (up_since.or_else(|| Some(second(now))), outages),
        (None, _) => (up_since, outages),
    }
}

fn begun(reason: &str, now: Timestamp) -> OutageStatus {
    OutageStatus {
        start: second(now),
        reason: reason.to_owned(),
        ..OutageStatus::default()
    }
}

fn end(slo: &Slo, outage: &mut OutageStatus, now: Timestamp) {
    let start: Timestamp = outage.start.parse().unwrap_or(now);
    let took = now.duration_since(start).max(SignedDuration::ZERO);
    let took = u64::try_from(took.as_secs()).unwrap_or_default();
    outage.end = Some(second(now));
    outage.duration = Some(selextract_task::Duration::from_secs(took).to_string());
    outage.within_target = Some(took <= slo.recovery_time.get().as_secs());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::observe::tests::{at, production};

    const UP: Health = Health {
        ready: Some(true),
        answers: Some(true),
    };
    const DARK: Health = Health {
        ready: None,
        answers: None,
    };

    fn health(ready: bool, answers: bool) -> Health {
        Health {
            ready: Some(ready),
            answers: Some(answers),
        }
    }

    /// Plays looks, each at its second.
    fn play(looks: &[(i64, Health)]) -> SloStatus {
        looks.iter().fold(SloStatus::default(), |old, (second, health)| {
            let (up_since, outages) = step(&production(), Some(&old), *health, at(*second));
            SloStatus {
                up_since,
                outages,
                ..old
            }
        })
    }

    #[test]
    fn a_platform_that_is_being_made_is_no_outage() {
        let status = play(&[(0, health(false, false)), (60, health(false, false)), (120, UP)]);
        assert_eq!(status.outages, []);
        assert_eq!(status.up_since, Some(second(at(120))));
    }

    #[test]
    fn an_outage_has_a_start_an_end_a_duration_and_is_held_against_fifteen_minutes() {
        let status = play(&[
            (0, UP),
            (100, health(false, true)),
            (130, health(false, false)),
            (400, UP),
        ]);
        let outage = &status.outages[0];
        assert_eq!(
            (outage.start.as_str(), outage.reason.as_str()),
            (second(at(100)).as_str(), "NotReady")
        );
        assert_eq!(outage.end, Some(second(at(400))));
        assert_eq!(
            (outage.duration.as_deref(), outage.within_target),
            (Some("5m"), Some(true))
        );
        assert_eq!(status.up_since, Some(second(at(400))));
        let long = play(&[(0, UP), (100, health(true, false)), (100 + 901, UP)]);
        assert_eq!(
            long.outages[0].within_target,
            Some(false),
            "fifteen minutes and a second"
        );
        assert_eq!(long.outages[0].reason, "NotAnswering");
    }

    #[test]
    fn what_is_not_known_neither_begins_nor_ends_an_outage() {
        let status = play(&[(0, UP), (10, DARK), (20, DARK)]);
        assert_eq!((status.outages.len(), status.up_since), (0, Some(second(at(0)))));
        let ready_alone = Health {
            ready: Some(true),
            answers: None,
        };
        let status = play(&[(0, UP), (10, health(true, false)), (20, DARK), (30, ready_alone)]);
        assert_eq!(
            (status.outages.len(), &status.outages[0].end),
            (1, &None),
            "Prometheus is gone, too"
        );
        let status = play(&[(0, UP), (10, health(false, true)), (20, ready_alone)]);
        assert_eq!(
            status.outages[0].end,
            Some(second(at(20))),
            "Kubernetes told of it and tells of its end"
        );
    }

    #[test]
    fn without_prometheus_readiness_alone_tells() {
        let ready = |ready| Health::of(Some(ready), None);
        let status = play(&[(0, ready(true)), (60, ready(false)), (180, ready(true))]);
        assert_eq!(status.outages[0].duration.as_deref(), Some("2m"));
    }

    #[test]
    fn the_last_ten_outages_are_remembered_newest_first() {
        let looks: Vec<_> = (0..15)
            .flat_map(|number| [(number * 100, UP), (number * 100 + 10, health(false, false))])
            .collect();
        let status = play(&looks);
        assert_eq!(status.outages.len(), 10);
        assert_eq!(status.outages[0].start, second(at(1410)));
        assert_eq!(status.outages[0].end, None);
        assert!(status.outages[1..].iter().all(|outage| outage.end.is_some()));
    }

    #[test]
    fn at_most_one_outage_is_under_way_whatever_is_seen() {
        let seen = [None, Some(false), Some(true)];
        let all: Vec<Health> = seen
            .into_iter()
            .flat_map(|ready| seen.map(|answers| Health { ready, answers }))
            .collect();
        // Every order of four looks after a first one.
        for number in 0..9_usize.pow(4) {
            let looks = (0..4).map(|place| all[number / 9_usize.pow(place) % 9]);
            let looks: Vec<_> = (0..).step_by(30).zip(std::iter::once(UP).chain(looks)).collect();
            let status = play(&looks);
            let open = status.outages.iter().filter(|outage| outage.end.is_none()).count();
            assert!(open <= 1, "{looks:?}");
            assert_eq!(status.up_since.is_none(), open == 1, "{looks:?}");
        }
    }

    #[test]
    fn an_answer_that_is_no_number_is_not_known() {
        assert_eq!(Health::of(None, Some(f64::NAN)), DARK);
        assert_eq!(Health::of(Some(true), Some(0.0)).answers, Some(false));
    }
}
