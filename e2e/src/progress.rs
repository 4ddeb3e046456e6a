//! Numbered lines with seconds, and waiting with an end.

use std::{
    cell::RefCell,
    io::{Write, stdout},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// The steps of one long command.
pub struct Progress {
    total: usize,
    done: usize,
    started: Instant,
    noted: RefCell<Vec<String>>,
}

impl Progress {
    /// A command of this many steps.
    pub fn new(total: usize) -> Self {
        Self {
            total,
            done: 0,
            started: Instant::now(),
            noted: RefCell::default(),
        }
    }

    /// A step was finished.
    pub fn done(&mut self, what: &str) {
        self.done += 1;
        println!(
            "[{}/{}] {what} ({} s)",
            self.done,
            self.total,
            self.started.elapsed().as_secs()
        );
        // Whoever reads through a pipe sees the line now.
        drop(stdout().flush());
    }

    /// Something to know within a step, said once.
    pub fn note(&self, what: &str) {
        let mut noted = self.noted.borrow_mut();
        if noted.iter().any(|said| said == what) {
            return;
        }
        noted.push(what.to_owned());
        println!("      {what} ({} s)", self.started.elapsed().as_secs());
        drop(stdout().flush());
    }
}

/// Asks until the answer is true. At the end of the time an error that names `what`.
pub fn wait_for(what: &str, timeout: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    loop {
        if holds()? {
            return Ok(());
        }
        if started.elapsed() > timeout {
            bail!("{what}: not within {} s", timeout.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_an_error_that_names_what_was_awaited() {
        let error = wait_for("the moon", Duration::from_millis(150), || Ok(false)).unwrap_err();
        assert_eq!(error.to_string(), "the moon: not within 0 s");
    }
}
