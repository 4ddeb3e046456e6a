//! Labels: the recommended ones on every object, and the few that select pods.

use serde_json::{Value, json};

use super::Component;
use crate::validated::ValidatedCluster;

/// The labels of an object of a component.
pub fn of(cluster: &ValidatedCluster, component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "selextract",
        "app.kubernetes.io/instance": cluster.name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "selextract",
        "app.kubernetes.io/managed-by": "selextract-operator",
    })
}

/// The labels that select the pods of a component, and no other.
pub fn selector(cluster: &ValidatedCluster, component: Component) -> Value {
    json!({
        "app.kubernetes.io/name": "selextract",
        "app.kubernetes.io/instance": cluster.name,
        "app.kubernetes.io/component": component.as_str(),
    })
}

/// The metadata of an object of a component.
pub fn metadata(cluster: &ValidatedCluster, name: &str, component: &str) -> Value {
    json!({ "name": name, "labels": of(cluster, component) })
}
