//! `selextract-keeper`: what is done once for the whole platform; `selextract-keeper migrate` brings the database to this version.

use std::{env::args_os, process::ExitCode};

use clap::{Args, Parser};
use selextract_api_server::keeper::{self, KeeperSettings, MigrateSettings};
use selextract_platform::timings::Timings;
use selextract_telemetry::{start_logs, start_logs_beside};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Refills the queue, takes expired leases back, runs schedules, keeps partitions and retention.
#[derive(Parser)]
#[command(
    version,
    after_help = "selextract-keeper migrate brings the database to this version and ends; see selextract-keeper migrate --help"
)]
struct Keep {
    #[command(flatten)]
    settings: KeeperSettings,
    #[command(flatten)]
    logs: Logs,
}

/// Creates roles and database where a superuser is given, applies the migrations, makes the first administrator.
#[derive(Parser)]
#[command(name = "selextract-keeper migrate", version)]
struct Migrate {
    #[command(flatten)]
    settings: MigrateSettings,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Args)]
struct Logs {
    /// Which logs are written
    #[arg(long, env = "SELEXTRACT_LOG", default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // Nothing of rustls works before it; a second provider cannot have been there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Two parsers and no subcommand of clap's: both read some of the same variables, and clap would ask for the others of the keeper.
    if args_os().nth(1).is_some_and(|argument| argument == "migrate") {
        let program = Migrate::parse_from(args_os().skip(1));
        start_logs(&program.logs.log).map_err(anyhow::Error::msg)?;
        // One line, since it becomes the message of a condition; an error of the ledger tells its causes itself.
        return match keeper::migrate(program.settings).await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => {
                eprintln!("{error}");
                Ok(ExitCode::FAILURE)
            }
        };
    }
    let program = Keep::parse();
    let timings = Timings::new()?;
    start_logs_beside(&program.logs.log, timings.statements_layer()).map_err(anyhow::Error::msg)?;
    let end = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = end.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        ended.cancel();
    });
    keeper::run(program.settings, timings, end).await?;
    Ok(ExitCode::SUCCESS)
}
