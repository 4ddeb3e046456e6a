//! What a cluster has beside its programs: rights, the Service of DNS and the storage class.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    kubectl,
    layout::{CONTROL_PLANE, DNS_SERVICE, Layout},
    provision::PROVISIONER,
};

/// Applies all of it.
pub fn apply(layout: &Layout) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects() });
    kubectl(layout, &["apply", "--server-side", "-f", "-"])
        .input(list.to_string())
        .run()
}

fn objects() -> Vec<Value> {
    let mut objects = dns();
    objects.push(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": "local", "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": false,
    }));
    objects.extend(rights(
        "selextract-local:coredns",
        &json!([
            { "apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"] },
            { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
        ]),
    ));
    objects.extend(rights(
        "selextract-local:provisioner",
        &json!([
            { "apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "create", "delete"] },
            { "apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get"] },
        ]),
    ));
    // The role of this name exists from the start; its binding, for a component that is no pod, does not.
    objects.push(binding(
        "selextract-local:kube-proxy",
        "system:node-proxier",
        "system:kube-proxy",
    ));
    objects
}

/// DNS runs beside the API server, so its Service has an endpoint that is written by hand.
fn dns() -> Vec<Value> {
    let ports = |protocols: [&str; 2]| -> Vec<Value> {
        protocols
            .iter()
            .map(|p| json!({ "name": format!("dns-{}", p.to_lowercase()), "port": 53, "protocol": p }))
            .collect()
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
        "spec": { "clusterIP": DNS_SERVICE, "ports": ports(["UDP", "TCP"]) },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": { "kubernetes.io/service-name": "kube-dns" } },
        "addressType": "IPv4",
        "ports": ports(["UDP", "TCP"]),
        "endpoints": [{ "addresses": [CONTROL_PLANE], "conditions": { "ready": true } }],
    });
    vec![service, slice]
}

fn rights(user: &str, rules: &Value) -> Vec<Value> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": user }, "rules": rules,
    });
    vec![role, binding(user, user, user)]
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
    })
}
