//! What becomes of data when its cluster or its namespace goes.

use std::time::Duration;

use anyhow::Result;

use crate::platform::{DONE, SHOP, start};

const SCRAPE: &str = "
apiVersion: selextract.io/v1alpha1
kind: ScrapeTask
metadata: {name: NAME_OF_TASK, namespace: NAMESPACE}
spec: {clusterRef: {name: shop}, task: TASK}
";

#[tokio::test]
async fn a_deleted_cluster_keeps_its_data_and_finds_it_again_and_a_namespace_goes_with_everything() -> Result<()> {
    let platform = start("journey-data").await?;
    let world = &platform.world;
    let id = platform.api().await?.create_task(&platform.parameters_task()?).await?;
    let records = {
        let api = platform.api().await?;
        api.wait_for_end(&id, DONE).await?;
        api.records(&id).await?
    };
    assert!(!records.is_empty());
    let password = world.secret("shop-postgres", "owner-password")?;

    world.kubectl(&["delete", "selextractcluster/shop", "--timeout=120s"])?;
    world
        .wait_until("the pods are gone", Duration::from_mins(2), || {
            let pods = world.kubectl(&["get", "pods", "-l", "app.kubernetes.io/instance=shop", "-o", "name"])?;
            Ok(pods.trim().is_empty().then_some(()))
        })
        .await?;
    assert_eq!(world.secret("shop-postgres", "owner-password")?, password);

    world.apply(SHOP)?;
    platform.wait_until_ready().await?;
    assert_eq!(platform.api().await?.records(&id).await?, records);

    // With ScrapeTasks in it, one of them at work.
    let task = platform.parameters_task()?.to_string();
    for name in ["one", "two"] {
        world.apply(&SCRAPE.replace("NAME_OF_TASK", name).replace("TASK", &task))?;
    }
    world
        .wait_until("a ScrapeTask is at work", DONE, || {
            let task = world.get("scrapetask/one")?;
            Ok((!task["status"]["runId"].is_null()).then_some(()))
        })
        .await?;
    world.kubectl(&["delete", "namespace", &world.namespace, "--timeout=170s"])?;
    Ok(())
}
