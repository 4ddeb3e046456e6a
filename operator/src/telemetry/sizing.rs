//! Metrics of how clusters are sized: what was seen against what, what was decided, how Prometheus answers.

use std::time::Duration;

use prometheus::{GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::scaling::{Decision, Reason, Target};

/// The signals' names of both targets.
const SIGNALS: [&str; 5] = ["cpu", "latencyP95", "errors", "queue", "wait"];

/// The metrics of decisions about sizes.
#[derive(Clone, Debug)]
pub(super) struct Sizing {
    desired: IntGaugeVec,
    decisions: IntCounterVec,
    signal: GaugeVec,
    threshold: GaugeVec,
    asked: Histogram,
    unanswered: IntCounter,
}

impl Sizing {
    pub(super) fn new() -> prometheus::Result<Self> {
        let signal = ["namespace", "cluster", "target", "signal"];
        Ok(Self {
            desired: IntGaugeVec::new(
                Opts::new(
                    "selextract_scaling_desired_replicas",
                    "Pods that the last decision asks for.",
                ),
                &["namespace", "cluster", "target"],
            )?,
            decisions: IntCounterVec::new(
                Opts::new(
                    "selextract_scaling_decisions_total",
                    "Changes of a number of pods, by target and reason.",
                ),
                &["namespace", "cluster", "target", "reason"],
            )?,
            signal: GaugeVec::new(
                Opts::new(
                    "selextract_scaling_signal",
                    "What the last look measured: shares of 1, seconds, tasks. Idle is 0; a signal that is unknown is NaN.",
                ),
                &signal,
            )?,
            threshold: GaugeVec::new(
                Opts::new(
                    "selextract_scaling_signal_threshold",
                    "What the signal is held against, in its unit.",
                ),
                &signal,
            )?,
            asked: Histogram::with_opts(
                HistogramOpts::new(
                    "selextract_scaling_query_duration_seconds",
                    "How long a Prometheus took to answer for all of its clusters.",
                )
                .buckets(super::EDGES.to_vec()),
            )?,
            unanswered: IntCounter::new(
                "selextract_scaling_query_failures_total",
                "Looks at which a Prometheus gave no good answer; meanwhile every number is held.",
            )?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.desired.clone()))?;
        registry.register(Box::new(self.decisions.clone()))?;
        registry.register(Box::new(self.signal.clone()))?;
        registry.register(Box::new(self.threshold.clone()))?;
        registry.register(Box::new(self.asked.clone()))?;
        registry.register(Box::new(self.unanswered.clone()))
    }

    pub(super) fn measured(&self, took: Duration, failed: bool) {
        self.asked.observe(took.as_secs_f64());
        self.unanswered.inc_by(failed.into());
    }

    pub(super) fn signals(&self, namespace: &str, name: &str, decision: &Decision) {
        for signal in &decision.signals {
            let labels = [namespace, name, decision.target.as_str(), signal.name];
            let value = signal.reading.or_idle().unwrap_or(f64::NAN);
            self.signal.with_label_values(&labels).set(value);
            self.threshold.with_label_values(&labels).set(signal.limit);
        }
    }

    pub(super) fn decided(&self, namespace: &str, name: &str, decision: &Decision) {
        let target = decision.target.as_str();
        self.desired
            .with_label_values(&[namespace, name, target])
            .set(decision.to.into());
        // A counter that begins with its first change hides that one from `increase`.
        for reason in Reason::ALL.into_iter().filter(|reason| reason.changes()) {
            self.decisions
                .with_label_values(&[namespace, name, target, reason.as_str()]);
        }
        if decision.to != decision.from {
            self.decisions
                .with_label_values(&[namespace, name, target, decision.reason.as_str()])
                .inc();
        }
    }

    /// It is not sized any more: its series go. A series that was never set cannot be removed; that is no fault.
    pub(super) fn forget(&self, namespace: &str, name: &str, target: Target) {
        let target = target.as_str();
        let _ = self.desired.remove_label_values(&[namespace, name, target]);
        for signal in SIGNALS {
            let _ = self.signal.remove_label_values(&[namespace, name, target, signal]);
            let _ = self.threshold.remove_label_values(&[namespace, name, target, signal]);
        }
        for reason in Reason::ALL {
            let labels = [namespace, name, target, reason.as_str()];
            let _ = self.decisions.remove_label_values(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use selextract_telemetry::render;

    use super::*;
    use crate::scaling::properties::at;

    #[test]
    fn changes_are_counted_from_nothing_and_go_with_their_cluster() {
        let (registry, sizing) = (Registry::new(), Sizing::new().unwrap());
        sizing.register(&registry).unwrap();
        let text = || render(&registry);
        let mut decision = Decision {
            target: Target::Api,
            at: at(0),
            from: 2,
            to: 2,
            wanted: 2,
            reason: Reason::Steady,
            message: String::new(),
            signals: Vec::new(),
            constraints: Vec::new(),
        };
        let count = |reason: &str, times: u32| {
            let labels = format!("cluster=\"shop\",namespace=\"web\",reason=\"{reason}\",target=\"api\"");
            format!("selextract_scaling_decisions_total{{{labels}}} {times}")
        };
        sizing.decided("web", "shop", &decision);
        assert!(text().contains(&count("CpuHigh", 0)), "{}", text());
        assert!(!text().contains("Steady"));
        (decision.to, decision.reason) = (3, Reason::CpuHigh);
        sizing.decided("web", "shop", &decision);
        assert!(text().contains(&count("CpuHigh", 1)));
        sizing.forget("web", "shop", Target::Api);
        assert!(!text().contains("shop"));
    }
}
