//! What is made for somebody else's Prometheus operator, against that operator's own kinds.

use std::time::Duration;

use anyhow::{Result, ensure};
use selextract_e2e::{prometheus_kinds, world::World};
use serde_json::Value;

use crate::platform::{READY, SHOP};

/// Whether kinds are served is asked every other minute, and what was answered holds for a minute.
const NOTICED: Duration = Duration::from_mins(6);
const DEFINITIONS: [&str; 3] = [
    "crd/podmonitors.monitoring.coreos.com",
    "crd/prometheusrules.monitoring.coreos.com",
    "crd/servicemonitors.monitoring.coreos.com",
];

#[tokio::test]
async fn somebody_elses_prometheus_operator_gets_its_kinds_whole_and_their_absence_is_told() -> Result<()> {
    let world = World::enter("journey-kinds").await?;
    let wanted = "  monitoring: {prometheus: {podMonitors: true, rules: true, objectLabels: {release: stack}}}\n";
    world.apply(&format!("{}{wanted}", SHOP.trim_start()))?;
    let object = "selextractcluster/shop";
    let missing = world
        .wait_for_condition(object, "MonitoringReady", "False", READY)
        .await?;
    ensure!(
        missing.to_string().contains("install the Prometheus operator"),
        "{missing}"
    );

    world.apply(&prometheus_kinds::definitions()?)?;
    let seen = kinds_are_used(&world).await;
    let gone = ["delete", "--ignore-not-found"]
        .into_iter()
        .chain(DEFINITIONS)
        .collect::<Vec<_>>();
    world.kubectl(&gone)?;
    seen?;
    // Without the kinds the platform stays, and says why nobody else measures it.
    world
        .wait_for_condition(object, "MonitoringReady", "False", NOTICED)
        .await?;
    world.wait_for_condition(object, "Ready", "True", READY).await?;
    world.leave()
}

async fn kinds_are_used(world: &World) -> Result<()> {
    world
        .wait_for_condition("selextractcluster/shop", "MonitoringReady", "True", NOTICED + READY)
        .await?;
    let monitors: Value =
        serde_json::from_str(&world.kubectl(&["get", "podmonitors", "-l", "release=stack", "-o", "json"])?)?;
    let monitors = monitors["items"].as_array().cloned().unwrap_or_default();
    ensure!(monitors.len() == 2, "fast and slow: {monitors:?}");
    for monitor in &monitors {
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
        // A field that the kind does not know would be gone from what is stored.
        ensure!(
            monitor["spec"]["sampleLimit"] == 5000 && monitor["spec"]["selector"]["matchExpressions"].is_array(),
            "{monitor}"
        );
        ensure!(
            endpoint["port"] == "telemetry" && endpoint["scrapeTimeout"] == "4s" && endpoint["path"] == "/metrics",
            "{monitor}"
        );
        ensure!(endpoint["relabelings"].as_array().map(Vec::len) == Some(5), "{monitor}");
        ensure!(endpoint["metricRelabelings"][0]["regex"].is_string(), "{monitor}");
    }
    let rule = world.get("prometheusrule/shop-alerts")?;
    let groups = rule["spec"]["groups"].as_array().cloned().unwrap_or_default();
    let rules: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
        .collect();
    ensure!(rules.len() > 50, "{} rules", rules.len());
    let whole = |rule: &Value| {
        let has = |field: &str| rule[field].is_string();
        has("alert")
            && has("expr")
            && has("for")
            && rule["labels"]["severity"].is_string()
            && rule["annotations"]["runbook_url"].is_string()
    };
    ensure!(rules.iter().all(whole), "{rules:?}");

    let (chart, template) = ("selextract-operator", "templates/servicemonitor.yaml");
    let monitor = world.render(chart, template, &["serviceMonitor.enabled=true"])?;
    // Strict: an unknown field is an error.
    let apply = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    world.kubectl_with_input(&apply, &monitor).run()
}
