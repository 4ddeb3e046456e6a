//! The task engine on the real cluster: a crawl, a page that only a browser sees, a capture, and runs that are compared with those before.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use reqwest::Method;
use selextract_e2e::api::Api;
use serde_json::{Value, json};

use crate::platform::{DONE, Platform, shared};

fn site(platform: &Platform) -> String {
    format!("http://sites.{}.svc.cluster.local", platform.world.namespace)
}

/// Every page about server parameters that their index links to, and the index itself, read by another way than the product's.
async fn parameter_pages(platform: &Platform) -> Result<BTreeSet<String>> {
    let address = platform.world.service_address("sites")?;
    let index = reqwest::get(format!("http://{address}/docs/runtime-config.html")).await?;
    let index = index.text().await?;
    let links = index
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split(['"', '#']).next());
    let pages = links.filter(|page| page.starts_with("runtime-config"));
    let site = site(platform);
    let mut pages: BTreeSet<String> = pages.map(|page| format!("{site}/docs/{page}")).collect();
    pages.insert(format!("{site}/docs/runtime-config.html"));
    Ok(pages)
}

#[tokio::test]
async fn a_crawl_reads_every_page_within_its_bounds_once() -> Result<()> {
    let platform = shared().await?;
    let api = platform.api().await?;
    let task = json!({
        "url": format!("{}/docs/runtime-config.html", site(&platform)),
        "politeness": { "minDelay": "20ms", "maxConcurrent": 16 },
        "crawl": { "include": ["/docs/runtime-config[^/]*$"], "maxDepth": 5, "maxPages": 200 },
        "fields": [{ "name": "title", "selector": "title", "required": true }],
    });
    let id = api.create_task(&task).await?;
    let ended = api.wait_for_end(&id, DONE).await?;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let pages = api.get(&format!("tasks/{id}/pages?status=done&limit=100")).await?;
    let read: Vec<String> = pages["pages"]
        .as_array()
        .context("a list of pages")?
        .iter()
        .filter_map(|page| page["url"].as_str().map(str::to_owned))
        .collect();
    let expected = parameter_pages(&platform).await?;
    assert_eq!(read.len(), expected.len(), "each page once: {read:?}");
    assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(api.records(&id).await?.len(), expected.len());
    Ok(())
}

#[tokio::test]
async fn auto_goes_to_the_browser_for_what_only_a_browser_shows() -> Result<()> {
    let platform = shared().await?;
    let api = platform.api().await?;
    let task = json!({
        "url": format!("{}/swagger/", site(&platform)), "render": "Auto", "timeout": "60s",
        "waitConditions": [{ "selector": ".opblock", "timeout": "30s" }],
        "items": ".opblock",
        "fields": [{ "name": "path", "type": "Attribute", "attribute": "data-path", "selector": ".opblock-summary-path", "required": true }],
    });
    let id = api.create_task(&task).await?;
    let ended = api.wait_for_end(&id, DONE).await?;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(api.records(&id).await?.len() > 20, "{ended}");
    Ok(())
}

#[tokio::test]
async fn a_screenshot_is_kept_with_its_page_and_served_as_a_file() -> Result<()> {
    let platform = shared().await?;
    let api = platform.api().await?;
    let task = json!({
        "url": format!("{}/swagger/", site(&platform)), "render": "Browser", "timeout": "60s",
        "waitConditions": [{ "selector": ".opblock", "timeout": "30s" }],
        "fields": [{ "name": "title", "selector": "title" }],
        "browser": { "captures": [{ "name": "front", "type": "Screenshot" }] },
    });
    let id = api.create_task(&task).await?;
    let ended = api.wait_for_end(&id, DONE).await?;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let list = api.get(&format!("tasks/{id}/artifacts")).await?;
    let artifact = &list["artifacts"][0];
    assert_eq!(
        (&artifact["name"], &artifact["media_type"]),
        (&json!("front"), &json!("image/png")),
        "{list}"
    );
    let name = artifact["id"].as_str().context("an artifact has an id")?;
    let (kind, bytes) = api.file(&format!("tasks/{id}/artifacts/{name}")).await?;
    assert_eq!(kind, "image/png");
    assert!(bytes.starts_with(b"\x89PNG"), "{:?}", &bytes[..8.min(bytes.len())]);
    Ok(())
}

/// Runs a schedule now, to its end.
async fn run_now(api: &Api, uid: &str) -> Result<Value> {
    let (status, started) = api.send(Method::POST, &format!("schedules/{uid}/run"), None).await?;
    assert!(status.is_success(), "{status}: {started}");
    let id = started["id"].as_str().context("a run has an id")?;
    api.wait_for_end(id, DONE).await
}

const WATCHED: &str = "
apiVersion: selextract.io/v1alpha1
kind: ScrapeTask
metadata: {name: watched, namespace: NAMESPACE}
spec:
  clusterRef: {name: shop}
  schedule: {cron: '0 0 1 1 *'}
  task:
    url: http://sites.NAMESPACE.svc.cluster.local/docs/runtime-config.html
    items: dl.toc dt a
    fields: [{name: title, required: true}]
    watch: {key: [title]}
";

#[tokio::test]
async fn a_task_that_runs_again_tells_what_has_changed() -> Result<()> {
    let platform = shared().await?;
    let api = platform.api().await?;
    platform.world.apply(WATCHED)?;
    let ready = platform
        .world
        .wait_for_condition("scrapetask/watched", "Ready", "True", DONE)
        .await?;
    let uid = ready["metadata"]["uid"].as_str().context("a uid")?.to_owned();
    let mut runs = Vec::new();
    for _ in 0..2 {
        let ended = run_now(&api, &uid).await?;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        runs.push(ended["changes"].clone());
    }
    let (first, second) = (&runs[0], &runs[1]);
    assert_eq!(first["baseline"], true, "{first}");
    assert_eq!((&second["new"], &second["gone"]), (&json!(0), &json!(0)), "{second}");
    platform.world.kubectl(&["delete", "scrapetask/watched"])?;
    Ok(())
}

const CHANGING: &str = "
apiVersion: selextract.io/v1alpha1
kind: ScrapeTask
metadata: {name: changing, namespace: NAMESPACE}
spec:
  clusterRef: {name: shop}
  schedule: {cron: '0 0 1 1 *'}
  task:
    url: http://sites.NAMESPACE.svc.cluster.local/changing/index.html
    items: dl.toc dt
    fields:
      - {name: title, selector: a, required: true}
      - {name: page, selector: a, type: Link}
";

#[tokio::test]
async fn a_site_that_changes_under_the_selectors_is_told_before_columns_are_empty() -> Result<()> {
    let platform = shared().await?;
    let (api, world) = (platform.api().await?, &platform.world);
    let put = |script: &str| world.kubectl(&["exec", "deployment/sites", "--", "sh", "-c", script]);
    put("mkdir -p /tmp/changing && cp /usr/share/doc/postgresql-doc-17/html/index.html /tmp/changing/")?;
    world.apply(CHANGING)?;
    let ready = world
        .wait_for_condition("scrapetask/changing", "Ready", "True", DONE)
        .await?;
    let uid = ready["metadata"]["uid"].as_str().context("a uid")?.to_owned();
    for _ in 0..3 {
        let ended = run_now(&api, &uid).await?;
        assert_eq!(
            (&ended["status"], &ended["drift"]),
            (&json!("succeeded"), &Value::Null),
            "{ended}"
        );
    }

    // The site's authors link by script from now on.
    put("sed -i 's/ href=/ data-href=/g' /tmp/changing/index.html")?;
    let ended = run_now(&api, &uid).await?;
    assert_eq!(ended["status"], "succeeded", "the records are there: {ended}");
    let told = world
        .wait_for_condition("scrapetask/changing", "SchemaDrift", "True", DONE)
        .await?;
    let drift = told["status"]["drift"].to_string();
    assert!(drift.contains("page") && !drift.contains("title"), "{drift}");

    put("cp /usr/share/doc/postgresql-doc-17/html/index.html /tmp/changing/")?;
    run_now(&api, &uid).await?;
    world
        .wait_for_condition("scrapetask/changing", "SchemaDrift", "False", DONE)
        .await?;
    world.kubectl(&["delete", "scrapetask/changing"])?;
    Ok(())
}

const MEMBERS: &str = "
apiVersion: selextract.io/v1alpha1
kind: ScrapeTask
metadata: {name: members, namespace: NAMESPACE}
spec:
  clusterRef: {name: shop}
  credentialsFrom: Secret
  task:
    url: http://sites.NAMESPACE.svc.cluster.local/members/runtime-config.html
    credentials: members
    fields: [{name: title, selector: title, required: true}]
";

const TOKEN: &str = "
apiVersion: v1
kind: Secret
metadata: {name: members, namespace: NAMESPACE}
type: selextract.io/credentials
stringData: {origin: 'http://sites.NAMESPACE.svc.cluster.local', type: Bearer, token: of-the-journeys, allowHttp: 'true'}
";

#[tokio::test]
async fn credentials_come_from_a_secret_which_is_missed_by_name_and_never_shown() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    world.apply(MEMBERS)?;
    let without = world
        .wait_for_condition("scrapetask/members", "Ready", "False", DONE)
        .await?;
    let ready = without["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"))
        .context("the condition Ready")?;
    assert_eq!(ready["reason"], "SecretMissing", "{ready}");
    assert!(
        ready["message"].as_str().is_some_and(|text| text.contains("members")),
        "{ready}"
    );

    world.apply(TOKEN)?;
    let done = world
        .wait_for_condition("scrapetask/members", "Succeeded", "True", DONE)
        .await?;
    assert_eq!(done["status"]["records"], 1, "{done}");
    let told = world.kubectl(&["get", "scrapetasks,selextractclusters,events", "-o", "json"])?;
    assert!(!told.contains("of-the-journeys"), "the token is shown");
    let stored = platform.sql("SELECT count(*) FROM credentials c WHERE c::text LIKE '%of-the-journeys%'")?;
    assert_eq!(stored, "0", "the token lies in clear text in the ledger");
    world.kubectl(&["delete", "scrapetask/members", "secret/members"])?;
    Ok(())
}
