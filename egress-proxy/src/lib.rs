//! The one way out of a Selextract cluster: a forward proxy below both fetch engines.
//!
//! It resolves a name once, refuses unless every answer may be reached, and dials exactly an address that it checked. It knows
//! nothing of tasks: what it may open beyond the public internet comes from the cluster's allow list.

pub mod address;
pub mod answer;
pub mod audit;
pub mod dial;
pub mod guard;
pub mod headers;
mod kept;
pub mod metrics;
pub mod policy;
pub mod proxy;
pub mod reload;
pub mod resolve;
pub mod selftest;
pub mod server;
pub mod settings;
pub mod target;
pub mod telemetry;
pub mod upstream;
