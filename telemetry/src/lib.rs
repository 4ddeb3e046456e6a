//! Logs and metrics as every program of the platform writes them: what of them is the same whatever a program does.

mod container;
mod figure;

use std::collections::HashMap;

pub use container::Container;
pub use figure::{Figure, families};
use prometheus::{Encoder, Registry, TextEncoder, core::Desc};
use tracing_subscriber::{
    EnvFilter, Layer, fmt,
    layer::{Identity, SubscriberExt},
    util::SubscriberInitExt,
};

/// Edges of histograms in seconds: the guide's every threshold (.2 .3 .5 .6 .8 1 1.5 2 3 5), finer ones below, coarser ones above.
pub const SECONDS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0,
];

/// The same for what takes milliseconds, statements and round trips: the guide's thresholds are .001 .005 .01 .05 .1 .5 1.
pub const SHORT_SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0,
];

/// The same for tasks, which take seconds to minutes: the guide's thresholds are 5 30 60 120. What is told never exceeds the last edge, so
/// the largest threshold that can be crossed lies below it.
pub const LONG_SECONDS: [f64; 17] = [
    0.05, 0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0, 120.0, 180.0, 300.0, 900.0, 3600.0,
];

/// Writes logs as JSON lines to standard output; `filter` is an `EnvFilter`, such as `info` or `info,sqlx=warn`.
///
/// # Errors
/// A sentence that says what is wrong with the filter.
pub fn start_logs(filter: &str) -> Result<(), String> {
    start(filter, None::<Identity>)
}

/// The same with something beside the logs that hears what its own filter lets through.
///
/// # Errors
/// As [`start_logs`].
pub fn start_logs_beside<L>(filter: &str, beside: L) -> Result<(), String>
where
    L: Layer<tracing_subscriber::Registry> + Send + Sync,
{
    start(filter, Some(beside))
}

fn start<L>(filter: &str, beside: Option<L>) -> Result<(), String>
where
    L: Layer<tracing_subscriber::Registry> + Send + Sync,
{
    let printed = EnvFilter::try_new(filter)
        .map_err(|error| format!("SELEXTRACT_LOG = {filter:?}: {error}; write for example info"))?;
    let most = printed
        .max_level_hint()
        .and_then(|level| level.to_string().parse().ok());
    let lines = fmt::layer().json().flatten_event(true).with_filter(printed);
    tracing_subscriber::registry()
        .with(beside)
        .with(lines)
        .try_init()
        .map_err(|error| error.to_string())?;
    // What is beside the logs may hear more than they. The parser of HTML, which writes to `log` for each token, is not to format for nobody.
    if let Some(most) = most {
        log::set_max_level(most);
    }
    Ok(())
}

/// What a collector says of itself whose families are made at each scrape: one of its names, so that no other takes it.
///
/// # Errors
/// When the name is none.
pub fn description(name: &str) -> prometheus::Result<Desc> {
    Desc::new(
        name.to_owned(),
        "Made at each scrape.".to_owned(),
        Vec::new(),
        HashMap::new(),
    )
}

/// The registry's metrics in Prometheus' text format.
pub fn render(registry: &Registry) -> String {
    let mut text = Vec::new();
    // Encoding writes to memory; it fails only on a family without metrics, which gather() leaves out.
    let _ = TextEncoder::new().encode(&registry.gather(), &mut text);
    String::from_utf8(text).unwrap_or_default()
}
