//! What is built for monitoring: managed, external or none; for the Prometheus operator, Grafana and Alertmanager.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Child, Facts, Inputs, Served, desired, fixture};
use crate::validated::ValidatedCluster;

fn built(monitoring: &Value, facts: &Facts) -> Vec<Child> {
    let cluster = fixture::with(&json!({ "profile": "Small", "monitoring": monitoring }));
    children(&cluster, facts)
}

fn children(cluster: &ValidatedCluster, facts: &Facts) -> Vec<Child> {
    let children = desired(Inputs { cluster, facts });
    children.into_iter().map(|(_, child)| child).collect()
}

fn find<'a>(children: &'a [Child], kind: &str, name: &str) -> &'a Value {
    let found = children
        .iter()
        .find(|child| child.kind() == kind && child.name() == name);
    &found.unwrap_or_else(|| panic!("{kind} {name} is missing")).object
}

fn of_prometheus(children: &[Child]) -> BTreeSet<String> {
    let own = |child: &&Child| child.object["metadata"]["labels"]["app.kubernetes.io/component"] == "prometheus";
    children
        .iter()
        .filter(own)
        .map(|child| child.kind().to_owned())
        .collect()
}

fn configuration(children: &[Child]) -> Value {
    let text = &find(children, "ConfigMap", "shop-prometheus")["data"]["prometheus.yml"];
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

#[test]
fn a_managed_prometheus_is_whole_and_the_others_have_nothing_of_it() {
    let managed = built(&json!({}), &Facts::default());
    let kinds = [
        "ConfigMap",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    ];
    assert_eq!(of_prometheus(&managed), kinds.map(str::to_owned).into());
    let none = json!({ "prometheus": { "provider": "None" } });
    let external =
        json!({ "prometheus": { "provider": "External", "external": { "url": "http://prometheus.watch.svc:9090" } } });
    for other in [none, external] {
        assert!(of_prometheus(&built(&other, &Facts::default())).is_empty());
    }
}

#[test]
fn its_right_is_to_find_pods_and_nothing_else() {
    let children = built(&json!({}), &Facts::default());
    let role = find(&children, "Role", "shop-prometheus");
    assert_eq!(
        role["rules"],
        json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] }])
    );
    let binding = find(&children, "RoleBinding", "shop-prometheus");
    assert_eq!(
        binding["subjects"],
        json!([{ "kind": "ServiceAccount", "name": "shop-prometheus", "namespace": "web" }])
    );
}

#[test]
fn what_is_scaled_is_asked_every_five_seconds_and_the_rest_every_fifteen() {
    let configuration = configuration(&built(&json!({}), &Facts::default()));
    let jobs: Vec<_> = configuration["scrape_configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| {
            (
                job["job_name"].as_str().unwrap(),
                job["scrape_interval"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        jobs,
        [("telemetry-fast", "5s"), ("telemetry", "15s"), ("prometheus", "15s")]
    );
    let choice = |job: usize| configuration["scrape_configs"][job]["relabel_configs"][2].clone();
    assert_eq!(
        (&choice(0)["action"], &choice(1)["action"]),
        (&json!("keep"), &json!("drop"))
    );
    assert_eq!(choice(0)["regex"], "api|keeper|worker");
}

#[test]
fn the_kubelets_are_asked_where_that_is_wanted_and_not_forbidden() {
    let wanted = json!({ "prometheus": { "managed": { "kubeletMetrics": true } } });
    for (right, asked) in [(Some(true), true), (None, true), (Some(false), false)] {
        let facts = Facts {
            kubelet_right: right,
            ..Facts::default()
        };
        let text = configuration(&built(&wanted, &facts)).to_string();
        assert_eq!(text.contains("/metrics/resource"), asked, "{right:?}");
    }
    let text = configuration(&built(&json!({}), &Facts::default())).to_string();
    assert!(!text.contains("/metrics/resource"));
}

#[test]
fn another_threshold_rolls_the_pod_that_reads_it() {
    let hash = |monitoring: &Value| {
        let children = built(monitoring, &Facts::default());
        let set = find(&children, "StatefulSet", "shop-prometheus");
        set["spec"]["template"]["metadata"]["annotations"]["selextract.io/config-hash"].clone()
    };
    let other = json!({ "alerts": { "thresholds": { "backlog": 200 } } });
    assert_ne!(hash(&json!({})), hash(&other));
}

#[test]
fn objects_of_the_prometheus_operator_are_made_where_they_are_wanted_and_served() {
    let wanted = json!({ "prometheus": { "podMonitors": true, "rules": true, "objectLabels": { "release": "kps" } } });
    let kinds = |served: Served| {
        let facts = Facts {
            served,
            ..Facts::default()
        };
        let foreign = |child: &Child| child.object["apiVersion"] == "monitoring.coreos.com/v1";
        built(&wanted, &facts).into_iter().filter(foreign).collect::<Vec<_>>()
    };
    assert!(kinds(Served::default()).is_empty());
    let all = kinds(Served {
        pod_monitors: true,
        rules: true,
    });
    assert_eq!(
        all.iter().map(Child::kind).collect::<Vec<_>>(),
        ["PodMonitor", "PodMonitor", "PrometheusRule", "PrometheusRule"]
    );
    for child in &all {
        assert_eq!(child.object["metadata"]["labels"]["release"], "kps", "{}", child.name());
        assert_eq!(child.object["metadata"]["labels"]["app.kubernetes.io/instance"], "shop");
    }
    insta::assert_json_snapshot!("pod_monitor", all[0].object);
}

#[test]
fn a_prometheus_of_ones_own_reaches_the_telemetry_ports_from_its_namespace() {
    let external =
        json!({ "prometheus": { "provider": "External", "external": { "url": "http://prometheus.watch.svc:9090" } } });
    let children = built(&external, &Facts::default());
    for component in ["api", "keeper", "worker", "egress"] {
        let policy = find(&children, "NetworkPolicy", &format!("shop-{component}"));
        let rule = json!({
            "from": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "watch" } } }],
            "ports": [{ "protocol": "TCP", "port": 9090 }],
        });
        assert!(
            policy["spec"]["ingress"].as_array().unwrap().contains(&rule),
            "{component}"
        );
    }
}

#[test]
fn only_pods_that_say_so_may_ask_a_managed_one_besides_the_operator() {
    let children = built(&json!({}), &Facts::default());
    let rules = &find(&children, "NetworkPolicy", "shop-prometheus")["spec"]["ingress"];
    let from: Vec<_> = rules
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["from"][0].clone())
        .collect();
    assert_eq!(
        from,
        [
            json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "operators" } } }),
            json!({ "podSelector": { "matchLabels": { "selextract.io/prometheus-client": "true" } } }),
        ]
    );
}

#[test]
fn alertmanagers_are_told_and_reached() {
    let alerts = json!({ "alerts": { "alertmanagers": ["http://alertmanager.watch.svc:9093", "https://alerts.example.org/team"] } });
    let children = built(&alerts, &Facts::default());
    let told = configuration(&children)["alerting"]["alertmanagers"].clone();
    assert_eq!(
        told[0]["static_configs"][0]["targets"],
        json!(["alertmanager.watch.svc:9093"])
    );
    assert_eq!(
        (&told[1]["scheme"], &told[1]["path_prefix"]),
        (&json!("https"), &json!("/team"))
    );
    let egress = find(&children, "NetworkPolicy", "shop-prometheus")["spec"]["egress"].to_string();
    assert!(egress.contains("\"watch\"") && egress.contains("443"), "{egress}");
}

#[test]
fn dashboards_and_routes_are_config_maps_with_their_labels() {
    let routing = json!({
        "pageWebhook": "https://pager.example.org", "businessHoursWebhook": "https://chat.example.org", "summaryWebhook": "https://mail.example.org",
    });
    let monitoring =
        json!({ "dashboards": { "enabled": true, "labels": { "grafana": "yes" } }, "alerts": { "routing": routing } });
    let children = built(&monitoring, &Facts::default());
    let marked: Vec<_> = children
        .iter()
        .filter(|child| child.object["metadata"]["labels"]["grafana"] == "yes")
        .collect();
    assert_eq!(marked.len(), 5);
    let mut uids = BTreeSet::new();
    for child in marked {
        for text in child.object["data"].as_object().unwrap().values() {
            let dashboard: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
            assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()));
        }
    }
    assert!(find(&children, "ConfigMap", "shop-alertmanager")["data"]["alertmanager.yml"].is_string());
    let without = built(&json!({}), &Facts::default());
    assert!(
        without
            .iter()
            .all(|child| !child.name().contains("dashboard") && child.name() != "shop-alertmanager")
    );
}
