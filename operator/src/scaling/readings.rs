//! From Prometheus' answers to a sample: what is fresh, what is idle, what is unknown. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{ApiSignals, Dependencies, Reading, Sample, WorkerSignals};
use crate::monitoring::queries::stores;

/// Above this a ratio of CPU is absurd: a counter that was mistaken, not a load.
const ABSURD: f64 = 1000.0;

/// The answers about one cluster: by the signal's name, and for dependencies by its label too.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    values: BTreeMap<String, f64>,
    dependencies: BTreeMap<String, f64>,
}

/// How many pods should answer for themselves: those that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// API pods.
    pub api: u32,
    /// Worker pods.
    pub worker: u32,
}

impl Answers {
    /// Adds an answer.
    pub fn add(&mut self, signal: &str, dependency: Option<&str>, value: f64) {
        match dependency {
            Some(dependency) => self.dependencies.insert(dependency.to_owned(), value),
            None => self.values.insert(signal.to_owned(), value),
        };
    }

    /// The answers as a sample.
    pub fn sample(&self, expected: Expected, at: Timestamp) -> Sample {
        Sample {
            at,
            api: self.api(expected.api),
            worker: self.worker(expected.worker),
            dependencies: self.dependencies(),
        }
    }

    /// The connections that the database admits, where that was told.
    pub fn admitted(&self) -> Option<u32> {
        let admitted = self.get(stores::MAX_CONNECTIONS.name)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of connections, bounded before"
        )]
        let admitted = admitted.clamp(0.0, ABSURD * ABSURD) as u32;
        Some(admitted)
    }

    fn get(&self, signal: &str) -> Option<f64> {
        self.values.get(signal).copied()
    }

    /// A figure that is always there while its targets are.
    fn gauge(&self, signal: &str, seen: bool) -> Reading {
        match self.get(signal) {
            Some(value) if seen && (0.0..=ABSURD * ABSURD).contains(&value) => Reading::Fresh(value),
            _ => Reading::Unknown,
        }
    }

    /// A figure about what happened: without anything that happened it is idle, not absent.
    fn about(&self, signal: &str, seen: bool, happened: Option<f64>) -> Reading {
        match (seen, happened) {
            (true, Some(rate)) if rate <= 0.0 => Reading::Idle,
            (true, Some(_)) => self.gauge(signal, true),
            _ => Reading::Unknown,
        }
    }

    fn pods(&self, signal: &str) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of pods, bounded before"
        )]
        let pods = self.get(signal).unwrap_or(0.0).clamp(0.0, ABSURD) as u32;
        pods
    }

    fn api(&self, expected: u32) -> ApiSignals {
        let pods = self.pods("api_pods");
        let seen = pods > 0 && pods >= expected;
        let rate = self.get("http_request_rate");
        ApiSignals {
            cpu: self.gauge("api_cpu_ratio", seen),
            latency: self.about("http_response_p95", seen, rate),
            errors: self.about("http_error_ratio", seen, rate),
            pods,
        }
    }

    fn worker(&self, expected: u32) -> WorkerSignals {
        let pods = self.pods("worker_pods");
        let seen = pods >= expected;
        let keeper = self.pods("keeper_pods") > 0;
        let runnable = self.gauge("backlog", keeper);
        let none = expected == 0 && pods == 0;
        let or_idle = |reading| if none { Reading::Idle } else { reading };
        WorkerSignals {
            cpu: or_idle(self.gauge("worker_cpu_ratio", seen)),
            runnable,
            wait: self.about("backlog_wait", keeper, runnable.value()),
            task_time: self.task_time(seen),
            busy: or_idle(self.gauge("worker_busy", seen)),
            limited: self.gauge("backlog_limited", keeper),
            pods,
        }
    }

    /// NaN says that no task ended within the window.
    fn task_time(&self, seen: bool) -> Reading {
        match self.get("task_processing_mean") {
            Some(value) if seen && value.is_nan() => Reading::Idle,
            _ => self.gauge("task_processing_mean", seen),
        }
    }

    fn dependencies(&self) -> Dependencies {
        let down = self.dependencies.iter().filter(|(_, up)| **up < 1.0);
        Dependencies {
            down: down.map(|(name, _)| name.clone()).collect(),
            untold: self.pods("keeper_pods") == 0 || self.dependencies.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::{Reason, properties::at};

    const THREE: Expected = Expected { api: 3, worker: 2 };

    fn answers(values: &[(&str, f64)]) -> Answers {
        let mut answers = Answers::default();
        let idle = [
            ("api_pods", 3.0),
            ("worker_pods", 2.0),
            ("keeper_pods", 1.0),
            ("api_cpu_ratio", 0.01),
            ("http_request_rate", 0.0),
            ("http_response_p95", f64::NAN),
            ("http_error_ratio", f64::NAN),
            ("worker_cpu_ratio", 0.01),
            ("worker_busy", 0.0),
            ("task_processing_mean", f64::NAN),
            ("backlog", 0.0),
            ("backlog_wait", 0.0),
            ("backlog_limited", 0.0),
        ];
        for (name, value) in idle.into_iter().chain(values.iter().copied()) {
            answers.add(name, None, value);
        }
        answers.add("scaling_dependencies", Some("redis-queue"), 1.0);
        answers
    }

    #[test]
    fn a_platform_without_work_is_idle_and_not_unknown() {
        let sample = answers(&[]).sample(THREE, at(0));
        assert_eq!((sample.api.latency, sample.api.errors), (Reading::Idle, Reading::Idle));
        assert_eq!(sample.api.cpu, Reading::Fresh(0.01));
        assert_eq!(sample.worker.runnable, Reading::Fresh(0.0));
        assert_eq!(
            (sample.worker.wait, sample.worker.task_time),
            (Reading::Idle, Reading::Idle)
        );
    }

    #[test]
    fn a_pod_that_does_not_answer_makes_its_signals_unknown() {
        let sample = answers(&[("api_pods", 2.0), ("worker_pods", 1.0)]).sample(THREE, at(0));
        assert_eq!(
            (sample.api.cpu, sample.api.latency),
            (Reading::Unknown, Reading::Unknown)
        );
        assert_eq!(
            (sample.worker.cpu, sample.worker.busy),
            (Reading::Unknown, Reading::Unknown)
        );
        assert_eq!(sample.worker.runnable, Reading::Fresh(0.0), "the keeper still answers");
        let sample = answers(&[("keeper_pods", 0.0)]).sample(THREE, at(0));
        assert_eq!(sample.worker.runnable, Reading::Unknown);
        assert_eq!(Answers::default().sample(THREE, at(0)).api.latency, Reading::Unknown);
    }

    #[test]
    fn absurd_values_are_unknown() {
        for value in [f64::NAN, f64::INFINITY, -1.0] {
            let sample = answers(&[("api_cpu_ratio", value), ("backlog", value)]).sample(THREE, at(0));
            assert_eq!(
                (sample.api.cpu, sample.worker.runnable),
                (Reading::Unknown, Reading::Unknown)
            );
        }
    }

    #[test]
    fn without_workers_there_is_nothing_to_be_unknown_about_them() {
        let mut all = answers(&[("worker_pods", 0.0), ("backlog", 7.0), ("backlog_wait", 3.0)]);
        all.values.remove("worker_cpu_ratio");
        all.values.remove("worker_busy");
        let sample = all.sample(Expected { api: 3, worker: 0 }, at(0));
        assert_eq!((sample.worker.cpu, sample.worker.busy), (Reading::Idle, Reading::Idle));
        assert_eq!(
            (sample.worker.runnable, sample.worker.wait),
            (Reading::Fresh(7.0), Reading::Fresh(3.0))
        );
    }

    #[test]
    fn a_dependency_that_does_not_answer_is_named() {
        let mut all = answers(&[]);
        all.add("scaling_dependencies", Some("postgres"), 0.0);
        all.add("scaling_dependencies", Some("redis-queue"), 1.0);
        assert_eq!(all.sample(THREE, at(0)).dependencies.down, ["postgres"]);
    }

    #[test]
    fn dependencies_of_which_nobody_tells_are_not_healthy() {
        let told = |all: &Answers| all.sample(THREE, at(0)).dependencies;
        assert!(told(&answers(&[])).are_healthy());
        let gone = told(&answers(&[("keeper_pods", 0.0)]));
        assert!(
            gone.untold && !gone.are_healthy(),
            "what it told last may still be there"
        );
        let mut silent = answers(&[]);
        silent.dependencies.clear();
        assert!(told(&silent).untold);
        assert_eq!(told(&silent).fault().unwrap().0, Reason::SignalsUnknown);
    }
}
