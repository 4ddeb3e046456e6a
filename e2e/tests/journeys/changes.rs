//! What users change about a platform that runs.

use anyhow::Result;

use crate::{
    platform::{READY, shared},
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
                let streaming = platform.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")?;
                Ok((streaming == wanted.to_string()).then_some(()))
            })
            .await?;
        assert_eq!(platform.pods("postgres-replica")?.len(), wanted);
    }
    Ok(())
}

/// Takes the slot away from under the replica, which tries to keep it.
const DROP_SLOT: &str = "DO $$ BEGIN FOR attempt IN 1..100 LOOP
  PERFORM pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = 'replica_0' AND active;
  BEGIN PERFORM pg_drop_replication_slot('replica_0'); EXIT; EXCEPTION WHEN object_in_use THEN NULL; END;
END LOOP; END $$";

#[tokio::test]
async fn a_replica_that_lost_its_slot_is_cloned_again_and_streams() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    let replicas = |wanted: u8| {
        let patch = format!(r#"{{"spec":{{"postgres":{{"readReplicas":{wanted}}}}}}}"#);
        world.kubectl(&["patch", SPEC, "--type=merge", "-p", &patch])
    };
    let streams = "SELECT count(*) FROM pg_replication_slots JOIN pg_stat_replication ON pid = active_pid \
                   WHERE slot_name = 'replica_0' AND state = 'streaming'";
    let wait_until_it_streams = || {
        world.wait_until("the replica streams through its slot", READY, || {
            Ok((platform.sql(streams)? == "1").then_some(()))
        })
    };
    replicas(1)?;
    wait_until_it_streams().await?;
    platform.wait_until_ready().await?;

    platform.sql("CREATE TABLE while_away (id int)")?;
    platform.sql(DROP_SLOT)?;
    assert_eq!(platform.sql("SELECT count(*) FROM pg_replication_slots")?, "0");
    // Without its slot it never catches up, so what is written now comes by a new clone alone.
    platform.sql("INSERT INTO while_away VALUES (1)")?;
    wait_until_it_streams().await?;
    let cluster = platform.wait_until_ready().await?;
    assert_eq!(cluster["status"]["database"]["slots"][0]["state"], "Streaming");
    world
        .wait_until("the replica has the row", READY, || {
            let count = platform.sql_on("shop-postgres-replica-0-0", "SELECT count(*) FROM while_away")?;
            Ok((count == "1").then_some(()))
        })
        .await?;

    platform.sql("DROP TABLE while_away")?;
    replicas(0)?;
    platform.wait_until_ready().await?;
    Ok(())
}

// The load goes on while this waits for kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_with_a_migration_fails_no_request() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    let next = world.next_tag()?;
    // The data image is pinned: a new version of our programs is no reason to restart the database.
    let image = |tag: &str| {
        let data = format!("localhost/selextract/data:{}", world.tag);
        format!(r#"{{"spec":{{"image":{{"tag":"{tag}","data":"{data}"}}}}}}"#)
    };
    let load = Load::start(&platform).await?;
    world.kubectl(&["patch", SPEC, "--type=merge", "-p", &image(&next)])?;
    world
        .wait_until("the platform runs the next version", READY, || {
            let status = &world.get(SPEC)?["status"];
            let migrated = status["image"]["migrated"].as_str().unwrap_or_default();
            Ok((status["image"]["tag"] == *next && migrated.ends_with(&next)).then_some(()))
        })
        .await?;
    platform.wait_until_ready().await?;
    load.end().await?;
    let table = "SELECT to_regclass('next_version') IS NOT NULL";
    assert_eq!(platform.sql(table)?, "t");

    // Back to the version under test: its programs work with the newer schema, as the way back of an upgrade needs.
    world.kubectl(&["patch", SPEC, "--type=merge", "-p", r#"{"spec":{"image":null}}"#])?;
    platform.wait_until_ready().await?;
    Ok(())
}
