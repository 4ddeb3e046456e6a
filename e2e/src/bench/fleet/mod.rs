//! `selextract-bench fleet`: what the operator costs while it sizes many clusters by one Prometheus. One cluster is whole; what its pods told
//! during a backlog is recorded, and played back for the others, each at another moment of it. By hand.

mod feed;
mod recording;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use self::{feed::Feed, recording::Recording};
use super::{
    Report, Subject, clusters,
    played::{self, PlayedNode},
    prepare, processes, writes,
};
use crate::{images, prometheus::Prometheus, world::World};

/// The cluster that is whole.
const WHOLE: &str = "whole";
/// The Service of the one Prometheus.
const PROMETHEUS: &str = "one-prometheus";

/// What is measured.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    subject: Subject,
    /// How many clusters there are; all but one are on a played node.
    #[arg(long, default_value_t = 50)]
    clusters: usize,
    /// How long the operator is watched.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

/// What had been counted at a moment.
struct Counted {
    cpu: Duration,
    asked: f64,
    answered: f64,
    changes: u64,
    written: u64,
}

/// Measures it.
pub async fn run(options: &Options) -> Result<()> {
    let (clusters, duration) = if options.subject.smoke {
        (3, Duration::from_mins(1))
    } else {
        (options.clusters, Duration::from_mins(options.minutes))
    };
    let mut report = Report::about(prepare(options.subject)?);
    let world = World::enter("bench-fleet").await?;
    world.serve_sites()?;
    let feed = Feed::start(&world).await?;
    start_prometheus(&world, &feed)?;
    world.apply(&cluster(&world, WHOLE, false).to_string())?;
    clusters::wait_until_ready(&world, WHOLE).await?;
    let recording = Recording::take(&world, WHOLE).await?;
    report.add("recorded of the whole cluster", recording.told(), "");
    feed.play(recording);
    let node = PlayedNode::start(world.client.clone()).await?;
    let names: Vec<_> = (1..clusters).map(|index| format!("played-{index}")).collect();
    for name in &names {
        world.apply(&cluster(&world, name, true).to_string())?;
    }
    for name in &names {
        clusters::wait_until_ready(&world, name).await?;
    }
    let server = Prometheus::at(&world.service_address(PROMETHEUS)?)?;
    let before = count(&world, &server).await?;
    tokio::time::sleep(duration).await;
    let after = count(&world, &server).await?;
    tell(&mut report, &world, clusters, duration, &before, &after)?;
    println!("\n{}", report.markdown()?);
    for name in &names {
        world.kubectl(&["delete", "selextractcluster", name, "--wait=false"])?;
    }
    super::wait_until_unplayed(&world).await?;
    node.end().await?;
    world.leave()
}

async fn count(world: &World, server: &Prometheus) -> Result<Counted> {
    let metrics = writes::fetch_operator_metrics(world).await?;
    let asked = "sum(prometheus_http_requests_total{handler=~\"/api/v1/query(_range)?\"})";
    Ok(Counted {
        cpu: processes::cpu(&processes::of_container(&writes::operator_pod(world)?, "operator")?),
        asked: server.number(asked).await?,
        answered: server.number("process_cpu_seconds_total{job=\"itself\"}").await?,
        changes: writes::samples(&metrics, "selextract_scaling_decisions_total")
            .map(|(_, value)| value)
            .sum(),
        written: writes::operator(&metrics).values().sum(),
    })
}

fn tell(
    report: &mut Report,
    world: &World,
    clusters: usize,
    duration: Duration,
    before: &Counted,
    after: &Counted,
) -> Result<()> {
    let seconds = duration.as_secs_f64();
    let when = format!("{clusters} clusters sized for {seconds:.0} s");
    let cpu = (after.cpu.saturating_sub(before.cpu)).as_secs_f64();
    let told = format!("{:.1} % of a core ({cpu:.1} s)", cpu / seconds * 100.0);
    report.add(format!("the operator's CPU, {when}"), told, "");
    super::report_memory(world, &when, report)?;
    let asked = format!(
        "{:.0}, one in {:.1} s",
        after.asked - before.asked,
        seconds / (after.asked - before.asked)
    );
    report.add("questions to Prometheus meanwhile", asked, "one in 5 s and a few");
    let answered = after.answered - before.answered;
    let told = format!("{:.1} % of a core", answered / seconds * 100.0);
    report.add("Prometheus' CPU meanwhile, with scraping", told, "");
    let changes = after.changes - before.changes;
    report.add("changes of a number of pods meanwhile", changes.to_string(), "");
    let written = after.written - before.written;
    report.add(
        "writes by the operator meanwhile, its own count",
        written.to_string(),
        "",
    );
    Ok(())
}

/// A small cluster that is sized by the one Prometheus.
fn cluster(world: &World, name: &str, is_played: bool) -> Value {
    let url = format!("http://{PROMETHEUS}.{}.svc:9090", world.namespace);
    let allowed = format!("sites.{}.svc.cluster.local", world.namespace);
    let quick = json!({ "minReplicas": 1, "maxReplicas": 4, "stabilizationWindow": "30s", "cooldown": "10s" });
    let mut worker = quick.clone();
    worker["triggers"] = json!({ "queueLength": recording::QUEUE });
    let mut spec = json!({
        "profile": "Small",
        "egress": { "allow": [{ "host": allowed }] },
        "scaling": { "api": quick, "worker": worker },
        "monitoring": { "prometheus": { "provider": "External", "external": { "url": url } } },
        "worker": { "lease": "5s" },
    });
    if is_played {
        played::place(&mut spec);
    }
    json!({
        "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
        "metadata": { "name": name, "namespace": world.namespace },
        "spec": spec,
    })
}

/// A Prometheus that asks the feed whom to scrape.
fn start_prometheus(world: &World, feed: &Feed) -> Result<()> {
    let image = format!("{}/data:TAG", images::REGISTRY);
    let config = json!({
        "global": { "scrape_interval": "5s", "scrape_timeout": "4s" },
        "scrape_configs": [
            { "job_name": "itself", "static_configs": [{ "targets": ["localhost:9090"] }] },
            { "job_name": "fleet", "http_sd_configs": [{ "url": feed.targets_url(), "refresh_interval": "5s" }] },
        ],
    });
    let labels = json!({ "app.kubernetes.io/name": PROMETHEUS });
    let objects = json!([
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": PROMETHEUS, "namespace": "NAMESPACE" },
          "data": { "prometheus.yml": config.to_string() } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": PROMETHEUS, "namespace": "NAMESPACE" },
          "spec": { "selector": labels, "ports": [{ "port": 9090 }] } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": PROMETHEUS, "namespace": "NAMESPACE" },
          "spec": { "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
            "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "prometheus", "image": image,
                "command": ["/usr/bin/prometheus", "--config.file=/config/prometheus.yml", "--storage.tsdb.path=/data",
                            "--storage.tsdb.retention.time=2h"],
                "readinessProbe": { "httpGet": { "path": "/-/ready", "port": 9090 }, "periodSeconds": 1 },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "volumeMounts": [{ "name": "config", "mountPath": "/config" }, { "name": "data", "mountPath": "/data" }],
            }],
            "volumes": [{ "name": "config", "configMap": { "name": PROMETHEUS } }, { "name": "data", "emptyDir": {} }],
          } } } },
    ]);
    world.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string())?;
    world.kubectl(&[
        "rollout",
        "status",
        &format!("deployment/{PROMETHEUS}"),
        "--timeout=60s",
    ])?;
    Ok(())
}
