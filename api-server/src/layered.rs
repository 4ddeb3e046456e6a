//! Answers that are kept for a while: in the process (bounded, single flight) and behind that in Redis, shared by all replicas.
//!
//! An entry's age counts from when it was computed, so that two layers do not make it twice as old. A cache that does not answer costs
//! time, never the answer.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use moka::{Expiry, future::Cache};
use selextract_platform::cache::Cache as Shared;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// Kept answers of one kind.
#[derive(Clone)]
pub struct Layered {
    local: Cache<String, Kept>,
    shared: Shared,
    lifetime: Duration,
}

/// An answer's body and when it was computed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    computed: u64,
    body: String,
}

struct Lifetime(Duration);

impl Expiry<String, Kept> for Lifetime {
    fn expire_after_create(&self, _: &String, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(remaining(self.0, kept.computed, now()))
    }
}

impl Layered {
    /// At most `capacity` entries in the process, none older than `lifetime`.
    pub fn new(shared: Shared, capacity: u64, lifetime: Duration) -> Self {
        let local = Cache::builder()
            .max_capacity(capacity)
            .expire_after(Lifetime(lifetime))
            .build();
        Self {
            local,
            shared,
            lifetime,
        }
    }

    /// The kept answer for a key, or the computed one. Concurrent calls for one key compute it once.
    pub async fn get(
        &self,
        key: &str,
        compute: impl Future<Output = Result<String, Problem>>,
    ) -> Result<Bytes, Problem> {
        let find = async {
            if let Some(kept) = self.fetch_shared(key).await {
                return Ok(kept);
            }
            let kept = Kept {
                computed: now(),
                body: compute.await?,
            };
            self.shared.set(key, &kept, self.lifetime).await;
            Ok::<_, Problem>(kept)
        };
        let found = self.local.try_get_with_by_ref(key, find).await;
        found
            .map(|kept| Bytes::from(kept.body))
            .map_err(|problem| Problem::clone(&problem))
    }

    async fn fetch_shared(&self, key: &str) -> Option<Kept> {
        let kept: Kept = self.shared.get(key).await?;
        (!remaining(self.lifetime, kept.computed, now()).is_zero()).then_some(kept)
    }
}

fn remaining(lifetime: Duration, computed: u64, now: u64) -> Duration {
    lifetime.saturating_sub(Duration::from_secs(now.saturating_sub(computed)))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_from_when_it_was_computed() {
        let lifetime = Duration::from_mins(5);
        assert_eq!(remaining(lifetime, 1000, 1100), Duration::from_secs(200));
        assert_eq!(remaining(lifetime, 1000, 1400), Duration::ZERO);
        assert_eq!(remaining(lifetime, 1000, 900), lifetime, "a clock that is behind");
    }
}
