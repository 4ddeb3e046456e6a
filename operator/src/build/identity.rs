//! A `ServiceAccount` without a token for each component, and a `PodDisruptionBudget` where more than one replica is wanted.

use serde_json::json;

use super::{Child, Component, Inputs, Names, labels};

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let components = present(inputs);
    let accounts = components.iter().map(|component| service_account(inputs, *component));
    let budgets = components
        .iter()
        .filter_map(|component| disruption_budget(inputs, *component));
    accounts.chain(budgets).collect()
}

/// The components that this cluster consists of.
pub fn present(inputs: Inputs<'_>) -> Vec<Component> {
    let postgres = &inputs.cluster.postgres;
    Component::ALL
        .into_iter()
        .filter(|component| match component {
            Component::Postgres => postgres.is_managed(),
            Component::PostgresReplica => postgres.read_replicas > 0,
            Component::Prometheus => inputs.cluster.monitoring.managed().is_some(),
            _ => true,
        })
        .collect()
}

fn service_account(inputs: Inputs<'_>, component: Component) -> Child {
    let name = Names::new(inputs.cluster).component(component);
    Child::plain(json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": labels::metadata(inputs.cluster, &name, component.as_str()),
        "automountServiceAccountToken": false,
    }))
}

/// None for a single replica: it would block `kubectl drain` for ever.
fn disruption_budget(inputs: Inputs<'_>, component: Component) -> Option<Child> {
    let cluster = inputs.cluster;
    let replicas = match component {
        Component::Api => cluster.api.replicas,
        Component::Worker => cluster.worker.replicas,
        Component::Egress => cluster.egress.replicas,
        Component::PgBouncerRw | Component::PgBouncerRo => cluster.pgbouncer.replicas,
        Component::PostgresReplica => i32::from(cluster.postgres.read_replicas),
        _ => 1,
    };
    (replicas > 1).then(|| {
        let name = Names::new(cluster).component(component);
        Child::plain(json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": labels::metadata(cluster, &name, component.as_str()),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": { "matchLabels": labels::selector(cluster, component) },
            },
        }))
    })
}
