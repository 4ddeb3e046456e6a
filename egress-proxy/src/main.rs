//! The program `selextract-egress-proxy`: wires settings, policy, proxy and telemetry, and stops on SIGTERM.

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use selextract_egress_proxy::{
    dial::Dialler, metrics::Metrics, policy::Policy, proxy::Proxy, reload::Watched, resolve::Resolver, selftest,
    server::Server, settings::Settings, telemetry,
};
use selextract_telemetry::start_logs;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

/// A page is many small allocations: glibc's allocator was a sixth of the worker's profile.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// One thread: ADR 38.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let settings = Settings::parse();
    start_logs(&settings.log).map_err(anyhow::Error::msg)?;
    run(settings).await
}

async fn run(settings: Settings) -> Result<()> {
    let metrics = Arc::new(Metrics::new().context("registering metrics")?);
    let stop = stop_on_signals()?;
    let policy = follow_policy(&settings, metrics.clone()).await?;
    let tested = policy.borrow().clone();
    let resolver = Resolver::from_system().context("reading the resolver configuration")?;
    let tasks = TaskTracker::new();
    let dialler = Dialler::new(resolver, policy, metrics.clone(), settings.origin_limits());
    let direct = Proxy::new(dialler, metrics.clone(), tasks.clone());
    let pools = direct.for_pools();
    let server = |proxy| Server {
        proxy: Arc::new(proxy),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        limits: settings.server_limits(),
    };
    let listener = bind(settings.listen).await?;
    let listens = listener.local_addr().context("asking where it listens")?;
    let serving = tokio::spawn(server(direct).run(listener, stop.clone()));
    let serving_pools = match settings.pools_listen {
        Some(address) => Some(tokio::spawn(server(pools).run(bind(address).await?, stop.clone()))),
        None => None,
    };
    // Before the probes are served, so that nobody sends it anything until it has proved that it refuses.
    selftest::run(listens, &tested).await.context("the self-test failed")?;
    let probes = bind(settings.telemetry_addr).await?;
    let router = telemetry::router(metrics.clone(), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(probes, router).await {
            error!(%error, "The telemetry listener ended.");
        }
    });
    info!(listen = %settings.listen, "The egress proxy serves.");
    serving.await.context("serving")?;
    if let Some(serving) = serving_pools {
        serving.await.context("serving the pools")?;
    }
    info!("The egress proxy stopped.");
    Ok(())
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))
}

async fn follow_policy(settings: &Settings, metrics: Arc<Metrics>) -> Result<watch::Receiver<Arc<Policy>>> {
    let Some(path) = settings.config.clone() else {
        return Ok(watch::Sender::new(Arc::new(Policy::default())).subscribe());
    };
    let watched = Watched::load(path, metrics).await?;
    let policy = watched.policy();
    tokio::spawn(watched.run(settings.reload_interval.get()));
    Ok(policy)
}

fn stop_on_signals() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("Told to stop; open connections may finish.");
        token.cancel();
    });
    Ok(stop)
}
