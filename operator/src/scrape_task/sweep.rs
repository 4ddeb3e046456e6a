//! Finds what a cluster's ledger still knows although its `ScrapeTask` is gone, and has it ended there: what was deleted while no operator
//! watched or while the API did not answer. This is why a `ScrapeTask` needs no finalizer (ADR 6).

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use selextract_task::feed::{KnownTask, MAX_ITEMS};
use tokio::time::sleep;

use super::{
    client::{ApiClient, ClientError},
    link::Link,
};

/// The net below: every deletion that is seen is told at once, and every lost connection is followed by a sweep.
const EVERY: Duration = Duration::from_mins(10);
const AFTER_FAILURE: Duration = Duration::from_mins(1);
/// Gone means missing twice: a watch may be a moment behind another operator, which accepted the task before this one led.
const BETWEEN_LOOKS: Duration = Duration::from_secs(10);

/// Sweeps whenever the API answers again, when an ending failed, and every ten minutes.
pub async fn run(client: Arc<ApiClient>, link: Arc<Link>) {
    loop {
        link.reached().await;
        let pause = match sweep(&client, &link).await {
            Ok(ended) => {
                if ended > 0 {
                    tracing::info!(ended, "ScrapeTasks that are gone were ended.");
                }
                EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "What a cluster still knows could not be listed; it is asked again.");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = sleep(pause.mul_f64(0.9 + rand::random::<f64>() / 5.0)) => {}
            () = link.doubted() => {}
        }
    }
}

async fn sweep(client: &ApiClient, link: &Link) -> Result<usize, ClientError> {
    let mut gone = gone(client, link).await?;
    if gone.is_empty() {
        return Ok(0);
    }
    sleep(BETWEEN_LOOKS).await;
    gone.retain(|task| link.exists(task) == Some(false));
    let mut ended = 0;
    for batch in gone.chunks(MAX_ITEMS) {
        let mut removals = Vec::with_capacity(batch.len());
        for task in batch {
            removals.push(link.remove(&task.uid));
        }
        ended += join_all(removals).await.iter().filter(|sent| sent.is_ok()).count();
    }
    Ok(ended)
}

async fn gone(client: &ApiClient, link: &Link) -> Result<Vec<KnownTask>, ClientError> {
    let (mut gone, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.known(&after).await?.items;
        match page.last() {
            Some(last) if last.uid > after => after.clone_from(&last.uid),
            _ => return Ok(gone),
        }
        gone.extend(page.into_iter().filter(|task| link.exists(task) == Some(false)));
    }
}
