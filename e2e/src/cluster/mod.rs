//! A Kubernetes of real processes in network namespaces of this machine: start, stop, state.
//!
//! One namespace holds the control plane and a bridge; each node has a namespace of its own on that bridge, and so has the host, so
//! that it reaches the API server, pods and Services. No route leads from there out of the machine.

mod addons;
mod containerd;
mod control_plane;
mod credentials;
mod layout;
mod load;
mod network;
mod node;
mod process;
mod provision;
mod teardown;

use std::{
    fs,
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use containerd::PAUSE_IMAGE;
pub use layout::{HOST, Layout};
pub use load::load;
pub use provision::provision;

use crate::{
    program::Program,
    progress::{Progress, wait_for},
    tools,
};

/// The most nodes that one machine is asked to play.
pub const MOST_NODES: u8 = 9;
/// How long a cluster whose processes live may take to answer.
const PATIENCE: Duration = Duration::from_secs(45);

/// What `up` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// How many nodes.
    pub nodes: u8,
    /// Whether the API server writes an audit log.
    pub audit_log: bool,
}

/// How the cluster is.
pub enum State {
    /// Nothing of it is there.
    Absent,
    /// Something of an earlier run is there, and does not work.
    Broken(String),
    /// It works.
    Running(Wanted),
}

impl Wanted {
    /// Whether what runs is enough: more nodes than asked for, or an audit log that nobody asked for, are no reason to start anew.
    fn is_served_by(self, running: Self) -> bool {
        self.nodes <= running.nodes && self.log_is_served_by(running)
    }

    fn log_is_served_by(self, running: Self) -> bool {
        running.audit_log || !self.audit_log
    }

    /// What must be added to what runs; `None` when that needs a new cluster.
    fn beyond(self, running: Self) -> Option<RangeInclusive<u8>> {
        self.log_is_served_by(running).then_some(running.nodes + 1..=self.nodes)
    }
}

/// Starts the cluster, adds the nodes that one that runs lacks, or finds that it has all.
pub fn up(wanted: Wanted) -> Result<()> {
    ensure!((1..=MOST_NODES).contains(&wanted.nodes), "--nodes is 1 to {MOST_NODES}");
    need_root()?;
    let layout = Layout::new();
    let _lock = Layout::lock()?;
    match settled_state(&layout) {
        State::Running(running) if wanted.is_served_by(running) => {
            println!(
                "The cluster runs already, with {} node(s). {}",
                running.nodes,
                hint(&layout)
            );
            return Ok(());
        }
        State::Running(running) => match wanted.beyond(running) {
            Some(added) => return grow(&layout, running, added),
            None => bail!("a cluster without audit log runs; `selextract-local down` takes it away first"),
        },
        State::Broken(why) => {
            println!("Clearing what an earlier run left ({why}).");
            teardown::clear(&layout)?;
        }
        State::Absent => {}
    }
    start(&layout, wanted)?;
    println!("{}", hint(&layout));
    Ok(())
}

fn start(layout: &Layout, wanted: Wanted) -> Result<()> {
    let mut progress = Progress::new(6);
    tools::install_packages()?;
    tools::provide()?;
    raise_inotify_limit();
    progress.done("Programs are there");
    layout.create()?;
    network::create(wanted.nodes)?;
    credentials::create(layout)?;
    progress.done("Network namespaces and credentials made");
    control_plane::start(layout, wanted)?;
    progress.done("API server ready");
    addons::apply(layout)?;
    control_plane::start_helpers(layout)?;
    progress.done("Scheduler, controllers, DNS and volumes started");
    start_nodes(layout, 1..=wanted.nodes, &mut progress)?;
    record(layout, wanted)
}

/// Adds nodes to a cluster that runs. Pods get there as the scheduler decides; images are loaded by `load`.
fn grow(layout: &Layout, running: Wanted, added: RangeInclusive<u8>) -> Result<()> {
    let mut progress = Progress::new(3);
    let nodes = *added.end();
    for index in added.clone() {
        network::add_node(index)?;
    }
    progress.done("Network namespaces made");
    start_nodes(layout, added, &mut progress)?;
    record(layout, Wanted { nodes, ..running })
}

fn start_nodes(layout: &Layout, nodes: RangeInclusive<u8>, progress: &mut Progress) -> Result<()> {
    for index in nodes.clone() {
        node::start(layout, index)?;
    }
    load::load_pause(layout)?;
    progress.done("Nodes started");
    wait_until_ready(layout, *nodes.end())?;
    progress.done(&format!("{} node(s) Ready", nodes.end()));
    Ok(())
}

/// From here on the cluster counts as whole.
fn record(layout: &Layout, running: Wanted) -> Result<()> {
    fs::write(layout.state_file(), serde_json::to_vec(&running)?).context("the cluster's record cannot be written")
}

fn wait_until_ready(layout: &Layout, nodes: u8) -> Result<()> {
    let all_ready = || Ok(ready_nodes(layout).is_ok_and(|ready| ready == usize::from(nodes)));
    wait_for("all nodes Ready", Duration::from_mins(2), all_ready).map_err(|error| {
        let logs: String = (1..=nodes)
            .flat_map(|n| ["kubelet", "containerd"].map(|part| layout.log_tail(&format!("node{n}-{part}"))))
            .collect();
        error.context(logs)
    })?;
    let dns = || Ok(process::is_running(layout, "coredns") && control_plane::dns_answers());
    wait_for("DNS", Duration::from_mins(1), dns).map_err(|error| error.context(layout.log_tail("coredns")))
}

/// Takes the cluster away with everything that it made.
pub fn down() -> Result<()> {
    need_root()?;
    let layout = Layout::new();
    let _lock = Layout::lock()?;
    teardown::clear(&layout)?;
    println!("The local cluster is gone.");
    Ok(())
}

/// How the cluster is, by its record, its processes, its API server and its nodes.
pub fn state(layout: &Layout) -> State {
    let Ok(text) = fs::read(layout.state_file()) else {
        return if teardown::is_clear(layout) {
            State::Absent
        } else {
            State::Broken("an unfinished start".to_owned())
        };
    };
    let Ok(wanted) = serde_json::from_slice::<Wanted>(&text) else {
        return State::Broken("an unreadable record".to_owned());
    };
    let dead = process::dead(layout);
    if !dead.is_empty() {
        return State::Broken(format!("ended: {}", dead.join(", ")));
    }
    match ready_nodes(layout) {
        Ok(ready) if ready == usize::from(wanted.nodes) => State::Running(wanted),
        Ok(ready) => State::Broken(format!("{ready} of {} nodes are Ready", wanted.nodes)),
        Err(error) => State::Broken(format!("the API server does not answer: {error:#}")),
    }
}

/// As [`state`], but what all lives and does not answer is given time: a busy machine is no reason to throw a cluster away.
fn settled_state(layout: &Layout) -> State {
    let started = Instant::now();
    loop {
        let found = state(layout);
        let may_recover =
            matches!(found, State::Broken(_)) && layout.state_file().exists() && process::dead(layout).is_empty();
        if !may_recover || started.elapsed() > PATIENCE {
            return found;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Prints how the cluster is.
pub fn print_status() -> Result<()> {
    let layout = Layout::new();
    match state(&layout) {
        State::Absent => println!("No local cluster runs. `selextract-local up` starts one."),
        State::Broken(why) => println!("The local cluster is broken ({why}). `selextract-local up` starts it anew."),
        State::Running(_) => {
            print!("{}", kubectl(&layout, &["get", "nodes", "-o", "wide"]).output()?);
            print!("{}", kubectl(&layout, &["get", "pods", "-A", "-o", "wide"]).output()?);
            println!("{}", hint(&layout));
        }
    }
    Ok(())
}

/// Prints the end of one component's log, or the names of all.
pub fn print_log(component: Option<&str>) -> Result<()> {
    let layout = Layout::new();
    match component {
        Some(name) => {
            let path = layout.log(name);
            let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            print!("{}", String::from_utf8_lossy(&text));
        }
        None => {
            for name in process::names(&layout) {
                println!("{name}\t{}", layout.log(&name).display());
            }
        }
    }
    Ok(())
}

fn ready_nodes(layout: &Layout) -> Result<usize> {
    let path = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let output = kubectl(layout, &["--request-timeout=5s", "get", "nodes", "-o", path])
        .timeout(Duration::from_secs(10))
        .output()?;
    Ok(output.lines().filter(|line| *line == "True").count())
}

/// `kubectl` as the cluster's administrator.
pub fn kubectl(layout: &Layout, arguments: &[&str]) -> Program {
    let program = layout.bin().join("kubectl");
    let config = layout.kubeconfig().into_os_string();
    Program::new(program, arguments).env("KUBECONFIG", config)
}

fn hint(layout: &Layout) -> String {
    format!(
        "export KUBECONFIG={} PATH={}:$PATH",
        layout.kubeconfig().display(),
        layout.bin().display()
    )
}

fn need_root() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status cannot be read")?;
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|line| line.split_whitespace().nth(1));
    ensure!(
        uid == Some("0"),
        "the local cluster needs root: it makes network namespaces, mounts and cgroups. Run it with sudo, or use a cluster that you have"
    );
    Ok(())
}

/// containerd, kubelet and every watching program take instances; 128 for the whole machine are soon gone. Where the limit cannot be
/// raised, one node with a demo still works.
fn raise_inotify_limit() {
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let enough = fs::read_to_string(path).is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|limit| limit >= 1024));
    if !enough && fs::write(path, "1024").is_err() {
        println!("      {path} could not be raised; with several nodes programs may fail with \"too many open files\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(nodes: u8, audit_log: bool) -> Wanted {
        Wanted { nodes, audit_log }
    }

    #[test]
    fn a_cluster_that_has_more_than_is_asked_for_serves() {
        assert!(wanted(1, false).is_served_by(wanted(2, true)));
        assert!(!wanted(2, false).is_served_by(wanted(1, false)));
        assert!(!wanted(1, true).is_served_by(wanted(1, false)));
    }

    #[test]
    fn nodes_can_be_added_and_an_audit_log_cannot() {
        assert_eq!(wanted(3, false).beyond(wanted(1, false)), Some(2..=3));
        assert_eq!(wanted(3, true).beyond(wanted(1, false)), None);
    }
}
