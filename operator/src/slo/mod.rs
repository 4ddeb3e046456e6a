//! How the platform's promises are kept (guide: "SLA and Performance Targets", "Performance Budgets"). Pure: who measured passes it in.
//!
//! What is not known is Unknown, never Met: a share without requests or without scrapes is no share. docs/slo-and-cost.md defines each figure.

mod budget;
mod burn;
mod objective;
mod observe;
mod outage;
mod text;

pub use budget::{Availability, MONTH};
pub use burn::{Burn, BurnWindow, Failed};
pub use objective::{Level, Objective};
pub use observe::{Inputs, live, observe, should_write};
pub use outage::Health;
