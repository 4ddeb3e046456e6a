//! The program's life: connect, listen, and end so that no request is lost.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use prometheus::Registry;
use selextract_platform::timings::Timings;
use selextract_telemetry::Container;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    internal::{self, tls::Certificate, tokens::OperatorTokens},
    metrics::{HttpMetrics, Listener},
    openapi, router,
    server::{Ending, Server},
    settings::{InternalOn, Secrets, Settings},
    state::AppState,
    telemetry::{self, Readiness},
};

const TELEMETRY_DRAIN: Duration = Duration::from_secs(1);

/// Runs the API until SIGTERM or SIGINT; `timings` are those that the logs were started with.
pub async fn run(settings: Settings, secrets: Secrets, timings: Timings) -> anyhow::Result<()> {
    let ending = Ending::default();
    let end = &ending.end;
    let state = AppState::connect(&settings, &secrets, &timings, end.clone())?;
    let internal = settings.internal.on()?;
    let document = router::document().context("writing the OpenAPI document")?;
    let routes = openapi::operations(&document);
    let registry = Registry::new();
    Container::register(&registry).context("registering the container's metrics")?;
    timings.register(&registry).context("registering the stores' timings")?;
    let metrics =
        HttpMetrics::register(&registry, Listener::Public, &routes).context("registering the request metrics")?;
    state
        .logins
        .register(&registry)
        .context("registering the sign-ins' metric")?;
    let routes = internal::ROUTES.map(|(method, route)| (method.to_owned(), route.to_owned()));
    let internal_metrics =
        HttpMetrics::register(&registry, Listener::Internal, &routes).context("registering the internal metrics")?;

    let mut servers = JoinSet::new();
    let public = Server {
        name: "public",
        listener: bind(settings.public_addr).await?,
        tls: None,
        router: router::public(state.clone(), metrics, document, settings.request_timeout.get()),
        drain: settings.drain_timeout.get(),
    };
    servers.spawn(public.run(ending.clone()));
    if let Some(on) = internal {
        let listener = bind(settings.internal_addr).await?;
        let server = internal_server(on, listener, &settings, state.clone(), internal_metrics, end.clone()).await?;
        servers.spawn(server.run(ending.clone()));
    } else {
        tracing::warn!("The internal listener is off: it has no certificate.");
    }
    let stop = Ending::default();
    let readiness = Readiness::default();
    readiness.register(&registry).context("registering the readiness")?;
    let telemetry = Server {
        name: "telemetry",
        listener: bind(settings.telemetry_addr).await?,
        tls: None,
        router: telemetry::router(registry, readiness.clone()),
        drain: TELEMETRY_DRAIN,
    };
    let telemetry = tokio::spawn(telemetry.run(stop.clone()));
    tokio::spawn(readiness.clone().follow(async move || state.ping().await, end.clone()));
    tracing::info!(address = %settings.public_addr, "The API listens.");

    wait_for_signal().await?;
    // First out of the Service's endpoints while requests still come, each the last of its connection; then no further connections,
    // then the open requests.
    readiness.leave();
    ending.leaving.cancel();
    tracing::info!("The API leaves.");
    tokio::time::sleep(settings.leave_delay.get()).await;
    end.cancel();
    servers.join_all().await;
    stop.end.cancel();
    telemetry.await.context("ending the telemetry listener")
}

async fn internal_server(
    on: InternalOn,
    listener: TcpListener,
    settings: &Settings,
    state: AppState,
    metrics: HttpMetrics,
    end: CancellationToken,
) -> anyhow::Result<Server> {
    let certificate = Certificate::read(on.tls_cert, on.tls_key)?;
    let tokens = Arc::new(OperatorTokens::read(on.jwks, on.expected).await?);
    let tls = certificate.acceptor()?;
    tokio::spawn(certificate.follow(end));
    Ok(Server {
        name: "internal",
        listener,
        tls: Some(tls),
        router: internal::router(state, tokens, metrics),
        drain: settings.drain_timeout.get(),
    })
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
