//! The processes of a container, which are processes of this machine too, and their memory. Reads `/proc`.

use std::{fs, path::PathBuf, time::Duration};

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
    let ticks = |path: &PathBuf| -> Option<u32> {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
        Some(fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?)
    };
    let all: u32 = processes.iter().filter_map(ticks).sum();
    // A hundred ticks a second on every Linux that people run (`getconf CLK_TCK`).
    Duration::from_millis(10) * all
}

/// Memory in KiB in which shared pages count once.
pub fn proportional(processes: &[PathBuf]) -> u64 {
    processes.iter().map(|path| field(path, "smaps_rollup", "Pss:")).sum()
}

fn field(process: &std::path::Path, file: &str, name: &str) -> u64 {
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
    fn this_process_holds_memory() {
        let own = [PathBuf::from("/proc/self")];
        let (now, highest) = resident(&own);
        assert!(now > 0 && highest >= now, "{now} {highest}");
        assert!(proportional(&own) > 0);
    }
}
