//! What a user may ask for: one [`TaskSpec`] serves the `ScrapeTask` resource, the API and the worker.
//!
//! Pure: no I/O, no clock. [`TaskSpec::compile`] turns a spec into a [`Plan`] or says everything that is wrong with it.
//! Must not know Kubernetes, SQL, Redis or HTTP.

mod duration;
pub mod feed;
mod field;
mod locator;
mod plan;
mod politeness;
mod spec;

pub use duration::{Duration, ParseDurationError};
pub use field::{Field, FieldType};
pub use locator::{CssLocator, Locator};
pub use plan::{CompiledField, Plan, Violation, Violations};
pub use politeness::{MAX_CONCURRENT, MAX_DELAY, Politeness, Robots, RobotsPolicy};
pub use spec::{Pagination, Render, SPEC_VERSION, TaskSpec, WaitCondition};
