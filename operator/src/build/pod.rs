//! Pod templates: what all pods have in common. Every pod passes the pod security standard `restricted`, with a read-only root.

use selextract_crds::Quantity;
use serde_json::{Map, Value, json};

use super::{Component, Inputs, labels};
use crate::{canonical, validated::Pod};

/// The user and group of every pod.
pub const USER: i64 = 65532;

/// The programs that measure their own container.
const MEASURES: [Component; 3] = [Component::Api, Component::Keeper, Component::Worker];

/// What a component says about its pods.
pub struct Template<'a> {
    /// Whose pods they are.
    pub component: Component,
    /// The user's settings and the resources.
    pub settings: &'a Pod,
    /// The main container, without name, resources and security context.
    pub container: Value,
    /// Containers that run before it, without security context.
    pub init: Vec<Value>,
    /// Volumes besides `/tmp`.
    pub volumes: Vec<Value>,
    /// How large `/tmp` may grow.
    pub tmp: &'static str,
    /// How long the pods have to end, in seconds.
    pub grace: u32,
    /// The Secrets whose change rolls the pods, by name.
    pub secrets: Vec<String>,
    /// Configuration whose change rolls the pods.
    pub config: Value,
    /// Labels besides the usual.
    pub labels: Vec<(&'static str, String)>,
}

impl<'a> Template<'a> {
    /// A template with nothing but the main container.
    pub fn new(component: Component, settings: &'a Pod, container: Value) -> Self {
        Self {
            component,
            settings,
            container,
            init: Vec::new(),
            volumes: Vec::new(),
            tmp: "64Mi",
            grace: 30,
            secrets: Vec::new(),
            config: Value::Null,
            labels: Vec::new(),
        }
    }

    /// The pod template.
    pub fn build(self, inputs: Inputs<'_>) -> Value {
        let metadata = self.metadata(inputs);
        json!({ "metadata": metadata, "spec": self.spec(inputs) })
    }

    fn metadata(&self, inputs: Inputs<'_>) -> Value {
        let mut all = map(labels::of(inputs.cluster, self.component.as_str()));
        for (key, value) in &self.settings.settings.labels {
            all.entry(key.clone()).or_insert(json!(value));
        }
        for (key, value) in &self.labels {
            all.insert((*key).to_owned(), json!(value));
        }
        let mut annotations = map(json!(self.settings.settings.annotations));
        if !self.secrets.is_empty() {
            let hashes: Vec<_> = self
                .secrets
                .iter()
                .map(|name| (name, inputs.facts.secrets.get(name)))
                .collect();
            annotations.insert("selextract.io/secrets-hash".into(), json!(short(&json!(hashes))));
        }
        if !self.config.is_null() {
            annotations.insert("selextract.io/config-hash".into(), json!(short(&self.config)));
        }
        json!({ "labels": all, "annotations": annotations })
    }

    fn spec(self, inputs: Inputs<'_>) -> Value {
        let settings = &self.settings.settings;
        let name = inputs.cluster.name.clone() + "-" + self.component.as_str();
        let mut container = self.container.clone();
        container["name"] = json!(self.component.as_str());
        container["resources"] = json!({ "requests": self.settings.requests, "limits": self.settings.limits });
        if let Some(env) = container["env"]
            .as_array_mut()
            .filter(|_| MEASURES.contains(&self.component))
        {
            env.extend(self.capacities());
        }
        let spread = if settings.topology_spread_constraints.is_empty() {
            json!([{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway" }])
        } else {
            json!(settings.topology_spread_constraints)
        };
        let init: Vec<Value> = self.init.iter().map(|init| harden(init.clone(), inputs)).collect();
        let mut volumes = vec![json!({ "name": "tmp", "emptyDir": { "sizeLimit": self.tmp } })];
        volumes.extend(self.volumes.iter().cloned());
        let mut spec = json!({
            "serviceAccountName": name,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": self.grace,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [harden(container, inputs)],
            "volumes": volumes,
            "topologySpreadConstraints": self.selecting(spread, inputs),
        });
        for (key, value) in [
            ("initContainers", json!(init)),
            ("nodeSelector", json!(settings.node_selector)),
            ("tolerations", json!(settings.tolerations)),
            ("affinity", json!(settings.affinity)),
            ("priorityClassName", json!(settings.priority_class_name)),
            ("imagePullSecrets", json!(settings.image_pull_secrets)),
        ] {
            if !is_empty(&value) {
                spec[key] = value;
            }
        }
        spec
    }

    /// What the container may use, its limit, else its request: what it uses is measured against that.
    fn capacities(&self) -> Vec<Value> {
        let (limits, requests) = (&self.settings.limits, &self.settings.requests);
        let cpu = limits.cpu.as_ref().or(requests.cpu.as_ref()).and_then(Quantity::millis);
        let memory = limits.memory.as_ref().or(requests.memory.as_ref());
        let memory = memory.and_then(Quantity::units);
        let cpu = cpu.map(|millis| env("SELEXTRACT_CPU_CAPACITY", millis.to_string()));
        let memory = memory.map(|bytes| env("SELEXTRACT_MEMORY_CAPACITY", bytes.to_string()));
        cpu.into_iter().chain(memory).collect()
    }

    /// Constraints without a selector count the pods of the component.
    fn selecting(&self, mut constraints: Value, inputs: Inputs<'_>) -> Value {
        for constraint in constraints.as_array_mut().into_iter().flatten() {
            if constraint["labelSelector"].is_null() {
                constraint["labelSelector"] =
                    json!({ "matchLabels": labels::selector(inputs.cluster, self.component) });
            }
        }
        constraints
    }
}

fn harden(mut container: Value, inputs: Inputs<'_>) -> Value {
    container["imagePullPolicy"] = json!(inputs.cluster.images.pull_policy.as_str());
    container["securityContext"] = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    });
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.push(mount("tmp", "/tmp"));
    } else {
        container["volumeMounts"] = json!([mount("tmp", "/tmp")]);
    }
    container
}

/// A writable mount.
pub fn mount(volume: &str, path: &str) -> Value {
    json!({ "name": volume, "mountPath": path })
}

/// A mount that is only read.
pub fn mount_read_only(volume: &str, path: &str) -> Value {
    json!({ "name": volume, "mountPath": path, "readOnly": true })
}

/// A volume of a Secret's keys. With an fsGroup its files belong to root and are readable by the group, as PostgreSQL asks of keys.
pub fn secret_volume(volume: &str, secret: &str, keys: &[(&str, &str)]) -> Value {
    let items: Vec<_> = keys
        .iter()
        .map(|(key, path)| json!({ "key": key, "path": path }))
        .collect();
    json!({ "name": volume, "secret": { "secretName": secret, "defaultMode": 0o440, "items": items } })
}

/// A volume of a ConfigMap.
pub fn config_volume(volume: &str, config_map: &str) -> Value {
    json!({ "name": volume, "configMap": { "name": config_map } })
}

/// An environment variable.
pub fn env(name: &str, value: impl Into<Value>) -> Value {
    let value = match value.into() {
        Value::String(text) => text,
        other => other.to_string(),
    };
    json!({ "name": name, "value": value })
}

/// An environment variable from a Secret.
pub fn secret_env(name: &str, secret: &str, key: &str) -> Value {
    json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": secret, "key": key } } })
}

/// An environment variable from the pod's own fields.
pub fn field_env(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

/// The first 16 hex digits of a hash of this value.
pub fn short(value: &Value) -> String {
    canonical::hash_json(value).chars().take(16).collect()
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    }
}
