//! One node: a mount namespace of its own, containerd, kubelet and kube-proxy.
//!
//! The mount namespace gives the node a `/var/lib/kubelet` of its own, as charts expect it, and makes every mount of its pods go with
//! its last process.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    containerd,
    control_plane::containerd_answers,
    layout::{DNS_SERVICE, Layout, POD_RANGE, node_address, node_cgroup, node_name, node_namespace},
    process::{self, Room},
};
use crate::progress::wait_for;

/// The folders of a host that a node has for itself, with the folder of its data that takes the place.
const OWN_MOUNTS: &str = r#"
set -e
mount --make-rshared /
mkdir -p /run/netns /run/containerd /var/lib/kubelet
mount -t tmpfs tmpfs /run/netns
mount -t tmpfs tmpfs /run/containerd
mount --bind "$1" /var/lib/kubelet
touch "$2"
exec sleep infinity
"#;

/// Starts the node's processes.
pub fn start(layout: &Layout, index: u8) -> Result<()> {
    let (run, data) = (layout.node_run(index), layout.node_data(index));
    for folder in [
        run.join("cni"),
        data.join("kubelet"),
        data.join("logs"),
        data.join("plugins"),
        data.join("volumes"),
    ] {
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    create_cgroup(&node_cgroup(index))?;
    let name = node_name(index);
    let holder = hold_mounts(layout, index)?;
    let room = Room {
        network: Some(node_namespace(index)),
        mounts: Some(holder),
    };
    start_containerd(layout, index, &room)?;
    let kubelet = run.join("kubelet.json");
    fs::write(&kubelet, kubelet_config(layout, index))?;
    fs::write(run.join("resolv.conf"), "")?;
    let arguments = [
        format!("--config={}", kubelet.display()),
        format!("--kubeconfig={}", layout.pki(&format!("{name}.kubeconfig")).display()),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", node_address(index)),
        "--root-dir=/var/lib/kubelet".to_owned(),
    ];
    process::start(
        layout,
        &format!("{name}-kubelet"),
        &room,
        layout.bin().join("kubelet"),
        arguments,
    )?;
    start_proxy(layout, index, &room)?;
    Ok(())
}

fn hold_mounts(layout: &Layout, index: u8) -> Result<u32> {
    let name = format!("{}-mounts", node_name(index));
    let ready = layout.node_run(index).join("mounts-ready");
    drop(fs::remove_file(&ready));
    let room = Room {
        network: Some(node_namespace(index)),
        mounts: None,
    };
    let kubelet = layout.node_data(index).join("kubelet");
    let arguments = ["--mount", "--propagation", "private", "sh", "-c", OWN_MOUNTS, "sh"].map(Into::into);
    let pid = process::start(
        layout,
        &name,
        &room,
        "unshare",
        arguments
            .into_iter()
            .chain([kubelet.into_os_string(), ready.clone().into()]),
    )?;
    wait_for("the node's mounts", Duration::from_secs(10), || {
        process::check(layout, &name)?;
        Ok(ready.exists())
    })?;
    Ok(pid)
}

fn start_containerd(layout: &Layout, index: u8, room: &Room) -> Result<()> {
    let (run, data) = (layout.node_run(index), layout.node_data(index));
    let name = format!("{}-containerd", node_name(index));
    let config = run.join("containerd.toml");
    fs::write(&config, containerd::config(&data, &run))?;
    fs::write(run.join("cni/10-local.conflist"), containerd::network(index, &data))?;
    process::start(
        layout,
        &name,
        room,
        "/usr/bin/containerd",
        ["--config".into(), config.into_os_string()],
    )?;
    wait_for(&name, Duration::from_secs(30), || {
        process::check(layout, &name)?;
        Ok(layout.socket(index).exists() && containerd_answers(layout, index))
    })
    .map_err(|error| error.context(layout.log_tail(&name)))
}

fn start_proxy(layout: &Layout, index: u8, room: &Room) -> Result<()> {
    let name = node_name(index);
    let arguments = [
        format!("--kubeconfig={}", layout.pki("kube-proxy.kubeconfig").display()),
        format!("--hostname-override={name}"),
        "--proxy-mode=iptables".to_owned(),
        // What comes from elsewhere than pods (the host) is masqueraded, so that answers pass the same node again.
        format!("--cluster-cidr={POD_RANGE}"),
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        "--oom-score-adj=0".to_owned(),
    ];
    process::start(
        layout,
        &format!("{name}-kube-proxy"),
        room,
        layout.bin().join("kube-proxy"),
        arguments,
    )
    .map(drop)
}

fn kubelet_config(layout: &Layout, index: u8) -> String {
    let (run, data) = (layout.node_run(index), layout.node_data(index));
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": layout.pki("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node_cgroup(index)),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{}", run.join("containerd.sock").display()),
        // A developer's disk is often nearly full, and images are loaded by hand: nothing is evicted or collected before it must.
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%" },
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 200,
        "oomScoreAdj": 0,
        "podLogsDir": data.join("logs"),
        "resolvConf": run.join("resolv.conf"),
        "serializeImagePulls": false,
        "volumePluginDir": data.join("plugins"),
    })
    .to_string()
}

/// Makes the node's control group: under every v1 controller with the cpus and memory of the root, or in the one v2 tree.
fn create_cgroup(name: &str) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        for controller in controllers.split_whitespace() {
            // Controllers with processes of real-time priority refuse; kubelet names the ones that it cannot do without.
            drop(fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")));
        }
        return make_folder(&root.join(name));
    }
    for controller in fs::read_dir(root)?
        .flatten()
        .filter(|entry| entry.path().is_dir() && !entry.path().is_symlink())
    {
        let group = controller.path().join(name);
        make_folder(&group)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(controller.path().join(file)) {
                fs::write(group.join(file), value.trim())?;
            }
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{} cannot be made", path.display()))
}
