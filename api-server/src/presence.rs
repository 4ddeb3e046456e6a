//! Whether a worker is there: a living worker listens to the frontier's word.

use std::time::Duration;

use moka::future::Cache;
use selextract_platform::frontier::Frontier;

/// How old the answer may be; the frontier is asked once in that time, however many tasks are shown.
const KEPT: Duration = Duration::from_secs(2);

/// Whether a worker is there.
#[derive(Clone)]
pub struct Presence {
    frontier: Frontier,
    kept: Cache<(), Option<bool>>,
}

impl Presence {
    /// By asking this frontier.
    pub fn new(frontier: Frontier) -> Self {
        let kept = Cache::builder().max_capacity(1).time_to_live(KEPT).build();
        Self { frontier, kept }
    }

    /// `None` when the frontier does not answer.
    pub async fn any_worker(&self) -> Option<bool> {
        let ask = async {
            let workers = self.frontier.workers().await;
            workers.ok().map(|workers| workers > 0)
        };
        self.kept.get_with((), ask).await
    }
}
