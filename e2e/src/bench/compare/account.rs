//! The CPU time of a program and of everything that it started, as the kernel counts it in a control group.
//!
//! `/proc` forgets the time of whoever nobody waits for, which are all processes of a browser that is killed at once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Where groups are made, and the file with their time: version 1 has a hierarchy for it, version 2 one for all.
const VERSIONS: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/cpuacct", "cpuacct.usage"),
    ("/sys/fs/cgroup", "cpu.stat"),
];
/// Goes into a group of its own, and becomes the program then. An earlier process of its number may have left a group.
const ENTER: &str = r#"rmdir "$0-$$" 2>/dev/null; mkdir "$0-$$" && echo $$ >"$0-$$/cgroup.procs" && exec "$@""#;

/// A command that starts a program in a group of its own; the program and its arguments are to be added.
pub fn opened() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", ENTER]).arg(prefix());
    command
}

/// Takes the group of a process that has ended away. What its program left behind may still be in it; an empty group costs nothing.
pub fn close(process: u32) {
    drop(fs::remove_dir(group(process)));
}

/// What the group of a process has used, if it has one.
pub fn used(process: u32) -> Option<Duration> {
    let text = fs::read_to_string(group(process).join(version().1)).ok()?;
    match text.lines().find_map(|line| line.strip_prefix("usage_usec ")) {
        Some(microseconds) => microseconds.parse().ok().map(Duration::from_micros),
        None => text.trim().parse().ok().map(Duration::from_nanos),
    }
}

fn version() -> (&'static str, &'static str) {
    let [first, second] = VERSIONS;
    if Path::new(first.0).is_dir() { first } else { second }
}

fn prefix() -> PathBuf {
    Path::new(version().0).join("selextract-bench")
}

fn group(process: u32) -> PathBuf {
    PathBuf::from(format!("{}-{process}", prefix().display()))
}
