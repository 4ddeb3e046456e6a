//! The CPU time of a program and of everything that it started, as the kernel counts it in a control group.
//!
//! `/proc` forgets the time of whoever nobody waits for, which are all processes of a browser that is killed at once.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

/// Where groups are made, and the file with their time: version 1 has a hierarchy for it, version 2 one for all.
const VERSIONS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/cpuacct", "cpuacct.usage"),
    ("/sys/fs/cgroup", "cpu.stat"),
];

/// A group that goes with this.
pub struct Account(PathBuf);

impl Account {
    /// Counts this process and what it starts from now on.
    pub fn open(process: u32) -> Result<Self> {
        let (folder, _) = group(process);
        // An earlier process of this number may have left its own.
        drop(fs::remove_dir(&folder));
        fs::create_dir(&folder)
            .and_then(|()| fs::write(folder.join("cgroup.procs"), process.to_string()))
            .with_context(|| {
                format!(
                    "CPU time is counted in a control group, and {} cannot be made one",
                    folder.display()
                )
            })?;
        Ok(Self(folder))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // What its program left behind may still be in it; an empty group costs nothing.
        drop(fs::remove_dir(&self.0));
    }
}

/// What the group of a process has used, if it has one.
pub fn used(process: u32) -> Option<Duration> {
    let (folder, file) = group(process);
    let text = fs::read_to_string(folder.join(file)).ok()?;
    match text.lines().find_map(|line| line.strip_prefix("usage_usec ")) {
        Some(microseconds) => microseconds.parse().ok().map(Duration::from_micros),
        None => text.trim().parse().ok().map(Duration::from_nanos),
    }
}

fn group(process: u32) -> (PathBuf, &'static str) {
    let [first, second] = VERSIONS;
    let (root, file) = if Path::new(first.0).is_dir() { first } else { second };
    (Path::new(root).join(format!("selextract-bench-{process}")), file)
}
