//! Network namespaces, the bridge between them and the routes.

use std::path::Path;

use anyhow::{Context, Result};

use super::layout::{
    CONTROL_PLANE, CONTROL_PLANE_NAMESPACE, HOST, NODE_PREFIX, POD_RANGE, SERVICE_RANGE, node_address, node_namespace,
    pod_range,
};
use crate::program::Program;

/// The host's end of its link to the bridge.
pub const HOST_LINK: &str = "sxl-host";

/// Makes everything.
pub fn create(nodes: u8) -> Result<()> {
    refuse_taken_ranges()?;
    create_bridge()?;
    connect_host()?;
    (1..=nodes).try_for_each(add_node)
}

/// Adds the node of this number to those before it, and makes its pods known to all.
pub fn add_node(index: u8) -> Result<()> {
    connect_node(index)?;
    let (bridge, pods, address) = (CONTROL_PLANE_NAMESPACE, pod_range(index), node_address(index));
    ip(&format!("route add {pods} via {address} dev {HOST_LINK}"))?;
    ip(&format!("-n {bridge} route add {pods} via {address}"))?;
    for other in 1..index {
        let (here, there) = (node_namespace(index), node_namespace(other));
        ip(&format!(
            "-n {here} route add {} via {}",
            pod_range(other),
            node_address(other)
        ))?;
        ip(&format!("-n {there} route add {pods} via {address}"))?;
    }
    Ok(())
}

/// A route of the machine's own into our ranges would be hidden by ours.
fn refuse_taken_ranges() -> Result<()> {
    for range in ["10.203.0.0/24", POD_RANGE, SERVICE_RANGE] {
        let routes = Program::line(&format!("ip route show root {range}")).output()?;
        anyhow::ensure!(
            routes.trim().is_empty(),
            "this machine has a route into {range}, which the local cluster needs: {}",
            routes.trim()
        );
    }
    Ok(())
}

fn create_bridge() -> Result<()> {
    let space = CONTROL_PLANE_NAMESPACE;
    ip(&format!("netns add {space}"))?;
    ip(&format!("-n {space} link set lo up"))?;
    ip(&format!("-n {space} link add br0 type bridge"))?;
    ip(&format!("-n {space} addr add {CONTROL_PLANE}/{NODE_PREFIX} dev br0"))?;
    ip(&format!("-n {space} link set br0 up"))?;
    // Frames that cross the bridge are the nodes' business and pass no rules of this namespace.
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if Path::new(switch).exists() {
        set(space, "net.bridge.bridge-nf-call-iptables=0")?;
    }
    // The control plane reaches webhooks by their Services, through the first node.
    ip(&format!("-n {space} route add {SERVICE_RANGE} via {}", node_address(1)))
}

fn connect_host() -> Result<()> {
    let space = CONTROL_PLANE_NAMESPACE;
    ip(&format!("link add {HOST_LINK} type veth peer name host netns {space}"))?;
    ip(&format!("-n {space} link set host master br0 up"))?;
    ip(&format!("addr add {HOST}/{NODE_PREFIX} dev {HOST_LINK}"))?;
    ip(&format!("link set {HOST_LINK} up"))?;
    ip(&format!(
        "route add {SERVICE_RANGE} via {} dev {HOST_LINK}",
        node_address(1)
    ))
}

fn connect_node(index: u8) -> Result<()> {
    let space = node_namespace(index);
    let bridge = CONTROL_PLANE_NAMESPACE;
    ip(&format!("netns add {space}"))?;
    ip(&format!("-n {space} link set lo up"))?;
    ip(&format!(
        "-n {space} link add eth0 type veth peer name node{index} netns {bridge}"
    ))?;
    ip(&format!("-n {bridge} link set node{index} master br0 up"))?;
    ip(&format!(
        "-n {space} addr add {}/{NODE_PREFIX} dev eth0",
        node_address(index)
    ))?;
    ip(&format!("-n {space} link set eth0 up"))?;
    set(&space, "net.ipv4.ip_forward=1")?;
    // kube-proxy rewrites what goes to a Service before it is routed, but a route must be there for a local process to send at all.
    ip(&format!("-n {space} route add {SERVICE_RANGE} dev eth0"))
}

fn ip(arguments: &str) -> Result<()> {
    Program::line(&format!("ip {arguments}")).run()
}

fn set(space: &str, setting: &str) -> Result<()> {
    Program::new(
        "nsenter",
        [&*format!("--net=/run/netns/{space}"), "sysctl", "-qw", setting],
    )
    .run()
    .with_context(|| format!("{setting} cannot be set"))
}
