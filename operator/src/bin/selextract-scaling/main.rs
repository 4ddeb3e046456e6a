//! Records what a cluster's sizes were decided from, and replays it under another policy. It changes nothing anywhere.

use std::process::ExitCode;

use clap::Parser;
use selextract_operator::replay::{self, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match replay::run(Command::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("selextract-scaling: {error:#}");
            ExitCode::FAILURE
        }
    }
}
