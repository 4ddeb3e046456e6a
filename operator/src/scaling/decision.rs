//! A decision with everything that explains it. One [`Reason`] feeds the log line, the event, the status and the metric's label.

use std::fmt;

use jiff::Timestamp;

use super::Reading;

/// What is sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The API.
    Api,
    /// The workers.
    Worker,
}

impl Target {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Api, Self::Worker];

    /// As in labels and in `status.scaling`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }
}

/// Why a number of pods changes or stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// CPU is above its threshold, for long enough.
    CpuHigh,
    /// The response time is.
    LatencyHigh,
    /// The share of failed answers is.
    ErrorsHigh,
    /// More tasks could run than the threshold allows.
    QueueLong,
    /// They wait for longer than the threshold.
    WaitLong,
    /// There was no worker, and a task came.
    Woken,
    /// Fewer pods carry what was to be done through the whole window.
    Calm,
    /// Nothing was to be done through the whole window.
    Idle,
    /// A known peak begins.
    Scheduled,
    /// The number lay below the spec's minimum.
    BelowMinimum,
    /// The number lay above the spec's maximum.
    AboveMaximum,
    /// Nothing asks for another number.
    Steady,
    /// Something cannot be seen: nothing is done.
    SignalsUnknown,
    /// What the pods stand on is down: more of them would be more clients of an outage.
    DependencyUnhealthy,
    /// What waits, waits for its sites: more workers do not help it.
    DomainLimited,
    /// It was not calm for long enough yet.
    Stabilizing,
    /// The last change is too fresh.
    Cooldown,
    /// One step at a time.
    Step,
    /// Pods that were asked for are not ready yet.
    PodsPending,
    /// The spec's minimum.
    AtMinimum,
    /// The spec's maximum.
    AtMaximum,
    /// The pooler admits no more clients.
    ConnectionBudget,
    /// The namespace's quota admits no more pods.
    Quota,
    /// `spec.scaling.paused`.
    Paused,
    /// `spec.scaling.dryRun`.
    DryRun,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 25] = [
        Self::CpuHigh,
        Self::LatencyHigh,
        Self::ErrorsHigh,
        Self::QueueLong,
        Self::WaitLong,
        Self::Woken,
        Self::Calm,
        Self::Idle,
        Self::Scheduled,
        Self::BelowMinimum,
        Self::AboveMaximum,
        Self::Steady,
        Self::SignalsUnknown,
        Self::DependencyUnhealthy,
        Self::DomainLimited,
        Self::Stabilizing,
        Self::Cooldown,
        Self::Step,
        Self::PodsPending,
        Self::AtMinimum,
        Self::AtMaximum,
        Self::ConnectionBudget,
        Self::Quota,
        Self::Paused,
        Self::DryRun,
    ];

    /// Whether a number changes for it; the others hold or bound one.
    pub const fn changes(self) -> bool {
        matches!(
            self,
            Self::CpuHigh
                | Self::LatencyHigh
                | Self::ErrorsHigh
                | Self::QueueLong
                | Self::WaitLong
                | Self::Woken
                | Self::Calm
                | Self::Idle
                | Self::Scheduled
                | Self::BelowMinimum
                | Self::AboveMaximum
        )
    }

    /// As in status, events and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CpuHigh => "CpuHigh",
            Self::LatencyHigh => "LatencyHigh",
            Self::ErrorsHigh => "ErrorsHigh",
            Self::QueueLong => "QueueLong",
            Self::WaitLong => "WaitLong",
            Self::Woken => "Woken",
            Self::Calm => "Calm",
            Self::Idle => "Idle",
            Self::Scheduled => "Scheduled",
            Self::BelowMinimum => "BelowMinimum",
            Self::AboveMaximum => "AboveMaximum",
            Self::Steady => "Steady",
            Self::SignalsUnknown => "SignalsUnknown",
            Self::DependencyUnhealthy => "DependencyUnhealthy",
            Self::DomainLimited => "DomainLimited",
            Self::Stabilizing => "Stabilizing",
            Self::Cooldown => "Cooldown",
            Self::Step => "Step",
            Self::PodsPending => "PodsPending",
            Self::AtMinimum => "AtMinimum",
            Self::AtMaximum => "AtMaximum",
            Self::ConnectionBudget => "ConnectionBudget",
            Self::Quota => "Quota",
            Self::Paused => "Paused",
            Self::DryRun => "DryRun",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is now, besides what was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The number that was decided last.
    pub current: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// When the number changed last.
    pub changed: Option<Timestamp>,
    /// What the surroundings admit: the pooler's clients, the namespace's quota.
    pub ceilings: Vec<(Constraint, u32)>,
}

/// One signal as a decision saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its name: `cpu`, `latencyP95`, `errors`, `queue`, `wait`.
    pub name: &'static str,
    /// What was measured.
    pub reading: Reading,
    /// That for people, with its unit.
    pub value: String,
    /// The threshold, in the reading's unit.
    pub limit: f64,
    /// That for people.
    pub threshold: String,
    /// Since when it is beyond the threshold.
    pub since: Option<Timestamp>,
}

impl Signal {
    /// `CPU 82 % > 70 %`, for messages.
    pub fn comparison(&self) -> String {
        format!("{} {} > {}", self.name, self.value, self.threshold)
    }
}

/// What bound a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// Which.
    pub reason: Reason,
    /// What it says.
    pub message: String,
}

/// How many pods there should be, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Of what.
    pub target: Target,
    /// When it was taken.
    pub at: Timestamp,
    /// The number before.
    pub from: u32,
    /// The number from now on.
    pub to: u32,
    /// What the signals alone ask for.
    pub wanted: u32,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// What was measured.
    pub signals: Vec<Signal>,
    /// What bound it, in the order in which it did.
    pub constraints: Vec<Constraint>,
}
