//! From start to stop: waits for the kinds, for the lease, runs the controllers, and goes in order.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use futures::future::join_all;
use kube::{Client, Config};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster,
    context::{Clusters, Context},
    leader::Leadership,
    scrape_task,
    settings::Settings,
    telemetry::{self, Telemetry},
};

const GROUP_VERSION: &str = "selextract.io/v1alpha1";
const KINDS: [(&str, &str); 2] = [
    ("SelextractCluster", "selextractclusters.selextract.io"),
    ("ScrapeTask", "scrapetasks.selextract.io"),
];
const KINDS_PAUSE: Duration = Duration::from_secs(2);
/// The API server may be silent for so long during a call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// And during a watch, which it ends itself after 290 seconds.
const WATCH_TIMEOUT: Duration = Duration::from_secs(320);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When it cannot start, or lost its lease: then it must not go on, and starts anew.
pub async fn run() -> anyhow::Result<()> {
    let provider = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(provider.is_ok(), "another cryptography provider is installed already");
    let settings = Settings::parse();
    selextract_telemetry::start_logs(&settings.log).map_err(anyhow::Error::msg)?;
    let telemetry = Telemetry::new()?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;

    let listener = telemetry::bind(settings.telemetry_addr).await?;
    let served = tokio::spawn(telemetry::serve(telemetry.clone(), listener, stop.clone()));
    let outcome = match stop.run_until_cancelled(prepare(&settings, &telemetry)).await {
        // Told to stop before there was anything to stop.
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok((clients, lease))) => lead(clients, settings, telemetry, lease, stop.clone()).await,
    };
    stop.cancel();
    served
        .await
        .context("the telemetry's task broke")?
        .context("cannot serve the telemetry")?;
    outcome
}

/// Waits for the kinds, then for the lease.
async fn prepare(settings: &Settings, telemetry: &Telemetry) -> anyhow::Result<((Client, Client), Leadership)> {
    let config = Config::infer().await.context("cannot find the Kubernetes API")?;
    let client = connect(&config, CALL_TIMEOUT)?;
    wait_for_kinds(&client, telemetry).await;
    telemetry.waits_for(Vec::new());
    let mut lease = Leadership::start(client.clone(), settings).await?;
    tracing::info!(lease = %settings.lease_name, "The kinds are there; waiting for the lease.");
    lease.won().await?;
    telemetry.leads(true);
    tracing::info!(scopes = ?settings.scopes(), "This replica leads.");
    Ok(((client, connect(&config, WATCH_TIMEOUT)?), lease))
}

/// A client that gives an answer up after so long a silence.
fn connect(config: &Config, silence: Duration) -> anyhow::Result<Client> {
    let mut config = config.clone();
    config.read_timeout = Some(silence);
    // Counts from when a request is sent, not from when its connection was left.
    config.reset_reader_on_write = true;
    Client::try_from(config).context("cannot connect to the Kubernetes API")
}

/// Runs the controllers while the lease is held.
async fn lead(
    clients: (Client, Client),
    settings: Settings,
    telemetry: Telemetry,
    mut lease: Leadership,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let work = stop.child_token();
    let mut controllers = tokio::spawn(run_controllers(clients, settings, telemetry.clone(), work.clone()));
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = lease.lost() => Err(anyhow::anyhow!("the lease was lost")),
        ended = &mut controllers => Err(anyhow::anyhow!("the controllers ended by themselves: {ended:?}")),
    };
    telemetry.leads(false);
    work.cancel();
    if !controllers.is_finished() && timeout(STOP_TIMEOUT, &mut controllers).await.is_err() {
        controllers.abort();
    }
    lease.release().await;
    outcome
}

async fn run_controllers(clients: (Client, Client), settings: Settings, telemetry: Telemetry, stop: CancellationToken) {
    let scopes = settings.scopes();
    let (clusters, writers) = Clusters::new(&scopes);
    let context = Arc::new(Context::new(clients, settings, telemetry, clusters));
    let for_clusters = scopes.iter().cloned().zip(writers).collect();
    let controllers = [
        tokio::spawn(cluster::run(context.clone(), for_clusters, stop.clone())),
        tokio::spawn(scrape_task::run(context, scopes, stop)),
    ];
    for ended in join_all(controllers).await {
        if let Err(error) = ended {
            tracing::error!(%error, "A controller broke.");
        }
    }
}

/// Waits until both kinds are served, and says in `/readyz` which are not. Discovery needs no right of its own.
async fn wait_for_kinds(client: &Client, telemetry: &Telemetry) {
    loop {
        let missing = match client.list_api_group_resources(GROUP_VERSION).await {
            Ok(list) => missing_kinds(|kind| list.resources.iter().any(|resource| resource.kind == kind)),
            // For a group that is not there the API server answers in plain text, so the reason says nothing.
            Err(kube::Error::Api(status)) if status.code == 404 => missing_kinds(|_| false),
            Err(_) => vec!["the Kubernetes API".to_owned()],
        };
        if missing.is_empty() {
            return;
        }
        tracing::info!(missing = ?missing, "Waiting before work can begin.");
        telemetry.waits_for(missing);
        sleep(KINDS_PAUSE).await;
    }
}

fn missing_kinds(served: impl Fn(&str) -> bool) -> Vec<String> {
    KINDS
        .iter()
        .filter(|(kind, _)| !served(kind))
        .map(|(_, definition)| format!("CustomResourceDefinition {definition}"))
        .collect()
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("Told to stop.");
        stop.cancel();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_definitions_are_named() {
        assert_eq!(
            missing_kinds(|kind| kind == "SelextractCluster"),
            ["CustomResourceDefinition scrapetasks.selextract.io"]
        );
        assert!(missing_kinds(|_| true).is_empty());
    }
}
