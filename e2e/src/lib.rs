//! The local cluster, the demo and what the journeys stand on. Nothing of the product needs this crate.

mod alerts;
pub mod api;
pub mod bench;
mod cluster;
pub mod commands;
mod demo;
pub mod documentation;
mod ground;
mod images;
mod program;
mod progress;
pub mod prometheus;
pub mod prometheus_kinds;
mod soak;
mod tools;
pub mod world;

pub use cluster::HOST;
