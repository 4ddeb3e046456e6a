//! The cache: values with a time to live in the Redis cache instance. A dead cache is a miss, never an error.

mod tokens;

use std::time::Duration;

use redis::AsyncCommands;
use serde::{Serialize, de::DeserializeOwned};
use tracing::warn;

pub use tokens::{Grant, Limit, ParseLimitError};

use crate::{
    ledger::Secret,
    packing,
    redis_store::{RedisStore, Timed},
    timings::Timings,
};

/// How long a command may take before it counts as a miss.
const TIMEOUT: Duration = Duration::from_millis(100);
/// Values above this many bytes are stored compressed (the guide: "Use compression for large values").
const COMPRESS_ABOVE: usize = 2048;
const MAX_BYTES: u64 = 16 << 20;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache(RedisStore);

impl Cache {
    /// A cache whose connection is made when it is needed. Fails only on a URL that is none.
    pub fn connect_lazy(url: &Secret) -> Result<Self, redis::RedisError> {
        RedisStore::connect_lazy(url, TIMEOUT).map(Self)
    }

    /// The same cache, measured.
    #[must_use]
    pub fn timed(self, timings: &Timings) -> Self {
        Self(self.0.timed(timings.cache()))
    }

    /// The value of a key, if there is one that can be read.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let bytes: Option<Vec<u8>> = self
            .within("reading", async { self.connection("get").await?.get(key).await })
            .await?;
        serde_json::from_slice(&unpack(&bytes?)?).ok()
    }

    /// Keeps a value for a while. Every key has an end.
    pub async fn set<T: Serialize>(&self, key: &str, value: &T, lives: Duration) {
        let Some(bytes) = serde_json::to_vec(value).ok().and_then(pack) else {
            return;
        };
        let seconds = lives.as_secs().max(1);
        let _: Option<()> = self
            .within("writing", async {
                self.connection("set").await?.set_ex(key, bytes, seconds).await
            })
            .await;
    }

    /// Adds one to a counter that ends after a while, counted from its first use, and returns it.
    pub async fn increment(&self, key: &str, lives: Duration) -> Option<u64> {
        let seconds = i64::try_from(lives.as_secs().max(1)).unwrap_or(i64::MAX);
        self.within("counting", async {
            let mut connection = self.connection("increment").await?;
            let (count,): (u64,) = redis::pipe()
                .atomic()
                .incr(key, 1)
                .cmd("EXPIRE")
                .arg(key)
                .arg(seconds)
                .arg("NX")
                .ignore()
                .query_async(&mut connection)
                .await?;
            Ok(count)
        })
        .await
    }

    /// What Redis says about itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn info(&self) -> Result<String, redis::RedisError> {
        let mut connection = self.connection("info").await?;
        redis::cmd("INFO").query_async(&mut connection).await
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), redis::RedisError> {
        self.0.ping().await
    }

    /// Forgets a key.
    pub async fn remove(&self, key: &str) {
        let _: Option<()> = self
            .within("removing", async { self.connection("remove").await?.del(key).await })
            .await;
    }

    async fn connection(&self, operation: &'static str) -> Result<Timed, redis::RedisError> {
        self.0.connection(operation).await
    }

    async fn within<T>(&self, doing: &str, action: impl Future<Output = Result<T, redis::RedisError>>) -> Option<T> {
        match tokio::time::timeout(TIMEOUT, action).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                warn!(%error, "{doing} the cache failed; going on without it");
                None
            }
            Err(_) => {
                warn!("{doing} the cache took too long; going on without it");
                None
            }
        }
    }
}

/// The first byte says whether the rest is compressed.
pub(crate) fn pack(json: Vec<u8>) -> Option<Vec<u8>> {
    let (mark, body) = if json.len() > COMPRESS_ABOVE {
        (1, packing::pack(&json, packing::PASSING).ok()?)
    } else {
        (0, json)
    };
    let mut bytes = Vec::with_capacity(body.len() + 1);
    bytes.push(mark);
    bytes.extend_from_slice(&body);
    Some(bytes)
}

pub(crate) fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mark, body) = bytes.split_first()?;
    if *mark == 0 {
        return Some(body.to_vec());
    }
    packing::unpack(body, MAX_BYTES).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_back_whether_it_is_large_or_small() {
        for length in [1, 100_000] {
            let json = vec![b'7'; length];
            let packed = pack(json.clone()).unwrap();
            assert!(packed.len() < 4096);
            assert_eq!(unpack(&packed).unwrap(), json);
        }
    }
}
