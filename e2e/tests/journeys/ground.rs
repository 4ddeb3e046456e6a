//! Journeys on the real cluster, named as sentences. Each enters a namespace of its own; they run one after another
//! (`--test-threads=1`), because they share two cores.

use std::time::Duration;

use anyhow::Result;
use selextract_e2e::world::World;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: probe, namespace: NAMESPACE}
spec:
  restartPolicy: Never
  containers: [{name: probe, image: 'localhost/selextract/data:TAG', command: [sleep, infinity]}]
";

#[tokio::test]
async fn a_namespace_of_a_journey_takes_restricted_pods_only_and_serves_the_sites() -> Result<()> {
    let world = World::enter("journey-ground").await?;
    let refusal = world.refusal(POD)?;
    assert!(refusal.contains("violates PodSecurity \"restricted"), "{refusal}");

    world.serve_sites()?;
    world
        .wait_for_condition("deployment/sites", "Available", "True", Duration::from_mins(1))
        .await?;
    let address = world.service_address("sites")?;
    let page = reqwest::get(format!("http://{address}/docs/runtime-config-connection.html"))
        .await?
        .text()
        .await?;
    assert!(page.contains("GUC-LISTEN-ADDRESSES"));
    Ok(())
}
