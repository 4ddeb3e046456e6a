//! The platform-wide gauges; they come from the keeper alone, so that they are not counted twice.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};
use selextract_platform::{
    frontier::Size,
    ledger::{
        maintenance::{Backlog, Swept},
        ticks::Ticked,
    },
};

/// The keeper's metrics.
pub(super) struct Gauges {
    active: IntGauge,
    tasks: IntGaugeVec,
    oldest: Gauge,
    frontier: IntGaugeVec,
    refilled: IntCounter,
    swept: IntCounterVec,
    ticks: IntCounterVec,
}

impl Gauges {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauges = Self {
            active: add(
                registry,
                IntGauge::new("selextract_keeper_active", "1 for the keeper that holds the lease.")?,
            )?,
            tasks: add(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "selextract_tasks",
                        "Open tasks in the ledger by state; due are those of the pending ones that could run now.",
                    ),
                    &["state"],
                )?,
            )?,
            oldest: add(
                registry,
                Gauge::new(
                    "selextract_task_oldest_due_seconds",
                    "How long the oldest due task has waited for a worker.",
                )?,
            )?,
            frontier: add(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "selextract_frontier_entries",
                        "Entries of the frontier: runnable now, limited by their hosts, or later.",
                    ),
                    &["state"],
                )?,
            )?,
            refilled: add(
                registry,
                IntCounter::new(
                    "selextract_frontier_refilled_total",
                    "Entries that the refill put into the frontier.",
                )?,
            )?,
            swept: add(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "selextract_leases_expired_total",
                        "Leases that were taken back, by what became of the task.",
                    ),
                    &["outcome"],
                )?,
            )?,
            ticks: add(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "selextract_schedule_ticks_total",
                        "Ticks of schedules: those that started a run, and those that were missed, too late or overtaken by the next one.",
                    ),
                    &["outcome"],
                )?,
            )?,
        };
        for outcome in ["started", "missed"] {
            gauges.ticks.with_label_values(&[outcome]);
        }
        for state in ["pending", "due", "running"] {
            gauges.tasks.with_label_values(&[state]);
        }
        for outcome in ["returned", "exhausted"] {
            gauges.swept.with_label_values(&[outcome]);
        }
        Ok(gauges)
    }

    pub(super) fn active(&self, active: bool) {
        self.active.set(active.into());
        if !active {
            // Another keeper speaks for the platform now.
            self.tasks.reset();
            self.frontier.reset();
            self.oldest.set(0.0);
        }
    }

    pub(super) fn backlog(&self, backlog: Backlog) {
        for (state, count) in [
            ("pending", backlog.pending),
            ("due", backlog.due),
            ("running", backlog.running),
        ] {
            self.tasks.with_label_values(&[state]).set(count);
        }
        self.oldest.set(backlog.oldest_due_seconds);
    }

    pub(super) fn frontier(&self, size: Size) {
        for (state, count) in [
            ("runnable", size.runnable),
            ("limited", size.limited),
            ("later", size.later),
        ] {
            self.frontier
                .with_label_values(&[state])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn refilled(&self, count: u64) {
        self.refilled.inc_by(count);
    }

    pub(super) fn ticked(&self, ticked: Ticked) {
        for (outcome, count) in [("started", ticked.started), ("missed", ticked.missed)] {
            self.ticks.with_label_values(&[outcome]).inc_by(count);
        }
    }

    pub(super) fn swept(&self, swept: Swept) {
        for (outcome, count) in [("returned", swept.returned), ("exhausted", swept.exhausted)] {
            self.swept
                .with_label_values(&[outcome])
                .inc_by(u64::try_from(count).unwrap_or_default());
        }
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
