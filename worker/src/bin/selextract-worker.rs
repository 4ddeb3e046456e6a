//! The worker's program: settings, telemetry, the claim loop, and a clean end.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use prometheus::Registry;
use selextract_platform::{
    frontier::Frontier,
    ledger::{Ledger, PoolSettings, Secret},
    previews::Previews,
    sealed::Seal,
    timings::Timings,
};
use selextract_telemetry::{Container, start_logs_beside};
use selextract_worker::{
    access::Vault,
    browser::{Browsers, remove_leftovers},
    claims::Claims,
    cpu::Meter,
    fetch::http::Http,
    preview,
    probes::Probes,
    robots::Robots,
    run::{self, Ended},
    settings::Settings,
    task_run::Engines,
    telemetry::Metrics,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// A page is many small allocations: glibc's allocator was a sixth of the worker's profile.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<ExitCode> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let settings = Settings::parse();
    let timings = Timings::new()?;
    // Below that level it writes what it sends to the browser, passwords among it.
    let filter = format!("{},chromiumoxide=info", settings.log);
    start_logs_beside(&filter, timings.statements_layer()).map_err(anyhow::Error::msg)?;
    // One thread: ADR 38.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(work(settings, timings))
}

async fn work(settings: Settings, timings: Timings) -> Result<ExitCode> {
    remove_leftovers();
    let registry = Registry::new();
    Container::register(&registry).context("registering the container's metrics")?;
    timings.register(&registry).context("registering the stores' timings")?;
    let metrics = Metrics::new(&registry, settings.concurrency).context("registering metrics")?;
    let frontier = Frontier::connect_lazy(&Secret(settings.redis_queue_url.expose().to_owned()))
        .context("reading the frontier's URL")?
        .timed(&timings);
    let ledger = ledger(&settings)?.timed(&timings, "primary");
    let vault = vault(&settings, ledger.clone(), frontier.clone())?;
    let claims = Arc::new(Claims::new(
        ledger,
        frontier.clone(),
        settings.worker_name.clone(),
        settings.lease.get(),
    ));
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signals(stop.clone())?);
    let probes = Probes::new(registry, Arc::clone(&claims), stop.clone());
    let listener = TcpListener::bind(settings.telemetry_addr)
        .await
        .with_context(|| format!("listening on {}", settings.telemetry_addr))?;
    tokio::spawn(async move { axum::serve(listener, probes.router()).await });

    let browsers = Arc::new(Browsers::new(settings.browser_settings(), metrics.clone()));
    let http = Http::with_contact(&settings.egress_proxy, &settings.contact)
        .context("making the HTTP client")?
        .with_pools(settings.egress_pools.clone());
    let engines = Engines {
        robots: Robots::new(http.clone(), frontier),
        http,
        browsers: Arc::clone(&browsers),
        vault,
        cpu: Meter::of_this_process(),
        metrics,
    };
    let listening = tokio::spawn({
        let claims = Arc::clone(&claims);
        async move { claims.listen().await }
    });
    let previews = Previews::connect_lazy(&Secret(settings.redis_queue_url.expose().to_owned()))
        .context("reading the queue's URL")?
        .timed(&timings);
    tokio::spawn(preview::serve(engines.clone(), previews, stop.clone()));
    tracing::info!(worker = settings.worker_name, "The worker is up.");
    let ended = run::run(engines, claims, settings.pace(), stop).await;
    listening.abort();
    browsers.close().await;
    tracing::info!(?ended, "The worker ends.");
    // Whoever started it starts another after a recycling; only a drain that was cut off is a failure.
    Ok(match ended {
        Ended::Stopped | Ended::Recycled => ExitCode::SUCCESS,
        Ended::TimedOut => ExitCode::FAILURE,
    })
}

fn ledger(settings: &Settings) -> Result<Ledger> {
    let home = settings.artifacts.home().context("reading where artifacts are kept")?;
    let ledger = Ledger::connect_lazy(&PoolSettings {
        url: Secret(settings.database_url.expose().to_owned()),
        max_connections: settings.pool_size,
        min_connections: 1,
        acquire_timeout: settings.pool_acquire_timeout.get(),
        max_lifetime: settings.pool_max_lifetime.get(),
        application_name: "selextract-worker",
    })
    .context("reading the database's URL")?;
    Ok(ledger.with_artifacts(home))
}

fn vault(settings: &Settings, ledger: Ledger, frontier: Frontier) -> Result<Vault> {
    let seal = settings.data_key.as_ref().map(|keys| Seal::parse(keys.expose()));
    let seal = seal.transpose().context("reading the data keys")?;
    Ok(Vault::new(ledger, frontier, seal))
}

fn stop_on_signals(stop: CancellationToken) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}
