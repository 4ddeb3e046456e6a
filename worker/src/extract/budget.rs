//! What reading one page may cost.

use std::time::Instant;

use super::ExtractError;

/// The most bytes of values on one page.
const MAX_OUTPUT: usize = 10 << 20;

/// Time and output that are left for a page.
#[derive(Debug)]
pub(super) struct Budget {
    deadline: Instant,
    output: usize,
}

impl Budget {
    pub(super) fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            output: MAX_OUTPUT,
        }
    }

    /// Fails when the time is over.
    pub(super) fn check_time(&self) -> Result<(), ExtractError> {
        if Instant::now() < self.deadline {
            Ok(())
        } else {
            Err(ExtractError::Late)
        }
    }

    /// Takes the bytes of one value.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), ExtractError> {
        self.check_time()?;
        self.output = self
            .output
            .checked_sub(bytes)
            .ok_or(ExtractError::TooMuchOutput { limit: MAX_OUTPUT })?;
        Ok(())
    }
}
