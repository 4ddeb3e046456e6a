//! `selextract-bench alerts`: each alert that minutes can bring about is fired by a real platform, whose parts are stopped, filled or held against
//! thresholds that nothing meets. By hand.

mod causes;
mod deeds;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use self::causes::{CAUSES, Cause};
use crate::{
    api::Api,
    bench::{self, Report, Subject},
    documentation,
    prometheus::Prometheus,
    world::World,
};

/// The cluster's name.
const NAME: &str = "watched";
/// From its cause to an alert that fires: two minutes that it must hold (critical), five (warning), and the windows of what is measured.
const PATIENCE: Duration = Duration::from_mins(8);
/// The same where it must hold for a quarter of an hour (info).
const LONG_PATIENCE: Duration = Duration::from_mins(24);

/// What the alerts are told.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    subject: Subject,
    /// Only these causes, by their numbers in the order in which they are tried; all when none is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<usize>,
}

/// Fires them, and prints how long each took.
pub async fn run(options: &Options) -> Result<()> {
    let mut report = Report::about(bench::prepare(options.subject)?);
    let world = World::enter("bench-alerts").await?;
    world.serve_sites()?;
    world.apply(&cluster(&world).to_string())?;
    let ready = bench::PATIENCE;
    let object = format!("selextractcluster/{NAME}");
    for condition in ["Ready", "MonitoringReady"] {
        world.wait_for_condition(&object, condition, "True", ready).await?;
    }
    let server = Prometheus::of(&world, NAME)?;
    let load = Load::start(&world)?;
    // It would put back what is stopped.
    let scale = |replicas: &str| world.kubectl_of_operator(&["scale", "deployment/selextract-operator", replicas]);
    scale("--replicas=0")?;
    let fired = fire_all(options, &world, &server, &mut report).await;
    // Whatever came of it: others use the operator too.
    scale("--replicas=1")?;
    load.end().await;
    let missing = fired?;
    println!("\n{}", report.markdown()?);
    world.leave()?;
    ensure!(missing.is_empty(), "these did not fire: {missing:?}");
    Ok(())
}

/// Every cause in turn; what did not fire.
async fn fire_all(
    options: &Options,
    world: &World,
    server: &Prometheus,
    report: &mut Report,
) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    let wanted = |number: &usize| options.only.is_empty() || options.only.contains(number);
    for (_, cause) in (1..).zip(&CAUSES).filter(|(number, _)| wanted(number)) {
        missing.extend(fire(cause, world, server, report).await?);
    }
    Ok(missing)
}

/// Does one thing to the platform and undoes it; what did not fire.
async fn fire(cause: &Cause, world: &World, server: &Prometheus, report: &mut Report) -> Result<Vec<&'static str>> {
    let mut replicas = Vec::new();
    for workload in cause.stopped {
        let now = world.get(workload)?["spec"]["replicas"].as_i64().unwrap_or(1);
        replicas.push((workload, now));
        world.kubectl(&["scale", workload, "--replicas=0"])?;
    }
    println!("      {}", cause.what);
    let repeated = join_all(cause.deeds.iter().map(|deed| deeds::repeat(world, *deed)));
    let missing = tokio::select! {
        missing = watch(cause, server, report) => missing?,
        _ = repeated, if !cause.deeds.is_empty() => bail!("what is repeated ended"),
    };
    for deed in cause.deeds {
        deeds::undo(world, *deed).await?;
    }
    for (workload, before) in replicas {
        world.kubectl(&["scale", workload, &format!("--replicas={before}")])?;
    }
    for workload in cause.stopped {
        world.kubectl(&["rollout", "status", workload, "--timeout=180s"])?;
    }
    Ok(missing)
}

/// Looks until all that should fire have; those that did not.
async fn watch(cause: &Cause, server: &Prometheus, report: &mut Report) -> Result<Vec<&'static str>> {
    let patience = if cause.long { LONG_PATIENCE } else { PATIENCE };
    let begun = Instant::now();
    let mut fired = BTreeSet::new();
    while fired.len() < cause.fires.len() && begun.elapsed() < patience {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let firing = firing(server).await?;
        for name in cause.fires {
            if firing.iter().any(|alert| alert == name) && fired.insert(*name) {
                let told = format!("after {} s: {}", begun.elapsed().as_secs(), cause.what);
                report.add(*name, told, "fires");
            }
        }
    }
    let missing = cause.fires.iter().filter(|name| !fired.contains(*name));
    Ok(missing.copied().collect())
}

/// A small platform whose critical thresholds lie below what anything takes.
fn cluster(world: &World) -> Value {
    let same = |level: &str| json!({ "target": level, "warning": level, "critical": level });
    let mut thresholds = serde_json::Map::new();
    for field in [
        "responseTime",
        "login",
        "dashboard",
        "taskCreation",
        "taskResults",
        "taskProcessing",
        "databaseQuery",
        "redis",
    ] {
        thresholds.insert(field.to_owned(), same("1ms"));
    }
    for field in ["cpu", "memory", "disk", "network", "databaseConnections"] {
        thresholds.insert(field.to_owned(), same("0.0001%"));
    }
    thresholds.insert("queueWait".to_owned(), same("10s"));
    thresholds.insert("replicationLag".to_owned(), same("5s"));
    thresholds.insert("backlog".to_owned(), json!(5));
    thresholds.insert("apiToDatabase".to_owned(), json!("1ms"));
    json!({
        "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
        "metadata": { "name": NAME, "namespace": world.namespace },
        "spec": {
            "profile": "Small",
            "worker": { "lease": "5s" },
            "egress": { "allow": [{ "host": format!("sites.{}.svc.cluster.local", world.namespace) }] },
            "postgres": { "readReplicas": 1 },
            "slo": { "profile": "Production" },
            "monitoring": { "alerts": { "thresholds": thresholds } },
        },
    })
}

/// Somebody who signs in, looks, creates tasks, reads results and previews a page all the time, and takes every answer.
struct Load {
    stop: Arc<AtomicBool>,
    working: JoinHandle<()>,
}

impl Load {
    fn start(world: &World) -> Result<Self> {
        let service = format!("{NAME}-api");
        let (address, password) = (
            world.service_address(&service)?,
            world.secret(&service, "admin-password")?,
        );
        let mut task = documentation::task(&format!("sites.{}.svc.cluster.local", world.namespace))?;
        // What waits for its site is no backlog.
        task["politeness"] = json!({ "minDelay": "0s", "maxConcurrent": 16 });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let working = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                // What fails is what the alerts are about.
                let _ = visit(&address, &password, &task).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Ok(Self { stop, working })
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        // It ends after what it is at, whatever that comes to.
        let _ = self.working.await;
    }
}

async fn visit(address: &str, password: &str, task: &Value) -> Result<()> {
    let api = Api::login(address, "admin", password).await?;
    let id = api.create_task(task).await?;
    api.send(Method::POST, "tasks:preview", Some(task)).await?;
    for _ in 0..20 {
        api.send(Method::GET, "dashboard/stats", None).await?;
        api.send(Method::GET, &format!("tasks/{id}/results"), None).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The names of the alerts that fire.
async fn firing(server: &Prometheus) -> Result<Vec<String>> {
    let told = server.ask("alerts", &[]).await?;
    let alerts = told["alerts"].as_array().context("no alerts are told")?;
    Ok(alerts
        .iter()
        .filter(|alert| alert["state"] == "firing")
        .filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned))
        .collect())
}
