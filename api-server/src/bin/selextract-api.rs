//! `selextract-api`: the public API of a cluster and its internal listener.

use clap::Parser;
use selextract_api_server::{
    program,
    settings::{Secrets, Settings},
};
use selextract_platform::timings::Timings;
use selextract_telemetry::start_logs_beside;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Nothing of rustls works before it; a second provider cannot have been there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings::parse();
    let secrets = Secrets::read(|name| std::env::var(name).ok())?;
    let timings = Timings::new()?;
    start_logs_beside(&settings.log, timings.statements_layer()).map_err(anyhow::Error::msg)?;
    program::run(settings, secrets, timings).await
}
