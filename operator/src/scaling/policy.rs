//! What the spec says about sizing, as the decisions read it. Pure.

use std::time::Duration;

use super::Peak;

/// What is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// No pod is taken away.
    pub inward: bool,
    /// No pod is added.
    pub outward: bool,
    /// Decided and explained, never done.
    pub dry_run: bool,
}

/// The bounds of a number of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The fewest.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// Calm must last so long before a pod goes.
    pub stabilization: Duration,
    /// The least time between two changes.
    pub cooldown: Duration,
    /// Times of more than the fewest.
    pub peaks: Vec<Peak>,
    /// What is left alone.
    pub pause: Pause,
}

/// How the API is sized.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiPolicy {
    /// The bounds.
    pub limits: Limits,
    /// CPU over capacity, 0 to 1.
    pub cpu: f64,
    /// For how long.
    pub cpu_for: Duration,
    /// 95th percentile, in seconds.
    pub latency: f64,
    /// Share of answers of 500 and above, 0 to 1.
    pub errors: f64,
}

/// How the workers are sized.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerPolicy {
    /// The bounds.
    pub limits: Limits,
    /// Tasks that could run now.
    pub queue: f64,
    /// Their mean wait in seconds, and the time in which a backlog should be worked off.
    pub wait: f64,
    /// CPU over capacity, 0 to 1.
    pub cpu: f64,
    /// Tasks that one pod works on at a time.
    pub concurrency: u32,
}

/// What is sized; `None` where the number is fixed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// The API.
    pub api: Option<ApiPolicy>,
    /// The workers.
    pub worker: Option<WorkerPolicy>,
}

impl Policies {
    /// How long samples are kept.
    pub fn memory(&self) -> Duration {
        let api = self.api.iter().flat_map(|api| [api.limits.stabilization, api.cpu_for]);
        let worker = self.worker.iter().map(|worker| worker.limits.stabilization);
        api.chain(worker).max().unwrap_or_default()
    }

    /// Whether anything is sized.
    pub fn any(&self) -> bool {
        self.api.is_some() || self.worker.is_some()
    }
}
