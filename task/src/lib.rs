//! What a user may ask for: one [`TaskSpec`] serves the `ScrapeTask` resource, the API and the worker.
//!
//! Pure: no I/O, no clock. [`TaskSpec::compile`] turns a spec into a [`Plan`] or says everything that is wrong with it.
//! Must not know Kubernetes, SQL, Redis or HTTP.

pub mod access;
mod browser;
mod clock;
mod convert;
mod crawl;
pub mod credentials;
mod duration;
pub mod feed;
mod field;
mod json_path;
mod locator;
mod normal_url;
mod pagination;
mod plan;
mod politeness;
mod schedule;
mod spec;
mod watch;
pub mod xpath;

pub use access::Cookie;
pub use browser::{
    Browser, BrowserCapture, BrowserStep, CaptureType, CaptureWhen, Extractor, ImageFormat, Key, On, Resource,
    StepType, WaitCondition, WaitState,
};
pub use clock::{Clock, Unreadable};
pub use convert::{Conversion, DateReader, absolute};
pub use crawl::{Crawl, CrawlScope};
pub use duration::{Duration, ParseDurationError};
pub use field::{DecimalSeparator, Field, FieldType, MAX_LEVELS, Transform, TransformType};
pub use json_path::JsonPath;
pub use locator::{CssLocator, Locator};
pub use normal_url::normal_url;
pub use pagination::{PageTemplate, Pagination, Stop, StopCondition};
pub use plan::{
    Act, Awaited, Change, CompiledField, CrawlPlan, Items, MAX_URL, More, Plan, Reads, Shape, Step, Take, Violation,
    Violations, Visit, Wait,
};
pub use politeness::{MAX_CONCURRENT, MAX_DELAY, Politeness, Robots, RobotsPolicy};
pub use schedule::{
    ConcurrencyPolicy, DEFAULT_STARTING_DEADLINE, MAX_STARTING_DEADLINE, MIN_STARTING_DEADLINE, check_starting_deadline,
};
pub use spec::{Automatic, Render, SPEC_VERSION, TaskSpec};
pub use watch::{OnDrift, Report, Watch};
