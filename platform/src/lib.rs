//! What API, keeper and worker agree on: the ledger (PostgreSQL), the frontier and the cache (Redis), telemetry.
//!
//! The only place with SQL and Redis commands. Must not know HTTP handlers, Chromium or Kubernetes.

pub mod bootstrap;
pub mod cache;
pub mod frontier;
pub mod ledger;
pub mod telemetry;
