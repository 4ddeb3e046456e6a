//! The rules that record: what is looked back at over days, and what no scrape tells. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use super::queries::{Scope, range, recorded, resources::PROMETHEUS_STORAGE};
use crate::{
    build::Component,
    cost::{Amount, Part, parts},
    validated::ValidatedCluster,
};

/// How often is recorded: a month has 43,200 minutes.
const EVERY: Duration = Duration::from_mins(1);

/// The groups of rules of one cluster, as in a rule file's `groups`.
pub fn groups(cluster: &ValidatedCluster, scope: &Scope<'_>) -> Value {
    let over_days = recorded::RULES.iter().map(|query| {
        rule(
            &format!("selextract:{}", query.name),
            &query.render(scope, None),
            &json!({}),
        )
    });
    let parts = parts(cluster, |_| 1, |_| None);
    let given = parts.iter().flat_map(|part| capacities(cluster, part));
    let rules: Vec<_> = over_days
        .chain(given)
        .chain(own_volume(&parts, scope, cluster))
        .collect();
    json!([{ "name": "selextract-records", "interval": range(EVERY), "rules": rules }])
}

fn rule(name: &str, expression: &str, labels: &Value) -> Value {
    json!({ "record": name, "expr": expression, "labels": labels })
}

/// What a pod of a component may use: no store tells it, and the kubelets tell only what is used.
fn capacities(cluster: &ValidatedCluster, part: &Part) -> [Value; 2] {
    let given = |amount: Amount| amount.limit.unwrap_or(amount.request);
    let labels = json!({ "namespace": cluster.namespace, "cluster": cluster.name, "component": part.component });
    let millis = given(part.cpu);
    let cores = format!("vector({}.{:03})", millis / 1000, millis % 1000);
    let bytes = format!("vector({})", given(part.memory));
    [
        rule("selextract:pod_cpu_capacity_cores", &cores, &labels),
        rule("selextract:pod_memory_capacity_bytes", &bytes, &labels),
    ]
}

/// The managed Prometheus' own volume, among those that the keeper tells.
fn own_volume(parts: &[Part], scope: &Scope<'_>, cluster: &ValidatedCluster) -> Vec<Value> {
    let part = parts
        .iter()
        .find(|part| part.component == Component::Prometheus.as_str());
    let Some(volume) = part.and_then(|part| part.volume) else {
        return Vec::new();
    };
    let labels =
        json!({ "namespace": cluster.namespace, "cluster": cluster.name, "volume": Component::Prometheus.as_str() });
    let used = PROMETHEUS_STORAGE.render(scope, None);
    vec![
        rule("selextract_storage_used_bytes", &used, &labels),
        rule(
            "selextract_storage_capacity_bytes",
            &format!("vector({})", volume.bytes),
            &labels,
        ),
    ]
}
