//! What a schedule does beside its clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// How late a tick may start its run where nobody says: longer than an upgrade of the platform takes, shorter than most schedules' pauses.
pub const DEFAULT_STARTING_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// The shortest starting deadline.
pub const MIN_STARTING_DEADLINE: Duration = Duration::from_secs(10);
/// The longest starting deadline: what proves that a tick ran is kept as long.
pub const MAX_STARTING_DEADLINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a tick does while a run of the same task is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// It starts another run.
    Allow,
    /// It waits for the run's end until its starting deadline; of several ticks that wait the newest starts.
    #[default]
    Forbid,
    /// It cancels the run and starts another one.
    Replace,
}

impl ConcurrencyPolicy {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Forbid => "Forbid",
            Self::Replace => "Replace",
        }
    }

    /// Reads what was written; anything else is the default, which starts the fewest runs.
    pub fn read(text: &str) -> Self {
        match text {
            "Allow" => Self::Allow,
            "Replace" => Self::Replace,
            _ => Self::Forbid,
        }
    }
}

/// Whether a starting deadline is within its bounds.
///
/// # Errors
/// What is wrong, as a sentence without its subject.
pub fn check_starting_deadline(deadline: Option<Duration>) -> Result<(), String> {
    match deadline {
        Some(deadline) if !(MIN_STARTING_DEADLINE..=MAX_STARTING_DEADLINE).contains(&deadline) => {
            Err(format!("must be {MIN_STARTING_DEADLINE} to {MAX_STARTING_DEADLINE}"))
        }
        _ => Ok(()),
    }
}
