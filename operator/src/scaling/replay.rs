//! What would have happened: recorded signals, decided anew under another policy. Pure.
//!
//! What was recorded is taken as it was: a policy that asks for more pods does not make the recorded load lighter. The replay says when
//! and why another number would have been asked for, not how the platform would have fared with it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Decision, Policies, Reason, State, Target, Window, decide_api, decide_worker,
    readings::{Answers, Expected},
    since,
};

/// The answers of one moment, as they lie in a file: a line of JSON each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// When.
    pub at: Timestamp,
    /// By the signal's name. What was no number is not there.
    pub values: BTreeMap<String, f64>,
    /// What the platform stands on, by name: 1 while it answered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, f64>,
}

/// A change that would have been.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Of what.
    pub target: Target,
    /// The number before.
    pub from: u32,
    /// The number after.
    pub to: u32,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// What would have happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// Every change, in order.
    pub changes: Vec<Change>,
    /// Pod hours of API and workers as decided.
    pub decided: (f64, f64),
    /// Pod hours of API and workers as recorded.
    pub recorded: (f64, f64),
}

/// Decides at each recorded moment, in order. The numbers begin as recorded.
pub fn replay(policies: &Policies, recorded: &[Recorded]) -> Replay {
    let mut replay = Replay::default();
    let mut window = Window::default();
    let mut states: Option<(State, State)> = None;
    let mut before: Option<Timestamp> = None;
    for moment in recorded {
        let (answers, pods) = moment.read();
        window.push(answers.sample(pods, moment.at), policies.memory());
        let (api, worker) = states.get_or_insert_with(|| (state(pods.api), state(pods.worker)));
        let hours = before.map_or(0.0, |before| since(before, moment.at).as_secs_f64() / 3600.0);
        before = Some(moment.at);
        replay.add(hours, (api.current, worker.current), pods);
        let decisions = [
            policies
                .api
                .as_ref()
                .map(|policy| decide_api(policy, &window, api, moment.at)),
            policies
                .worker
                .as_ref()
                .map(|policy| decide_worker(policy, &window, worker, moment.at)),
        ];
        for decision in decisions
            .into_iter()
            .flatten()
            .filter(|decision| decision.to != decision.from)
        {
            let of_it = if decision.target == Target::Api {
                &mut *api
            } else {
                &mut *worker
            };
            *of_it = State {
                changed: Some(moment.at),
                ..state(decision.to)
            };
            replay.changes.push(change(decision));
        }
    }
    replay
}

/// Pods that were asked for are ready: how long they took lies in the cluster, not in the record.
fn state(current: u32) -> State {
    State {
        current,
        ready: current,
        ..State::default()
    }
}

fn change(decision: Decision) -> Change {
    Change {
        at: decision.at,
        target: decision.target,
        from: decision.from,
        to: decision.to,
        reason: decision.reason,
        message: decision.message,
    }
}

impl Recorded {
    fn read(&self) -> (Answers, Expected) {
        let mut answers = Answers::default();
        for (signal, value) in &self.values {
            answers.add(signal, None, *value);
        }
        // Without anything that happened, quantiles and ratios are no numbers, which JSON does not have.
        for signal in ["http_response_p95", "http_error_ratio", "task_processing_mean"] {
            if !self.values.contains_key(signal) {
                answers.add(signal, None, f64::NAN);
            }
        }
        for (name, up) in &self.dependencies {
            answers.add("", Some(name), *up);
        }
        let sample = answers.sample(Expected::default(), self.at);
        let pods = Expected {
            api: sample.api.pods,
            worker: sample.worker.pods,
        };
        (answers, pods)
    }
}

impl Replay {
    fn add(&mut self, hours: f64, (api, worker): (u32, u32), pods: Expected) {
        self.decided.0 += f64::from(api) * hours;
        self.decided.1 += f64::from(worker) * hours;
        self.recorded.0 += f64::from(pods.api) * hours;
        self.recorded.1 += f64::from(pods.worker) * hours;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::properties::{at, guide};

    /// An hour of three API pods at this CPU.
    fn hour(cpu: f64) -> Vec<Recorded> {
        let moment = |second| Recorded {
            at: at(second),
            values: [
                ("api_pods", 3.0),
                ("api_cpu_ratio", cpu),
                ("http_request_rate", 10.0),
                ("http_response_p95", 0.1),
                ("http_error_ratio", 0.0),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            dependencies: BTreeMap::new(),
        };
        (0..=3600).step_by(15).map(moment).collect()
    }

    #[test]
    fn another_policy_decides_otherwise_on_the_same_record() {
        let mut policies = Policies {
            api: Some(guide().0),
            worker: None,
        };
        let same = replay(&policies, &hour(0.65));
        assert_eq!(same.changes, [], "65 % is below the guide's 70 %");
        assert!((same.recorded.0 - 3.0).abs() < 0.01, "{same:?}");
        policies.api.as_mut().unwrap().cpu = 0.6;
        let lower = replay(&policies, &hour(0.65));
        assert_eq!((lower.changes[0].from, lower.changes[0].to), (3, 4));
        assert_eq!(lower.changes[0].reason, Reason::CpuHigh);
        assert!(lower.decided.0 > same.decided.0);
    }

    #[test]
    fn a_record_survives_its_file() {
        let moment = &hour(0.5)[3];
        let line = serde_json::to_string(moment).unwrap();
        assert_eq!(&serde_json::from_str::<Recorded>(&line).unwrap(), moment);
    }
}
