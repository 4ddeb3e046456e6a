//! What holds for every decision, whatever is measured.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

/// A moment of the tests' clock, which begins on Monday 2026-11-23 at midnight.
///
/// # Panics
/// Never: the moment is one.
pub fn at(second: i64) -> Timestamp {
    let begin: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
    begin + jiff::SignedDuration::from_secs(second)
}

/// A sample of a platform that is up and has nothing to do.
pub fn quiet(at: Timestamp) -> Sample {
    Sample {
        at,
        api: ApiSignals {
            cpu: Reading::Fresh(0.05),
            latency: Reading::Idle,
            errors: Reading::Idle,
            pods: 3,
        },
        worker: WorkerSignals {
            cpu: Reading::Fresh(0.02),
            runnable: Reading::Fresh(0.0),
            wait: Reading::Idle,
            task_time: Reading::Idle,
            busy: Reading::Fresh(0.0),
            limited: Reading::Fresh(0.0),
            pods: 5,
        },
        dependencies: Dependencies::default(),
    }
}

/// The guide's policies.
pub fn guide() -> (ApiPolicy, WorkerPolicy) {
    let limits = |min, max, cooldown| Limits {
        min,
        max,
        stabilization: Duration::from_mins(5),
        cooldown: Duration::from_secs(cooldown),
        peaks: Vec::new(),
        pause: Pause::default(),
    };
    let api = ApiPolicy {
        limits: limits(2, 10, 60),
        cpu: 0.7,
        cpu_for: Duration::from_mins(5),
        latency: 1.0,
        errors: 0.01,
    };
    let worker = WorkerPolicy {
        limits: limits(1, 20, 30),
        queue: 100.0,
        wait: 30.0,
        cpu: 0.8,
        concurrency: 4,
    };
    (api, worker)
}

/// A state in which all pods are ready.
pub fn steady(current: u32) -> State {
    State {
        current,
        ready: current,
        ..State::default()
    }
}

fn reading(most: f64) -> impl Strategy<Value = Reading> {
    prop_oneof![
        4 => (0.0..most).prop_map(Reading::Fresh),
        1 => Just(Reading::Idle),
        1 => Just(Reading::Unknown),
    ]
}

prop_compose! {
    fn sample()(
        api in (reading(1.5), reading(6.0), reading(0.2), 1u32..12),
        worker in (reading(1.5), reading(3000.0), reading(120.0), reading(60.0), reading(100.0), reading(3000.0)),
        pods in 0u32..25,
        down in prop::bool::weighted(0.1),
        untold in prop::bool::weighted(0.1),
    ) -> Sample {
        Sample {
            at: at(0),
            api: ApiSignals { cpu: api.0, latency: api.1, errors: api.2, pods: api.3 },
            worker: WorkerSignals {
                cpu: worker.0, runnable: worker.1, wait: worker.2, task_time: worker.3, busy: worker.4, limited: worker.5, pods,
            },
            dependencies: Dependencies { down: if down { vec!["postgres".to_owned()] } else { Vec::new() }, untold },
        }
    }
}

/// A window of samples five seconds apart, the last of them now.
fn window(samples: &[Sample]) -> (Window, Timestamp) {
    let mut window = Window::default();
    let mut now = at(0);
    for (index, sample) in samples.iter().enumerate() {
        now = at(5 * i64::try_from(index).unwrap());
        let sample = Sample {
            at: now,
            ..sample.clone()
        };
        window.push(sample, Duration::from_mins(10));
    }
    (window, now)
}

/// The same sample for ten minutes.
fn constant(sample: &Sample) -> (Window, Timestamp) {
    window(&vec![sample.clone(); 121])
}

fn both(window: &Window, api: u32, worker: u32, now: Timestamp) -> (Decision, Decision) {
    let (of_api, of_worker) = guide();
    (
        decide_api(&of_api, window, &steady(api), now),
        decide_worker(&of_worker, window, &steady(worker), now),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_number_within_its_bounds_stays_within_them_and_moves_by_one_step(
        samples in prop::collection::vec(sample(), 1..80), api in 2u32..=10, worker in 1u32..=20,
    ) {
        let (window, now) = window(&samples);
        let (of_api, of_worker) = both(&window, api, worker, now);
        prop_assert!((2..=10).contains(&of_api.to) && of_api.to.abs_diff(api) <= 1, "{of_api:?}");
        prop_assert!((1..=20).contains(&of_worker.to) && of_worker.to.abs_diff(worker) <= worker.div_ceil(2), "{of_worker:?}");
    }

    #[test]
    fn a_number_outside_its_bounds_comes_back_at_once(sample in sample(), api in 0u32..30, worker in 0u32..60) {
        let (window, now) = constant(&sample);
        let (of_api, of_worker) = both(&window, api, worker, now);
        if api < 2 { prop_assert_eq!(of_api.to, 2) }
        if api > 10 { prop_assert_eq!(of_api.to, 10) }
        if worker < 1 { prop_assert_eq!(of_worker.to, 1) }
        if worker > 20 { prop_assert_eq!(of_worker.to, 20) }
    }

    #[test]
    fn what_is_unknown_never_takes_a_pod_away(
        samples in prop::collection::vec(sample(), 61..80), which in 0usize..3, when in 0usize..60, api in 2u32..=10, worker in 1u32..=20,
    ) {
        let mut samples = samples;
        let lost = samples.len() - 1 - when;
        match which {
            0 => { samples[lost].api.cpu = Reading::Unknown; samples[lost].worker.cpu = Reading::Unknown; }
            1 => { samples[lost].api.latency = Reading::Unknown; samples[lost].worker.runnable = Reading::Unknown; }
            _ => { samples[lost].api.errors = Reading::Unknown; samples[lost].worker.busy = Reading::Unknown; }
        }
        let (window, now) = window(&samples);
        let (of_api, of_worker) = both(&window, api, worker, now);
        prop_assert!(of_api.to >= api, "{of_api:?}");
        prop_assert!(of_worker.to >= worker, "{of_worker:?}");
    }

    #[test]
    fn silence_holds(samples in prop::collection::vec(sample(), 1..80), silent in 31i64..7200, api in 2u32..=10, worker in 1u32..=20) {
        let (window, now) = window(&samples);
        let now = now + jiff::SignedDuration::from_secs(silent);
        let (of_api, of_worker) = both(&window, api, worker, now);
        prop_assert_eq!((of_api.to, of_api.reason), (api, Reason::SignalsUnknown));
        prop_assert_eq!((of_worker.to, of_worker.reason), (worker, Reason::SignalsUnknown));
    }

    #[test]
    fn a_constant_signal_never_goes_both_ways(sample in sample(), api in 2u32..=10, worker in 1u32..=20) {
        let (of_api, of_worker) = guide();
        let (window, now) = constant(&sample);
        let (mut up, mut down) = ((false, false), (false, false));
        let (mut api, mut worker) = (api, worker);
        for _ in 0..40 {
            let (first, second) = (
                decide_api(&of_api, &window, &steady(api), now),
                decide_worker(&of_worker, &window, &steady(worker), now),
            );
            up = (up.0 || first.to > api, up.1 || second.to > worker);
            down = (down.0 || first.to < api, down.1 || second.to < worker);
            (api, worker) = (first.to, second.to);
        }
        prop_assert!(!(up.0 && down.0), "the API");
        prop_assert!(!(up.1 && down.1), "the workers");
    }

    #[test]
    fn while_a_dependency_is_down_only_bounds_and_cpu_move_anything(sample in sample(), api in 2u32..=10, worker in 1u32..=20) {
        let mut sample = sample;
        sample.dependencies.down = vec!["postgres".to_owned()];
        let (window, now) = constant(&sample);
        let (of_api, of_worker) = both(&window, api, worker, now);
        prop_assert!(of_api.to == api || of_api.reason == Reason::CpuHigh, "{of_api:?}");
        prop_assert_eq!(of_worker.to, worker);
    }

    #[test]
    fn while_nobody_tells_of_the_dependencies_only_bounds_and_cpu_move_anything(sample in sample(), api in 2u32..=10, worker in 1u32..=20) {
        let mut sample = sample;
        sample.dependencies = Dependencies { down: Vec::new(), untold: true };
        let (window, now) = constant(&sample);
        let (of_api, of_worker) = both(&window, api, worker, now);
        prop_assert!(of_api.to == api || (of_api.to > api && of_api.reason == Reason::CpuHigh), "{of_api:?}");
        prop_assert_eq!(of_worker.to, worker);
    }

    #[test]
    fn every_decision_says_why(samples in prop::collection::vec(sample(), 1..80), api in 2u32..=10, worker in 1u32..=20) {
        let (window, now) = window(&samples);
        let (of_api, of_worker) = both(&window, api, worker, now);
        for decision in [of_api, of_worker] {
            prop_assert!(!decision.message.is_empty() && decision.signals.len() == 3);
            prop_assert!(decision.message.len() <= 1024);
            let stays = decision.to == decision.from && decision.wanted != decision.from;
            prop_assert!(!stays || !decision.constraints.is_empty(), "{decision:?}");
        }
    }
}
