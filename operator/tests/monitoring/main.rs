//! The alerts, the managed Prometheus' files and the catalogue of queries, judged by Prometheus' own programs out of the data image.
//! They need a root made by `images/build --root data`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alerts;
mod exposition;
mod history;
mod queries;
mod records;
mod series;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use selextract_operator::{
    build::{Facts, Inputs, desired},
    validated::{Defaults, ValidatedCluster, validate},
};
use selextract_test_services::Prometheus;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// A server that listens may not be ready yet, and then answers nothing.
async fn wait_until_ready(client: &reqwest::Client, server: &Prometheus) {
    let started = Instant::now();
    let ready = format!("{}/-/ready", server.url());
    while !client.get(&ready).send().await.unwrap().status().is_success() {
        assert!(started.elapsed() < PATIENCE, "it is never ready: {}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn cluster(spec: &Value) -> ValidatedCluster {
    let cluster = serde_json::from_value(json!({
        "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
        "metadata": { "name": "shop", "namespace": "web", "uid": "0b0e7f7c-0000-4000-8000-000000000001" },
        "spec": spec,
    }));
    let defaults = Defaults {
        registry: String::new(),
        tag: "1".into(),
        namespace: "operators".into(),
        subject: "system:serviceaccount:operators:operator".into(),
    };
    validate(&cluster.unwrap(), &defaults).unwrap()
}

/// `prometheus.yml` of the managed Prometheus, and its rules by their files.
fn files(monitoring: &Value) -> (String, BTreeMap<String, String>) {
    files_of(&json!({ "profile": "Small", "monitoring": monitoring }))
}

fn files_of(spec: &Value) -> (String, BTreeMap<String, String>) {
    let (cluster, facts) = (cluster(spec), Facts::default());
    let children = desired(Inputs {
        cluster: &cluster,
        facts: &facts,
    });
    let (_, child) = children
        .iter()
        .find(|(_, child)| child.kind() == "ConfigMap" && child.name() == "shop-prometheus")
        .unwrap();
    let data = child.object["data"].as_object().unwrap();
    let mut files: BTreeMap<_, _> = data
        .iter()
        .map(|(file, text)| (file.clone(), text.as_str().unwrap().to_owned()))
        .collect();
    (files.remove("prometheus.yml").unwrap(), files)
}
