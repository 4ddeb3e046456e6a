//! The queue and the cache: two Valkey servers, because they want opposite settings.

use serde_json::json;

use super::{
    Child, Component, Inputs, Names, labels,
    pod::{self, Template, mount, mount_read_only, secret_env},
    program,
};
use crate::validated::Redis;

const PORT: u16 = 6379;

pub fn foundation(inputs: Inputs<'_>) -> Vec<Child> {
    let names = Names::new(inputs.cluster);
    let queue = names.component(Component::RedisQueue);
    let mut children = Vec::new();
    for component in [Component::RedisQueue, Component::RedisCache] {
        let name = names.component(component);
        let selector = labels::selector(inputs.cluster, component);
        children.push(program::service(
            inputs,
            &name,
            component,
            &selector,
            &[("redis", PORT)],
        ));
        let data = json!({ "valkey.conf": config(component, settings(inputs, component)) });
        children.push(program::config_map(inputs, &name, component, &data));
    }
    if let Some((storage, class)) = &inputs.cluster.queue.volume {
        let size = (storage.as_str(), class.as_deref());
        let mut claim = program::volume_claim(inputs, &names.volume(&queue), Component::RedisQueue, size);
        claim.retained = super::postgres::retains(inputs);
        children.push(claim);
    }
    children
}

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    vec![queue(inputs), cache(inputs)]
}

fn settings(inputs: Inputs<'_>, component: Component) -> &Redis {
    if component == Component::RedisQueue {
        &inputs.cluster.queue
    } else {
        &inputs.cluster.cache
    }
}

fn queue(inputs: Inputs<'_>) -> Child {
    let name = Names::new(inputs.cluster).component(Component::RedisQueue);
    let claim = Names::new(inputs.cluster).volume(&name);
    let mut template = template(inputs, Component::RedisQueue);
    template
        .volumes
        .push(json!({ "name": "data", "persistentVolumeClaim": { "claimName": claim } }));
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": labels::metadata(inputs.cluster, &name, Component::RedisQueue.as_str()),
        "spec": {
            "serviceName": name,
            // As with PostgreSQL: a pod that never becomes ready is replaced by a mended one.
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 3,
            "selector": { "matchLabels": labels::selector(inputs.cluster, Component::RedisQueue) },
            "template": template.build(inputs),
        },
    });
    Child::workload(object, 1)
}

fn cache(inputs: Inputs<'_>) -> Child {
    let mut template = template(inputs, Component::RedisCache);
    template
        .volumes
        .push(json!({ "name": "data", "emptyDir": { "sizeLimit": "64Mi" } }));
    program::deployment(inputs, template, 1)
}

fn template(inputs: Inputs<'_>, component: Component) -> Template<'_> {
    let names = Names::new(inputs.cluster);
    let settings = settings(inputs, component);
    let ping = json!({ "command": ["/usr/bin/valkey-cli", "-e", "ping"] });
    let container = json!({
        "image": inputs.cluster.images.data,
        "command": ["/usr/bin/valkey-server", "/etc/valkey/valkey.conf"],
        "env": [secret_env("REDISCLI_AUTH", &names.with("redis"), "password")],
        "ports": [program::port("redis", PORT)],
        // A server that loads its data answers with an error: it is not ready, but alive.
        "startupProbe": { "exec": ping, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 600 },
        "livenessProbe": { "tcpSocket": { "port": "redis" }, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 },
        "readinessProbe": { "exec": ping, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2 },
        "volumeMounts": [
            mount_read_only("config", "/etc/valkey"),
            mount_read_only("auth", "/etc/selextract/redis"),
            mount("data", "/var/lib/valkey"),
        ],
    });
    let mut template = Template::new(component, &settings.pod, container);
    template.volumes = vec![
        pod::config_volume("config", &names.component(component)),
        pod::secret_volume("auth", &names.with("redis"), &[("auth.conf", "auth.conf")]),
    ];
    template.secrets = vec![names.with("redis")];
    template.config = json!(config(component, settings));
    template.grace = 60;
    template
}

fn config(component: Component, settings: &Redis) -> String {
    let (policy, persistence) = match component {
        Component::RedisQueue => (
            "noeviction",
            "appendonly yes\nappendfsync everysec\nauto-aof-rewrite-min-size 16mb",
        ),
        _ => ("allkeys-lru", "appendonly no"),
    };
    format!(
        "bind * -::*\nport {PORT}\nprotected-mode yes\ninclude /etc/selextract/redis/auth.conf\n\
         dir /var/lib/valkey\nsave \"\"\n{persistence}\nmaxmemory {}\nmaxmemory-policy {policy}\n\
         maxclients 2000\ntcp-keepalive 60\nlatency-tracking yes\nlogfile \"\"\n",
        settings.max_memory
    )
}
