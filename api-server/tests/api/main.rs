//! The API against a real PostgreSQL behind `PgBouncer`, and a real Valkey.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod artifacts;
mod cache_keys;
mod crawls;
mod credentials;
mod internal;
mod pools;
mod public;
mod schedules;
mod support;
mod watching;
