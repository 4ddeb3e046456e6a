//! What the operator writes when nothing happens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::writes::{self, Counted};
use crate::world::World;

/// How long the operator must have written nothing before the measurement begins, and how long that is waited for.
const CALM: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_mins(4);

/// Writes to the API server while nothing happened.
pub struct Rest {
    /// The operator's by its own count.
    pub operator: BTreeMap<String, u64>,
    /// The operator's by the audit log, where there is one.
    pub audited: Option<BTreeMap<String, u64>>,
    /// Everybody's, by the API server's counters.
    pub everybody: BTreeMap<String, u64>,
}

/// Waits until the operator rests, and counts for this long.
pub async fn measure(world: &World, duration: Duration) -> Result<Rest> {
    wait_until_calm(world).await?;
    let before = writes::count(world).await?;
    tokio::time::sleep(duration).await;
    let after = writes::count(world).await?;
    compare(&before, &after)
}

fn compare(before: &Counted, after: &Counted) -> Result<Rest> {
    Ok(Rest {
        operator: writes::added(&before.operator, &after.operator)?,
        audited: writes::audited(before, after)?,
        everybody: writes::added(&before.everybody, &after.everybody)?,
    })
}

async fn wait_until_calm(world: &World) -> Result<()> {
    let started = Instant::now();
    loop {
        let before = writes::count(world).await?;
        tokio::time::sleep(CALM).await;
        let written = writes::added(&before.operator, &writes::count(world).await?.operator)?;
        if written.is_empty() {
            return Ok(());
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "the operator does not come to rest; it wrote {}",
            writes::told(&written)
        );
    }
}
