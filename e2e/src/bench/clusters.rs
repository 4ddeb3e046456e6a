//! The clusters that are measured: one whole, the others played, and how long one takes to become Ready.

use std::time::{Duration, Instant};

use anyhow::Result;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

use super::played;
use crate::world::World;

/// From applying a cluster to Ready on two busy cores; the figure that is aimed at is measured, not enforced.
pub const PATIENCE: Duration = Duration::from_mins(5);
/// The whole cluster's name.
pub const WHOLE: &str = "whole";

/// The objects of one of our kinds in the world's namespace.
pub fn objects(world: &World, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("selextract.io", "v1alpha1", kind));
    Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
}

/// Applies a small cluster whose pods really run, and that may scrape the namespace's sites.
pub fn apply_whole(world: &World) -> Result<()> {
    let allowed = format!("sites.{}.svc.cluster.local", world.namespace);
    let cluster = json!({
        "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
        "metadata": { "name": WHOLE, "namespace": world.namespace },
        "spec": {
            "profile": "Small",
            "worker": { "lease": "5s" },
            "keeper": { "refillInterval": "1s", "sweepInterval": "1s" },
            "egress": { "allow": [{ "host": allowed }] },
            "monitoring": unmeasured(),
        },
    });
    world.apply(&cluster.to_string())
}

/// No Prometheus: what is counted at rest is what reconciling writes, not the hourly words about promises and costs.
fn unmeasured() -> Value {
    json!({ "prometheus": { "provider": "None" } })
}

/// Applies small clusters on the played node; their names.
pub fn apply_played(world: &World, number: usize) -> Result<Vec<String>> {
    let mut spec = json!({ "profile": "Small", "monitoring": unmeasured() });
    played::place(&mut spec);
    let names: Vec<_> = (1..=number).map(|index| format!("played-{index}")).collect();
    for name in &names {
        let cluster = json!({
            "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
            "metadata": { "name": name, "namespace": world.namespace },
            "spec": spec,
        });
        world.apply(&cluster.to_string())?;
    }
    Ok(names)
}

/// Waits until a cluster is Ready.
pub async fn wait_until_ready(world: &World, name: &str) -> Result<()> {
    let object = format!("selextractcluster/{name}");
    world
        .wait_for_condition(&object, "Ready", "True", PATIENCE)
        .await
        .map(drop)
}

/// The seconds from applying a cluster to Ready, each time in a new namespace, sorted.
pub async fn measure_starts(times: usize) -> Result<Vec<f64>> {
    let mut seconds = Vec::new();
    for _ in 0..times {
        let world = World::enter("bench-start").await?;
        let started = Instant::now();
        apply_whole(&world)?;
        wait_until_ready(&world, WHOLE).await?;
        seconds.push(started.elapsed().as_secs_f64());
        world.kubectl(&["delete", "namespace", &world.namespace, "--wait=true"])?;
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}
