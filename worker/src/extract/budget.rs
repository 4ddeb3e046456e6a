//! What reading one page may cost.

use std::{cell::Cell, time::Instant};

use super::ExtractError;

/// The most bytes of values on one page.
pub(super) const MAX_OUTPUT: usize = 10 << 20;
/// The most nodes of a page's tree (about 250 MB; a page of 10 MiB of ordinary HTML has a quarter of it), and of one intermediate set.
pub(super) const MAX_NODES: usize = 1 << 20;
/// The most bytes of one intermediate text, or of the texts of one intermediate set.
const MAX_TEXT: usize = 4 * MAX_OUTPUT;
/// How much work passes between two looks at the clock: well under a millisecond of it.
const CLOCK_EVERY: usize = 1 << 12;

/// Time and output that are left for a page.
#[derive(Debug)]
pub(super) struct Budget {
    deadline: Instant,
    output: Cell<usize>,
    until_clock: Cell<usize>,
}

impl Budget {
    pub(super) fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            output: Cell::new(MAX_OUTPUT),
            until_clock: Cell::new(CLOCK_EVERY),
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

    /// Counts work, in nodes looked at or their like, and fails when the time is over; cheap enough for the innermost loops.
    pub(super) fn work(&self, amount: usize) -> Result<(), ExtractError> {
        if let Some(left) = self.until_clock.get().checked_sub(amount) {
            self.until_clock.set(left);
            return Ok(());
        }
        self.until_clock.set(CLOCK_EVERY);
        self.check_time()
    }

    /// Counts work on so many bytes of text.
    pub(super) fn read(&self, bytes: usize) -> Result<(), ExtractError> {
        self.work(1 + bytes / 64)
    }

    /// Takes the bytes of one value.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), ExtractError> {
        self.read(bytes)?;
        let left = self.output.get().checked_sub(bytes);
        self.output
            .set(left.ok_or(ExtractError::TooMuchOutput { limit: MAX_OUTPUT })?);
        Ok(())
    }
}

/// Refuses an intermediate set that has grown too large.
pub(super) fn check_set(length: usize) -> Result<(), ExtractError> {
    if length > MAX_NODES {
        return Err(ExtractError::TooManyNodes { limit: MAX_NODES });
    }
    Ok(())
}

/// Refuses an intermediate text that has grown larger than a page.
pub(super) fn check_text(bytes: usize) -> Result<(), ExtractError> {
    if bytes > MAX_TEXT {
        return Err(ExtractError::TooMuchOutput { limit: MAX_TEXT });
    }
    Ok(())
}
