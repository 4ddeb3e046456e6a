//! From the first installation to the last uninstall. The definitions belong to the whole cluster, so these journeys take away what the others
//! share; who comes after them installs it anew.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use selextract_e2e::world::{OPERATOR_NAMESPACE, World};
use serde_json::Value;

use crate::platform::{DONE, Platform};

const MINUTE: Duration = Duration::from_mins(1);
const OPERATOR: &str = "selextract-operator";
const DEFINITIONS: [&str; 2] = ["selextractclusters.selextract.io", "scrapetasks.selextract.io"];

const TASK: &str = "
apiVersion: selextract.io/v1alpha1
kind: ScrapeTask
metadata: {name: start-page, namespace: NAMESPACE}
spec:
  clusterRef: {name: shop}
  task: {url: 'http://sites.NAMESPACE.svc.cluster.local/docs/index.html', fields: [{name: title, selector: title, required: true}]}
";

#[tokio::test]
async fn an_operator_that_comes_before_its_definitions_waits_for_them_and_everything_goes_at_the_uninstall()
-> Result<()> {
    let world = World::enter_bare("journey-life").await?;
    let refused = install_platform(&world).unwrap_err().to_string();
    assert!(
        refused.contains("helm install selextract-crds selextract-crds"),
        "{refused}"
    );

    let notes = install_operator(&world, "crds.enabled=false")?;
    assert!(notes.contains("It waits for its definitions"), "{notes}");
    let waiting = world
        .wait_until("the operator says what it waits for", MINUTE, || operator_pod(&world))
        .await?;
    wait_until_it_names_its_definitions(&world, &waiting).await?;
    world.install("selextract-crds", "selextract-crds", OPERATOR_NAMESPACE, &[])?;
    wait_for_operator(&world)?;
    let pod = operator_pod(&world)?.context("no operator")?;
    assert_eq!((pod.name, pod.restarts), (waiting.name, 0), "it was restarted");

    world.serve_sites()?;
    install_platform(&world)?;
    let platform = Platform { world };
    platform.wait_until_ready().await?;
    let world = &platform.world;
    for (release, namespace) in [(OPERATOR, OPERATOR_NAMESPACE), ("shop", &world.namespace)] {
        let tested = world.test(release, namespace)?;
        let suite = format!("TEST SUITE:     {release}-test");
        assert!(
            tested.contains(&suite) && tested.contains("Phase:          Succeeded"),
            "{tested}"
        );
    }
    world.apply(TASK)?;
    world
        .wait_for_condition("scrapetask/start-page", "Succeeded", "True", DONE)
        .await?;

    // The volumes and the Secrets that open them stay, until they are deleted as the chart's notes say.
    world.uninstall("shop", &world.namespace)?;
    let kept = [
        "persistentvolumeclaim/shop-postgres-data",
        "persistentvolumeclaim/shop-prometheus-data",
        "persistentvolumeclaim/shop-redis-queue-data",
        "secret/shop-api",
        "secret/shop-postgres",
    ];
    wait_until_left(world, "app.kubernetes.io/instance=shop", &kept).await?;
    let of_shop = "app.kubernetes.io/part-of=selextract,app.kubernetes.io/instance=shop";
    world.kubectl(&["delete", "pvc,secret", "--selector", of_shop])?;
    wait_until_left(world, "app.kubernetes.io/instance=shop", &[]).await?;

    // The operator's own right in the namespace goes first, as it may when a namespace is deleted; the ScrapeTask goes all the same.
    world.kubectl(&[
        "delete",
        "rolebinding/selextract-operator-watch",
        "role/selextract-operator-watch",
    ])?;
    world.kubectl(&["delete", "namespace", &world.namespace, "--timeout=60s"])?;

    world.uninstall(OPERATOR, OPERATOR_NAMESPACE)?;
    world.uninstall("selextract-crds", OPERATOR_NAMESPACE)?;
    world.kubectl(&["label", "nodes", "--all", "selextract.io/seccomp-chromium-"])?;
    world
        .kubectl(&["get", "crd", DEFINITIONS[0], DEFINITIONS[1]])
        .context("the definitions are kept")?;
    delete_definitions(world)?;
    wait_until_nothing_is_left_but_the_lease(world).await
}

#[tokio::test]
async fn definitions_that_came_with_the_operator_stay_and_nothing_hangs_when_it_goes_first() -> Result<()> {
    let world = World::enter_bare("journey-life").await?;
    install_operator(&world, "crds.enabled=true")?;
    wait_for_operator(&world)?;
    install_platform(&world)?;
    world.apply(TASK)?;
    world
        .wait_until("the operator has seen the ScrapeTask", MINUTE, || {
            let task = world.get("scrapetask/start-page")?;
            Ok((task["status"]["observedGeneration"] == 1).then_some(()))
        })
        .await?;

    world.uninstall(OPERATOR, OPERATOR_NAMESPACE)?;
    world
        .kubectl(&["get", "crd", DEFINITIONS[0], DEFINITIONS[1]])
        .context("the definitions are kept")?;
    world.get("scrapetask/start-page").context("the ScrapeTask is kept")?;
    world.kubectl(&["delete", "namespace", &world.namespace, "--timeout=120s"])?;
    delete_definitions(&world)
}

fn install_operator(world: &World, definitions: &str) -> Result<String> {
    let settings = [
        "watchNamespaces={NAMESPACE}",
        "image.registry=localhost/selextract",
        "image.tag=TAG",
        definitions,
    ];
    world.install(OPERATOR, OPERATOR, OPERATOR_NAMESPACE, &settings)
}

fn install_platform(world: &World) -> Result<String> {
    let settings = [
        "spec.profile=Small",
        "spec.image.registry=localhost/selextract",
        "spec.image.tag=TAG",
        "spec.egress.allow[0].host=sites.NAMESPACE.svc.cluster.local",
    ];
    world.install("shop", "selextract-cluster", &world.namespace, &settings)
}

fn wait_for_operator(world: &World) -> Result<String> {
    let deployment = format!("deployment/{OPERATOR}");
    world.kubectl_of_operator(&["rollout", "status", &deployment, "--timeout=60s"])
}

fn delete_definitions(world: &World) -> Result<()> {
    world
        .kubectl(&["delete", "crd", DEFINITIONS[0], DEFINITIONS[1], "--timeout=60s"])
        .map(drop)
}

/// The operator's pod while it runs.
struct OperatorPod {
    name: String,
    restarts: u64,
}

fn operator_pod(world: &World) -> Result<Option<OperatorPod>> {
    let pods = world.operator_pods()?;
    let Some(pod) = pods.first() else {
        return Ok(None);
    };
    let container = &pod["status"]["containerStatuses"][0];
    let name = pod["metadata"]["name"].as_str().map(str::to_owned);
    Ok(name
        .filter(|_| !container["state"]["running"].is_null())
        .map(|name| OperatorPod {
            name,
            restarts: container["restartCount"].as_u64().unwrap_or_default(),
        }))
}

async fn wait_until_it_names_its_definitions(world: &World, pod: &OperatorPod) -> Result<()> {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9090; printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let named = || {
        let answer = world.kubectl_of_operator(&["exec", &pod.name, "--", "bash", "-c", ask])?;
        let names = DEFINITIONS.iter().all(|definition| answer.contains(definition));
        Ok((answer.contains(" 503 ") && names).then_some(()))
    };
    world
        .wait_until("/readyz names the missing definitions", MINUTE, named)
        .await
}

/// Waits until these are all objects of the journey's namespace that the selector finds, of whatever kind.
async fn wait_until_left(world: &World, selector: &str, names: &[&str]) -> Result<()> {
    let kinds = kinds(world, &["--namespaced=true"])?;
    let what = format!("of {selector} there is left: {names:?}");
    let left = || {
        let found = world.kubectl(&["get", &kinds, "--selector", selector, "-o", "name"])?;
        let found: BTreeSet<&str> = found.lines().collect();
        let wanted: BTreeSet<&str> = names.iter().copied().collect();
        anyhow::ensure!(found == wanted, "there is {found:?}");
        Ok(Some(()))
    };
    world.wait_until(&what, MINUTE * 2, left).await
}

/// Waits until no object of any kind has our name or a label of ours, but the Lease that the notes of the chart speak of.
async fn wait_until_nothing_is_left_but_the_lease(world: &World) -> Result<()> {
    let kinds = kinds(world, &[])?;
    let left = || {
        let list: Value = serde_json::from_str(&world.kubectl(&["get", &kinds, "--all-namespaces", "-o", "json"])?)?;
        let found: BTreeSet<String> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(ours)
            .collect();
        let wanted = BTreeSet::from([format!("Lease {OPERATOR}"), format!("Namespace {OPERATOR_NAMESPACE}")]);
        anyhow::ensure!(found == wanted, "there is {found:?}");
        Ok(Some(()))
    };
    world.wait_until("nothing of ours is left", MINUTE, left).await
}

/// Every kind that can be listed, but Events, which pass by themselves.
fn kinds(world: &World, flags: &[&str]) -> Result<String> {
    let list = world.kubectl(&[&["api-resources", "--verbs=list", "-o", "name"], flags].concat())?;
    let kinds: Vec<_> = list.lines().filter(|kind| !kind.starts_with("events")).collect();
    Ok(kinds.join(","))
}

/// The kind and name of an object that is ours by its name or a label. What the local cluster itself made has a name of its own, and what other
/// journeys and measurements left in their namespaces, such as volumes, is theirs.
fn ours(object: &Value) -> Option<String> {
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let labels = metadata["labels"].to_string();
    let is_ours =
        text("name").contains("selextract") || labels.replace("kubernetes.io/metadata.name", "").contains("selextract");
    let is_theirs = text("name").starts_with("selextract-local")
        || ["journey", "bench"]
            .iter()
            .any(|made| text("namespace").starts_with(made));
    (is_ours && !is_theirs).then(|| format!("{} {}", object["kind"].as_str().unwrap_or_default(), text("name")))
}
