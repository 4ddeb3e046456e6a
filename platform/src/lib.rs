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
mod packing;
pub mod pooler;
pub mod previews;
mod redis_store;
pub mod sealed;
pub mod stores;
pub mod timings;
pub mod waiting;
