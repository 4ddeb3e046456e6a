//! What the API needs (guide: "API Layer Scaling"): a pod more while CPU, response time or errors are too high, a pod fewer after calm. Pure.

use jiff::Timestamp;

use super::{
    ApiPolicy, Decision, Reading, Reason, Sample, Signal, State, Target, Window,
    bounds::{Step, Wish, bound, text},
    signals::since,
};

/// With one pod fewer, CPU must stay below this share of its threshold: what goes must not come back at once.
const ROOM: f64 = 0.9;
/// The response time must be below this share of its threshold: what one pod fewer makes of it cannot be computed.
const LATENCY_ROOM: f64 = 0.8;

/// Decides how many API pods there should be.
pub fn decide(policy: &ApiPolicy, window: &Window, state: &State, now: Timestamp) -> Decision {
    let wish = wish(policy, window, state, now);
    bound(Target::Api, &policy.limits, state, wish, Step::One, now)
}

fn wish(policy: &ApiPolicy, window: &Window, state: &State, now: Timestamp) -> Wish {
    let current = state.current;
    let Some(sample) = window.newest(now) else {
        return Wish {
            to: current,
            reason: Reason::SignalsUnknown,
            message: "nothing was measured in the last 30 s".to_owned(),
            signals: signals(policy, None, window, now),
        };
    };
    let signals = signals(policy, Some(sample), window, now);
    let (to, reason, message) = match trigger(policy, sample, &signals, now) {
        Some((reason, message)) => (current + u32::from(reason.changes()), reason, message),
        None => rest(policy, sample, window, state, now),
    };
    Wish {
        to,
        reason,
        message,
        signals,
    }
}

fn signals(policy: &ApiPolicy, sample: Option<&Sample>, window: &Window, now: Timestamp) -> Vec<Signal> {
    let api = sample.map(|sample| sample.api);
    let reading = |pick: fn(&super::ApiSignals) -> Reading| api.as_ref().map_or(Reading::Unknown, pick);
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let of =
        |name, reading: Reading, value: String, limit: f64, threshold: String, above: fn(&Sample) -> Reading| Signal {
            name,
            reading,
            value,
            limit,
            threshold,
            since: window.holds_since(now, |sample| above(sample).is_above(limit)),
        };
    let show = |reading: Reading, text: fn(f64) -> String| reading.value().map(text).unwrap_or_default();
    let (cpu, latency, errors) = (
        reading(|api| api.cpu),
        reading(|api| api.latency),
        reading(|api| api.errors),
    );
    vec![
        of(
            "cpu",
            cpu,
            show(cpu, |share| format!("{:.0} %", share * 100.0)),
            policy.cpu,
            percent(policy.cpu),
            |sample| sample.api.cpu,
        ),
        of(
            "latencyP95",
            latency,
            show(latency, seconds),
            policy.latency,
            seconds(policy.latency),
            |sample| sample.api.latency,
        ),
        of(
            "errors",
            errors,
            show(errors, |share| format!("{:.2} %", share * 100.0)),
            policy.errors,
            percent(policy.errors),
            |sample| sample.api.errors,
        ),
    ]
}

/// Seconds for people.
pub fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    }
}

/// What asks for a pod more, CPU first: it says the most about what a pod more would help.
fn trigger(policy: &ApiPolicy, sample: &Sample, signals: &[Signal], now: Timestamp) -> Option<(Reason, String)> {
    let [cpu, latency, errors] = signals else { return None };
    if let Some(begin) = cpu.since
        && since(begin, now) >= policy.cpu_for
    {
        let lasted = text(std::time::Duration::from_secs(since(begin, now).as_secs()));
        return Some((Reason::CpuHigh, format!("{} for {lasted}", cpu.comparison())));
    }
    let (reason, signal) = match (latency.since, errors.since) {
        (Some(_), _) => (Reason::LatencyHigh, latency),
        (None, Some(_)) => (Reason::ErrorsHigh, errors),
        (None, None) => return None,
    };
    let Some((held, words)) = sample.dependencies.fault() else {
        return Some((reason, signal.comparison()));
    };
    let message = format!(
        "{}, but {words}, and more pods would be more clients of an outage",
        signal.comparison()
    );
    Some((held, message))
}

/// What holds, or what lets a pod go.
fn rest(policy: &ApiPolicy, sample: &Sample, window: &Window, state: &State, now: Timestamp) -> (u32, Reason, String) {
    let current = state.current;
    let hold = |reason, message: String| (current, reason, message);
    if let Some(missing) = unknown(sample) {
        return hold(Reason::SignalsUnknown, format!("{missing} cannot be measured"));
    }
    if let Some((reason, words)) = sample.dependencies.fault() {
        return hold(reason, words);
    }
    let fewer = current.saturating_sub(1);
    if fewer == 0 || !is_calm(policy, sample, fewer) {
        return hold(
            Reason::Steady,
            "no signal is beyond its threshold, and one pod fewer could not carry this".to_owned(),
        );
    }
    if current <= policy.limits.min {
        return hold(Reason::Steady, "no signal is beyond its threshold".to_owned());
    }
    let length = policy.limits.stabilization;
    match window.covered(length, now) {
        Some(all) if all.iter().all(|sample| is_calm(policy, sample, fewer)) => {
            let idle = all.iter().all(|sample| sample.api.latency == Reading::Idle);
            let (reason, words) = if idle {
                (Reason::Idle, "no request")
            } else {
                (Reason::Calm, "one pod fewer carries what came")
            };
            (fewer, reason, format!("{words} for {}", text(length)))
        }
        _ => hold(Reason::Stabilizing, format!("calm, but not for {} yet", text(length))),
    }
}

fn unknown(sample: &Sample) -> Option<&'static str> {
    let api = sample.api;
    [("cpu", api.cpu), ("latencyP95", api.latency), ("errors", api.errors)]
        .into_iter()
        .find(|(_, reading)| *reading == Reading::Unknown)
        .map(|(name, _)| name)
}

/// Whether so many pods would have carried what this sample saw.
fn is_calm(policy: &ApiPolicy, sample: &Sample, pods: u32) -> bool {
    let api = sample.api;
    let had = f64::from(api.pods.max(1));
    let projected = api.cpu.or_idle().map(|cpu| cpu * had / f64::from(pods.max(1)));
    sample.dependencies.are_healthy()
        && projected.is_some_and(|cpu| cpu <= policy.cpu * ROOM)
        && api.latency.is_calm(policy.latency * LATENCY_ROOM)
        && api.errors.is_calm(policy.errors)
}
