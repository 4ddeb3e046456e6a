//! The processes of a container, which are processes of this machine too, and their memory. Reads `/proc`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The processes of a pod's container.
pub fn of_container(pod: &Value, container: &str) -> Result<Vec<PathBuf>> {
    let id = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|status| status["name"] == container)
        .and_then(|status| status["containerID"].as_str())
        .and_then(|id| id.rsplit('/').next())
        .with_context(|| format!("the container {container} has no id"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes come and go while this reads.
        if fs::read_to_string(path.join("cgroup")).is_ok_and(|text| text.contains(id)) {
            found.push(path);
        }
    }
    ensure!(
        !found.is_empty(),
        "no process of the container {container} is on this machine"
    );
    Ok(found)
}

/// Resident memory in KiB, now and at its highest, summed up.
pub fn resident(processes: &[PathBuf]) -> (u64, u64) {
    let of = |name| processes.iter().map(|path| field(path, "status", name)).sum();
    (of("VmRSS:"), of("VmHWM:"))
}

/// CPU that they have used so far, in user and kernel mode.
pub fn cpu(processes: &[PathBuf]) -> Duration {
    let used = |path: &PathBuf| Some(clock(path, 14)? + clock(path, 15)?);
    processes.iter().filter_map(used).sum()
}

/// How long a process has run.
pub fn age(process: &Path) -> Option<Duration> {
    let uptime: f64 = fs::read_to_string("/proc/uptime")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    let since_boot = Duration::try_from_secs_f64(uptime).ok()?;
    Some(since_boot.saturating_sub(clock(process, 22)?))
}

/// A time of a process, by its field in `proc_pid_stat(5)`.
fn clock(process: &Path, field: usize) -> Option<Duration> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // Behind the name of the program, which may hold anything, comes the third.
    let ticks: u32 = stat
        .rsplit(')')
        .next()?
        .split_whitespace()
        .nth(field - 3)?
        .parse()
        .ok()?;
    // A hundred ticks a second on every Linux that people run (`getconf CLK_TCK`).
    Some(Duration::from_millis(10) * ticks)
}

/// Memory in KiB in which shared pages count once.
pub fn proportional(processes: &[PathBuf]) -> u64 {
    processes.iter().map(|path| field(path, "smaps_rollup", "Pss:")).sum()
}

fn field(process: &Path, file: &str, name: &str) -> u64 {
    // A process that has just ended holds nothing.
    let text = fs::read_to_string(process.join(file)).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_an_age() {
        assert!(age(Path::new("/proc/self")).unwrap() < Duration::from_mins(30));
    }

    #[test]
    fn this_process_holds_memory() {
        let own = [PathBuf::from("/proc/self")];
        let (now, highest) = resident(&own);
        assert!(now > 0 && highest >= now, "{now} {highest}");
        assert!(proportional(&own) > 0);
    }
}
