//! What API, keeper and worker agree on: the ledger (PostgreSQL), the frontier (Redis) and the cache.
//!
//! The only crate with SQL and Redis commands. Knows no HTTP handler and no browser.

pub mod artifacts;
pub mod bootstrap;
pub mod cache;
pub mod digest;
pub mod drift;
pub mod frontier;
mod gather;
pub mod ledger;
pub mod objects;
pub mod previews;
pub mod sealed;
pub mod stores;
pub mod waiting;

use std::time::Duration;

/// A connection that comes back by itself, whose commands end within `timeout`.
async fn redis_connection(
    client: &redis::Client,
    timeout: Duration,
) -> Result<redis::aio::ConnectionManager, redis::RedisError> {
    let config = redis::aio::ConnectionManagerConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_number_of_retries(1);
    client.get_connection_manager_with_config(config).await
}
