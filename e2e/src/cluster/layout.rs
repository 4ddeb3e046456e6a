//! Where the cluster's files lie and which addresses it has. Everything here goes with `down`.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::PathBuf,
};

use anyhow::{Context, Result};

use crate::{program::tail, tools};

/// The network of the bridge: control plane, nodes and host.
pub const NODE_PREFIX: &str = "24";
/// The range of all pods; each node has a /24 of it.
pub const POD_RANGE: &str = "10.204.0.0/16";
/// The range of Services.
pub const SERVICE_RANGE: &str = "10.205.0.0/16";
/// The Service of the API server, the first of the range.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 205, 0, 1);
/// The Service of DNS.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 205, 0, 10);
/// The control plane on the bridge.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 203, 0, 1);
/// The host on the bridge of the local cluster: what a journey serves there, pods reach.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 203, 0, 254);
/// The network namespace of the control plane.
pub const CONTROL_PLANE_NAMESPACE: &str = "sxl-control";
/// How many bytes of a log an error shows.
const LOG_TAIL: usize = 3000;

/// A node's address on the bridge.
pub fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 203, 0, 10 + index)
}

/// A node's pods.
pub fn pod_range(index: u8) -> String {
    format!("10.204.{index}.0/24")
}

/// A node's name in the cluster.
pub fn node_name(index: u8) -> String {
    format!("node{index}")
}

/// A node's network namespace.
pub fn node_namespace(index: u8) -> String {
    format!("sxl-node{index}")
}

/// A node's control group, under each controller.
pub fn node_cgroup(index: u8) -> String {
    format!("selextract-local-node{index}")
}

/// The folders of the one local cluster of this machine.
pub struct Layout {
    run: PathBuf,
    data: PathBuf,
    bin: PathBuf,
}

impl Layout {
    /// The folders; nothing is made.
    pub fn new() -> Self {
        let bin = tools::bin().unwrap_or_else(|_| PathBuf::from("/nonexistent"));
        Self {
            run: "/run/selextract-local".into(),
            data: "/var/lib/selextract-local".into(),
            bin,
        }
    }

    /// Makes the folders, which only root may read: tokens lie there.
    pub fn create(&self) -> Result<()> {
        for folder in [
            self.run.join("pids"),
            self.run.join("logs"),
            self.run.join("pki"),
            self.data.clone(),
        ] {
            fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        for folder in [&self.run, &self.data] {
            fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        }
        Ok(())
    }

    /// One command at a time changes the cluster.
    pub fn lock() -> Result<File> {
        let cache = tools::cache()?;
        fs::create_dir_all(&cache)?;
        let file = File::create(cache.join("local-cluster.lock"))?;
        if file.try_lock().is_err() {
            println!("Another selextract-local is at work; waiting for it.");
            file.lock().context("the lock of the local cluster cannot be taken")?;
        }
        Ok(file)
    }

    /// What is lost with a restart of the machine: pids, sockets, credentials, logs.
    pub fn run(&self) -> &PathBuf {
        &self.run
    }

    /// What takes room: images, volumes, etcd.
    pub fn data(&self) -> &PathBuf {
        &self.data
    }

    /// The Kubernetes programs.
    pub fn bin(&self) -> &PathBuf {
        &self.bin
    }

    /// A node's sockets and settings.
    pub fn node_run(&self, index: u8) -> PathBuf {
        self.run.join(node_name(index))
    }

    /// A node's images, pods and volumes.
    pub fn node_data(&self, index: u8) -> PathBuf {
        self.data.join(node_name(index))
    }

    /// A node's containerd.
    pub fn socket(&self, index: u8) -> PathBuf {
        self.node_run(index).join("containerd.sock")
    }

    /// Credentials of the name.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.run.join("pki").join(name)
    }

    /// The administrator's way in.
    pub fn kubeconfig(&self) -> PathBuf {
        self.run.join("kubeconfig")
    }

    /// What runs, written when it is all there.
    pub fn state_file(&self) -> PathBuf {
        self.run.join("state.json")
    }

    /// A component's log.
    pub fn log(&self, component: &str) -> PathBuf {
        self.run.join("logs").join(format!("{component}.log"))
    }

    /// The end of a component's log, under its name.
    pub fn log_tail(&self, component: &str) -> String {
        let text = fs::read(self.log(component)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        format!(
            "--- the end of {}\n{}\n",
            self.log(component).display(),
            tail(&text, LOG_TAIL)
        )
    }

    /// Names of the nodes that have been started.
    pub fn nodes(&self) -> Vec<u8> {
        (1..=super::MOST_NODES)
            .filter(|index| self.socket(*index).exists())
            .collect()
    }
}
