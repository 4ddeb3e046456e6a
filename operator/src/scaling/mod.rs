//! How many pods the API and the workers should have, and why: pure functions of (policy, window, state, now).
//!
//! What was measured comes in as a [`Window`] of [`Sample`]s, what was decided goes out as a [`Decision`] that explains itself. No I/O,
//! no clock. The order is always the same: what the signals ask for, then what holds it, then the bounds, each of which names itself.

mod api;
mod bounds;
#[cfg(test)]
mod days;
mod decision;
mod policy;
#[cfg(test)]
pub mod properties;
pub mod readings;
pub mod replay;
mod schedule;
mod signals;
mod status;
mod worker;

pub use api::decide as decide_api;
pub use decision::{Constraint, Decision, Reason, Signal, State, Target};
pub use policy::{ApiPolicy, Limits, Pause, Policies, WorkerPolicy};
pub use schedule::Peak;
pub use signals::{ApiSignals, Dependencies, Reading, Sample, Window, WorkerSignals, since};
pub use status::{changed, differs, next as next_status};
pub use worker::decide as decide_worker;
