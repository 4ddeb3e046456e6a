//! What users come for: records from sites that nobody here wrote.

use anyhow::Result;
use serde_json::{Value, json};

use crate::platform::{DONE, shared};

const PARAMETERS: &str = "
apiVersion: selextract.io/v1alpha1
kind: ScrapeTask
metadata: {name: parameters, namespace: NAMESPACE}
spec:
  clusterRef: {name: shop}
  task: TASK
";

const OPERATIONS: &str = "
apiVersion: selextract.io/v1alpha1
kind: ScrapeTask
metadata: {name: operations, namespace: NAMESPACE}
spec:
  clusterRef: {name: shop}
  task:
    url: http://sites.NAMESPACE.svc.cluster.local/swagger/
    render: Browser
    timeout: 60s
    waitConditions: [{selector: .opblock, timeout: 30s}]
    items: .opblock
    fields:
      - {name: method, selector: .opblock-summary-method, required: true}
      - {name: path, type: Attribute, attribute: data-path, selector: .opblock-summary-path}
";

#[tokio::test]
async fn a_paginated_site_is_scraped_completely() -> Result<()> {
    let platform = shared().await?;
    let world = &platform.world;
    world.apply(&PARAMETERS.replace("TASK", &platform.parameters_task()?.to_string()))?;
    let task = world
        .wait_for_condition("scrapetask/parameters", "Succeeded", "True", DONE)
        .await?;
    let status = &task["status"];
    assert_eq!(status["state"], "Succeeded");
    assert!(
        status["preview"]
            .as_str()
            .is_some_and(|preview| preview.contains("\"parameter\"")),
        "{status}"
    );

    let api = platform.api().await?;
    let records = api.records(status["runId"].as_str().unwrap_or_default()).await?;
    let expected = platform.expected_parameters().await?;
    assert_eq!(expected.compare(&records)?, (0, 0));
    assert_eq!(status["records"].as_u64(), u64::try_from(records.len()).ok());
    expected.check_contents(&records)?;
    let of = |name: &str| {
        records
            .iter()
            .find(|record| record["parameter"] == name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(of("listen_addresses")["type"], "string");
    assert_eq!(of("max_connections")["type"], "integer");
    assert_eq!(of("fsync")["type"], "boolean");

    let path = format!(
        "tasks/{}/results?format=csv",
        status["runId"].as_str().unwrap_or_default()
    );
    let csv = api.text(&path).await?;
    assert_eq!(csv.lines().count(), records.len() + 1);
    assert!(
        csv.starts_with("parameter,type,default,documentation"),
        "{}",
        csv.lines().next().unwrap_or_default()
    );
    Ok(())
}

#[tokio::test]
async fn a_page_that_needs_javascript_is_rendered() -> Result<()> {
    let platform = shared().await?;
    platform.world.apply(OPERATIONS)?;
    let task = platform
        .world
        .wait_for_condition("scrapetask/operations", "Succeeded", "True", DONE)
        .await?;
    let records = platform
        .api()
        .await?
        .records(task["status"]["runId"].as_str().unwrap_or_default())
        .await?;
    let post = json!({ "method": "POST", "path": "/apis/batch/v1/namespaces/{namespace}/jobs" });
    let plain = |record: &Value| {
        let path = record["path"].as_str().unwrap_or_default().replace('\u{200b}', "");
        json!({ "method": record["method"], "path": path })
    };
    assert!(records.iter().any(|record| plain(record) == post), "{records:?}");
    assert!(records.len() > 20, "{} operations", records.len());
    Ok(())
}

#[tokio::test]
async fn nothing_is_fetched_that_the_egress_proxy_refuses() -> Result<()> {
    let platform = shared().await?;
    let api = platform.api().await?;
    // A Service of the same namespace that a worker pod reaches directly (no policy is enforced here), but that is not on the allow list.
    let metadata = [
        "http://shop-api.journeys.svc.cluster.local/api/v1/health",
        "http://169.254.169.254/latest/meta-data/",
    ];
    for url in metadata {
        for render in ["Http", "Browser"] {
            let task = json!({ "url": url, "render": render, "maxRetries": 0, "fields": [{ "name": "body", "selector": "body" }] });
            let id = api.create_task(&task).await?;
            let ended = api.wait_for_end(&id, DONE).await?;
            assert_eq!(ended["status"], "failed", "{url} by {render}: {ended}");
            assert!(
                ended["error"]["class"]
                    .as_str()
                    .is_some_and(|class| class.contains("Egress")),
                "{url} by {render}: {ended}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn chromium_runs_in_its_sandbox_with_the_guides_flags() -> Result<()> {
    let platform = shared().await?;
    let cluster = platform.wait_until_ready().await?;
    let conditions = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let sandbox = conditions
        .iter()
        .find(|c| c["type"] == "BrowserSandbox")
        .cloned()
        .unwrap_or_default();
    assert_eq!(sandbox["status"], "True", "{sandbox}");

    let api = platform.api().await?;
    let url = format!("http://sites.{}.svc.cluster.local/swagger/", platform.world.namespace);
    let task = json!({ "url": url, "render": "Browser", "fields": [{ "name": "title", "selector": "title" }] });
    let ended = api.wait_for_end(&api.create_task(&task).await?, DONE).await?;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let pod = platform.pods("worker")?.remove(0);
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done";
    let lines = platform
        .world
        .kubectl(&["exec", &pod, "-c", "worker", "--", "bash", "-c", script])?;
    let browser = lines
        .lines()
        .find(|line| line.contains("headless-shell") && line.contains("--proxy-server") && !line.contains("--type="))
        .unwrap_or_default();
    for flag in [
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-timer-throttling",
        "--disable-backgrounding-occluded-windows",
        "--disable-renderer-backgrounding",
    ] {
        assert!(browser.contains(flag), "{flag} is missing in: {lines}");
    }
    assert!(!browser.contains("--no-sandbox"), "{browser}");
    Ok(())
}
