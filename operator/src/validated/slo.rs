//! What is promised, as numbers. Pure.

use selextract_crds::{AlertsSpec, Percent, SloProfile, SloSpec};
use selextract_task::Duration;

use super::{Levels, Thresholds, check::Check};

/// What is promised.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    /// The availability that is promised, as a share of 1; `None` for best effort.
    pub availability: Option<f64>,
    /// Below which availability is at Warning and Critical, as shares of 1.
    pub availability_levels: [f64; 2],
    /// API response time, P95, in seconds.
    pub response_time_p95: Levels,
    /// API response time, P99, in seconds.
    pub response_time_p99: Levels,
    /// Memory of a pod, as a share of 1.
    pub memory: Levels,
    /// How soon the API is back after an outage.
    pub recovery_time: Duration,
    /// The objectives that are the alerts' thresholds too, whether alerts are wanted or not.
    pub thresholds: Thresholds,
    /// What a pod's network carries in a second, in bytes.
    pub network_bytes: u64,
}

impl Check {
    pub(super) fn slo(&mut self, slo: &SloSpec, alerts: &AlertsSpec) -> Slo {
        let targets = &slo.targets;
        let (thresholds, network_bytes) = if alerts.enabled {
            self.again(|check| check.alert_levels(alerts))
        } else {
            self.alert_levels(alerts)
        };
        let levels = [&targets.availability.warning, &targets.availability.critical];
        Slo {
            availability: self.availability(slo),
            availability_levels: self.availability_levels(levels),
            response_time_p95: self.objective_times("responseTimeP95", targets.response_time_p95.all()),
            response_time_p99: self.objective_times("responseTimeP99", targets.response_time_p99.all()),
            memory: self.objective_shares("memory", targets.memory.all()),
            recovery_time: targets.recovery_time,
            thresholds,
            network_bytes,
        }
    }

    fn alert_levels(&mut self, alerts: &AlertsSpec) -> (Thresholds, u64) {
        let bandwidth = self.bytes("spec.monitoring.alerts.networkBandwidth", &alerts.network_bandwidth);
        (self.thresholds(&alerts.thresholds), bandwidth)
    }

    fn availability(&mut self, slo: &SloSpec) -> Option<f64> {
        let field = field("availability.target");
        let by_profile = match slo.profile {
            SloProfile::Production => Some(0.999),
            SloProfile::Staging => Some(0.99),
            SloProfile::Development => None,
        };
        let Some(own) = &slo.targets.availability.target else {
            return by_profile;
        };
        let target = self.share(&field, own);
        if !(0.5..1.0).contains(&target) {
            let cure = "it must be at least 50% and below 100%, which leaves no error budget at all; write a share such as 99.95%";
            self.refuse("InvalidObjective", &field, own.as_str(), cure);
        }
        Some(target)
    }

    fn availability_levels(&mut self, levels: [&Percent; 2]) -> [f64; 2] {
        let texts = levels.map(Percent::as_str).join(", ");
        let levels = levels.map(|level| self.share(&field("availability"), level));
        if levels[1] > levels[0] || levels[0] > 1.0 {
            let cure = "warning and critical must be at most 100% and must not rise in this order; lower critical or raise warning";
            self.refuse("InvalidObjective", &field("availability"), texts, cure);
        }
        levels
    }

    fn objective_shares(&mut self, name: &str, levels: [&Percent; 3]) -> Levels {
        let texts = levels.map(Percent::as_str).join(", ");
        let levels = levels.map(|level| self.share(&field(name), level));
        self.worsening(name, &texts, levels)
    }

    fn objective_times(&mut self, name: &str, levels: [&Duration; 3]) -> Levels {
        let texts = levels.map(ToString::to_string).join(", ");
        self.worsening(name, &texts, levels.map(|level| level.get().as_secs_f64()))
    }

    fn worsening(&mut self, name: &str, texts: &str, levels: Levels) -> Levels {
        if !levels.is_sorted() {
            let cure = "target, warning and critical must not fall in this order; raise the later ones or lower the earlier ones";
            self.refuse("InvalidObjective", &field(name), texts, cure);
        }
        levels
    }
}

fn field(name: &str) -> String {
    format!("spec.slo.targets.{name}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        build::fixture,
        validated::{Defaults, Refusal, ValidatedCluster, validate},
    };

    fn read(spec: &Value) -> Result<ValidatedCluster, Vec<Refusal>> {
        let cluster = serde_json::from_value(json!({
            "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
            "metadata": { "name": "shop", "namespace": "web", "uid": "u" }, "spec": spec,
        }));
        let defaults = Defaults {
            registry: String::new(),
            tag: "1".into(),
            namespace: "ops".into(),
            subject: "system:serviceaccount:ops:o".into(),
        };
        validate(&cluster.unwrap(), &defaults)
    }

    fn is(share: Option<f64>, expected: f64) -> bool {
        share.is_some_and(|share| (share - expected).abs() < 1e-9)
    }

    #[test]
    fn the_profiles_promise_what_the_guide_says_and_a_target_of_ones_own_comes_first() {
        assert!(is(fixture::minimal().slo.availability, 0.999));
        let of = |slo: Value| read(&json!({ "slo": slo })).unwrap().slo.availability;
        assert!(is(of(json!({ "profile": "Staging" })), 0.99));
        assert_eq!(of(json!({ "profile": "Development" })), None);
        let own = json!({ "profile": "Staging", "targets": { "availability": { "target": "99.95%" } } });
        assert!(is(of(own), 0.9995));
    }

    #[test]
    fn the_defaults_are_the_guides_figures() {
        let slo = fixture::minimal().slo;
        assert_eq!(Some(slo.response_time_p95), Some([0.5, 1.0, 2.0]));
        assert_eq!(Some(slo.response_time_p99), Some([1.0, 2.0, 5.0]));
        assert_eq!(Some(slo.memory), Some([0.7, 0.85, 0.95]));
        assert_eq!(Some(slo.availability_levels), Some([0.995, 0.99]));
        assert_eq!(slo.recovery_time, Duration::from_secs(15 * 60));
        assert_eq!(Some(slo.thresholds.task_results), Some([0.2, 0.6, 1.5]));
    }

    #[test]
    fn objectives_that_cannot_be_are_refused_with_field_value_and_cure() {
        let refusals = read(&json!({ "slo": { "targets": {
            "availability": { "target": "100%", "warning": "99%", "critical": "99.5%" },
            "responseTimeP95": { "warning": "3s" },
            "memory": { "target": "90%" },
        } } }))
        .unwrap_err();
        let told: Vec<_> = refusals
            .iter()
            .map(|refusal| refusal.message.split(':').next().unwrap())
            .collect();
        assert_eq!(
            told,
            [
                "spec.slo.targets.availability.target is \"100%\"",
                "spec.slo.targets.availability is \"99%, 99.5%\"",
                "spec.slo.targets.responseTimeP95 is \"500ms, 3s, 2s\"",
                "spec.slo.targets.memory is \"90%, 85%, 95%\"",
            ]
        );
    }

    #[test]
    fn a_wrong_threshold_is_told_once_whether_alerts_are_wanted_or_not() {
        for enabled in [true, false] {
            let alerts = json!({ "enabled": enabled, "thresholds": { "cpu": { "target": "99%" } } });
            let refusals = read(&json!({ "monitoring": { "alerts": alerts } })).unwrap_err();
            assert_eq!(refusals.len(), 1, "{refusals:?}");
        }
    }
}
