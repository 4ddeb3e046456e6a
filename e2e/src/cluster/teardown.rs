//! Takes away what a cluster left, whether it was stopped or crashed. Everything is found by names that only this tool gives.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    MOST_NODES,
    layout::{CONTROL_PLANE_NAMESPACE, Layout, node_cgroup, node_namespace},
    network::HOST_LINK,
    process,
};
use crate::program::Program;

/// Whether nothing is there.
pub fn is_clear(layout: &Layout) -> bool {
    !layout.run().exists()
        && !layout.data().exists()
        && namespaces().iter().all(|name| !namespace_path(name).exists())
        && cgroups().is_empty()
}

/// Takes everything away; doing so twice is no error.
pub fn clear(layout: &Layout) -> Result<()> {
    // Kubelets first: they would start anew what is stopped after them.
    let all = process::names(layout);
    let (kubelets, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|name| name.ends_with("-kubelet"));
    process::stop(layout, &kubelets, Duration::from_secs(3))?;
    end_pods()?;
    process::stop(layout, &others, Duration::from_secs(3))?;
    end_strays()?;
    remove_network()?;
    for group in cgroups() {
        remove_cgroup(&group)?;
    }
    for folder in [layout.run(), layout.data()] {
        remove_folder(folder)?;
    }
    // Only when they are empty: these folders may be another kubelet's or container engine's.
    for folder in ["/var/lib/kubelet", "/run/containerd"] {
        drop(fs::remove_dir(folder));
    }
    release_namespace_folder();
    Ok(())
}

/// `ip netns add` mounts the folder of the namespaces on itself. Without namespaces nobody needs that.
fn release_namespace_folder() {
    let folder = Path::new("/run/netns");
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
        // Neither the mount nor the folder need be there.
        drop(Program::new("umount", [folder]).run());
        drop(fs::remove_dir(folder));
    }
}

/// Ends the processes of all pods: those in the nodes' control groups.
fn end_pods() -> Result<()> {
    until_none("pods' processes", || {
        cgroups().iter().flat_map(|group| processes_below(group)).collect()
    })
}

/// Ends what is left in the namespaces: shims, and whatever an earlier run did not record.
fn end_strays() -> Result<()> {
    until_none("processes in the cluster's namespaces", || {
        let pids = namespaces()
            .into_iter()
            .filter(|name| namespace_path(name).exists())
            .filter_map(|name| Program::new("ip", ["netns", "pids", &name]).output().ok());
        pids.flat_map(|text| {
            text.lines()
                .filter_map(|line| line.trim().parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
    })
}

fn until_none(what: &str, mut find: impl FnMut() -> Vec<u32>) -> Result<()> {
    let started = Instant::now();
    loop {
        let pids = find();
        if pids.is_empty() {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(20) {
            bail!("{what} do not end: {pids:?}");
        }
        for pid in pids {
            process::signal(pid, "KILL");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn remove_network() -> Result<()> {
    if Path::new("/sys/class/net").join(HOST_LINK).exists() {
        Program::new("ip", ["link", "delete", HOST_LINK]).run()?;
    }
    for name in namespaces().into_iter().filter(|name| namespace_path(name).exists()) {
        Program::new("ip", ["netns", "delete", &name]).run()?;
    }
    Ok(())
}

fn namespaces() -> Vec<String> {
    (1..=MOST_NODES)
        .map(node_namespace)
        .chain([CONTROL_PLANE_NAMESPACE.to_owned()])
        .collect()
}

fn namespace_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// The nodes' control groups that exist, under every controller.
fn cgroups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let parents: Vec<_> = controllers
        .filter(|path| path.is_dir() && !path.is_symlink())
        .chain([root.to_owned()])
        .collect();
    let groups = parents
        .iter()
        .flat_map(|parent| (1..=MOST_NODES).map(|index| parent.join(node_cgroup(index))));
    groups.filter(|path| path.is_dir()).collect()
}

fn folders_in(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn processes_below(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|line| line.parse().ok());
    own.chain(folders_in(group).iter().flat_map(|child| processes_below(child)))
        .collect()
}

/// A group of processes that have just ended is busy for a moment.
fn remove_cgroup(group: &Path) -> Result<()> {
    for child in folders_in(group) {
        remove_cgroup(&child)?;
    }
    let started = Instant::now();
    while let Err(error) = fs::remove_dir(group) {
        if started.elapsed() > Duration::from_secs(10) {
            return Err(error).with_context(|| format!("{} cannot be removed", group.display()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The nodes' mounts went with their processes; one that is seen from here would be somebody else's, and is not walked into.
fn remove_folder(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let inside = format!(" {}/", folder.display());
    for line in mounts.lines().filter(|line| line.contains(&inside)) {
        if let Some(target) = line.split(' ').nth(4) {
            Program::new("umount", ["--lazy", target]).run()?;
        }
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_nested_groups_are_found() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("cgroup.procs"), "1\n").unwrap();
        fs::write(root.path().join("a/b/cgroup.procs"), "2\n3\n").unwrap();
        assert_eq!(processes_below(root.path()), [1, 2, 3]);
    }
}
