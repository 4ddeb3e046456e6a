//! What the programs of ours have in common: Deployments, probes, the cluster's authority, Services, the database's environment.

use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, labels,
    pod::{self, Template},
};

/// A Deployment. Its replicas are the scaler's.
pub fn deployment(inputs: Inputs<'_>, template: Template<'_>, replicas: i32) -> Child {
    let component = template.component;
    let name = Names::new(inputs.cluster).component(component);
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": labels::metadata(inputs.cluster, &name, component.as_str()),
        "spec": {
            "selector": { "matchLabels": labels::selector(inputs.cluster, component) },
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 600,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
            "template": template.build(inputs),
        },
    });
    Child::workload(object, replicas)
}

/// Liveness and readiness at the telemetry port. A program that waits for its database is not ready, but alive.
pub fn probes(container: &mut Value) {
    let get = |path: &str| json!({ "path": path, "port": "telemetry" });
    container["startupProbe"] =
        json!({ "httpGet": get("/healthz"), "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 60 });
    container["livenessProbe"] =
        json!({ "httpGet": get("/healthz"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 });
    container["readinessProbe"] =
        json!({ "httpGet": get("/readyz"), "periodSeconds": 3, "timeoutSeconds": 3, "failureThreshold": 2 });
}

/// A container's port.
pub fn port(name: &str, number: u16) -> Value {
    json!({ "name": name, "containerPort": number, "protocol": "TCP" })
}

/// A Service in front of the pods with these labels.
pub fn service(inputs: Inputs<'_>, name: &str, component: Component, selector: &Value, ports: &[(&str, u16)]) -> Child {
    let ports: Vec<_> = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port, "targetPort": port, "protocol": "TCP" }))
        .collect();
    Child::plain(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels::metadata(inputs.cluster, name, component.as_str()),
        "spec": { "type": "ClusterIP", "selector": selector, "ports": ports },
    }))
}

/// The addresses of the ready pods with these labels, under a name of their own: for whoever asks each of them.
pub fn headless_service(
    inputs: Inputs<'_>,
    name: &str,
    component: Component,
    selector: &Value,
    port: (&str, u16),
) -> Child {
    let mut child = service(inputs, name, component, selector, &[port]);
    child.object["spec"]["clusterIP"] = json!("None");
    child
}

/// A ConfigMap.
pub fn config_map(inputs: Inputs<'_>, name: &str, component: Component, data: &Value) -> Child {
    Child::plain(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": labels::metadata(inputs.cluster, name, component.as_str()),
        "data": data,
    }))
}

/// The claim of a workload's volume. It is an object of its own, not a template of the `StatefulSet`, so that it can grow.
pub fn volume_claim(
    inputs: Inputs<'_>,
    name: &str,
    component: Component,
    (storage, class): (&str, Option<&str>),
) -> Child {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": storage } },
    });
    if let Some(class) = class {
        spec["storageClassName"] = json!(class);
    }
    Child::plain(json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": labels::metadata(inputs.cluster, name, component.as_str()),
        "spec": spec,
    }))
}

/// The cluster's authority, without its key, at `/etc/selextract/ca`.
pub fn authority(inputs: Inputs<'_>) -> (Value, Value) {
    let secret = Names::new(inputs.cluster).with("ca");
    (
        pod::secret_volume("ca", &secret, &[("ca.crt", "ca.crt")]),
        pod::mount_read_only("ca", "/etc/selextract/ca"),
    )
}

/// The authority of an external database, where its Secret holds one, at `/etc/selextract/external-ca`.
pub fn external_authority(inputs: Inputs<'_>) -> Option<(Value, Value)> {
    let external = inputs.cluster.postgres.external.as_ref()?;
    let key = external.ca_key.as_deref()?;
    Some((
        pod::secret_volume("external-ca", &external.secret_name, &[(key, "ca.crt")]),
        pod::mount_read_only("external-ca", "/etc/selextract/external-ca"),
    ))
}

/// Volumes and mounts of the authorities that a program needs which speaks to the database itself.
pub fn authorities(inputs: Inputs<'_>) -> (Vec<Value>, Vec<Value>) {
    std::iter::once(authority(inputs))
        .chain(external_authority(inputs))
        .unzip()
}

/// Secrets whose change concerns every program that speaks to the database.
pub fn database_secrets(inputs: Inputs<'_>) -> Vec<String> {
    let names = Names::new(inputs.cluster);
    let mut secrets = vec![names.with("ca"), names.with("database")];
    secrets.extend(
        inputs
            .cluster
            .postgres
            .external
            .as_ref()
            .map(|external| external.secret_name.clone()),
    );
    secrets
}
