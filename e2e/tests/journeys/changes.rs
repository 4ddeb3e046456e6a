//! What users change about a platform that runs.

use anyhow::{Context, Result};

use crate::{
    platform::{READY, shared, start},
    survival::Load,
};

const SPEC: &str = "selextractcluster/shop";

#[tokio::test]
async fn every_field_is_explained_and_the_table_answers_at_a_glance() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    for kind in [
        "selextractclusters.spec",
        "selextractclusters.status",
        "scrapetasks.spec",
        "scrapetasks.status",
    ] {
        let explained = world.kubectl(&["explain", kind, "--recursive", "--api-version=selextract.io/v1alpha1"])?;
        assert!(!explained.contains("<no description>"), "{kind}: {explained}");
    }
    let table = world.kubectl(&["get", "selextract"])?;
    assert!(table.contains("STATUS") && table.contains("shop"), "{table}");
    world.kubectl(&["wait", "--for=condition=Ready", SPEC, "--timeout=30s"])?;
    Ok(())
}

#[tokio::test]
async fn read_replicas_follow_the_spec() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    for wanted in [2, 1, 0] {
        let patch = format!(r#"{{"spec":{{"postgres":{{"readReplicas":{wanted}}}}}}}"#);
        world.kubectl(&["patch", SPEC, "--type=merge", "-p", &patch])?;
        platform.wait_until_ready().await?;
        world
            .wait_until(&format!("{wanted} replicas stream"), READY, || {
                let slots = world.kubectl(&[
                    "exec",
                    "shop-postgres-0",
                    "-c",
                    "postgres",
                    "--",
                    "psql",
                    "-XAtU",
                    "postgres",
                    "-h",
                    "/run/postgresql",
                    "-c",
                    "SELECT (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming') || ' ' || (SELECT count(*) FROM pg_replication_slots)",
                ])?;
                Ok((slots.trim() == format!("{wanted} {wanted}")).then_some(()))
            })
            .await?;
        assert_eq!(platform.pods("postgres-replica")?.len(), wanted);
    }
    Ok(())
}

#[tokio::test]
async fn an_upgrade_fails_no_request() -> Result<()> {
    let platform = start("journey-upgrade").await?;
    let world = &platform.world;
    let load = Load::start(&platform).await?;
    let next = world.second_tag()?;
    let patch = format!(r#"{{"spec":{{"image":{{"tag":"{next}"}}}}}}"#);
    world.kubectl(&["patch", SPEC, "--type=merge", "-p", &patch])?;
    world
        .wait_until("the platform runs the other tag", READY, || {
            let image = world.get("deployment/shop-api")?["spec"]["template"]["spec"]["containers"][0]["image"].clone();
            Ok(image.as_str().is_some_and(|image| image.ends_with(&next)).then_some(()))
        })
        .await?;
    world.kubectl(&["rollout", "status", "deployment/shop-api", "--timeout=170s"])?;
    platform.wait_until_ready().await?;
    load.end().await?;
    let migrated = world.get(SPEC)?["status"]["image"]["tag"].clone();
    assert_eq!(migrated.as_str().context("no tag in the status")?, next);
    world.kubectl(&["delete", "namespace", &world.namespace, "--timeout=120s"])?;
    Ok(())
}
