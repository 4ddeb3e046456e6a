//! The settings of a node's containerd and of its pods' network. Pure.

use std::path::Path;

use serde_json::json;

use super::layout::pod_range;

/// The name of the image that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "localhost/selextract-local/pause:1";

/// `config.toml`.
pub fn config(data: &Path, run: &Path) -> String {
    let (data, run) = (data.display(), run.display());
    format!(
        r#"version = 2
root = "{data}/containerd"
state = "{run}/containerd"
# Without CAP_SYS_RESOURCE the score cannot be lowered.
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{run}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE runc would fail on pods that ask for a lower score than its own.
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{run}/cni"
"#
    )
}

/// Each pod has a routed link of its own (`ptp`), so that traffic between pods of one node passes the node's rules too, which a
/// Service needs; a bridge would pass answers by them.
pub fn network(index: u8, data: &Path) -> String {
    let ipam = json!({
        "type": "host-local",
        "dataDir": data.join("addresses"),
        "ranges": [[{ "subnet": pod_range(index) }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    json!({
        "cniVersion": "0.4.0",
        "name": "local",
        "plugins": [
            { "type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": ipam },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_own_pod_addresses() {
        assert!(network(2, Path::new("/d")).contains("10.204.2.0/24"));
    }

    #[test]
    fn each_node_has_its_own_socket_and_store() {
        let text = config(Path::new("/data/node1"), Path::new("/run/node1"));
        assert!(text.contains("address = \"/run/node1/containerd.sock\""));
        assert!(text.contains("root = \"/data/node1/containerd\""));
    }
}
