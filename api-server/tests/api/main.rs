//! The API against a real PostgreSQL behind `PgBouncer`, and a real Valkey.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod artifacts;
mod internal;
mod public;
mod support;
