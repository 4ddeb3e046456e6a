//! A browser's process group: what it uses, read from `/proc`, and its end.

use std::{fs, time::Duration};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Pid, Signal, kill_process_group},
};

/// A process group; the main process leads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group(Pid);

impl Group {
    pub(super) fn new(leader: u32) -> Option<Self> {
        i32::try_from(leader).ok().and_then(Pid::from_raw).map(Self)
    }

    /// Kills every process of the group; it may be gone already.
    pub(super) fn kill(self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }

    /// CPU time of its processes and of those that they have waited for.
    pub(super) fn cpu(self) -> Duration {
        let ticks: u64 = self.processes().map(|process| process.ticks).sum();
        Duration::from_millis(ticks.saturating_mul(1000) / clock_ticks_per_second().max(1))
    }

    /// Bytes of memory. What processes share (above all the program itself) is counted once, by the one that has the most of it:
    /// a sum of resident sizes would count it once for each process and find an idle browser too large.
    pub(super) fn memory(self) -> u64 {
        let (private, shared) = self
            .processes()
            .filter_map(|process| memory(process.id))
            .fold((0, 0), |(private, shared), memory| {
                (private + memory.0, memory.1.max(shared))
            });
        (private + shared) * page_size() as u64
    }

    fn processes(self) -> impl Iterator<Item = Process> {
        let group = self.0.as_raw_nonzero().get();
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|id| parse(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?))
            .filter(move |process| process.group == group)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    id: u32,
    group: i32,
    ticks: u64,
}

/// `/proc/PID/stat`; the name in parentheses may hold anything, so fields are counted from the last parenthesis (proc(5)).
fn parse(id: u32, stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = fields
        .get(11..15)?
        .iter()
        .map(|field| field.parse::<u64>().unwrap_or_default())
        .sum();
    Some(Process {
        id,
        group: fields.get(2)?.parse().ok()?,
        ticks,
    })
}

/// Private and shared resident pages.
fn memory(id: u32) -> Option<(u64, u64)> {
    let statm = fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
    let mut fields = statm.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let resident = fields.next()?.ok()?;
    let shared = fields.next()?.ok()?;
    Some((resident.saturating_sub(shared), shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 40 40 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 1 0 5 6 7 8";
        assert_eq!(
            parse(42, stat),
            Some(Process {
                id: 42,
                group: 40,
                ticks: 127
            })
        );
    }
}
