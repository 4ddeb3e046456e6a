//! What is made for somebody else's Prometheus, Grafana and Alertmanager: `PodMonitor`s, a `PrometheusRule`, `ConfigMap`s.

use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, labels, pod, program,
    prometheus_config::{FAST, KEPT, SLOW, fast_components, scope},
};
use crate::monitoring::{alerts, dashboards, records, routing};

/// The API version of the Prometheus operator's kinds.
pub const API_VERSION: &str = "monitoring.coreos.com/v1";
const COMPONENT: &str = "monitoring";

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let mut children = dashboards(inputs);
    children.extend(routes(inputs));
    if inputs.facts.served.pod_monitors && inputs.cluster.monitoring.pod_monitors {
        children.push(pod_monitor(inputs, "telemetry-fast", FAST, "In"));
        children.push(pod_monitor(inputs, "telemetry", SLOW, "NotIn"));
    }
    if inputs.facts.served.rules && inputs.cluster.monitoring.rules {
        children.extend(rules(inputs));
    }
    children
}

/// The pods of the managed Prometheus' jobs, with the same labels.
fn pod_monitor(inputs: Inputs<'_>, suffix: &str, interval: &str, operator: &str) -> Child {
    let cluster = inputs.cluster;
    let fast: Vec<_> = fast_components().split('|').map(str::to_owned).collect();
    let from = |label: &str, to: &str| json!({ "sourceLabels": [label], "targetLabel": to });
    let component = "__meta_kubernetes_pod_label_app_kubernetes_io_component";
    foreign(
        inputs,
        "PodMonitor",
        suffix,
        &json!({
            "selector": {
                "matchLabels": { "app.kubernetes.io/name": "selextract", "app.kubernetes.io/instance": cluster.name },
                "matchExpressions": [{ "key": "app.kubernetes.io/component", "operator": operator, "values": fast }],
            },
            "namespaceSelector": { "matchNames": [cluster.namespace] },
            "sampleLimit": 5000,
            "podMetricsEndpoints": [{
                "port": "telemetry",
                "path": "/metrics",
                "interval": interval,
                "scrapeTimeout": "4s",
                "relabelings": [
                    from("__meta_kubernetes_namespace", "namespace"),
                    from("__meta_kubernetes_pod_label_app_kubernetes_io_instance", "cluster"),
                    from(component, "component"),
                    from(component, "job"),
                    from("__meta_kubernetes_pod_name", "pod"),
                ],
                "metricRelabelings": [{ "sourceLabels": ["__name__"], "regex": KEPT, "action": "keep" }],
            }],
        }),
    )
}

/// What the managed Prometheus has as files.
fn rules(inputs: Inputs<'_>) -> Vec<Child> {
    let (cluster, scope) = (inputs.cluster, scope(inputs.cluster));
    let rule = |suffix: &str, groups: Value| foreign(inputs, "PrometheusRule", suffix, &json!({ "groups": groups }));
    let alerts = cluster.monitoring.alerts.as_ref();
    let alerts = alerts.map(|alerts| rule("alerts", alerts::groups(alerts, &cluster.slo, scope)));
    [rule("records", records::groups(cluster, &scope))]
        .into_iter()
        .chain(alerts)
        .collect()
}

/// An object of the Prometheus operator, with the labels by which it is selected.
fn foreign(inputs: Inputs<'_>, kind: &str, suffix: &str, spec: &Value) -> Child {
    let mut metadata = labels::metadata(inputs.cluster, &Names::new(inputs.cluster).with(suffix), COMPONENT);
    for (key, value) in &inputs.cluster.monitoring.object_labels {
        if metadata["labels"][key].is_null() {
            metadata["labels"][key] = json!(value);
        }
    }
    Child::plain(json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec }))
}

fn dashboards(inputs: Inputs<'_>) -> Vec<Child> {
    let Some(marks) = &inputs.cluster.monitoring.dashboards else {
        return Vec::new();
    };
    let names = Names::new(inputs.cluster);
    let one = |dashboard: dashboards::Dashboard| {
        // Grafana knows one dashboard by one uid, wherever it comes from.
        let uid = pod::short(&json!([inputs.cluster.uid, dashboard.slug]));
        let file = format!("{}-{}.json", inputs.cluster.name, dashboard.slug);
        let data = json!({ file: dashboard.render(&uid).to_string() });
        let name = names.with(&format!("dashboard-{}", dashboard.slug));
        let mut child = program::config_map(inputs, &name, Component::Prometheus, &data);
        let labels = &mut child.object["metadata"]["labels"];
        labels["app.kubernetes.io/component"] = json!(COMPONENT);
        for (key, value) in marks {
            if labels[key].is_null() {
                labels[key] = json!(value);
            }
        }
        child
    };
    dashboards::ALL.into_iter().map(one).collect()
}

fn routes(inputs: Inputs<'_>) -> Option<Child> {
    let routing = inputs.cluster.monitoring.alerts.as_ref()?.routing.as_ref()?;
    let text = serde_json::to_string_pretty(&routing::configuration(routing)).unwrap_or_default();
    let name = Names::new(inputs.cluster).with("alertmanager");
    let mut child = program::config_map(
        inputs,
        &name,
        Component::Prometheus,
        &json!({ "alertmanager.yml": text }),
    );
    child.object["metadata"]["labels"]["app.kubernetes.io/component"] = json!(COMPONENT);
    Some(child)
}
