//! The managed Prometheus: `StatefulSet`, Service, volume, configuration, and its right to find the cluster's pods.

use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, labels,
    pod::{self, Template, mount, mount_read_only},
    program, prometheus_config as config,
};
use crate::{
    monitoring::{client::PATIENTLY, queries::range},
    validated::ManagedPrometheus,
};

/// Where its API is.
pub const PORT: u16 = 9090;
/// Pods of the cluster's namespace with this label may ask it.
pub const CLIENT_LABEL: (&str, &str) = ("selextract.io/prometheus-client", "true");

pub fn foundation(inputs: Inputs<'_>) -> Vec<Child> {
    let Some(managed) = inputs.cluster.monitoring.managed() else {
        return Vec::new();
    };
    let (names, component) = (Names::new(inputs.cluster), Component::Prometheus);
    let name = names.component(component);
    let selector = labels::selector(inputs.cluster, component);
    let size = (managed.storage.as_str(), managed.storage_class_name.as_deref());
    let mut claim = program::volume_claim(inputs, &names.volume(&name), component, size);
    claim.retained = super::postgres::retains(inputs);
    let (role, binding) = rights(inputs, &name);
    vec![
        program::service(inputs, &name, component, &selector, &[("web", PORT)]),
        program::config_map(inputs, &name, component, &config::files(inputs)),
        claim,
        role,
        binding,
    ]
}

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let Some(managed) = inputs.cluster.monitoring.managed() else {
        return Vec::new();
    };
    let name = Names::new(inputs.cluster).component(Component::Prometheus);
    let claim = Names::new(inputs.cluster).volume(&name);
    let mut template = Template::new(Component::Prometheus, &managed.pod, container(inputs, managed));
    template.volumes = vec![
        pod::config_volume("config", &name),
        json!({ "name": "data", "persistentVolumeClaim": { "claimName": claim } }),
        token(),
    ];
    // It is not asked to read its files again: whoever may ask that may ask it to end, too.
    template.config = config::files(inputs);
    template.grace = 120;
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": labels::metadata(inputs.cluster, &name, Component::Prometheus.as_str()),
        "spec": {
            "serviceName": name,
            // As with PostgreSQL: a pod that never becomes ready is replaced by a mended one.
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 3,
            "selector": { "matchLabels": labels::selector(inputs.cluster, Component::Prometheus) },
            "template": template.build(inputs),
        },
    });
    vec![Child::workload(object, 1)]
}

fn container(inputs: Inputs<'_>, managed: &ManagedPrometheus) -> Value {
    let get = |path: &str| json!({ "path": path, "port": "web" });
    json!({
        "image": inputs.cluster.images.data,
        "command": [
            "/usr/bin/prometheus",
            format!("--config.file={}/prometheus.yml", config::FOLDER),
            "--storage.tsdb.path=/var/lib/prometheus",
            format!("--storage.tsdb.retention.time={}s", managed.retention.get().as_secs()),
            format!("--storage.tsdb.retention.size={}B", managed.retention_bytes),
            format!("--web.listen-address=:{PORT}"),
            format!("--query.timeout={}", range(PATIENTLY)),
            "--query.max-concurrency=8",
            "--query.max-samples=10000000",
            "--log.format=json",
        ],
        // A collector that does not know the limit grows until it is killed.
        "env": [pod::env("GOMEMLIMIT", format!("{}B", managed.memory_bytes / 10 * 9))],
        "ports": [program::port("web", PORT)],
        // The log of two hours is read again at the start.
        "startupProbe": { "httpGet": get("/-/ready"), "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 600 },
        "livenessProbe": { "httpGet": get("/-/healthy"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 },
        "readinessProbe": { "httpGet": get("/-/ready"), "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3 },
        "volumeMounts": [
            mount_read_only("config", config::FOLDER),
            mount("data", "/var/lib/prometheus"),
            mount_read_only("token", "/var/run/secrets/kubernetes.io/serviceaccount"),
        ],
    })
}

/// What the API server is asked with: it is mounted here alone, and short-lived.
fn token() -> Value {
    json!({ "name": "token", "projected": { "defaultMode": 0o440, "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
    ] } })
}

/// The pods of its own namespace, and nothing else.
fn rights(inputs: Inputs<'_>, name: &str) -> (Child, Child) {
    let metadata = labels::metadata(inputs.cluster, name, Component::Prometheus.as_str());
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": inputs.cluster.namespace }],
    });
    (Child::plain(role), Child::plain(binding))
}
