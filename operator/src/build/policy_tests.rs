//! The policies' meaning, evaluated over all pairs of pods and all ports, against the table of what is allowed.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Facts, Inputs, desired, fixture};

const PORTS: [u16; 10] = [53, 80, 443, 3128, 5432, 6379, 6432, 8080, 8081, 9090];

/// A pod: its namespace and its labels.
struct Pod {
    name: String,
    namespace: &'static str,
    labels: Value,
}

fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().cloned().unwrap_or_default();
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn peer_matches(peer: &Value, pod: &Pod, own_namespace: &str) -> bool {
    if peer["ipBlock"].is_object() {
        return false;
    }
    let namespace = json!({ "kubernetes.io/metadata.name": pod.namespace });
    let namespace_fits = match &peer["namespaceSelector"] {
        Value::Null => pod.namespace == own_namespace,
        selector => matches(selector, &namespace),
    };
    namespace_fits && (peer["podSelector"].is_null() || matches(&peer["podSelector"], &pod.labels))
}

fn rule_allows(rule: &Value, key: &str, pod: &Pod, own_namespace: &str, port: u16) -> bool {
    let peers = rule[key].as_array();
    let peer = peers.is_none_or(|peers| peers.iter().any(|peer| peer_matches(peer, pod, own_namespace)));
    let ports = rule["ports"].as_array();
    peer && ports.is_none_or(|ports| ports.iter().any(|p| p["port"] == port && p["protocol"] == "TCP"))
}

/// Whether `other` may be at the other end of `pod`'s connections in this direction.
fn side_allows(
    policies: &[Value],
    (pod, other): (&Pod, &Pod),
    (kind, list, key): (&str, &str, &str),
    port: u16,
) -> bool {
    let here = |policy: &&Value| pod.namespace == "web" && matches(&policy["spec"]["podSelector"], &pod.labels);
    let of_kind = |policy: &&Value| {
        policy["spec"]["policyTypes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t == kind)
    };
    let selecting: Vec<_> = policies.iter().filter(here).filter(of_kind).collect();
    let rules = selecting
        .iter()
        .flat_map(|policy| policy["spec"][list].as_array().into_iter().flatten());
    selecting.is_empty()
        || rules
            .into_iter()
            .any(|rule| rule_allows(rule, key, other, pod.namespace, port))
}

fn allowed(policies: &[Value], from: &Pod, to: &Pod, port: u16) -> bool {
    side_allows(policies, (from, to), ("Egress", "egress", "to"), port)
        && side_allows(policies, (to, from), ("Ingress", "ingress", "from"), port)
}

fn cluster(yaml_is_full: bool) -> (Vec<Value>, Vec<Pod>) {
    let (cluster, facts) = if yaml_is_full {
        (fixture::full(), fixture::facts())
    } else {
        (fixture::minimal(), Facts::default())
    };
    let mut policies = Vec::new();
    let mut pods = Vec::new();
    for (_, child) in desired(Inputs {
        cluster: &cluster,
        facts: &facts,
    }) {
        if child.kind() == "NetworkPolicy" {
            policies.push(child.object.clone());
        }
        let labels = &child.object["spec"]["template"]["metadata"]["labels"];
        if let Some(component) = labels["app.kubernetes.io/component"].as_str() {
            pods.push(Pod {
                name: component.to_owned(),
                namespace: "web",
                labels: labels.clone(),
            });
        }
    }
    let outside = |name: &str, namespace: &'static str| Pod {
        name: name.to_owned(),
        namespace,
        labels: Value::Object(Map::new()),
    };
    pods.extend([
        outside("operator", "operators"),
        outside("stranger", "web"),
        outside("visitor", "elsewhere"),
    ]);
    (policies, pods)
}

fn expected(replicas: bool) -> BTreeSet<(String, String, u16)> {
    let mut table = vec![
        ("api", "pgbouncer-rw", 6432),
        ("api", "pgbouncer-ro", 6432),
        ("api", "redis-queue", 6379),
        ("api", "redis-cache", 6379),
        ("keeper", "pgbouncer-rw", 6432),
        ("keeper", "pgbouncer-ro", 6432),
        ("keeper", "postgres", 5432),
        ("keeper", "redis-queue", 6379),
        ("keeper", "redis-cache", 6379),
        ("keeper", "egress", 3128),
        ("worker", "pgbouncer-rw", 6432),
        ("worker", "redis-queue", 6379),
        ("worker", "egress", 3128),
        ("migrate", "postgres", 5432),
        ("pgbouncer-rw", "postgres", 5432),
        ("pgbouncer-ro", "postgres", 5432),
        ("prometheus", "api", 9090),
        ("prometheus", "keeper", 9090),
        ("prometheus", "worker", 9090),
        ("prometheus", "egress", 9090),
        // The API server has no label to select it by: its ports are open, wherever nobody closes them at the other end.
        ("prometheus", "operator", 443),
        ("prometheus", "stranger", 443),
        ("prometheus", "visitor", 443),
        ("operator", "prometheus", 9090),
        ("operator", "api", 8081),
        ("operator", "api", 8080),
        ("stranger", "api", 8080),
        ("visitor", "api", 8080),
    ];
    if replicas {
        table.extend([
            ("pgbouncer-ro", "postgres-replica", 5432),
            ("postgres-replica", "postgres", 5432),
        ]);
    }
    table
        .into_iter()
        .map(|(from, to, port)| (from.to_owned(), to.to_owned(), port))
        .collect()
}

#[test]
fn pods_reach_each_other_exactly_as_the_table_says() {
    for full in [false, true] {
        let (policies, pods) = cluster(full);
        let mut found = BTreeSet::new();
        for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
            // What is between pods of others is none of a cluster's affair.
            let ours = [from, to]
                .iter()
                .any(|pod| !["operator", "stranger", "visitor"].contains(&pod.name.as_str()));
            for port in PORTS
                .into_iter()
                .filter(|port| ours && allowed(&policies, from, to, *port))
            {
                found.insert((from.name.clone(), to.name.clone(), port));
            }
        }
        // Every pod may ask DNS, wherever it is.
        found.retain(|(_, to, port)| *port != 53 || !["operator", "stranger", "visitor"].contains(&to.as_str()));
        assert_eq!(found, expected(full));
    }
}

#[test]
fn every_pod_may_ask_dns() {
    let (policies, pods) = cluster(false);
    let dns = Pod {
        name: "dns".into(),
        namespace: "kube-system",
        labels: json!({ "k8s-app": "kube-dns" }),
    };
    for pod in &pods {
        assert!(allowed(&policies, pod, &dns, 53), "{}", pod.name);
    }
}

#[test]
fn only_the_proxy_reaches_addresses_and_none_that_is_private_but_what_is_opened() {
    let (policies, _) = cluster(true);
    for policy in &policies {
        let component = policy["metadata"]["labels"]["app.kubernetes.io/component"]
            .as_str()
            .unwrap();
        let rules = policy["spec"]["egress"].as_array().into_iter().flatten();
        let blocks = rules
            .flat_map(|rule| rule["to"].as_array().into_iter().flatten())
            .map(|peer| &peer["ipBlock"]);
        let open: Vec<_> = blocks
            .filter(|b| b.is_object() && b["cidr"] != "169.254.20.10/32")
            .collect();
        if component == "egress" {
            let private = |text: &str| open[0]["except"].as_array().unwrap().iter().any(|e| e == text);
            assert!(
                [
                    "10.0.0.0/8",
                    "127.0.0.0/8",
                    "169.254.0.0/16",
                    "172.16.0.0/12",
                    "192.168.0.0/16"
                ]
                .map(private)
                    == [true; 5]
            );
            assert_eq!(open[2]["cidr"], "10.9.0.0/16");
        } else {
            assert!(open.is_empty(), "{component} reaches {open:?}");
        }
    }
}

/// What the egress rules of a component hold besides those of a cluster without a bucket.
fn ways_to(endpoint: Option<&str>, component: &str) -> Vec<Value> {
    let rules = |cluster: &crate::validated::ValidatedCluster| -> Vec<Value> {
        let facts = fixture::facts();
        let children = desired(Inputs { cluster, facts: &facts });
        let policy = children.into_iter().map(|(_, child)| child.object).find(|object| {
            object["kind"] == "NetworkPolicy" && object["metadata"]["name"] == format!("shop-{component}")
        });
        policy.unwrap()["spec"]["egress"].as_array().unwrap().clone()
    };
    let before = rules(&fixture::minimal());
    let mut more = rules(&fixture::bucket(endpoint));
    more.retain(|rule| !before.contains(rule));
    more
}

#[test]
fn the_bucket_is_reached_by_those_who_use_it_at_its_place_and_port() {
    for component in ["worker", "api", "keeper"] {
        let amazon = &ways_to(None, component)[0];
        assert_eq!(amazon["ports"], json!([{ "protocol": "TCP", "port": 443 }]));
        assert!(
            amazon["to"][0]["ipBlock"]["except"]
                .as_array()
                .unwrap()
                .contains(&json!("10.0.0.0/8"))
        );
        let service = ways_to(Some("https://minio.storage.svc.cluster.local:9000"), component);
        let storage = json!({ "matchLabels": { "kubernetes.io/metadata.name": "storage" } });
        assert_eq!(service, [json!({ "to": [{ "namespaceSelector": storage }] })]);
        let address = ways_to(Some("https://10.1.2.3:9000"), component);
        assert_eq!(address[0]["to"], json!([{ "ipBlock": { "cidr": "10.1.2.3/32" } }]));
        let name = ways_to(Some("https://s3.example.org"), component);
        assert_eq!(name, [json!({ "ports": [{ "protocol": "TCP", "port": 443 }] })]);
    }
    for component in ["egress", "pgbouncer-rw", "postgres", "redis-queue", "migrate"] {
        assert!(ways_to(None, component).is_empty(), "{component}");
    }
}
