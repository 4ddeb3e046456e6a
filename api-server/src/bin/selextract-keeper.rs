//! `selextract-keeper`: what is done once for the whole platform; `selextract-keeper migrate` brings the database to this version.

use clap::{Args, Parser, Subcommand};
use selextract_api_server::keeper::{self, KeeperSettings, MigrateSettings};
use selextract_platform::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Refills the queue, takes expired leases back, runs schedules, keeps partitions and retention.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    keeper: Option<KeeperSettings>,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Args)]
struct Logs {
    /// Which logs are written
    #[arg(long, env = "SELEXTRACT_LOG", default_value = "info", global = true)]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    /// Creates roles and database where a superuser is given, applies the migrations, makes the first administrator
    Migrate(Box<MigrateSettings>),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Nothing of rustls works before it; a second provider cannot have been there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let program = Program::parse();
    telemetry::start_logs(&program.logs.log).map_err(anyhow::Error::msg)?;
    match (program.command, program.keeper) {
        (Some(Command::Migrate(settings)), _) => keeper::migrate(*settings).await,
        (None, Some(settings)) => {
            let end = CancellationToken::new();
            let mut terminate = signal(SignalKind::terminate())?;
            let ended = end.clone();
            tokio::spawn(async move {
                terminate.recv().await;
                ended.cancel();
            });
            keeper::run(settings, end).await
        }
        (None, None) => anyhow::bail!("the keeper's settings are missing; see --help"),
    }
}
