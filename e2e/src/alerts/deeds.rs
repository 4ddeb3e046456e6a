//! Does again and again what a cause is about, until it is over.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{NAME, causes::Deed};
use crate::{bench::processes, world::World};

/// Between two times.
const PAUSE: Duration = Duration::from_secs(3);
/// How often is looked whether a program runs that should not.
const LOOK: Duration = Duration::from_millis(300);
/// Memory that a program takes is taken in seconds; then it is given time to be killed.
const EXHAUST: Duration = Duration::from_secs(20);

/// Does a deed for ever; it ends when this is dropped. What fails is tried again: the platform is broken on purpose.
pub async fn repeat(world: &World, deed: Deed) {
    let mut told = String::new();
    loop {
        let pause = match deed {
            Deed::Script { .. } => PAUSE,
            Deed::Kill { .. } => LOOK,
            Deed::Exhaust { .. } => EXHAUST,
        };
        if let Err(error) = once(world, deed).await {
            let words = format!("      {deed:?}: {error:#}");
            if words != told {
                println!("{words}");
                told = words;
            }
        }
        sleep(pause).await;
    }
}

/// Undoes it.
pub async fn undo(world: &World, deed: Deed) -> Result<()> {
    match deed {
        Deed::Script { after: "", .. } | Deed::Kill { .. } | Deed::Exhaust { .. } => Ok(()),
        Deed::Script { workload, after, .. } => script(world, workload, after).await,
    }
}

async fn once(world: &World, deed: Deed) -> Result<()> {
    match deed {
        Deed::Script {
            workload, script: text, ..
        } => script(world, workload, text).await,
        Deed::Kill { component, seconds } => kill(world, component, Duration::from_secs(seconds)).await,
        Deed::Exhaust { component } => {
            let group = group_of(world, component).await?;
            tokio::task::spawn_blocking(move || exhaust(&group)).await?
        }
    }
}

async fn script(world: &World, workload: &'static str, text: &'static str) -> Result<()> {
    let url = world.secret(&format!("{NAME}-database"), "url")?;
    let exec = world.kubectl_with_input(&["exec", "-i", workload, "--", "bash", "-c", text], &format!("{url}\n"));
    tokio::task::spawn_blocking(move || exec.output()).await??;
    Ok(())
}

/// Kills the programs of a component's containers once they have run for so long.
async fn kill(world: &World, component: &str, after: Duration) -> Result<()> {
    for pod in pods(world, component).await? {
        // None runs while the kubelet waits before it starts it again.
        let Ok(running) = processes::of_container(&pod, component) else {
            continue;
        };
        for process in running {
            if processes::age(&process).is_some_and(|age| age >= after) {
                let pid = process.file_name().context("a process without a number")?;
                // It may have ended meanwhile.
                drop(
                    Command::new("kill")
                        .arg("-KILL")
                        .arg(pid)
                        .stderr(Stdio::null())
                        .status(),
                );
            }
        }
    }
    Ok(())
}

/// The control group of a component's container.
async fn group_of(world: &World, component: &str) -> Result<PathBuf> {
    let pods = pods(world, component).await?;
    let running = processes::of_container(pods.first().context("no pod is there")?, component)?;
    let process = running.first().context("no process runs")?;
    memory_group(&fs::read_to_string(process.join("cgroup"))?)
}

/// Puts a process that reads zeros into one line for ever into a control group. It is the one that the kernel kills: a program that went instead
/// would take the count of kills with it, and memory that fills within a scrape is seen by nobody.
fn exhaust(group: &Path) -> Result<()> {
    let began = Instant::now();
    let mut hog = Command::new("sh")
        .args([
            "-c",
            "echo 1000 > /proc/self/oom_score_adj && echo $$ > \"$1/cgroup.procs\" && exec tail /dev/zero",
            "sh",
        ])
        .arg(group)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    while hog.try_wait()?.is_none() && began.elapsed() < EXHAUST {
        std::thread::sleep(Duration::from_millis(100));
    }
    // One that outlived its memory must not outlive this.
    drop(hog.kill());
    hog.wait()?;
    Ok(())
}

/// The folder of the control group that bounds the memory, by the text of `/proc/PID/cgroup`.
fn memory_group(text: &str) -> Result<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    text.lines()
        .find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?.trim_start_matches('/'));
            if controllers.split(',').any(|name| name == "memory") {
                return Some(root.join("memory").join(path));
            }
            (controllers.is_empty() && root.join("cgroup.controllers").exists()).then(|| root.join(path))
        })
        .with_context(|| format!("no control group of memory in {text:?}"))
}

async fn pods(world: &World, component: &str) -> Result<Vec<Value>> {
    let pods = world.pods(NAME, component).await?;
    let as_json = |pod| serde_json::to_value(pod).context("a pod is no JSON");
    pods.iter().map(as_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_group_of_memory_is_found_in_the_first_version() {
        let text = "9:cpuset:/a\n5:memory:/kubepods/pod1/abc\n0::/x\n";
        assert_eq!(
            memory_group(text).unwrap(),
            Path::new("/sys/fs/cgroup/memory/kubepods/pod1/abc")
        );
        assert!(memory_group("9:cpuset:/a\n").is_err());
    }
}
