//! The API against a real PostgreSQL behind `PgBouncer`, and a real Valkey.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod artifacts;
mod cache_keys;
mod crawls;
mod credentials;
mod following;
mod internal;
mod limits;
mod pools;
mod public;
mod schedules;
mod sessions;
mod support;
mod tasks;
mod watching;
