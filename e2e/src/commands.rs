//! The commands of `selextract-local`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{
    cluster::{self, Wanted},
    demo, images, tools,
};

/// A real Kubernetes on this machine, and the demo on it.
#[derive(Parser)]
#[command(name = "selextract-local", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the local cluster, adds the nodes that it lacks, or finds that it has all.
    Up {
        /// How many nodes it has, 1 to 9.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
        /// Write an audit log of every request (metadata only).
        #[arg(long)]
        audit_log: bool,
    },
    /// Takes the local cluster away, with everything that it made.
    Down,
    /// Says how the local cluster is.
    Status,
    /// Brings images from podman to every node.
    Load {
        /// Their names.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Installs the packages and builds the programs that the local cluster needs.
    Tools,
    /// Builds the product's programs and images; prints the tag.
    Images,
    /// From nothing to scraped rows.
    Demo(demo::Options),
    /// Takes the demo away: the local cluster, or what it put into the current one.
    DemoDown(demo::Target),
    /// Prints a component's log; without a name, the components.
    Logs {
        /// The component, such as kube-apiserver or node1-kubelet.
        component: Option<String>,
    },
    /// Makes volumes for claims; `up` starts it.
    #[command(hide = true)]
    Provision,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("selextract-local: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    // Fails only when somebody else chose one already, and nobody does.
    drop(rustls::crypto::ring::default_provider().install_default());
    match command {
        Command::Up { nodes, audit_log } => cluster::up(Wanted { nodes, audit_log }),
        Command::Down => cluster::down(),
        Command::Status => cluster::print_status(),
        Command::Load { images } => {
            let loaded = cluster::load(&images)?;
            println!("{loaded} of {} image(s) loaded; the others were there.", images.len());
            Ok(())
        }
        Command::Tools => {
            tools::install_packages()?;
            tools::provide()?;
            println!("{}", tools::bin()?.display());
            Ok(())
        }
        Command::Images => {
            println!("{}", images::build()?.tag);
            Ok(())
        }
        Command::Demo(options) => demo::run(&options),
        Command::DemoDown(target) => demo::clean_up(&target),
        Command::Logs { component } => cluster::print_log(component.as_deref()),
        Command::Provision => runtime()?.block_on(cluster::provision()),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")
}
