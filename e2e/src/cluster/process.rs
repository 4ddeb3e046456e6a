//! Starts long-running processes, remembers each by pid and start time, and stops them by that alone.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::layout::Layout;
use crate::program::Program;

/// Where a process runs.
pub struct Room {
    /// The network namespace.
    pub network: Option<String>,
    /// The process whose mount namespace is joined.
    pub mounts: Option<u32>,
}

/// Starts a process that outlives this one. Its output goes to its log.
pub fn start<A: Into<OsString>>(
    layout: &Layout,
    name: &str,
    room: &Room,
    program: impl Into<OsString>,
    arguments: impl IntoIterator<Item = A>,
) -> Result<u32> {
    let log = File::create(layout.log(name)).with_context(|| format!("the log of {name} cannot be made"))?;
    let mut command = Command::new("setsid");
    if room.network.is_some() || room.mounts.is_some() {
        command.arg("nsenter");
    }
    if let Some(network) = &room.network {
        // Not `ip netns exec`, which mounts another /sys and so hides the control groups.
        command.arg(format!("--net=/run/netns/{network}"));
    }
    if let Some(holder) = room.mounts {
        command.arg(format!("--mount=/proc/{holder}/ns/mnt"));
    }
    let child = command
        .arg(program.into())
        .args(arguments.into_iter().map(Into::into))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .with_context(|| format!("{name} cannot be started"))?;
    let pid = child.id();
    let started = start_time(pid).with_context(|| format!("{name} ended at once\n{}", layout.log_tail(name)))?;
    fs::write(record(layout, name), format!("{pid} {started}"))?;
    Ok(pid)
}

/// Whether the process of this name lives.
pub fn is_running(layout: &Layout, name: &str) -> bool {
    recorded(layout, name).is_some_and(|(pid, started)| lives(pid, started))
}

/// An error with the log's end when the process of this name has ended.
pub fn check(layout: &Layout, name: &str) -> Result<()> {
    anyhow::ensure!(is_running(layout, name), "{name} ended\n{}", layout.log_tail(name));
    Ok(())
}

/// The names of all processes that were started, in order of the alphabet.
pub fn names(layout: &Layout) -> Vec<String> {
    let entries = fs::read_dir(layout.run().join("pids")).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

/// The names of those that ended.
pub fn dead(layout: &Layout) -> Vec<String> {
    names(layout)
        .into_iter()
        .filter(|name| !is_running(layout, name))
        .collect()
}

/// Stops all of these: asks, waits, insists. A pid that belongs to another process by now is left alone.
pub fn stop(layout: &Layout, names: &[String], patience: Duration) -> Result<()> {
    let running = || {
        names
            .iter()
            .filter_map(|name| recorded(layout, name))
            .filter(|(pid, started)| lives(*pid, *started))
    };
    for (pid, _) in running() {
        signal(pid, "TERM");
    }
    let asked = Instant::now();
    while running().next().is_some() && asked.elapsed() < patience {
        thread::sleep(Duration::from_millis(20));
    }
    for (pid, _) in running() {
        signal(pid, "KILL");
    }
    for name in names {
        fs::remove_file(record(layout, name)).with_context(|| format!("the record of {name} cannot be removed"))?;
    }
    Ok(())
}

/// Sends a signal; a process that is gone is what was wanted.
pub fn signal(pid: u32, signal: &str) {
    drop(Program::new("kill", [&format!("-{signal}"), &pid.to_string()]).run());
}

fn record(layout: &Layout, name: &str) -> PathBuf {
    layout.run().join("pids").join(name)
}

fn recorded(layout: &Layout, name: &str) -> Option<(u32, u64)> {
    let text = fs::read_to_string(record(layout, name)).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

fn lives(pid: u32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

/// When the process started, in ticks since the machine did; `None` when it has ended.
fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name is in parentheses and may hold anything, so the fields are counted after the last one.
fn parse_start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_name_with_parentheses() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 2";
        assert_eq!(parse_start_time(stat), Some(4711));
    }

    #[test]
    fn a_zombie_has_ended() {
        assert_eq!(
            parse_start_time("7 (a) Z 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 2"),
            None
        );
    }

    #[test]
    fn a_pid_with_another_start_time_is_another_process() {
        let pid = std::process::id();
        let started = start_time(pid).unwrap();
        assert!(lives(pid, started));
        assert!(!lives(pid, started + 1));
    }
}
