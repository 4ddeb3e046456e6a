//! What the managed Prometheus reads: where the targets are, what is taken from them, and the rules. JSON, which is YAML.

use serde_json::{Value, json};

use super::{Component, Inputs, Names};
use crate::{
    monitoring::{alerts, queries::Scope, records},
    validated::{Alerts, ValidatedCluster},
};

/// Where the files lie.
pub const FOLDER: &str = "/etc/prometheus";

/// How often what is scaled is asked, and how often the rest.
pub const FAST: &str = "5s";
/// See [`FAST`].
pub const SLOW: &str = "15s";

/// The components that are asked often.
pub const FAST_COMPONENTS: [Component; 3] = [Component::Api, Component::Keeper, Component::Worker];

/// What is taken: our names, and those of the exporters in the keeper. The rest of what a library brings is left.
pub const KEPT: &str = "(selextract|http|process|pg|redis|pgbouncer)_.+";

/// The most series of one target: far above what ours have, and no room for one that runs wild.
const SAMPLES: u32 = 5000;

/// The files of the `ConfigMap`.
pub fn files(inputs: Inputs<'_>) -> Value {
    let records = json!({ "groups": records::groups(inputs.cluster, &scope(inputs.cluster)) });
    let mut files = json!({ "prometheus.yml": pretty(&configuration(inputs)), "records.yml": pretty(&records) });
    if let Some(alerts) = &inputs.cluster.monitoring.alerts {
        let groups = json!({ "groups": alerts::groups(alerts, &inputs.cluster.slo, scope(inputs.cluster)) });
        files["alerts.yml"] = json!(pretty(&groups));
    }
    files
}

/// One cluster's own series.
pub fn scope(cluster: &ValidatedCluster) -> Scope<'_> {
    Scope::Cluster {
        namespace: &cluster.namespace,
        name: &cluster.name,
    }
}

fn pretty(value: &Value) -> String {
    // A Value is always written.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn configuration(inputs: Inputs<'_>) -> Value {
    let alerts = inputs.cluster.monitoring.alerts.as_ref();
    let mut configuration = json!({
        "global": { "scrape_interval": SLOW, "scrape_timeout": FAST, "evaluation_interval": SLOW },
        "scrape_configs": scrapes(inputs),
        "rule_files": [format!("{FOLDER}/records.yml")],
    });
    if let Some(alerts) = alerts {
        configuration["rule_files"] = json!(["records", "alerts"].map(|file| format!("{FOLDER}/{file}.yml")));
        if !alerts.alertmanagers.is_empty() {
            configuration["alerting"] = json!({ "alertmanagers": alertmanagers(alerts) });
        }
    }
    configuration
}

fn alertmanagers(alerts: &Alerts) -> Vec<Value> {
    let one = |url: &url::Url| {
        json!({
            "scheme": url.scheme(),
            "path_prefix": url.path(),
            "timeout": "10s",
            "api_version": "v2",
            "static_configs": [{ "targets": [authority(url)] }],
        })
    };
    alerts.alertmanagers.iter().map(one).collect()
}

/// Host and port of a URL.
fn authority(url: &url::Url) -> String {
    let port = url.port_or_known_default().unwrap_or(9093);
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

fn scrapes(inputs: Inputs<'_>) -> Vec<Value> {
    let mut scrapes = vec![
        pods(inputs, "telemetry-fast", FAST, "keep"),
        pods(inputs, "telemetry", SLOW, "drop"),
        itself(inputs),
    ];
    scrapes.extend(kubelets(inputs));
    scrapes
}

/// The pods with a port named `telemetry`; those of [`FAST_COMPONENTS`] alone are kept, or dropped.
fn pods(inputs: Inputs<'_>, job: &str, interval: &str, fast: &str) -> Value {
    let cluster = inputs.cluster;
    let instance = format!(
        "app.kubernetes.io/name=selextract,app.kubernetes.io/instance={}",
        cluster.name
    );
    let component = "__meta_kubernetes_pod_label_app_kubernetes_io_component";
    json!({
        "job_name": job,
        "scrape_interval": interval,
        "scrape_timeout": "4s",
        "sample_limit": SAMPLES,
        "label_limit": 30,
        "label_value_length_limit": 512,
        "body_size_limit": "10MB",
        "target_limit": 500,
        "kubernetes_sd_configs": [{
            "role": "pod",
            "namespaces": { "names": [cluster.namespace] },
            "selectors": [{ "role": "pod", "label": instance }],
        }],
        "relabel_configs": [
            { "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "telemetry", "action": "keep" },
            { "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running", "action": "keep" },
            { "source_labels": [component], "regex": fast_components(), "action": fast },
            { "source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace" },
            { "source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_instance"], "target_label": "cluster" },
            { "source_labels": [component], "target_label": "component" },
            { "source_labels": [component], "target_label": "job" },
            { "source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod" },
        ],
        "metric_relabel_configs": [{ "source_labels": ["__name__"], "regex": KEPT, "action": "keep" }],
    })
}

/// [`FAST_COMPONENTS`] as a regular expression.
pub fn fast_components() -> String {
    FAST_COMPONENTS.map(Component::as_str).join("|")
}

/// Of itself a few figures are kept: what it holds, and whether its rules and notifications work.
fn itself(inputs: Inputs<'_>) -> Value {
    let (cluster, component) = (inputs.cluster, Component::Prometheus.as_str());
    let name = Names::new(cluster).component(Component::Prometheus);
    json!({
        "job_name": component,
        "scrape_interval": SLOW,
        "sample_limit": SAMPLES,
        "static_configs": [{
            "targets": [format!("localhost:{}", super::prometheus::PORT)],
            "labels": { "namespace": cluster.namespace, "cluster": cluster.name, "component": component, "pod": format!("{name}-0") },
        }],
        "metric_relabel_configs": [{
            "source_labels": ["__name__"],
            "regex": "process_.+|prometheus_(tsdb_head_series|tsdb_(storage_blocks|wal_storage_size|head_chunks_storage_size)_bytes|rule_evaluation_failures_total|notifications_(dropped|errors)_total|target_scrapes_exceeded_sample_limit_total)",
            "action": "keep",
        }],
    })
}

/// CPU and memory of all pods of this cluster, as the kubelets count them, where that is wanted and allowed.
fn kubelets(inputs: Inputs<'_>) -> Option<Value> {
    let wanted = inputs.cluster.monitoring.managed()?.kubelet_metrics;
    if !wanted || inputs.facts.kubelet_right == Some(false) {
        return None;
    }
    let cluster = inputs.cluster;
    let pods = pod_names(&cluster.name);
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    Some(json!({
        "job_name": "kubelet",
        "scrape_interval": SLOW,
        "scrape_timeout": "10s",
        "sample_limit": 20_000,
        "body_size_limit": "20MB",
        "scheme": "https",
        "metrics_path": "/metrics/resource",
        "authorization": { "credentials_file": token },
        // Most kubelets serve a certificate that nobody signed.
        "tls_config": { "insecure_skip_verify": true },
        "kubernetes_sd_configs": [{ "role": "node" }],
        "relabel_configs": [{ "source_labels": ["__meta_kubernetes_node_name"], "target_label": "node" }],
        "metric_relabel_configs": [
            { "source_labels": ["__name__"], "regex": "container_cpu_usage_seconds_total|container_memory_working_set_bytes", "action": "keep" },
            { "source_labels": ["namespace", "pod"], "regex": format!("{};{pods}", cluster.namespace), "action": "keep" },
            { "source_labels": ["pod"], "regex": pods, "target_label": "component", "replacement": "$1$2$3" },
            { "target_label": "cluster", "replacement": cluster.name },
        ],
    }))
}

/// The names of a cluster's pods, with the component as one of three groups: those of Deployments, of single `StatefulSet`s, of replicas.
fn pod_names(cluster: &str) -> String {
    format!(
        "{cluster}-(?:(api|keeper|worker|egress|pgbouncer-rw|pgbouncer-ro|redis-cache)-[a-z0-9]+-[a-z0-9]{{5}}\
         |(postgres|redis-queue|prometheus)-0|(postgres-replica)-[0-9]+-0)"
    )
}
