//! The egress proxy: Deployment, Service and its configuration, which it reads again when it changes.

use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, labels,
    pod::{self, Template, env, mount_read_only},
    program, upstreams,
};
use crate::validated::{Allowed, Destination};

const PORT: u16 = 3128;

pub fn foundation(inputs: Inputs<'_>) -> Vec<Child> {
    let name = Names::new(inputs.cluster).component(Component::Egress);
    let selector = labels::selector(inputs.cluster, Component::Egress);
    let config = json!({ "egress.json": config(inputs).to_string() });
    let mut ports = vec![("proxy", PORT)];
    if !inputs.cluster.egress.upstreams.is_empty() {
        ports.push(("pools", upstreams::PORT));
    }
    vec![
        program::service(inputs, &name, Component::Egress, &selector, &ports),
        program::config_map(inputs, &name, Component::Egress, &config),
    ]
}

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let (names, egress) = (Names::new(inputs.cluster), &inputs.cluster.egress);
    let mut container = json!({
        "image": inputs.cluster.images.platform,
        "command": ["/usr/local/bin/selextract-egress-proxy"],
        "env": [env("SELEXTRACT_EGRESS_CONFIG", "/etc/selextract/egress/egress.json")],
        "ports": [program::port("proxy", PORT), program::port("telemetry", 9090)],
        "volumeMounts": [mount_read_only("egress", "/etc/selextract/egress")],
    });
    let (volumes, mounts) = upstreams::volumes(&egress.upstreams);
    if !egress.upstreams.is_empty() {
        add(
            &mut container["env"],
            [env("SELEXTRACT_POOLS_LISTEN", format!("0.0.0.0:{}", upstreams::PORT))],
        );
        add(&mut container["ports"], [program::port("pools", upstreams::PORT)]);
        add(&mut container["volumeMounts"], mounts);
    }
    program::probes(&mut container);
    let mut template = Template::new(Component::Egress, &egress.pod, container);
    template.volumes = [
        vec![pod::config_volume("egress", &names.component(Component::Egress))],
        volumes,
    ]
    .concat();
    template.grace = 150;
    vec![program::deployment(inputs, template, egress.replicas)]
}

fn config(inputs: Inputs<'_>) -> Value {
    let egress = &inputs.cluster.egress;
    let allow: Vec<Value> = egress.allow.iter().map(entry).collect();
    let mut config = json!({ "ports": egress.ports, "allow": allow });
    // An older proxy refuses a file with what it does not know.
    if !egress.upstreams.is_empty() {
        config["upstreams"] = json!(upstreams::config(&egress.upstreams));
    }
    config
}

fn add(list: &mut Value, more: impl IntoIterator<Item = Value>) {
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

fn entry(allowed: &Allowed) -> Value {
    match &allowed.destination {
        Destination::Host(host) => json!({ "host": host, "ports": allowed.ports }),
        Destination::Network(network) => json!({ "cidr": network, "ports": allowed.ports }),
    }
}
