//! `NetworkPolicies`: everything is denied but the edges of one table.

use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, artifacts, identity, labels,
    prometheus::{CLIENT_LABEL, PORT as PROMETHEUS},
    upstreams,
};
use crate::validated::{Allowed, Destination};

/// Who speaks to whom at which port; everything else is denied. Every component also asks DNS.
const EDGES: [(Component, Component, u16); 18] = {
    use Component as C;
    [
        (C::Api, C::PgBouncerRw, 6432),
        (C::Api, C::PgBouncerRo, 6432),
        (C::Api, C::RedisQueue, 6379),
        (C::Api, C::RedisCache, 6379),
        (C::Keeper, C::PgBouncerRw, 6432),
        (C::Keeper, C::PgBouncerRo, 6432),
        (C::Keeper, C::Postgres, 5432),
        (C::Keeper, C::RedisQueue, 6379),
        (C::Keeper, C::RedisCache, 6379),
        (C::Keeper, C::Egress, 3128),
        (C::Worker, C::PgBouncerRw, 6432),
        (C::Worker, C::RedisQueue, 6379),
        (C::Worker, C::Egress, 3128),
        (C::Migrate, C::Postgres, 5432),
        (C::PgBouncerRw, C::Postgres, 5432),
        (C::PgBouncerRo, C::Postgres, 5432),
        (C::PgBouncerRo, C::PostgresReplica, 5432),
        (C::PostgresReplica, C::Postgres, 5432),
    ]
};

/// The table, the workers' way to the pools of upstream proxies where there are any, and Prometheus' way to what it measures.
fn edges(inputs: Inputs<'_>) -> impl Iterator<Item = (Component, Component, u16)> {
    let pools = !inputs.cluster.egress.upstreams.is_empty();
    let pools = pools.then_some((Component::Worker, Component::Egress, upstreams::PORT));
    let measured = inputs.cluster.monitoring.managed().map(|_| MEASURED);
    let measured = measured.into_iter().flatten();
    EDGES
        .into_iter()
        .chain(pools)
        .chain(measured.map(|to| (Component::Prometheus, to, TELEMETRY)))
}

/// Who has a telemetry port.
const MEASURED: [Component; 4] = [Component::Api, Component::Keeper, Component::Worker, Component::Egress];
const TELEMETRY: u16 = 9090;

/// Where API servers listen, and where the kubelets do.
const API_SERVER: [u16; 2] = [443, 6443];
const KUBELET: u16 = 10250;

/// What the operator's pods reach: the internal listener, and Prometheus. They speak to no database.
const OPERATOR: [(Component, u16); 2] = [(Component::Api, 8081), (Component::Prometheus, PROMETHEUS)];

/// What anybody reaches.
const PUBLIC: [(Component, u16); 1] = [(Component::Api, 8080)];

/// Networks that are not globally routable (IANA's special-purpose registries); the proxy checks the same by itself. `::ffff:0:0/96` is
/// missing, because Kubernetes reads it as IPv4.
const PRIVATE_V4: [&str; 14] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
const PRIVATE_V6: [&str; 8] = [
    "::/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2002::/16",
    "fc00::/7",
    "fe80::/9",
];
/// The address at which many clusters run a resolver on each node.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let mut children = vec![default_deny(inputs)];
    children.extend(
        identity::present(inputs)
            .into_iter()
            .map(|component| policy(inputs, component)),
    );
    children
}

fn default_deny(inputs: Inputs<'_>) -> Child {
    let selector = json!({ "matchLabels": { "app.kubernetes.io/name": "selextract", "app.kubernetes.io/instance": inputs.cluster.name } });
    let spec = json!({ "podSelector": selector, "policyTypes": ["Ingress", "Egress"] });
    object(
        inputs,
        &Names::new(inputs.cluster).with("default-deny"),
        "policy",
        &spec,
    )
}

fn policy(inputs: Inputs<'_>, component: Component) -> Child {
    let spec = json!({
        "podSelector": { "matchLabels": labels::selector(inputs.cluster, component) },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress(inputs, component),
        "egress": egress(inputs, component),
    });
    object(
        inputs,
        &Names::new(inputs.cluster).component(component),
        component.as_str(),
        &spec,
    )
}

fn object(inputs: Inputs<'_>, name: &str, component: &str, spec: &Value) -> Child {
    Child::plain(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": labels::metadata(inputs.cluster, name, component),
        "spec": spec,
    }))
}

fn ingress(inputs: Inputs<'_>, component: Component) -> Vec<Value> {
    let peers = edges(inputs).filter(|(_, to, _)| *to == component);
    let inner = peers.map(|(from, _, port)| json!({ "from": [pods(inputs, from)], "ports": [tcp(port)] }));
    let operator = OPERATOR.iter().filter(|(to, _)| *to == component);
    let operator = operator.map(|(_, port)| json!({ "from": [operator_pods(inputs)], "ports": [tcp(*port)] }));
    let public = PUBLIC
        .iter()
        .filter(|(to, _)| *to == component)
        .map(|(_, port)| json!({ "ports": [tcp(*port)] }));
    inner
        .chain(operator)
        .chain(public)
        .chain(measuring(inputs, component))
        .collect()
}

fn egress(inputs: Inputs<'_>, component: Component) -> Vec<Value> {
    let peers = edges(inputs).filter(|(from, _, _)| *from == component);
    let mut rules: Vec<Value> = peers
        .map(|(_, to, port)| json!({ "to": [pods(inputs, to)], "ports": [tcp(port)] }))
        .collect();
    rules.push(dns());
    if component == Component::Egress {
        rules.extend(world(inputs));
    }
    rules.extend(external_database(inputs, component));
    rules.extend(artifacts::edge(inputs, component));
    if component == Component::Prometheus {
        rules.extend(prometheus(inputs));
    }
    rules
}

/// Who else measures: a Prometheus of the user's own, from its namespace; and who asks ours: pods of the namespace that say so.
fn measuring(inputs: Inputs<'_>, component: Component) -> Option<Value> {
    if component == Component::Prometheus {
        let (key, value) = CLIENT_LABEL;
        let clients = json!({ "podSelector": { "matchLabels": { key: value } } });
        return Some(json!({ "from": [clients], "ports": [tcp(PROMETHEUS)] }));
    }
    let namespace = inputs.cluster.monitoring.scraper_namespace.as_ref()?;
    MEASURED.contains(&component).then(|| {
        let peer = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } } });
        json!({ "from": [peer], "ports": [tcp(TELEMETRY)] })
    })
}

/// The API server, which has no label to select it by; kubelets, where they are asked; Alertmanagers, where there are any.
fn prometheus(inputs: Inputs<'_>) -> Vec<Value> {
    let monitoring = &inputs.cluster.monitoring;
    let mut ports: Vec<_> = API_SERVER.into_iter().map(tcp).collect();
    if monitoring.managed().is_some_and(|managed| managed.kubelet_metrics) {
        ports.push(tcp(KUBELET));
    }
    let alertmanagers = monitoring.alerts.iter().flat_map(|alerts| &alerts.alertmanagers);
    let alertmanagers = alertmanagers.map(|url| match url.host_str().and_then(service_namespace) {
        Some(namespace) => namespace_rule(namespace),
        None => json!({ "ports": [tcp(url.port_or_known_default().unwrap_or(9093))] }),
    });
    std::iter::once(json!({ "ports": ports }))
        .chain(alertmanagers)
        .collect()
}

fn pods(inputs: Inputs<'_>, component: Component) -> Value {
    json!({ "podSelector": { "matchLabels": labels::selector(inputs.cluster, component) } })
}

/// The operator's namespace; where the cluster lives in the same one, the operator's pods by their label.
fn operator_pods(inputs: Inputs<'_>) -> Value {
    let namespace = &inputs.cluster.operator_namespace;
    let mut peer = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } } });
    if *namespace == inputs.cluster.namespace {
        peer["podSelector"] = json!({ "matchLabels": { "app.kubernetes.io/name": "selextract-operator" } });
    }
    peer
}

pub(super) fn tcp(port: u16) -> Value {
    json!({ "protocol": "TCP", "port": port })
}

fn dns() -> Value {
    json!({
        "to": [{ "namespaceSelector": {} }, { "ipBlock": { "cidr": NODE_LOCAL_DNS } }],
        "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }],
    })
}

/// Where the proxy may go: the public network, and what the spec opens.
fn world(inputs: Inputs<'_>) -> Vec<Value> {
    let egress = &inputs.cluster.egress;
    let ports: Vec<_> = egress.ports.iter().map(|port| tcp(*port)).collect();
    std::iter::once(public_rule(&ports))
        .chain(egress.allow.iter().map(allowed))
        .chain(upstreams::rules(&egress.upstreams))
        .collect()
}

/// The public network at these ports.
pub(super) fn public_rule(ports: &[Value]) -> Value {
    json!({ "to": public_network(), "ports": ports })
}

/// Everything that is globally routable.
pub(super) fn public_network() -> Value {
    json!([
        { "ipBlock": { "cidr": "0.0.0.0/0", "except": PRIVATE_V4 } },
        { "ipBlock": { "cidr": "::/0", "except": PRIVATE_V6 } },
    ])
}

/// A policy knows addresses and pods, the allow list knows names: the proxy itself holds to the name and the port.
fn allowed(allowed: &Allowed) -> Value {
    let ports: Vec<_> = allowed.ports.iter().map(|port| tcp(*port)).collect();
    match &allowed.destination {
        Destination::Network(network) => json!({ "to": [{ "ipBlock": { "cidr": network } }], "ports": ports }),
        Destination::Host(host) => host_rule(host, &ports),
    }
}

pub(super) fn host_rule(host: &str, ports: &[Value]) -> Value {
    // A policy sees the pods behind a Service, at ports of their own.
    if let Some(namespace) = service_namespace(host) {
        return namespace_rule(namespace);
    }
    let networks = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
    ];
    let blocks: Vec<_> = networks
        .iter()
        .map(|cidr| json!({ "ipBlock": { "cidr": cidr } }))
        .collect();
    json!({ "to": blocks, "ports": ports })
}

/// Every pod of a namespace, at every port.
pub(super) fn namespace_rule(namespace: &str) -> Value {
    json!({ "to": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } } }] })
}

/// The namespace of a Service's name, such as `docs.demo.svc.cluster.local`.
pub(super) fn service_namespace(host: &str) -> Option<&str> {
    let mut parts = host.trim_end_matches(".cluster.local").rsplit('.');
    (parts.next()? == "svc").then(|| parts.next())?
}

/// An external database lies anywhere; its port is known.
fn external_database(inputs: Inputs<'_>, component: Component) -> Option<Value> {
    let external = inputs.facts.external.as_ref()?;
    let ports = match component {
        Component::Keeper | Component::Migrate | Component::PgBouncerRw => vec![external.primary.port],
        Component::PgBouncerRo => vec![external.read.port],
        _ => return None,
    };
    Some(json!({ "ports": ports.into_iter().map(tcp).collect::<Vec<_>>() }))
}
