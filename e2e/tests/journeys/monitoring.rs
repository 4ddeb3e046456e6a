//! What is asked of Prometheus, asked of one that has measured a real platform: no query looks for a series that nobody tells.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use selextract_e2e::prometheus::Prometheus;
use selextract_operator::monitoring::queries::{Query, Scope, all};
use serde_json::{Value, json};

use crate::platform::{DONE, READY, SHOP, start};

/// Long enough for some scrapes of each program, short enough to be waited for.
const WINDOW: Duration = Duration::from_mins(1);
/// What looks at every whole five minutes of the clock has nothing to tell until one has passed.
const PATIENCE: Duration = Duration::from_mins(6);

const NAMESPACE: &str = "journey-monitoring";
const SCOPE: Scope<'_> = Scope::Cluster {
    namespace: NAMESPACE,
    name: "shop",
};

/// Whose series are not here, by how their names begin: there are no read replicas, a cluster's Prometheus does not read the operator (ADR 35),
/// and of nodes with cgroup version 1 nobody knows how long is waited for disks.
const NOT_TOLD: [&str; 3] = [
    "pg_replication_",
    "selextract_scaling_",
    "selextract_container_disk_waiting_",
];
/// What takes a longer past than this platform's, or more data than its memory holds.
const NOT_YET: [&str; 7] = [
    "database_read_time",
    "database_write_time",
    "http_response_trend",
    "cpu_trend",
    "memory_trend",
    "slo_measured_hours",
    "cost_cpu_p95",
];

#[tokio::test]
async fn every_query_has_its_series_at_rest_and_a_value_after_a_request_a_failure_and_a_task() -> Result<()> {
    let platform = start(NAMESPACE).await?;
    // The kubelets are read by a right that an administrator gives.
    platform.world.set_operator(&[
        "kubeletMetrics.enabled=true",
        "kubeletMetrics.serviceAccounts[0].name=shop-prometheus",
        &format!("kubeletMetrics.serviceAccounts[0].namespace={NAMESPACE}"),
    ])?;
    platform.world.apply(&format!(
        "{}  monitoring: {{prometheus: {{managed: {{kubeletMetrics: true}}}}}}\n",
        SHOP.trim_start()
    ))?;
    platform
        .world
        .wait_for_condition("selextractcluster/shop", "MonitoringReady", "True", READY)
        .await?;
    let server = Server(Prometheus::of(&platform.world, "shop")?);

    server.wait_for("each selector has its series at rest", told).await?;

    let api = platform.api().await?;
    let swagger = format!("http://sites.{}.svc.cluster.local/swagger/", platform.world.namespace);
    let in_browser =
        json!({ "url": swagger, "render": "Browser", "fields": [{ "name": "title", "selector": "title" }] });
    for task in [platform.parameters_task()?, in_browser] {
        let id = api.create_task(&task).await?;
        let task = api.wait_for_end(&id, DONE).await?;
        ensure!(task["status"] == "succeeded", "{task}");
        api.records(&id).await?;
    }
    api.get("dashboard/stats").await?;
    for pod in platform.pods("pgbouncer-rw")? {
        let force = ["delete", "pod", &pod, "--grace-period=0", "--force"];
        platform.world.kubectl(&force)?;
    }
    let mut failed = false;
    for _ in 0..50 {
        let (status, _) = api.send(Method::GET, "tasks", None).await?;
        failed |= status == StatusCode::SERVICE_UNAVAILABLE;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(failed, "no request failed while the pooler was away");
    platform.wait_until_ready().await?;

    server
        .wait_for("each query has a value", |query| {
            let is_told = !told(query).is_empty() && !NOT_YET.contains(&query.name);
            Vec::from_iter(is_told.then(|| query.render(&SCOPE, Some(WINDOW))))
        })
        .await?;
    platform.world.leave()
}

/// The cluster's Prometheus.
struct Server(Prometheus);

impl Server {
    /// Waits until everything that is to be asked for a query is answered with numbers; tells what is not in the end.
    async fn wait_for(&self, what: &str, questions: impl Fn(&Query) -> Vec<String>) -> Result<()> {
        let queries = all().filter(|query| !query.tells_absence());
        let mut open: Vec<(&str, String)> = queries
            .flat_map(|query| questions(query).into_iter().map(|question| (query.name, question)))
            .collect();
        ensure!(open.len() > 50, "only {} questions", open.len());
        let started = tokio::time::Instant::now();
        loop {
            let mut unanswered = Vec::new();
            for (name, question) in open {
                if !self.answers(&question).await? {
                    unanswered.push((name, question));
                }
            }
            open = unanswered;
            if open.is_empty() {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "{what}, but not these: {open:#?}");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    async fn answers(&self, question: &str) -> Result<bool> {
        let told = self.0.ask("query", &[("query", question)]).await?;
        let samples = told["result"].as_array().context("no result")?;
        let is_number = |sample: &Value| {
            let text = sample["value"][1].as_str().unwrap_or_default();
            text.parse().is_ok_and(f64::is_finite)
        };
        // Of what is grouped some may have nothing to tell yet.
        Ok(samples.iter().any(is_number))
    }
}

/// The selectors of a query that somebody here tells.
fn told(query: &Query) -> Vec<String> {
    let mut found = selectors(query);
    found.retain(|selector| !NOT_TOLD.iter().any(|name| selector.starts_with(name)));
    found
}

/// Each selector of a query: a name and its matchers. A brace within quotes is a route's.
fn selectors(query: &Query) -> Vec<String> {
    let text = query.render(&SCOPE, Some(WINDOW));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let (mut found, mut quoted, mut begun) = (Vec::new(), false, None);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '{' if !quoted => begun = Some(text[..at].rfind(|c| !is_name(c)).map_or(0, |end| end + 1)),
            '}' if !quoted => found.extend(begun.take().map(|begin| text[begin..=at].to_owned())),
            _ => {}
        }
    }
    found
}
