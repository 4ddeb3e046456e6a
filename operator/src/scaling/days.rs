//! Whole days by a stepped clock: a platform that is simulated from its load, measured every five seconds, sized by the decisions.
//!
//! The load follows the guide's "Performance Trends": a morning peak (8 to 10) 15 % above the day, an evening peak (18 to 20) 25 % above
//! it, a weekend 40 % below; and nights with next to nothing.

use jiff::{Timestamp, tz::TimeZone};

use super::*;
use crate::scaling::properties::{at, guide, quiet};

/// How often the platform is measured.
const STEP: i64 = 5;
/// How long a pod takes to be ready.
const START: i64 = 15;
const HOUR: i64 = 3600;

/// The share of a working day's load, by the guide's trends.
fn trend(now: Timestamp) -> f64 {
    let zoned = now.to_zoned(TimeZone::UTC);
    let weekend = matches!(
        zoned.weekday(),
        jiff::civil::Weekday::Saturday | jiff::civil::Weekday::Sunday
    );
    let by_hour = match zoned.hour() {
        0..6 => 0.05,
        6 | 22 | 23 => 0.4,
        8 | 9 => 1.15,
        18 | 19 => 1.25,
        _ => 1.0,
    };
    if weekend { by_hour * 0.6 } else { by_hour }
}

/// A platform under a load.
struct World {
    policies: (ApiPolicy, WorkerPolicy),
    window: Window,
    /// Decided numbers and the moments from which the last of them are ready.
    api: (u32, i64),
    worker: (u32, i64),
    changed: (Option<Timestamp>, Option<Timestamp>),
    backlog: f64,
    /// Every change: second, target, from, to, why.
    log: Vec<(i64, Target, u32, u32, Reason)>,
}

/// What comes in during one step.
#[derive(Clone, Copy)]
struct Load {
    /// Requests a second; one pod carries 100 of them.
    requests: f64,
    /// Tasks a second; one takes two seconds of one of a worker's four places.
    tasks: f64,
}

const TASK_TIME: f64 = 2.0;

impl World {
    fn new(api: u32, worker: u32) -> Self {
        Self {
            policies: guide(),
            window: Window::default(),
            api: (api, 0),
            worker: (worker, 0),
            changed: (None, None),
            backlog: 0.0,
            log: Vec::new(),
        }
    }

    fn ready((count, from): (u32, i64), second: i64) -> u32 {
        if second >= from { count } else { count.saturating_sub(1) }
    }

    fn run(&mut self, seconds: std::ops::Range<i64>, load: impl Fn(Timestamp) -> Load, spoil: impl Fn(&mut Sample)) {
        for second in seconds.step_by(usize::try_from(STEP).unwrap()) {
            let mut sample = self.measure(second, load(at(second)));
            spoil(&mut sample);
            self.window.push(sample, std::time::Duration::from_mins(10));
            self.size(second);
        }
    }

    fn measure(&mut self, second: i64, load: Load) -> Sample {
        let (api, worker) = (Self::ready(self.api, second), Self::ready(self.worker, second));
        let step = f64::from(i32::try_from(STEP).unwrap());
        let share = load.requests / (f64::from(api.max(1)) * 100.0);
        // Half of the load cannot be more than the CPU; a queue makes the rest slow.
        let latency = 0.05 / (1.0 - share.min(0.98));
        let places = f64::from(worker) * 4.0;
        let able = places * step / TASK_TIME;
        let come = self.backlog + load.tasks * step;
        let done = come.min(able);
        self.backlog = come - done;
        let busy = done * TASK_TIME / step;
        let idle = |value: f64, nothing: bool| if nothing { Reading::Idle } else { Reading::Fresh(value) };
        Sample {
            at: at(second),
            api: ApiSignals {
                cpu: Reading::Fresh(share.clamp(0.01, 1.0)),
                latency: idle(latency, load.requests <= 0.0),
                errors: idle(0.0, load.requests <= 0.0),
                pods: api,
            },
            worker: WorkerSignals {
                cpu: Reading::Fresh(0.7 * busy / places.max(1.0)),
                runnable: Reading::Fresh(self.backlog),
                wait: idle(self.backlog / able.max(0.1) * step / 2.0, self.backlog < 1.0),
                task_time: idle(TASK_TIME, done <= 0.0),
                busy: Reading::Fresh(busy),
                limited: Reading::Fresh(0.0),
                pods: worker,
            },
            dependencies: Dependencies::default(),
        }
    }

    fn size(&mut self, second: i64) {
        let now = at(second);
        let state = |(current, from), changed| State {
            current,
            ready: Self::ready((current, from), second),
            changed,
            ceilings: Vec::new(),
        };
        let api = decide_api(&self.policies.0, &self.window, &state(self.api, self.changed.0), now);
        let worker = decide_worker(&self.policies.1, &self.window, &state(self.worker, self.changed.1), now);
        for decision in [api, worker] {
            if decision.to == decision.from {
                continue;
            }
            let ready_at = if decision.to > decision.from {
                second + START
            } else {
                second
            };
            match decision.target {
                Target::Api => (self.api, self.changed.0) = ((decision.to, ready_at), Some(now)),
                Target::Worker => (self.worker, self.changed.1) = ((decision.to, ready_at), Some(now)),
            }
            self.log
                .push((second, decision.target, decision.from, decision.to, decision.reason));
        }
    }

    fn changes(&self, target: Target) -> Vec<(i64, u32, u32, Reason)> {
        let of_it = self.log.iter().filter(|change| change.1 == target);
        of_it
            .map(|(second, _, from, to, why)| (*second, *from, *to, *why))
            .collect()
    }
}

fn nothing(_: Timestamp) -> Load {
    Load {
        requests: 0.0,
        tasks: 0.0,
    }
}

fn constant(requests: f64, tasks: f64) -> impl Fn(Timestamp) -> Load {
    move |_| Load { requests, tasks }
}

fn as_it_is(_: &mut Sample) {}

#[test]
fn a_week_of_the_guides_trends_is_followed_with_few_changes_and_without_slow_answers() {
    let mut world = World::new(3, 5);
    let load = |now| Load {
        requests: 400.0 * trend(now),
        tasks: 12.0 * trend(now),
    };
    let slow = std::cell::Cell::new(0u32);
    world.run(0..7 * 24 * HOUR, load, |sample| {
        if sample.api.latency.is_above(1.0) {
            slow.set(slow.get() + 1);
        }
    });
    let (api, worker) = (world.changes(Target::Api), world.changes(Target::Worker));
    let most = |changes: &[(i64, u32, u32, Reason)]| changes.iter().map(|change| change.2).max().unwrap();
    let least = |changes: &[(i64, u32, u32, Reason)]| changes.iter().map(|change| change.2).min().unwrap();
    // 500 requests a second at 63 % of 100 a pod are 8 pods; the night's 20 are the minimum.
    assert!((7..=9).contains(&most(&api)), "{api:?}");
    assert_eq!(least(&api), 2);
    assert_eq!(least(&worker), 1);
    // Up and down once with the day and with each peak: about 12 steps up and 12 down of the API a day.
    assert!(api.len() <= 7 * 30, "{} changes: {api:?}", api.len());
    assert!(worker.len() <= 7 * 30, "{} changes: {worker:?}", worker.len());
    // Out of 120,960 looks; a jump from 5 % to 40 % in one second is met one pod at a time.
    assert!(slow.get() < 1200, "{} slow looks", slow.get());
    let weekend: Vec<_> = api
        .iter()
        .filter(|change| change.0 > 5 * 24 * HOUR + 7 * HOUR)
        .collect();
    assert!(weekend.iter().all(|change| change.2 <= 6), "40 % less: {weekend:?}");
}

#[test]
fn cpu_above_seventy_percent_adds_a_pod_after_five_minutes_and_not_before() {
    let mut world = World::new(3, 5);
    world.run(0..HOUR, constant(225.0, 0.1), as_it_is);
    let changes = world.changes(Target::Api);
    assert_eq!(changes.len(), 1, "{changes:?}");
    let (second, from, to, why) = changes[0];
    assert_eq!((from, to, why), (3, 4, Reason::CpuHigh));
    assert!((300..=300 + STEP).contains(&second), "{second}");
}

#[test]
fn a_peak_of_four_minutes_adds_nothing() {
    let mut world = World::new(4, 5);
    let load = |now: Timestamp| {
        let minute = now.to_zoned(TimeZone::UTC).minute();
        constant(if minute % 6 < 4 { 300.0 } else { 200.0 }, 0.1)(now)
    };
    world.run(0..6 * HOUR, load, as_it_is);
    assert_eq!(
        world.changes(Target::Api),
        [],
        "neither up nor, with 200 on three pods, down"
    );
}

#[test]
fn a_square_wave_does_not_flap() {
    let mut world = World::new(3, 5);
    let load = |now: Timestamp| {
        let on = now.to_zoned(TimeZone::UTC).minute() % 4 < 2;
        constant(if on { 380.0 } else { 20.0 }, if on { 12.0 } else { 0.1 })(now)
    };
    world.run(0..12 * HOUR, load, as_it_is);
    for target in Target::ALL {
        let changes = world.changes(target);
        let turns = changes
            .windows(2)
            .filter(|pair| (pair[0].2 > pair[0].1) != (pair[1].2 > pair[1].1));
        assert!(turns.count() <= 1, "{changes:?}");
    }
}

#[test]
fn an_idle_night_goes_down_to_the_minimum() {
    let mut world = World::new(6, 12);
    world.run(0..2 * HOUR, nothing, as_it_is);
    assert_eq!((world.api.0, world.worker.0), (2, 1));
    assert!(world.log.iter().all(|change| change.3 < change.2));
}

#[test]
fn a_lost_scrape_takes_nothing_away_however_long_it_is_lost() {
    let mut world = World::new(6, 12);
    world.run(0..8 * HOUR, nothing, |sample| {
        sample.api.latency = Reading::Unknown;
        sample.worker.runnable = Reading::Unknown;
    });
    assert_eq!(world.log, []);
}

#[test]
fn prometheus_gone_for_an_hour_holds_and_its_return_needs_a_whole_window_of_calm() {
    let mut world = World::new(6, 5);
    world.run(0..300, constant(400.0, 7.0), as_it_is);
    assert_eq!(world.log, []);
    for second in (300..300 + HOUR).step_by(5) {
        world.size(second);
    }
    assert_eq!(world.log, [], "an hour without a sample");
    let back = 300 + HOUR;
    world.run(back..back + 280, nothing, as_it_is);
    assert_eq!(world.log, [], "calm, but not for long enough");
    world.run(back + 280..back + 400, nothing, as_it_is);
    assert!(!world.log.is_empty());
}

#[test]
fn a_burst_is_worked_off_about_as_fast_as_is_aimed_at_and_not_one_by_one() {
    let mut world = World::new(2, 1);
    world.backlog = 1200.0;
    world.run(0..HOUR, constant(1.0, 0.5), as_it_is);
    let changes = world.changes(Target::Worker);
    // 1,200 tasks of 2 s within 30 s are 20 workers; half a step every 30 s gets there in minutes.
    let top = changes.iter().map(|change| change.2).max().unwrap();
    assert!(top >= 8, "{changes:?}");
    let ups: Vec<_> = changes.iter().filter(|change| change.2 > change.1).collect();
    assert!(ups.iter().any(|change| change.2 - change.1 > 1), "{changes:?}");
    assert!(world.backlog < 1.0);
    assert!(world.worker.0 <= 2, "and it goes again: {changes:?}");
}

#[test]
fn tasks_that_wait_for_one_slow_site_add_no_worker_and_say_so() {
    let mut sample = quiet(at(0));
    sample.worker.runnable = Reading::Fresh(2.0);
    sample.worker.busy = Reading::Fresh(4.0);
    sample.worker.task_time = Reading::Fresh(1.0);
    sample.worker.limited = Reading::Fresh(5000.0);
    sample.worker.pods = 2;
    let mut window = Window::default();
    window.push(sample, std::time::Duration::from_mins(5));
    let decision = decide_worker(&guide().1, &window, &properties::steady(2), at(0));
    assert_eq!((decision.to, decision.reason), (2, Reason::DomainLimited));

    // Nor is that idleness: between two turns at its site nobody may be busy.
    let mut window = Window::default();
    for second in (0..600).step_by(5) {
        let mut sample = quiet(at(second));
        sample.worker.limited = Reading::Fresh(5000.0);
        sample.worker.pods = 1;
        window.push(sample, std::time::Duration::from_mins(5));
    }
    let decision = decide_worker(&guide().1, &window, &properties::steady(1), at(595));
    assert_eq!((decision.to, decision.reason), (1, Reason::DomainLimited));
}

#[test]
fn workers_go_to_zero_and_the_first_task_wakes_one_at_once() {
    let mut world = World::new(2, 3);
    world.policies.1.limits.min = 0;
    world.run(0..HOUR, nothing, as_it_is);
    assert_eq!(world.worker.0, 0);
    world.run(HOUR..HOUR + 5, constant(0.0, 0.2), as_it_is);
    assert_eq!(world.worker.0, 1);
    assert_eq!(world.log.last().unwrap().4, Reason::Woken);
}

#[test]
fn a_schedule_has_the_pods_there_before_the_peak() {
    let mut world = World::new(2, 1);
    let peak = Peak::parse("45 7 * * 1-5", "UTC", std::time::Duration::from_hours(2), 6).unwrap();
    world.policies.0.limits.peaks = vec![peak];
    world.run(0..12 * HOUR, constant(10.0, 0.1), as_it_is);
    let changes = world.changes(Target::Api);
    assert_eq!(changes[0], (7 * HOUR + 45 * 60, 2, 6, Reason::Scheduled));
    assert_eq!(world.api.0, 2, "and they go behind it: {changes:?}");
}

#[test]
fn a_broken_database_adds_no_pods_for_its_errors() {
    let mut world = World::new(3, 5);
    world.run(0..HOUR, constant(200.0, 0.1), |sample| {
        sample.api.errors = Reading::Fresh(0.4);
        sample.api.latency = Reading::Fresh(3.0);
        sample.dependencies.down = vec!["postgres".to_owned()];
    });
    assert_eq!(world.log, []);
}

#[test]
fn a_node_that_is_lost_with_keeper_and_database_neither_adds_nor_takes_away_pods() {
    let untold = |sample: &mut Sample| sample.dependencies.untold = true;
    let mut world = World::new(3, 5);
    world.run(0..HOUR, constant(200.0, 0.1), |sample| {
        sample.api.errors = Reading::Fresh(0.4);
        sample.api.latency = Reading::Fresh(3.0);
        untold(sample);
    });
    assert_eq!(world.log, [], "the API's errors");
    world.run(HOUR..2 * HOUR, nothing, untold);
    assert_eq!(world.log, [], "the calm behind them");
}

#[test]
fn a_quota_holds_what_the_backlog_asks_for_and_takes_nothing_away() {
    let full = |current: u32, ready: u32| {
        let mut world = World::new(2, current);
        world.backlog = 2000.0;
        world.run(0..60, constant(1.0, 0.5), as_it_is);
        let quota = Constraint {
            reason: Reason::Quota,
            message: "pods \"shop-worker-1\" is forbidden: exceeded quota: team".to_owned(),
        };
        let state = State {
            ready,
            ceilings: vec![(quota, ready)],
            ..properties::steady(current)
        };
        decide_worker(&guide().1, &world.window, &state, at(55))
    };
    let decision = full(3, 3);
    assert_eq!((decision.to, decision.reason), (3, Reason::Quota), "{decision:?}");
    assert!(decision.wanted > 3 && decision.message.contains("exceeded quota"));
    let constraint = decision.constraints.iter().find(|one| one.reason == Reason::Quota);
    assert!(constraint.unwrap().message.contains("team"));
    let decision = full(4, 3);
    assert_eq!(
        decision.to, 4,
        "what was asked for comes when the quota grows: {decision:?}"
    );
}

#[test]
fn pauses_a_dry_run_and_budgets_hold_and_say_what_would_be() {
    let hot = |change: fn(&mut World)| {
        let mut world = World::new(3, 5);
        change(&mut world);
        world.run(0..900, constant(290.0, 0.1), as_it_is);
        let state = properties::steady(3);
        (
            world.changes(Target::Api).len(),
            decide_api(&world.policies.0, &world.window, &state, at(895)),
        )
    };
    let (count, decision) = hot(|world| world.policies.0.limits.pause.outward = true);
    assert_eq!((count, decision.reason, decision.wanted), (0, Reason::Paused, 4));
    let (count, decision) = hot(|world| world.policies.0.limits.pause.dry_run = true);
    assert_eq!((count, decision.reason), (0, Reason::DryRun));
    assert!(decision.message.contains("it would be 4"), "{}", decision.message);
    let (count, _) = hot(|world| world.policies.0.limits.pause.inward = true);
    assert!(count > 0, "out goes on");

    let mut world = World::new(3, 5);
    world.policies.0.limits.pause.outward = true;
    world.run(0..900, constant(290.0, 0.1), as_it_is);
    world.policies.0.limits.pause.outward = false;
    let budget = Constraint {
        reason: Reason::ConnectionBudget,
        message: "the pooler admits clients of 3 API pods".to_owned(),
    };
    let state = State {
        ceilings: vec![(budget, 3)],
        ..properties::steady(3)
    };
    let decision = decide_api(&world.policies.0, &world.window, &state, at(895));
    assert_eq!(
        (decision.to, decision.wanted, decision.reason),
        (3, 4, Reason::ConnectionBudget)
    );
}
