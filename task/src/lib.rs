//! What a user may ask for: one [`TaskSpec`] serves the `ScrapeTask` resource, the API and the worker.
//!
//! Pure: no I/O, no clock. [`TaskSpec::compile`] turns a spec into a [`Plan`] or says everything that is wrong with it.
//! Must not know Kubernetes, SQL, Redis or HTTP.

mod convert;
mod crawl;
mod duration;
pub mod feed;
mod field;
mod json_path;
mod locator;
mod normal_url;
mod plan;
mod politeness;
mod spec;
pub mod xpath;

pub use convert::{Conversion, DateReader, absolute};
pub use crawl::{Crawl, CrawlScope};
pub use duration::{Duration, ParseDurationError};
pub use field::{DecimalSeparator, Field, FieldType, MAX_LEVELS, Transform, TransformType};
pub use json_path::JsonPath;
pub use locator::{CssLocator, Locator};
pub use normal_url::normal_url;
pub use plan::{Change, CompiledField, CrawlPlan, Items, MAX_URL, Plan, Reads, Shape, Take, Violation, Violations};
pub use politeness::{MAX_CONCURRENT, MAX_DELAY, Politeness, Robots, RobotsPolicy};
pub use spec::{Automatic, Pagination, Render, SPEC_VERSION, TaskSpec, WaitCondition};
