//! The table that is printed, and committed by hand.

use std::{fmt::Write as _, fs};

use anyhow::Result;

use crate::program::Program;

/// What was measured.
pub struct Report {
    subject: String,
    rows: Vec<Row>,
}

struct Row {
    what: String,
    measured: String,
    aim: String,
}

impl Report {
    /// An empty table about programs of this kind.
    pub fn about(subject: String) -> Self {
        Self {
            subject,
            rows: Vec::new(),
        }
    }

    /// One more line, printed at once too: a later measurement may fail.
    pub fn add(&mut self, what: impl Into<String>, measured: impl Into<String>, aim: impl Into<String>) {
        let row = Row {
            what: what.into(),
            measured: measured.into(),
            aim: aim.into(),
        };
        println!("      {}: {}", row.what, row.measured);
        self.rows.push(row);
    }

    /// The table in Markdown, under what somebody needs to judge and repeat it.
    pub fn markdown(&self) -> Result<String> {
        let mut text = format!(
            "{}\n\n| what | measured | aim |\n|---|---|---|\n",
            caption(&self.subject)?
        );
        for row in &self.rows {
            writeln!(text, "| {} | {} | {} |", row.what, row.measured, row.aim)?;
        }
        Ok(text)
    }
}

/// When, where, on what and by which command something is measured.
pub fn caption(subject: &str) -> Result<String> {
    let date = Program::line("date --utc +%Y-%m-%dT%H:%MZ").output()?;
    let command: Vec<_> = std::env::args().skip(1).collect();
    Ok(format!(
        "{}, {}, {subject}, `selextract-bench {}`",
        date.trim(),
        machine()?,
        command.join(" ")
    ))
}

/// Processors and memory, as the kernel says.
fn machine() -> Result<String> {
    let processors = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kibibytes = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or_default();
    Ok(format!("{processors} vCPU, {} GiB", kibibytes / 1024 / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_when_where_and_by_what_it_was_measured() {
        let mut report = Report::about("release images".to_owned());
        report.add("memory", "9 MB", "64 MB");
        let text = report.markdown().unwrap();
        assert!(text.contains("vCPU") && text.contains("release images"), "{text}");
        assert!(text.ends_with("| memory | 9 MB | 64 MB |\n"), "{text}");
    }
}
