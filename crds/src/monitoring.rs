//! The section of monitoring: who measures, who is told, what is drawn.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use selextract_task::Duration;
use serde::{Deserialize, Serialize};

use crate::{
    pod::{PodSettings, Quantity},
    schema::{may_only_grow, rule},
    thresholds::ThresholdsSpec,
};

/// Prometheus, alerts and dashboards (guide: "Performance Monitoring").
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MonitoringSpec {
    /// The Prometheus that measures the platform.
    pub prometheus: PrometheusSpec,

    /// What people are told, and from when on (guide: "Alerting Strategy").
    pub alerts: AlertsSpec,

    /// Grafana's dashboards (guide: "Grafana Dashboards").
    pub dashboards: DashboardsSpec,
}

/// The Prometheus that measures the platform.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "(self.provider == 'External') == has(self.external)",
        "monitoring.prometheus.external goes with provider External: give the URL there, or set provider to Managed or None and remove external",
    ),
]))]
pub struct PrometheusSpec {
    /// Managed: the operator runs a small Prometheus. External: one exists, whose address external gives. None: nothing is measured, so nothing is scaled by what is measured.
    pub provider: PrometheusProvider,

    /// The Prometheus that the operator runs, with provider Managed.
    pub managed: ManagedPrometheusSpec,

    /// The Prometheus that exists, with provider External.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalPrometheusSpec>,

    /// PodMonitors for a Prometheus of your own, where the Prometheus operator's kinds are served.
    pub pod_monitors: bool,

    /// The alerts as a PrometheusRule for a Prometheus of your own, where the Prometheus operator's kinds are served.
    pub rules: bool,

    /// Labels of PodMonitors and PrometheusRule, by which a Prometheus of your own selects them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub object_labels: BTreeMap<String, String>,

    /// The namespace of a Prometheus of your own, from which the telemetry ports may be reached. Without it that of external.url, if a Service is named there, and otherwise none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub scraper_namespace: Option<String>,
}

/// Who runs Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PrometheusProvider {
    /// The operator.
    #[default]
    Managed,
    /// Somebody else.
    External,
    /// Nobody.
    None,
}

/// The Prometheus that the operator runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "has(self.storageClassName) == has(oldSelf.storageClassName)",
        "monitoring.prometheus.managed.storageClassName cannot be set or removed later; set provider to None, delete the claim <name>-prometheus-data, and set it anew: what was measured is lost",
    ),
]))]
pub struct ManagedPrometheusSpec {
    /// How long what was measured is kept. Error budgets look back over 30 days. When the volume is four fifths full the oldest goes sooner.
    pub retention: Duration,

    /// The size of the volume. It may only grow. Without it the profile gives it: Current 10Gi, Small 2Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [may_only_grow("monitoring.prometheus.managed.storage")]))]
    pub storage: Option<Quantity>,

    /// The StorageClass of the volume. Without it the cluster's default class. It cannot change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = [rule(
        "self == oldSelf",
        "monitoring.prometheus.managed.storageClassName cannot change; set provider to None, delete the claim <name>-prometheus-data, and set it anew: what was measured is lost",
    )]))]
    pub storage_class_name: Option<String>,

    /// Read CPU and memory of all pods, stores included, from the kubelets' /metrics/resource too. That needs a right on nodes, which the operator's chart gives with kubeletMetrics.serviceAccounts; the condition MonitoringReady says whether it is there.
    pub kubelet_metrics: bool,

    /// The pod of Prometheus.
    pub pod: PodSettings,
}

impl Default for ManagedPrometheusSpec {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(31 * 86_400),
            storage: None,
            storage_class_name: None,
            kubelet_metrics: false,
            pod: PodSettings::default(),
        }
    }
}

/// The Prometheus that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalPrometheusSpec {
    /// Where its API is, such as https://prometheus.monitoring.svc:9090 or https://thanos.example.org/team: what comes before /api/v1.
    #[schemars(length(min = 8, max = 512), regex(pattern = "^https?://[^@?#\\s]+$"))]
    pub url: String,

    /// A Secret in the same namespace with the key token, or the keys username and password, and the certificate authority of the URL under ca.crt (PEM) where the images do not trust it. Without it nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

/// What people are told, and from when on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertsSpec {
    /// Whether there are alerts at all.
    pub enabled: bool,

    /// From which values on alerts fire.
    pub thresholds: ThresholdsSpec,

    /// What one pod's network carries in a second in each direction, in bytes; Network Bandwidth is a share of it (guide: "Resource Budget").
    pub network_bandwidth: Quantity,

    /// Where the pages about each alert are: the alert's name and .md follow.
    #[schemars(length(min = 8, max = 512), regex(pattern = "^https?://[^\\s]+$"))]
    pub runbook_base_url: String,

    /// The Alertmanagers that the managed Prometheus tells, such as http://alertmanager.monitoring.svc:9093.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 8, max = 253), regex(pattern = "^https?://[^@?#\\s]+$")), extend("x-kubernetes-list-type" = "set"))]
    pub alertmanagers: Vec<String>,

    /// A configuration for Alertmanager by severity, as ConfigMap <name>-alertmanager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<RoutingSpec>,
}

impl Default for AlertsSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            thresholds: ThresholdsSpec::default(),
            network_bandwidth: Quantity::new("125M"),
            runbook_base_url: "https://github.com/selextract/selextract/blob/main/docs/runbooks".to_owned(),
            alertmanagers: Vec::new(),
            routing: None,
        }
    }
}

/// Who is told by severity (guide: "Alerting Strategy"): critical pages at once, warning waits for business hours, info comes as a summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutingSpec {
    /// The webhook that pages people at once, for critical alerts: a URL, or, where the URL is a secret itself, the path of a file in Alertmanager's container that holds it (url_file), such as a mounted Secret's.
    #[schemars(length(min = 8, max = 512), regex(pattern = "^(https?://|/)[^\\s]+$"))]
    pub page_webhook: String,

    /// The webhook that notifies people during business hours, for warnings: a URL, or the path of a file that holds it.
    #[schemars(length(min = 8, max = 512), regex(pattern = "^(https?://|/)[^\\s]+$"))]
    pub business_hours_webhook: String,

    /// The webhook that takes the summary, for what is only to be known: a URL, or the path of a file that holds it.
    #[schemars(length(min = 8, max = 512), regex(pattern = "^(https?://|/)[^\\s]+$"))]
    pub summary_webhook: String,

    /// The days of business, as Alertmanager writes them, such as monday:friday.
    #[serde(default = "business_days")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z]+(:[a-z]+)?$"))]
    pub business_days: String,

    /// When business begins, as HH:MM.
    #[serde(default = "business_begins")]
    #[schemars(length(min = 5, max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub business_begins: String,

    /// When business ends, as HH:MM.
    #[serde(default = "business_ends")]
    #[schemars(length(min = 5, max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub business_ends: String,

    /// The time zone of business hours, such as Europe/Berlin.
    #[serde(default = "time_zone")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: String,

    /// How often a summary comes.
    #[serde(default = "summary_interval")]
    pub summary_interval: Duration,
}

fn business_days() -> String {
    "monday:friday".to_owned()
}

fn business_begins() -> String {
    "09:00".to_owned()
}

fn business_ends() -> String {
    "17:00".to_owned()
}

fn time_zone() -> String {
    "UTC".to_owned()
}

const fn summary_interval() -> Duration {
    Duration::from_secs(86_400)
}

/// Grafana's dashboards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DashboardsSpec {
    /// Whether there are ConfigMaps with dashboards.
    pub enabled: bool,

    /// Labels of the ConfigMaps, by which Grafana's sidecar finds them.
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = { "type": "string", "maxLength": 63 }))]
    pub labels: BTreeMap<String, String>,
}

impl Default for DashboardsSpec {
    fn default() -> Self {
        Self {
            enabled: false,
            labels: [("grafana_dashboard".to_owned(), "1".to_owned())].into(),
        }
    }
}
