//! The operator: reconciles `SelextractCluster`s and `ScrapeTask`s. The program is `main.rs`; everything else is a room here.
//!
//! One direction for each kind: dereference (all reads) → validate → decide and build (pure) → apply (the only writer) → status.
//! Holds no logic of the platform: what runs when is the ledger's and the keeper's affair.

mod accounts;
mod backoff;
pub mod build;
mod canonical;
mod cluster;
mod conditions;
mod context;
pub mod cost;
mod leader;
mod measure;
mod merge_patch;
mod moment;
pub mod monitoring;
mod queue;
pub mod replay;
mod run;
pub mod scaling;
mod scrape_task;
mod settings;
pub mod slo;
mod telemetry;
mod triggers;
pub mod validated;

pub use run::run;
