//! Accepted tasks on their way to the frontier: those of many requests in one call, without anybody waiting for it.

use selextract_platform::frontier::{Entry, Frontier};
use tokio::sync::mpsc;

/// Entries that wait for their call; beyond that the keeper's refill does it.
const WAITING: usize = 16_384;
/// The most entries of one call.
const MOST: usize = 500;

/// Where accepted tasks are offered from.
#[derive(Clone, Debug)]
pub struct Offers(mpsc::Sender<Entry>);

impl Offers {
    /// Offers for as long as it, or a clone of it, lives.
    pub fn new(frontier: Frontier) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(carry(frontier, receiver));
        Self(sender)
    }

    /// Puts entries on their way. A lost one costs latency, never the task: the keeper's refill finds it.
    pub fn put(&self, entries: Vec<Entry>) {
        for entry in entries {
            if self.0.try_send(entry).is_err() {
                tracing::warn!("More tasks wait to be offered than fit; the keeper will find them.");
                return;
            }
        }
    }
}

/// While one call is on its way, the entries of the next one gather.
async fn carry(frontier: Frontier, mut waiting: mpsc::Receiver<Entry>) {
    let mut entries = Vec::new();
    while waiting.recv_many(&mut entries, MOST).await > 0 {
        if let Err(error) = frontier.offer(&entries).await {
            tracing::warn!(%error, tasks = entries.len(), "The frontier did not take an offer; the keeper will find the tasks.");
        }
        entries.clear();
    }
}
