//! metrics-server, which tells the autoscalers CPU: built once from its Go module into the cache, run on the host.

use std::{
    fs::File,
    net::{IpAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;

use super::adapter::register;
use crate::{
    cluster::{HOST, Layout},
    program::Program,
    tools,
    world::World,
};

/// The group of the API that it serves.
pub const GROUP: &str = "metrics.k8s.io";
const PACKAGE: &str = "sigs.k8s.io/metrics-server/cmd/metrics-server";
const BUILD: Duration = Duration::from_mins(30);

/// Runs until it is dropped.
pub struct MetricsServer(Child);

impl Drop for MetricsServer {
    fn drop(&mut self) {
        // One that has ended is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl MetricsServer {
    /// Builds it if need be, starts it with the settings of its own manifest, and makes it a part of the API.
    pub async fn start(world: &World) -> Result<Self> {
        let program = provide()?;
        // Free for a moment before the program takes it; nobody else listens on this address.
        let port = TcpListener::bind((IpAddr::from(HOST), 0))?.local_addr()?.port();
        let layout = Layout::new();
        let kubeconfig = layout.kubeconfig();
        let log = File::create(layout.log("metrics-server"))?;
        let scratch = layout.run().join("metrics-server");
        let mut command = Command::new(program);
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            command.arg(format!("--{flag}={}", kubeconfig.display()));
        }
        let child = command
            .arg(format!("--cert-dir={}", scratch.display()))
            .arg(format!("--bind-address={HOST}"))
            .arg(format!("--secure-port={port}"))
            // The kubelets' certificates are their own.
            .arg("--kubelet-insecure-tls")
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg("--metric-resolution=15s")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("metrics-server cannot be started")?;
        let server = Self(child);
        let trust = json!({ "insecureSkipTLSVerify": true });
        register(world, "metrics-server", GROUP, port, &trust)
            .await
            .map_err(|error| error.context(layout.log_tail("metrics-server")))?;
        Ok(server)
    }
}

/// The program, in a folder of the cache that follows its sources.
fn provide() -> Result<PathBuf> {
    let sources = tools::repository()?.join("e2e/peers/metrics-server");
    let pinned = ["go.mod", "go.sum"].map(|name| sources.join(name));
    let folder = tools::made("metrics-server", &[&pinned[0], &pinned[1]], |folder| {
        println!("      building metrics-server: about 5 minutes on 2 cores, once");
        Program::new("go", ["build", "-trimpath", "-ldflags", "-s -w", "-o"])
            .and([folder.join("metrics-server").as_os_str(), PACKAGE.as_ref()])
            .folder(&sources)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=readonly")
            .timeout(BUILD)
            .run()
            .context("metrics-server cannot be built")
    })?;
    Ok(folder.join("metrics-server"))
}
