//! A platform on two nodes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use selextract_e2e::world::World;
use serde_json::{Value, json};

use crate::platform::{DONE, Platform};

/// The database and the workers on the second node, the way out and the queue on the first, the API on both.
const SHOP: &str = "
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: {name: shop, namespace: NAMESPACE}
spec:
  profile: Small
  postgres: {pod: {nodeSelector: {kubernetes.io/hostname: node2}}}
  redis: {queue: {pod: {nodeSelector: {kubernetes.io/hostname: node1}}}}
  api:
    pod:
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule}]
  worker: {pod: {nodeSelector: {kubernetes.io/hostname: node2}}}
  egress:
    pod: {nodeSelector: {kubernetes.io/hostname: node1}}
    allow: [{host: sites.NAMESPACE.svc.cluster.local}]
";

#[tokio::test]
async fn a_platform_spreads_over_two_nodes_as_its_spec_says_and_works() -> Result<()> {
    let world = World::enter_with_nodes("journey-nodes", 2).await?;
    world.serve_sites()?;
    world.apply(SHOP)?;
    let platform = Platform { world };
    platform.wait_until_ready().await?;
    let nodes = nodes_of_components(&platform.world)?;
    let on = |component: &str| nodes.get(component).cloned().unwrap_or_default();
    let both = BTreeSet::from(["node1".to_owned(), "node2".to_owned()]);
    assert_eq!(on("api"), both);
    assert_eq!(on("postgres"), BTreeSet::from(["node2".to_owned()]));
    assert_eq!(on("worker"), BTreeSet::from(["node2".to_owned()]));
    assert_eq!(on("redis-queue"), BTreeSet::from(["node1".to_owned()]));
    assert_eq!(on("egress"), BTreeSet::from(["node1".to_owned()]));

    // Chromium keeps its sandbox on a node that came later.
    let api = platform.api().await?;
    let url = format!("http://sites.{}.svc.cluster.local/swagger/", platform.world.namespace);
    let rendered = json!({ "url": url, "render": "Browser", "fields": [{ "name": "title", "selector": "title" }] });
    for task in [rendered, platform.parameters_task()?] {
        let ended = api.wait_for_end(&api.create_task(&task).await?, DONE).await?;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    }
    platform.world.leave()
}

fn nodes_of_components(world: &World) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let list = world.kubectl(&["get", "pods", "-l", "app.kubernetes.io/instance=shop", "-o", "json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let mut nodes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        let component = pod["metadata"]["labels"]["app.kubernetes.io/component"].as_str();
        if let (Some(component), Some(node)) = (component, pod["spec"]["nodeName"].as_str()) {
            nodes.entry(component.to_owned()).or_default().insert(node.to_owned());
        }
    }
    Ok(nodes)
}
