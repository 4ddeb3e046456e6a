//! A Prometheus that somebody else runs, which asks for a password, sizes the API by CPU and by errors; workers are somebody else's to size.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use selextract_e2e::{api::Api, world::World};
use serde_json::{Value, json};

use crate::{
    load::{Load, list},
    platform::{Platform, READY},
    scaling::{CALM, SOON, changes, scale},
};

/// As an administrator might run it: it finds pods by their labels, and lets nobody in without a password.
const PROMETHEUS: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: NAMESPACE}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: prometheus, namespace: NAMESPACE}
rules: [{apiGroups: [''], resources: [pods], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: prometheus, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: NAMESPACE}]
---
apiVersion: v1
kind: Service
metadata: {name: prometheus, namespace: NAMESPACE}
spec: {selector: {app: prometheus}, ports: [{port: 9090}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: prometheus, namespace: NAMESPACE}
data:
  # The password of-the-journeys.
  web.yml: |
    basic_auth_users: {operator: $2b$05$abcdefghijklmnopqrstuuUd51rAkOOHCCIkTzjsmRvcGZG96qruO}
  prometheus.yml: |
    global: {scrape_interval: 5s, scrape_timeout: 4s}
    scrape_configs:
      - job_name: pods
        kubernetes_sd_configs: [{role: pod, namespaces: {names: [NAMESPACE]}}]
        relabel_configs:
          - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_name], regex: selextract, action: keep}
          - {source_labels: [__meta_kubernetes_pod_container_port_name], regex: telemetry, action: keep}
          - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
          - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance], target_label: cluster}
          - {source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_component], target_label: component}
          - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
---
apiVersion: v1
kind: Pod
metadata: {name: prometheus, namespace: NAMESPACE, labels: {app: prometheus}}
spec:
  serviceAccountName: prometheus
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: prometheus
      image: localhost/selextract/data:TAG
      command:
        - prometheus
        - --config.file=/config/prometheus.yml
        - --web.config.file=/config/web.yml
        - --storage.tsdb.path=/data
      readinessProbe: {tcpSocket: {port: 9090}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts:
        - {name: config, mountPath: /config}
        - {name: data, mountPath: /data}
  volumes:
    - {name: config, configMap: {name: prometheus}}
    - {name: data, emptyDir: {}}
";

/// Only CPU and errors may add a pod.
const SHOP: &str = "
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: {name: shop, namespace: NAMESPACE}
spec:
  profile: Small
  api: {pod: {resources: {limits: {cpu: 250m}}}}
  monitoring:
    prometheus: {provider: External, external: {url: 'http://prometheus.NAMESPACE.svc:9090', secretName: reader}}
  scaling:
    api:
      minReplicas: 1
      maxReplicas: 2
      stabilizationWindow: 20s
      cooldown: 5s
      triggers: {cpuPercent: 60, cpuFor: 20s, latencyP95: 1m, errorPercent: 1}
    worker: {mode: External}
";

// The load goes on while this waits for kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_prometheus_sizes_the_api_by_cpu_and_by_errors_and_leaves_the_workers_alone() -> Result<()> {
    let platform = Platform {
        world: World::enter("journey-measured").await?,
    };
    let world = &platform.world;
    world.apply(PROMETHEUS)?;
    world.apply(&reader("wrong"))?;
    world
        .wait_for_condition("pod/prometheus", "Ready", "True", SOON)
        .await?;
    world.apply(SHOP)?;
    platform.wait_until_ready().await?;

    // A wrong password is told by its status, and nothing is decided meanwhile.
    let refused = world
        .wait_for_condition("selextractcluster/shop", "MonitoringReady", "False", SOON)
        .await?;
    ensure!(
        refused.to_string().contains("401"),
        "{}",
        refused["status"]["conditions"]
    );
    world.apply(&reader("of-the-journeys"))?;
    world
        .wait_for_condition("selextractcluster/shop", "MonitoringReady", "True", READY)
        .await?;
    scale(&platform, "api", "one API pod at rest", CALM, |api| api["desired"] == 1).await?;

    // What somebody else says of the workers stays, while the cluster is reconciled for the API.
    world.kubectl(&["scale", "deployment/shop-worker", "--replicas=2"])?;

    let reading = Load::start(&platform, 4, list).await?;
    let grown = scale(&platform, "api", "a second pod for CPU", SOON * 3, |api| {
        api["desired"] == 2
    })
    .await?;
    reading.end().await;
    ensure!(newest(&grown)? == "CpuHigh", "{grown}");
    scale(&platform, "api", "one API pod again", CALM, |api| api["desired"] == 1).await?;
    ensure!(
        platform.number("deployment/shop-worker", "/spec/replicas")? == Some(2),
        "the workers are not the operator's to size"
    );

    // Whoever sizes the workers takes them all away, and previews, which workers read, are answered with 503.
    world.kubectl(&["scale", "deployment/shop-worker", "--replicas=0"])?;
    let previewing = Load::start(&platform, 1, preview).await?;
    let grown = scale(&platform, "api", "a second pod for errors", SOON * 3, |api| {
        api["desired"] == 2
    })
    .await?;
    previewing.end().await;
    ensure!(newest(&grown)? == "ErrorsHigh", "{grown}");
    world.leave()
}

fn newest(scale: &Value) -> Result<String> {
    let newest = changes(scale).into_iter().next().context("no change")?;
    Ok(newest.2)
}

fn reader(password: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "reader", "namespace": "NAMESPACE" },
        "stringData": { "username": "operator", "password": password },
    })
    .to_string()
}

/// Not more often than a user may.
async fn preview(api: Api) {
    let task = json!({ "url": "http://example.invalid/", "fields": [{ "name": "title", "selector": "title" }] });
    // That it fails is what this is about.
    drop(api.send(Method::POST, "tasks:preview", Some(&task)).await);
    tokio::time::sleep(Duration::from_secs(3)).await;
}
