//! Bad input: refused by the API server where it can know, told by a condition where only the operator can, and mended without a restart.

use std::time::Duration;

use anyhow::Result;
use selextract_e2e::world::World;
use serde_json::Value;

use crate::platform::shared;

const MINUTE: Duration = Duration::from_mins(1);

fn cluster(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: selextract.io/v1alpha1, kind: SelextractCluster, metadata: {{name: {name}, namespace: NAMESPACE}}, spec: {spec}}}"
    )
}

fn task(name: &str, cluster: &str, task: &str) -> String {
    format!(
        "{{apiVersion: selextract.io/v1alpha1, kind: ScrapeTask, metadata: {{name: {name}, namespace: NAMESPACE}}, \
         spec: {{clusterRef: {cluster}, task: {task}}}}}"
    )
}

#[tokio::test]
async fn what_validation_can_refuse_is_refused_with_a_message_that_says_what_and_why() -> Result<()> {
    let world = World::enter("journey-refusals").await?;
    let fields = "fields: [{name: title, selector: h1}]";
    for (yaml, says) in [
        (cluster("a-name-that-has-more-than-thirty-letters", "{}"), "30"),
        (cluster("shop", "{postgres: {provider: External}}"), "name the Secret"),
        (
            cluster("shop", "{postgres: {readReplicas: 9}}"),
            "spec.postgres.readReplicas",
        ),
        (cluster("shop", "{profile: Huge}"), "spec.profile"),
        (cluster("shop", "{wroker: {}}"), "wroker"),
        (
            task("t", "{name: shop}", &format!("{{url: 'ftp://example.com/', {fields}}}")),
            "spec.task.url",
        ),
        (
            task(
                "t",
                "{name: shop}",
                &format!("{{url: 'https://example.com/', {fields}, timeout: soon}}"),
            ),
            "spec.task.timeout",
        ),
        (
            task("t", "{name: shop}", "{url: 'https://example.com/', fields: []}"),
            "spec.task.fields",
        ),
    ] {
        let refusal = world.refusal(&yaml)?;
        assert!(refusal.contains(says), "{yaml}\nwas refused with: {refusal}");
    }
    Ok(())
}

#[tokio::test]
async fn what_only_the_operator_can_judge_is_told_by_a_condition_and_mended_without_a_restart() -> Result<()> {
    let world = World::enter("journey-conditions").await?;
    world.apply(&cluster(
        "ext",
        "{profile: Small, postgres: {provider: External, external: {secretName: my-database}}}",
    ))?;
    let told = condition(&world, "selextractcluster/ext", "DatabaseReady", "my-database").await?;
    assert_eq!(told["status"], "False", "{told}");

    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: my-database, namespace: NAMESPACE}, \
                  stringData: {url: 'postgres://u:p@nobody.invalid:5432/db'}}";
    world.apply(secret)?;
    condition(&world, "selextractcluster/ext", "DatabaseReady", "nobody.invalid").await?;

    world.apply(&cluster(
        "space",
        "{profile: Small, postgres: {pod: {nodeSelector: {no-node: has-this}}}}",
    ))?;
    let told = condition(&world, "selextractcluster/space", "DatabaseReady", "Unschedulable").await?;
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|says| says.contains("node(s) didn't match")),
        "{told}"
    );
    let anywhere = r#"{"spec":{"postgres":{"pod":{"nodeSelector":null}}}}"#;
    world.kubectl(&["patch", "selextractcluster/space", "--type=merge", "-p", anywhere])?;
    world
        .wait_for_condition("selextractcluster/space", "DatabaseReady", "True", MINUTE * 2)
        .await?;
    world.leave()
}

const LAST_WORDS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a-pod-that-fails, namespace: NAMESPACE}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: probe
      image: localhost/selextract/data:TAG
      command: [bash, -c, echo these are its last words; exit 3]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_named_and_a_wait_in_vain_shows_events_and_logs() -> Result<()> {
    let world = World::enter("journey-image").await?;
    world.apply(LAST_WORDS)?;
    let image = "localhost/selextract/data:missing";
    world.apply(&cluster(
        "pull",
        &format!("{{profile: Small, image: {{data: '{image}'}}}}"),
    ))?;
    let told = condition(&world, "selextractcluster/pull", "DatabaseReady", image).await?;
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&"False".into(), &"ImageCannotBePulled".into()),
        "{told}"
    );

    let vain = world.wait_as_the_demo("selextractcluster/pull", "DatabaseReady", Duration::from_secs(1));
    let printed = format!("{:#}", vain.unwrap_err());
    for part in [
        "condition DatabaseReady: not within 1 s",
        "reason: ImageCannotBePulled",
        "--- events of pull-postgres-0",
        "Failed to pull image \"localhost/selextract/data:missing\"",
        "--- logs of a-pod-that-fails",
        "these are its last words",
    ] {
        assert!(printed.contains(part), "{part} is missing in: {printed}");
    }

    let mended = r#"{"spec":{"image":null}}"#;
    world.kubectl(&["patch", "selextractcluster/pull", "--type=merge", "-p", mended])?;
    world
        .wait_for_condition("selextractcluster/pull", "DatabaseReady", "True", MINUTE * 2)
        .await?;
    world.leave()
}

const QUOTA: &str =
    "{apiVersion: v1, kind: ResourceQuota, metadata: {name: tight, namespace: NAMESPACE}, spec: {hard: {pods: PODS}}}";

#[tokio::test]
async fn a_quota_that_refuses_a_pod_is_named_with_used_and_limit_and_lifting_it_is_enough() -> Result<()> {
    let world = World::enter("journey-quota").await?;
    world.apply(&QUOTA.replace("PODS", "'0'"))?;
    // Where the quota has not been counted yet it refuses with other words.
    world
        .wait_until("the quota counts", MINUTE, || {
            Ok((world.get("resourcequota/tight")?["status"]["used"]["pods"] == "0").then_some(()))
        })
        .await?;
    world.apply(&cluster("small", "{profile: Small}"))?;
    let words = "exceeded quota: tight, requested: pods=1, used: pods=0, limited: pods=0";
    for part in ["DatabaseReady", "QueueReady", "EgressReady"] {
        let told = condition(&world, "selextractcluster/small", part, words).await?;
        assert_eq!(
            (&told["status"], &told["reason"]),
            (&"False".into(), &"PodsRefused".into()),
            "{told}"
        );
    }
    world.apply(&QUOTA.replace("PODS", "'20'"))?;
    for part in ["DatabaseReady", "QueueReady", "EgressReady"] {
        world
            .wait_for_condition("selextractcluster/small", part, "True", MINUTE * 2)
            .await?;
    }
    world.leave()
}

#[tokio::test]
async fn a_task_that_cannot_run_says_why_in_its_condition() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    let good = "url: 'https://example.com/', fields: [{name: title, selector: h1}]";
    world.apply(&task(
        "bad-selector",
        "{name: shop}",
        "{url: 'https://example.com/', fields: [{name: title, selector: 'h1['}]}",
    ))?;
    let told = condition(world, "scrapetask/bad-selector", "Ready", "fields[0].selector").await?;
    assert_eq!(told["status"], "False", "{told}");

    world.apply(&task("no-cluster", "{name: nowhere}", &format!("{{{good}}}")))?;
    condition(world, "scrapetask/no-cluster", "Ready", "nowhere").await?;

    let stranger = World::enter("journey-stranger").await?;
    stranger.apply(&task(
        "stranger",
        "{name: shop, namespace: journeys}",
        &format!("{{{good}}}"),
    ))?;
    let told = condition(&stranger, "scrapetask/stranger", "Ready", "allowedNamespaces").await?;
    assert_eq!(told["status"], "False", "{told}");
    stranger.kubectl(&["delete", "namespace", "journey-stranger", "--timeout=60s"])?;

    world.apply(&task(
        "bad-selector",
        "{name: shop}",
        "{url: 'http://refusals.invalid/', maxRetries: 0, fields: [{name: title, selector: h1}]}",
    ))?;
    world
        .wait_for_condition("scrapetask/bad-selector", "Ready", "True", MINUTE)
        .await?;
    let failed = world
        .wait_for_condition("scrapetask/bad-selector", "Succeeded", "False", MINUTE)
        .await?;
    assert!(!failed["status"]["error"]["class"].is_null(), "{}", failed["status"]);
    world.kubectl(&["delete", "scrapetasks", "bad-selector", "no-cluster", "--timeout=60s"])?;
    Ok(())
}

/// Waits until a condition's message (or reason) has a word.
pub async fn condition(world: &World, object: &str, condition: &str, told: &str) -> Result<Value> {
    world
        .wait_until(&format!("{object}: {condition} speaks of {told}"), MINUTE * 2, || {
            let state = world.get(object)?;
            let list = state["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = list.into_iter().find(|c| c["type"] == condition);
            let says = |c: &Value| {
                [&c["message"], &c["reason"]]
                    .iter()
                    .any(|text| text.as_str().is_some_and(|text| text.contains(told)))
            };
            Ok(found.filter(says))
        })
        .await
        .map_err(|error| match world.kubectl(&["get", object, "-o", "yaml"]) {
            Ok(state) => error.context(state),
            Err(missing) => error.context(missing),
        })
}
