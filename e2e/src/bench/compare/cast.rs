//! Whose CPU is counted: processes by name, with everything that they started. Those that were started here have an [`account`]; of others
//! `/proc` is read.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::account;

/// The kernel counts CPU time in hundredths of a second on every platform that we run on (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A program that ends with this one.
pub struct Played {
    child: Child,
}

impl Played {
    /// Starts it; what it writes goes to a file.
    pub fn start(command: &Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let mut guarded = account::opened();
        guarded
            .args(["setpriv", "--pdeathsig", "KILL"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(name, value),
                None => guarded.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            guarded.current_dir(folder);
        }
        let child = guarded
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        Ok(Self { child })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended. It is not waited for: its number stays its own until this is dropped.
    pub fn has_ended(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.id())).map_or(true, |stat| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
        })
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        account::close(self.id());
    }
}

/// Processes whose CPU is counted, by the name that the table shows.
#[derive(Clone, Debug, Default)]
pub struct Cast(Vec<(&'static str, u32)>);

/// CPU time by name.
pub type Bill = BTreeMap<&'static str, Duration>;

impl Cast {
    /// With one more.
    pub fn with(mut self, name: &'static str, process: u32) -> Self {
        self.0.push((name, process));
        self
    }

    /// Counts from now on.
    pub fn watch(&self) -> Watch<'_> {
        Watch {
            cast: self,
            before: self.bill(),
            started: Instant::now(),
        }
    }

    /// Counts from now on, but these from their start: they were started for what is counted.
    pub fn watch_started(&self, names: &[&str]) -> Watch<'_> {
        let mut watch = self.watch();
        watch.before.retain(|name, _| !names.contains(name));
        watch
    }

    fn bill(&self) -> Bill {
        let table = table();
        let mut bill = Bill::new();
        for (name, process) in &self.0 {
            *bill.entry(*name).or_default() += account::used(*process).unwrap_or_else(|| of_tree(&table, *process));
        }
        bill
    }
}

/// A count that goes on.
pub struct Watch<'a> {
    cast: &'a Cast,
    before: Bill,
    started: Instant,
}

impl Watch<'_> {
    /// What was used since it began, by so many units of work.
    pub fn end(&self, units: u32) -> Sample {
        let wall = self.started.elapsed();
        let mut cpu = self.cast.bill();
        for (name, used) in &mut cpu {
            *used = used.saturating_sub(self.before.get(name).copied().unwrap_or_default());
        }
        Sample { units, wall, cpu }
    }
}

/// One measurement of one contestant.
#[derive(Clone, Debug)]
pub struct Sample {
    /// How much work was done.
    pub units: u32,
    /// How long it took.
    pub wall: Duration,
    /// What it cost.
    pub cpu: Bill,
}

impl Sample {
    /// CPU microseconds for one unit, of the named processes; of all when none is named.
    pub fn micros(&self, names: &[&str]) -> f64 {
        let counted = self
            .cpu
            .iter()
            .filter(|(name, _)| names.is_empty() || names.contains(name));
        let sum: Duration = counted.map(|(_, used)| *used).sum();
        sum.as_secs_f64() * 1e6 / f64::from(self.units.max(1))
    }

    /// Without what these processes cost anyway.
    pub fn without(mut self, name: &str, cost: Duration) -> Self {
        if let Some(used) = self.cpu.get_mut(name) {
            *used = used.saturating_sub(cost);
        }
        self
    }

    /// Units in a second of wall time.
    pub fn rate(&self) -> f64 {
        f64::from(self.units) / self.wall.as_secs_f64()
    }
}

struct Row {
    parent: u32,
    used: Duration,
}

/// Every process, its parent, and its CPU time with that of children that have ended.
fn table() -> HashMap<u32, Row> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let process: u32 = entry.file_name().to_str()?.parse().ok()?;
            // Processes come and go while this reads.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((process, read(&stat)?))
        })
        .collect()
}

/// The program's name is in parentheses and may hold blanks and parentheses itself (`proc_pid_stat(5)`).
fn read(stat: &str) -> Option<Row> {
    let rest = stat.rsplit_once(')')?.1;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
    // utime, stime, cutime, cstime are the fields 14 to 17; the state is the third.
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Row {
        parent: number(1)?,
        used: TICK * ticks,
    })
}

fn of_tree(table: &HashMap<u32, Row>, root: u32) -> Duration {
    let belongs = |mut process: u32| {
        while process != root {
            match table.get(&process) {
                Some(row) => process = row.parent,
                None => return false,
            }
        }
        true
    };
    let rows = table.iter().filter(|(process, _)| belongs(**process));
    rows.map(|(_, row)| row.used).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_blank_and_a_parenthesis_in_its_name_is_read() {
        let row = read("7 (a) b) S 3 7 7 0 -1 0 0 0 0 0 10 20 30 40 20 0 1 0").unwrap();
        assert_eq!((row.parent, row.used), (3, Duration::from_secs(1)));
    }

    #[test]
    fn what_a_process_and_its_children_use_is_counted_once() {
        let row = |parent, ticks| Row {
            parent,
            used: TICK * ticks,
        };
        let table = HashMap::from([(1, row(0, 100)), (2, row(1, 3)), (3, row(2, 4)), (4, row(1, 50))]);
        assert_eq!(of_tree(&table, 2), TICK * 7);
    }

    #[test]
    fn who_is_killed_and_not_waited_for_is_in_the_bill() {
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'while :; do :; done' & sleep 0.5; kill -9 $!"]);
        let folder = tempfile::tempdir().unwrap();
        let played = Played::start(&command, &folder.path().join("log")).unwrap();
        let cast = Cast::default().with("played", played.id());
        while !played.has_ended() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(cast.bill()["played"] > Duration::from_millis(50));
        assert!(
            of_tree(&table(), played.id()) < Duration::from_millis(50),
            "nobody waited for it"
        );
    }

    #[test]
    fn work_shows_in_the_bill_of_this_process() {
        let cast = Cast::default().with("own", std::process::id());
        let watch = cast.watch();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(100) {
            std::hint::black_box((0..1000).sum::<u64>());
        }
        let sample = watch.end(1);
        assert!(sample.micros(&["own"]) > 0.0 && sample.micros(&["other"]) == 0.0);
    }
}
