//! What the platform costs and what to change (guide: "Cost-Performance Optimization"). Pure: who measured passes it in.
//!
//! What is paid for is what is reserved: requests and volumes. Backups have no home yet and are left out. docs/slo-and-cost.md.

mod assess;
mod money;
mod part;
mod parts;
mod sizing;

pub use assess::{Inputs, WINDOWS, assess, live, should_write, window};
pub use money::{Money, Prices};
pub use part::{Amount, Measured, Part, Volume};
pub use parts::parts;
