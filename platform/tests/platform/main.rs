//! The platform's rooms against a real PostgreSQL (through `PgBouncer`) and a real Valkey.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; helpers outside #[test] too"
)]

mod accepting;
mod artifacts;
mod bootstrap;
mod cache;
mod changes;
mod claims;
mod counters;
mod crawls;
mod crawls_compared;
mod expiry;
mod frontier;
mod hosts;
mod logins;
mod object_store;
mod partitions;
mod previews;
mod quotas;
mod run_control;
mod schedules;
mod scrape_tasks;
mod storage;
mod support;
mod together;
mod users;
mod waits;
mod watching;
