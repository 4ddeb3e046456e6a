//! Kills a part every so often, in turn.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{bench::WHOLE, world::World};

/// The parts in the order in which they are killed.
const TURN: [&str; 5] = ["worker", "redis-queue", "keeper", "pgbouncer-rw", "api"];

/// Kills parts of the platform.
pub struct Killer<'a> {
    world: &'a World,
    pause: Duration,
}

impl<'a> Killer<'a> {
    /// One kill after each pause.
    pub fn new(world: &'a World, pause: Duration) -> Self {
        Self { world, pause }
    }

    /// Works for this long, and leaves the last pause to what was killed last; what it killed.
    pub async fn work(&self, duration: Duration) -> Result<Vec<String>> {
        let started = Instant::now();
        let mut killed: Vec<String> = Vec::new();
        for part in TURN.iter().cycle() {
            tokio::time::sleep(self.pause).await;
            if started.elapsed() + self.pause / 2 > duration {
                break;
            }
            self.kill(part)?;
            println!("      killed {part} ({} s)", started.elapsed().as_secs());
            killed.push((*part).to_owned());
        }
        tokio::time::sleep(duration.saturating_sub(started.elapsed())).await;
        Ok(killed)
    }

    fn kill(&self, part: &str) -> Result<()> {
        let pods = pods(self.world, part)?;
        let pod = pods
            .first()
            .with_context(|| format!("no pod of {part} is there to be killed"))?;
        let name = pod["metadata"]["name"].as_str().context("a pod without name")?;
        let delete = ["delete", "pod", name, "--grace-period=0", "--force", "--wait=false"];
        self.world.kubectl(&delete).map(drop)
    }
}

/// The pods of a part that run and are not going.
pub fn pods(world: &World, part: &str) -> Result<Vec<Value>> {
    let selector = format!("app.kubernetes.io/instance={WHOLE},app.kubernetes.io/component={part}");
    let list: Value = serde_json::from_str(&world.kubectl(&["get", "pods", "-l", &selector, "-o", "json"])?)?;
    let mut pods = list["items"].as_array().cloned().unwrap_or_default();
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running");
    Ok(pods)
}
