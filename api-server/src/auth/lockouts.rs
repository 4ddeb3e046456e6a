//! The lock-outs that are in force: counted in the shared cache for all replicas, and in the process for when that does not answer.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use moka::future::Cache as Local;
use selextract_platform::cache::Cache as Shared;

use super::{lockout, tokens::hash_of};
use crate::problem::Problem;

/// User names that the process remembers; an attacker who tries more of them pushes out the oldest.
const NAMES: u64 = 10_000;

/// Counts failed logins by user name.
#[derive(Clone)]
pub struct Lockouts {
    shared: Shared,
    local: Local<String, Entry>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    failures: u32,
    until: Option<Instant>,
}

impl Lockouts {
    /// With nobody locked out by this process.
    pub fn new(shared: Shared) -> Self {
        let local = Local::builder()
            .max_capacity(NAMES)
            .time_to_live(lockout::MEMORY)
            .build();
        Self { shared, local }
    }

    /// A problem when the name is locked out now.
    pub async fn check(&self, name: &str) -> Result<(), Problem> {
        let key = key(name);
        let local = self.local.get(&key).await.and_then(|entry| entry.until);
        let local = local.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = local.unwrap_or_default().max(self.fetch_wait(&key).await);
        if wait.is_zero() {
            Ok(())
        } else {
            Err(Problem::locked_out().retry_after(wait))
        }
    }

    /// Counts a failure, and locks the name out when there were too many.
    pub async fn failed(&self, name: &str) {
        let key = key(name);
        let known = self.local.get(&key).await.unwrap_or_default();
        let failures = self.fetch_failures(&key).await.max(known.failures + 1);
        let wait = lockout::wait_after(failures);
        let until = wait.map(|wait| Instant::now() + wait);
        self.local.insert(key.clone(), Entry { failures, until }).await;
        if let Some(wait) = wait {
            let deadline = u64::try_from((now() + wait).as_millis()).unwrap_or(u64::MAX);
            self.shared.set(&format!("{key}:until"), &deadline, wait).await;
        }
    }

    /// Forgets the failures of a name.
    pub async fn succeeded(&self, name: &str) {
        let key = key(name);
        self.local.invalidate(&key).await;
        self.shared.remove(&format!("{key}:failures")).await;
    }

    async fn fetch_wait(&self, key: &str) -> Duration {
        let deadline = self.shared.get(&format!("{key}:until")).await;
        deadline
            .map(Duration::from_millis)
            .unwrap_or_default()
            .saturating_sub(now())
    }

    async fn fetch_failures(&self, key: &str) -> u32 {
        let count = self.shared.increment(&format!("{key}:failures"), lockout::MEMORY).await;
        u32::try_from(count.unwrap_or_default()).unwrap_or(u32::MAX)
    }
}

/// Names are hashed: people type passwords into the name's field.
fn key(name: &str) -> String {
    format!("login:{}", BASE64_URL_SAFE_NO_PAD.encode(&hash_of(name)[..16]))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
