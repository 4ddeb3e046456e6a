//! The condition `MonitoringReady`. Nothing waits for it: a platform works unmeasured. Pure.

use super::{Outcome, belongs};
use crate::{
    build::{Child, Component, Served},
    cluster::workload::Progress,
    conditions::Verdict,
    validated::{Monitoring, Refusal, Source},
};

const KIND: &str = "MonitoringReady";
/// The reason where a server is there and does not answer.
const NO_ANSWER: &str = "NotAnswering";
/// What that means.
const HELD: &str = "Meanwhile the numbers of pods stay as they are.";

/// What was found about monitoring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitoringFound {
    /// What is wrong with the Secret of a Prometheus that exists.
    pub fault: Option<Refusal>,
    /// Which kinds of the Prometheus operator are served.
    pub served: Served,
    /// Whether the kubelets may be asked; `None` where it is not known.
    pub kubelet_right: Option<bool>,
    /// Why Prometheus was asked in vain for a while.
    pub silence: Option<String>,
}

impl Outcome<'_> {
    /// Whether the platform is measured as the spec asks.
    pub(super) fn monitoring(&self) -> Verdict {
        let Some(cluster) = self.cluster.filter(|_| !self.children.is_empty()) else {
            return Verdict::unknown(KIND, "NotEvaluated", "It is left as it is until the fault is mended.");
        };
        if let Some(fault) = &self.monitoring.fault {
            return Verdict::no(KIND, fault.reason, fault.message.clone());
        }
        if let Some(refused) = self.refused.iter().find(|refused| is_monitoring(&refused.component)) {
            return Verdict::no(KIND, refused.reason, refused.message.clone());
        }
        if let Some(missing) = self.missing_kind(&cluster.monitoring) {
            return missing;
        }
        match &cluster.monitoring.prometheus {
            Source::None => Verdict::yes(
                KIND,
                "NotWanted",
                "The spec asks for no Prometheus: nothing is scaled by what is measured.",
            ),
            Source::External(external) => {
                let host = external.url.host_str().unwrap_or_default();
                match &self.monitoring.silence {
                    Some(words) => {
                        let cure = "look at spec.monitoring.prometheus.external (url, secretName) and at that server";
                        Verdict::no(KIND, NO_ANSWER, format!("{words} at {host}: {cure}. {HELD}"))
                    }
                    None => Verdict::yes(KIND, "External", format!("What is measured is asked of {host}.")),
                }
            }
            Source::Managed(managed) => self.managed(managed.kubelet_metrics),
        }
    }

    fn missing_kind(&self, monitoring: &Monitoring) -> Option<Verdict> {
        let served = self.monitoring.served;
        let (field, kind) = if monitoring.pod_monitors && !served.pod_monitors {
            ("podMonitors", "PodMonitor")
        } else if monitoring.rules && !served.rules {
            ("rules", "PrometheusRule")
        } else {
            return None;
        };
        let message = format!(
            "spec.monitoring.prometheus.{field} is true, and the API server does not serve {kind} of monitoring.coreos.com/v1: \
             install the Prometheus operator, or set it to false."
        );
        Some(Verdict::no(KIND, "KindMissing", message))
    }

    fn managed(&self, kubelets: bool) -> Verdict {
        let component = Component::Prometheus;
        if let Some(trouble) = self.troubles.get(component.as_str()) {
            return Verdict::no(KIND, trouble.cause.as_str(), trouble.message.clone());
        }
        let of_it: Vec<&Child> = self.workloads().filter(|child| belongs(child, &[component])).collect();
        if of_it.iter().any(|child| self.live_of(child).is_none()) {
            return Verdict::no(KIND, "Waiting", "It waits for an earlier part.");
        }
        if of_it.iter().any(|child| self.progress_of(child) != Progress::Done) {
            return Verdict::no(KIND, "Progressing", "Prometheus is not ready yet.");
        }
        if let Some(words) = &self.monitoring.silence {
            let cure = "look at the pods and the log of Prometheus";
            return Verdict::no(KIND, NO_ANSWER, format!("{words}: {cure}. {HELD}"));
        }
        match (kubelets, self.monitoring.kubelet_right) {
            (false, _) => Verdict::yes(KIND, "Available", "Prometheus runs; the kubelets' metrics are off."),
            (true, Some(true)) => Verdict::yes(KIND, "Available", "Prometheus runs and reads the kubelets' metrics."),
            (true, Some(false)) => Verdict::no(
                KIND,
                "KubeletMetricsForbidden",
                format!("Prometheus runs and may not read the kubelets' metrics. {GRANT}"),
            ),
            (true, None) => Verdict::yes(
                KIND,
                "Available",
                format!("Prometheus runs; whether it may read the kubelets' metrics is not known. {GRANT}"),
            ),
        }
    }
}

const GRANT: &str = "Grant it with the chart selextract-operator (kubeletMetrics.enabled and kubeletMetrics.serviceAccounts), or set \
                     spec.monitoring.prometheus.managed.kubeletMetrics to false.";

/// Whether a refused child is one of monitoring, which stalls nothing else.
pub(super) fn is_monitoring(component: &str) -> bool {
    [Component::Prometheus.as_str(), "monitoring"].contains(&component)
}
