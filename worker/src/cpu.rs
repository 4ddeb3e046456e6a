//! CPU time, apportioned to the runs that share a process.
//!
//! A worker's threads serve all of its runs, and one Chromium serves several, so nobody can say whose a CPU second was. While k runs
//! share a process each of them is charged a k-th of what the process uses, so every second is charged exactly once: the sum over all
//! runs is what the processes used. While nobody runs, nobody is charged.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// A process's CPU time and how many share it.
pub struct Meter {
    read: Box<dyn Fn() -> Duration + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The process's CPU time when it was last read.
    seen: Duration,
    /// What a run would have been charged that was there all the time.
    per_run: Duration,
    runs: u32,
}

/// One run's part, from its making until it is dropped.
#[derive(Debug)]
pub struct Share {
    meter: Arc<Meter>,
    at_start: Duration,
}

impl Meter {
    /// A meter over what `read` tells; it may only grow.
    pub fn new(read: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Self> {
        let seen = read();
        Arc::new(Self {
            read: Box::new(read),
            state: Mutex::new(State {
                seen,
                ..State::default()
            }),
        })
    }

    /// A meter over this process.
    pub fn of_this_process() -> Arc<Self> {
        Self::new(|| {
            let time = clock_gettime(ClockId::ProcessCPUTime);
            Duration::new(
                u64::try_from(time.tv_sec).unwrap_or_default(),
                u32::try_from(time.tv_nsec).unwrap_or_default(),
            )
        })
    }

    /// One more shares from now on.
    pub fn share(self: &Arc<Self>) -> Share {
        let at_start = self.settle(1);
        Share {
            meter: Arc::clone(self),
            at_start,
        }
    }

    fn settle(&self, more: i32) -> Duration {
        let now = (self.read)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let used = now.saturating_sub(state.seen);
        state.seen = state.seen.max(now);
        if state.runs > 0 {
            let part = used / state.runs;
            state.per_run += part;
        }
        state.runs = state.runs.saturating_add_signed(more);
        state.per_run
    }
}

impl Share {
    /// What this run is charged so far.
    pub fn spent(&self) -> Duration {
        self.meter.settle(0).saturating_sub(self.at_start)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.meter.settle(-1);
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn every_second_is_charged_once_and_none_while_nobody_runs() {
        let clock = Arc::new(AtomicU64::new(100));
        let meter = Meter::new({
            let clock = Arc::clone(&clock);
            move || Duration::from_secs(clock.load(Ordering::Relaxed))
        });
        let pass = |seconds| clock.fetch_add(seconds, Ordering::Relaxed);
        pass(5);
        let first = meter.share();
        pass(10);
        let second = meter.share();
        pass(4);
        assert_eq!((first.spent().as_secs(), second.spent().as_secs()), (12, 2));
        drop(first);
        pass(3);
        assert_eq!(second.spent().as_secs(), 5);
    }
}
