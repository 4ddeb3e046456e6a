//! The program `selextract-node`, a `DaemonSet`: puts Chromium's seccomp profile where the kubelet looks for it and labels its node,
//! so that browser pods which ask for the profile are scheduled only where it is. It knows nothing of clusters and tasks.
//!
//! The label stays when the program stops: pods that run need it no longer, and a restart must not empty the nodes.

mod label;
mod profile;
mod telemetry;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use kube::Client;
use rand::Rng;
use selextract_task::Duration;
use telemetry::Telemetry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

/// For one request to the API server.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);
/// The first wait after a failure; it doubles up to the interval between two looks.
const FIRST_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Installs Chromium's seccomp profile on the node and labels it.
#[derive(Debug, Parser)]
#[command(name = "selextract-node", version)]
struct Settings {
    /// The node that this pod runs on.
    #[arg(long, env = "SELEXTRACT_NODE_NAME")]
    node_name: String,
    /// The kubelet's seccomp folder as it is mounted here.
    #[arg(long, env = "SELEXTRACT_SECCOMP_DIR", default_value = "/host/seccomp")]
    seccomp_dir: PathBuf,
    /// How often file and label are looked at again.
    #[arg(long, env = "SELEXTRACT_RECHECK_INTERVAL", default_value = "5m")]
    recheck_interval: Duration,
    /// Where probes and metrics are served.
    #[arg(long, env = "SELEXTRACT_TELEMETRY_ADDR", default_value = "0.0.0.0:9090")]
    telemetry_addr: SocketAddr,
    /// Which log lines are written.
    #[arg(long, env = "SELEXTRACT_LOG", default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let settings = Settings::parse();
    selextract_telemetry::start_logs(&settings.log).map_err(anyhow::Error::msg)?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        ended = run(settings) => ended,
        _ = terminate.recv() => {
            info!("Told to stop; profile and label stay.");
            Ok(())
        }
    }
}

async fn run(settings: Settings) -> Result<()> {
    let telemetry = Telemetry::new().context("registering metrics")?;
    let listener = TcpListener::bind(settings.telemetry_addr)
        .await
        .with_context(|| format!("listening on {}", settings.telemetry_addr))?;
    let router = telemetry::router(telemetry.clone());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            error!(%error, "The telemetry listener ended.");
        }
    });
    let client = Client::try_default()
        .await
        .context("reading the pod's service account")?;
    let longest = settings.recheck_interval.get();
    let mut retry = FIRST_RETRY;
    loop {
        let outcome = keep(&settings, client.clone()).await;
        telemetry.report(outcome.is_ok());
        let wait = match outcome {
            Ok(()) => {
                retry = FIRST_RETRY;
                longest
            }
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "The node is not ready for Chromium's sandbox."
                );
                let wait = retry.min(longest);
                retry = (retry * 2).min(longest);
                wait
            }
        };
        // Nodes that start together are not to ask together.
        sleep(wait.mul_f64(rand::rng().random_range(0.8..1.2))).await;
    }
}

/// The file first, then the label; where the file cannot be there, the label goes.
async fn keep(settings: &Settings, client: Client) -> Result<()> {
    let installed = profile::install(&settings.seccomp_dir);
    timeout(
        REQUEST_TIMEOUT,
        label::apply(client, &settings.node_name, installed.is_ok()),
    )
    .await
    .context("labelling the node: no answer in time")?
    .with_context(|| format!("labelling the node {}", settings.node_name))?;
    if installed.with_context(|| format!("installing the profile in {}", settings.seccomp_dir.display()))? {
        info!(
            node = settings.node_name,
            "The seccomp profile was installed and the node labelled."
        );
    }
    Ok(())
}
