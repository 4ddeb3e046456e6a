//! Prometheus, alerts and dashboards: what has to fit together. Pure.

use std::{collections::BTreeMap, fmt};

use selextract_crds::{
    AlertsSpec, ManagedPrometheusSpec, MonitoringSpec, Percent, PrometheusProvider, PrometheusSpec, Quantity,
    RoutingSpec,
};
use selextract_task::Duration;
use url::Url;

use super::{Pod, check::Check, thresholds::Thresholds};

/// The least volume that Prometheus is given: its log of two hours and a block.
const LEAST_STORAGE_BYTES: u64 = 256 << 20;

/// Prometheus, alerts and dashboards.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitoring {
    /// The Prometheus.
    pub prometheus: Source,
    /// Whether `PodMonitor`s are wanted.
    pub pod_monitors: bool,
    /// Whether a `PrometheusRule` is wanted.
    pub rules: bool,
    /// The labels of both.
    pub object_labels: BTreeMap<String, String>,
    /// The namespace of a Prometheus of the user's own, which may reach the telemetry ports.
    pub scraper_namespace: Option<String>,
    /// The alerts; `None` where none are wanted.
    pub alerts: Option<Alerts>,
    /// The labels of the dashboards' `ConfigMap`s; `None` where no dashboards are wanted.
    pub dashboards: Option<BTreeMap<String, String>>,
}

/// Where the measurements are.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// In a Prometheus that the operator runs.
    Managed(Box<ManagedPrometheus>),
    /// In one that exists.
    External(ExternalPrometheus),
    /// Nowhere.
    None,
}

/// A Prometheus that the operator runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedPrometheus {
    /// How long measurements are kept.
    pub retention: Duration,
    /// How many bytes of them are kept at most.
    pub retention_bytes: u64,
    /// The size of the volume.
    pub storage: Quantity,
    /// Its class.
    pub storage_class_name: Option<String>,
    /// Whether the kubelets are asked too.
    pub kubelet_metrics: bool,
    /// The memory limit in bytes, which the garbage collector keeps to.
    pub memory_bytes: u64,
    /// Its pod.
    pub pod: Pod,
}

/// A Prometheus that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPrometheus {
    /// What comes before `/api/v1`.
    pub url: Url,
    /// The Secret that opens it.
    pub secret_name: Option<String>,
}

/// What people are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Alerts {
    /// From which values on.
    pub thresholds: Thresholds,
    /// What a pod's network carries in a second, in bytes.
    pub network_bytes: u64,
    /// Where the runbooks are, without a slash at the end.
    pub runbooks: String,
    /// Whom the managed Prometheus tells.
    pub alertmanagers: Vec<Url>,
    /// Who is told by severity.
    pub routing: Option<RoutingSpec>,
}

/// A Prometheus as it is asked. Its `Debug` form holds no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct PrometheusEndpoint {
    /// What comes before `/api/v1`.
    pub url: Url,
    /// What is sent to be let in.
    pub credentials: Credentials,
    /// The certificate authority of the URL, in PEM form.
    pub authority: Option<String>,
}

/// What is sent to be let in. The `Debug` form says only which kind.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    None,
    /// A bearer token.
    Token(String),
    /// Name and password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
}

impl fmt::Debug for PrometheusEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrometheusEndpoint")
            .field("url", &self.url.as_str())
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::Basic { .. } => "Basic",
        })
    }
}

impl Monitoring {
    /// The Prometheus that the operator runs, if it does.
    pub fn managed(&self) -> Option<&ManagedPrometheus> {
        match &self.prometheus {
            Source::Managed(managed) => Some(managed),
            Source::External(_) | Source::None => None,
        }
    }

    /// The Secret that opens a Prometheus that exists.
    pub fn secret_name(&self) -> Option<&str> {
        match &self.prometheus {
            Source::External(external) => external.secret_name.as_deref(),
            Source::Managed(_) | Source::None => None,
        }
    }
}

impl Check {
    pub(super) fn monitoring(&mut self, monitoring: &MonitoringSpec) -> Monitoring {
        let prometheus = &monitoring.prometheus;
        let source = self.source(prometheus);
        let derived = match &source {
            Source::External(external) => service_namespace(&external.url),
            Source::Managed(_) | Source::None => None,
        };
        Monitoring {
            prometheus: source,
            pod_monitors: prometheus.pod_monitors,
            rules: prometheus.rules,
            object_labels: prometheus.object_labels.clone(),
            scraper_namespace: prometheus.scraper_namespace.clone().or(derived),
            alerts: monitoring.alerts.enabled.then(|| self.alerts(&monitoring.alerts)),
            dashboards: monitoring
                .dashboards
                .enabled
                .then(|| monitoring.dashboards.labels.clone()),
        }
    }

    fn source(&mut self, prometheus: &PrometheusSpec) -> Source {
        let field = "spec.monitoring.prometheus";
        match (prometheus.provider, &prometheus.external) {
            (PrometheusProvider::External, Some(external)) => {
                let field = format!("{field}.external.url");
                let cure = "write scheme, host and port, and what comes before /api/v1, such as https://prometheus.monitoring.svc:9090";
                match self.url(&field, &external.url, cure) {
                    Some(url) => Source::External(ExternalPrometheus {
                        url,
                        secret_name: external.secret_name.clone(),
                    }),
                    None => Source::None,
                }
            }
            (PrometheusProvider::External, None) => {
                let cure = "name its URL in spec.monitoring.prometheus.external, or set provider to Managed or None";
                self.refuse("InvalidPrometheus", &format!("{field}.provider"), "External", cure);
                Source::None
            }
            (_, Some(external)) => {
                let cure = "it is read with provider External only; set that, or remove external";
                self.refuse(
                    "InvalidPrometheus",
                    &format!("{field}.external.url"),
                    &external.url,
                    cure,
                );
                Source::None
            }
            (PrometheusProvider::Managed, None) => Source::Managed(Box::new(self.managed(&prometheus.managed))),
            (PrometheusProvider::None, None) => Source::None,
        }
    }

    fn managed(&mut self, managed: &ManagedPrometheusSpec) -> ManagedPrometheus {
        let field = "spec.monitoring.prometheus.managed";
        self.at_least(
            &format!("{field}.retention"),
            managed.retention,
            Duration::from_secs(3600),
        );
        let storage = managed
            .storage
            .clone()
            .unwrap_or_else(|| Quantity::new(self.sizes.prometheus_storage));
        self.at_least_bytes(&format!("{field}.storage"), &storage, LEAST_STORAGE_BYTES);
        let pod = self.pod(&format!("{field}.pod"), &managed.pod, &self.sizes.prometheus);
        ManagedPrometheus {
            retention: managed.retention,
            // The rest is for the log and for blocks that are being made of others.
            retention_bytes: storage.units().unwrap_or_default() / 5 * 4,
            storage,
            storage_class_name: managed.storage_class_name.clone(),
            kubelet_metrics: managed.kubelet_metrics,
            memory_bytes: pod.limits.memory.as_ref().and_then(Quantity::units).unwrap_or_default(),
            pod,
        }
    }

    fn alerts(&mut self, alerts: &AlertsSpec) -> Alerts {
        let field = "spec.monitoring.alerts";
        let network_bytes = self.bytes(&format!("{field}.networkBandwidth"), &alerts.network_bandwidth);
        if network_bytes == 0 {
            let cure = "a share of nothing says nothing; write bytes a second, such as 125M for 1 Gbit/s";
            let value = alerts.network_bandwidth.as_str();
            self.refuse("InvalidQuantity", &format!("{field}.networkBandwidth"), value, cure);
        }
        let cure = "write scheme, host and port, and a path where there is one, such as http://alertmanager.monitoring.svc:9093";
        let alertmanagers = alerts.alertmanagers.iter();
        Alerts {
            thresholds: self.thresholds(&alerts.thresholds),
            network_bytes,
            runbooks: alerts.runbook_base_url.trim_end_matches('/').to_owned(),
            alertmanagers: alertmanagers
                .filter_map(|url| self.url(&format!("{field}.alertmanagers"), url, cure))
                .collect(),
            routing: alerts.routing.clone(),
        }
    }

    fn url(&mut self, field: &str, text: &str, cure: &str) -> Option<Url> {
        let url = Url::parse(text).ok().filter(|url| {
            let open = url.username().is_empty() && url.password().is_none();
            let plain = url.query().is_none() && url.fragment().is_none();
            ["http", "https"].contains(&url.scheme()) && url.has_host() && plain && open
        });
        if url.is_none() {
            // A URL may hold a password, which is not repeated.
            let told = if text.contains('@') {
                "a URL with credentials"
            } else {
                text
            };
            self.refuse("InvalidURL", field, told, cure);
        }
        url
    }

    pub(super) fn share(&mut self, field: &str, share: &Percent) -> f64 {
        let millionths = share.millionths().unwrap_or_else(|| {
            self.refuse(
                "InvalidThreshold",
                field,
                share.as_str(),
                "write a share such as 5% or 0.1%",
            );
            0
        });
        f64::from(millionths) / 1e6
    }
}

/// The namespace of a Service that a URL names.
fn service_namespace(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    let mut parts = host.trim_end_matches(".cluster.local").rsplit('.');
    (parts.next()? == "svc").then(|| parts.next().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validated::{Defaults, Refusal, ValidatedCluster, validate};

    fn read(monitoring: &serde_json::Value) -> Result<ValidatedCluster, Vec<Refusal>> {
        let cluster = serde_json::from_value(json!({
            "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
            "metadata": { "name": "shop", "namespace": "web", "uid": "u" },
            "spec": { "profile": "Small", "monitoring": monitoring },
        }));
        let defaults = Defaults {
            registry: String::new(),
            tag: "1".into(),
            namespace: "ops".into(),
            subject: "system:serviceaccount:ops:o".into(),
        };
        validate(&cluster.unwrap(), &defaults)
    }

    #[test]
    fn an_empty_spec_has_a_prometheus_that_keeps_a_month_within_its_volume() {
        let monitoring = read(&json!({})).unwrap().monitoring;
        let managed = monitoring.managed().unwrap();
        assert_eq!(managed.retention, Duration::from_secs(31 * 86_400));
        assert_eq!(managed.retention_bytes, (2 << 30) / 5 * 4);
        assert!(monitoring.alerts.is_some() && monitoring.dashboards.is_none());
    }

    #[test]
    fn a_prometheus_that_exists_needs_a_url_and_its_namespace_is_read_from_it() {
        let external = |url: &str| json!({ "prometheus": { "provider": "External", "external": { "url": url } } });
        let found = read(&external("https://prometheus.monitoring.svc:9090/team"))
            .unwrap()
            .monitoring;
        assert_eq!(found.scraper_namespace.as_deref(), Some("monitoring"));
        for bad in [
            "prometheus:9090",
            "ftp://prometheus",
            "http://a:hunter2@prometheus",
            "http://p?x=1",
        ] {
            let refusals = read(&external(bad)).unwrap_err();
            assert_eq!(refusals[0].reason, "InvalidURL", "{bad}");
            assert!(
                refusals[0]
                    .message
                    .starts_with("spec.monitoring.prometheus.external.url is "),
                "{bad}"
            );
            assert!(!refusals[0].message.contains("hunter2"));
        }
    }

    #[test]
    fn provider_and_external_go_together() {
        for bad in [
            json!({ "prometheus": { "provider": "External" } }),
            json!({ "prometheus": { "external": { "url": "http://p:9090" } } }),
        ] {
            assert_eq!(read(&bad).unwrap_err()[0].reason, "InvalidPrometheus");
        }
    }

    #[test]
    fn a_warning_beyond_its_critical_is_refused() {
        let bad = json!({ "alerts": { "thresholds": { "login": { "warning": "5s" }, "cpu": { "target": "99%" } } } });
        let refusals = read(&bad).unwrap_err();
        let messages: Vec<_> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
        assert!(
            messages[0].starts_with("spec.monitoring.alerts.thresholds.login is "),
            "{messages:?}"
        );
        assert!(
            messages[1].starts_with("spec.monitoring.alerts.thresholds.cpu is "),
            "{messages:?}"
        );
    }

    #[test]
    fn credentials_are_never_in_the_debug_form() {
        let endpoint = PrometheusEndpoint {
            url: Url::parse("https://p").unwrap(),
            credentials: Credentials::Basic {
                username: "reader".into(),
                password: "hunter2".into(),
            },
            authority: None,
        };
        let text = format!("{endpoint:?} {:?}", Credentials::Token("hunter2".into()));
        assert!(!text.contains("hunter2") && !text.contains("reader"), "{text}");
    }
}
