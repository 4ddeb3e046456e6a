//! What the workers need (guide: "Worker Scaling"): as many as work the runnable backlog off within the wait that is aimed at. Pure.

use jiff::Timestamp;

use super::{
    Decision, Reading, Reason, Sample, Signal, State, Target, Window, WorkerPolicy, WorkerSignals,
    api::seconds,
    bounds::{Step, Wish, bound, text},
};

/// How full the workers may be after some went, so that what goes does not come back at once.
const ROOM: f64 = 0.8;

/// Decides how many workers there should be.
pub fn decide(policy: &WorkerPolicy, window: &Window, state: &State, now: Timestamp) -> Decision {
    let wish = wish(policy, window, state, now);
    bound(Target::Worker, &policy.limits, state, wish, Step::Half, now)
}

fn wish(policy: &WorkerPolicy, window: &Window, state: &State, now: Timestamp) -> Wish {
    let Some(sample) = window.newest(now) else {
        return Wish {
            to: state.current,
            reason: Reason::SignalsUnknown,
            message: "nothing was measured in the last 30 s".to_owned(),
            signals: signals(policy, None, window, now),
        };
    };
    let wanted = trigger(policy, sample, state);
    let (to, reason, message) = match (wanted, sample.dependencies.fault()) {
        (Some((_, reason, words)), Some((held, fault))) => {
            (state.current, held, format!("{reason} ({words}), but {fault}"))
        }
        (Some(wanted), None) => wanted,
        (None, _) => rest(policy, sample, window, state, now),
    };
    Wish {
        to,
        reason,
        message,
        signals: signals(policy, Some(sample), window, now),
    }
}

fn signals(policy: &WorkerPolicy, sample: Option<&Sample>, window: &Window, now: Timestamp) -> Vec<Signal> {
    let of = |name, pick: fn(&WorkerSignals) -> Reading, show: fn(f64) -> String, limit: f64| {
        let reading = sample.map_or(Reading::Unknown, |sample| pick(&sample.worker));
        Signal {
            name,
            reading,
            value: reading.value().map(show).unwrap_or_default(),
            limit,
            threshold: show(limit),
            since: window.holds_since(now, |sample| pick(&sample.worker).is_above(limit)),
        }
    };
    vec![
        of(
            "queue",
            |worker| worker.runnable,
            |tasks| format!("{tasks:.0}"),
            policy.queue,
        ),
        of("wait", |worker| worker.wait, seconds, policy.wait),
        of(
            "cpu",
            |worker| worker.cpu,
            |share| format!("{:.0} %", share * 100.0),
            policy.cpu,
        ),
    ]
}

/// What asks for more workers, and for how many.
fn trigger(policy: &WorkerPolicy, sample: &Sample, state: &State) -> Option<(u32, Reason, String)> {
    let (worker, current) = (&sample.worker, state.current);
    let runnable = worker.runnable.value().unwrap_or(0.0);
    if current == 0 && runnable > 0.0 {
        return Some((
            sized(policy, worker, 1).max(1),
            Reason::Woken,
            format!("{runnable:.0} tasks and no worker"),
        ));
    }
    let queue = worker.runnable.is_above(policy.queue);
    if queue || worker.wait.is_above(policy.wait) {
        let reason = if queue { Reason::QueueLong } else { Reason::WaitLong };
        let waited = worker
            .wait
            .value()
            .map(|wait| format!(", on average for {}", seconds(wait)))
            .unwrap_or_default();
        let took = worker
            .task_time
            .value()
            .map(|time| format!(" of {}", seconds(time)))
            .unwrap_or_default();
        let message = format!("{runnable:.0} tasks{took} could run and wait{waited}");
        return Some((sized(policy, worker, current + 1), reason, message));
    }
    let cpu = worker.cpu.value().filter(|cpu| *cpu > policy.cpu)?;
    let wanted = count(f64::from(worker.pods.max(1)) * cpu / policy.cpu).max(current + 1);
    let message = format!("cpu {:.0} % > {:.0} %", cpu * 100.0, policy.cpu * 100.0);
    Some((wanted, Reason::CpuHigh, message))
}

/// As many as work off what waits within the wait that is aimed at, beside what they do already; at least `least`.
fn sized(policy: &WorkerPolicy, worker: &WorkerSignals, least: u32) -> u32 {
    slots(policy, worker).map_or(least, |slots| count(slots / f64::from(policy.concurrency)).max(least))
}

/// How many tasks must be under way at a time: those that are, and enough for what waits (Little's law over the wait that is aimed at).
fn slots(policy: &WorkerPolicy, worker: &WorkerSignals) -> Option<f64> {
    let (runnable, busy) = (worker.runnable.or_idle()?, worker.busy.or_idle()?);
    // Before the first task ended nobody knows how long one takes: then it goes step by step.
    let waiting = if runnable > 0.0 {
        runnable * worker.task_time.value()? / policy.wait
    } else {
        0.0
    };
    Some(busy + waiting)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of pods, between 0 and what fits, whatever was measured"
)]
fn count(pods: f64) -> u32 {
    pods.ceil().clamp(0.0, 10_000.0) as u32
}

/// What holds, or what lets workers go: down to the most that any moment of the window needed.
fn rest(
    policy: &WorkerPolicy,
    sample: &Sample,
    window: &Window,
    state: &State,
    now: Timestamp,
) -> (u32, Reason, String) {
    let current = state.current;
    let hold = |reason, message: String| (current, reason, message);
    if let Some(missing) = unknown(&sample.worker, current) {
        return hold(Reason::SignalsUnknown, format!("{missing} cannot be measured"));
    }
    if let Some((reason, words)) = sample.dependencies.fault() {
        return hold(reason, words);
    }
    let limited = sample.worker.limited.value().filter(|tasks| *tasks > policy.queue);
    let needed = needed(policy, sample, current);
    if needed.is_none_or(|needed| needed >= current) {
        return match limited {
            Some(tasks) => hold(Reason::DomainLimited, limits(tasks)),
            None => hold(Reason::Steady, "no signal is beyond its threshold".to_owned()),
        };
    }
    if let Some(tasks) = limited.filter(|_| current <= policy.limits.min) {
        return hold(Reason::DomainLimited, limits(tasks));
    }
    let length = policy.limits.stabilization;
    let most = window.covered(length, now).and_then(|all| {
        let needs = all.iter().map(|sample| needed_then(policy, sample, current));
        needs.collect::<Option<Vec<_>>>()?.into_iter().max()
    });
    match (most, limited) {
        (Some(most), _) if most < current => {
            let (reason, words) = if most == 0 {
                (Reason::Idle, "nothing to do".to_owned())
            } else {
                (Reason::Calm, format!("at most {most} were needed"))
            };
            (most, reason, format!("{words} for {}", text(length)))
        }
        (_, Some(tasks)) => hold(Reason::DomainLimited, limits(tasks)),
        _ => hold(Reason::Stabilizing, format!("calm, but not for {} yet", text(length))),
    }
}

fn limits(tasks: f64) -> String {
    format!("{tasks:.0} tasks wait for their sites, which more workers do not make faster")
}

fn unknown(worker: &WorkerSignals, current: u32) -> Option<&'static str> {
    // Without workers there is nothing to measure of them.
    let of_workers = if current == 0 {
        vec![]
    } else {
        vec![("cpu", worker.cpu), ("busy", worker.busy)]
    };
    [("queue", worker.runnable), ("wait", worker.wait)]
        .into_iter()
        .chain(of_workers)
        .find(|(_, reading)| *reading == Reading::Unknown)
        .map(|(name, _)| name)
}

/// How many workers carry what a sample saw, with room.
fn needed(policy: &WorkerPolicy, sample: &Sample, current: u32) -> Option<u32> {
    let worker = &sample.worker;
    let by_slots = count(slots(policy, worker)? / (f64::from(policy.concurrency) * ROOM));
    let pods = f64::from(worker.pods.min(current.max(1)));
    let by_cpu = match worker.cpu {
        Reading::Unknown if current > 0 => return None,
        other => count(other.or_idle().unwrap_or(0.0) * pods / (policy.cpu * ROOM)),
    };
    let busy = worker.busy.or_idle()? > 0.0 || worker.runnable.or_idle()? > 0.0;
    // An idle browser costs some CPU too: what nobody works with is not needed.
    Some(if busy { by_slots.max(by_cpu).max(1) } else { 0 })
}

/// The same for a moment of the window, at which nothing may have been unknown or down.
fn needed_then(policy: &WorkerPolicy, sample: &Sample, current: u32) -> Option<u32> {
    if !sample.dependencies.are_healthy() || unknown(&sample.worker, current).is_some() {
        return None;
    }
    needed(policy, sample, current)
}
