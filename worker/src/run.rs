//! The claim loop: takes what may run, keeps its leases, and stops without losing anything.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use selextract_platform::ledger::claims::{Claim, Ending, Lease, Renewed};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    claims::{Claims, jittered},
    task_run::{self, Engines, Signals},
};

/// How long an idle worker waits for the frontier's word before it looks itself.
const IDLE: Duration = Duration::from_secs(2);
/// The shortest wait for a host's next moment.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest wait after the ledger or the frontier failed.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// How a worker works.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Runs at the same time.
    pub concurrency: usize,
    /// How long a claim holds without being renewed.
    pub lease: Duration,
    /// Runs after which it stops.
    pub max_tasks: u64,
    /// How long a stopping worker may take.
    pub drain_timeout: Duration,
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// It has done its number of runs.
    Recycled,
    /// It was stopping, and pages did not end in time; their leases run out.
    TimedOut,
}

/// Works until `stop`, or until the number of runs is reached, and lets go of everything.
pub async fn run(engines: Engines, claims: Arc<Claims>, pace: Pace, stop: CancellationToken) -> Ended {
    let mut worker = Worker {
        engines,
        claims,
        pace,
        waiting: VecDeque::new(),
        running: JoinSet::new(),
        held: Arc::default(),
        stop_runs: CancellationToken::new(),
        claimed: 0,
        pause: Duration::ZERO,
        next: IDLE,
    };
    let renewals = tokio::spawn(renew(Arc::clone(&worker.claims), worker.held.clone(), pace.lease));
    let ended = worker.claim_until(&stop).await;
    tracing::info!(
        running = worker.running.len(),
        waiting = worker.waiting.len(),
        "The worker drains."
    );
    let deadline = Instant::now() + pace.drain_timeout;
    let drained = timeout_at(deadline, worker.drain()).await;
    renewals.abort();
    if drained.is_err() {
        tracing::error!("Pages did not end within the drain time-out; other workers take them when the leases end.");
        worker.running.shutdown().await;
        return Ended::TimedOut;
    }
    ended
}

/// The leases that are held, by token: the same run may come back before its last end was noticed here.
type Held = Arc<Mutex<HashMap<Uuid, HeldLease>>>;

#[derive(Debug)]
struct HeldLease {
    lease: Lease,
    /// Cancelled when it is lost.
    lost: CancellationToken,
    /// When the ledger last said that it is ours.
    renewed: Instant,
}

struct Worker {
    engines: Engines,
    claims: Arc<Claims>,
    pace: Pace,
    /// Claimed, and not begun.
    waiting: VecDeque<Claim>,
    running: JoinSet<Uuid>,
    held: Held,
    stop_runs: CancellationToken,
    claimed: u64,
    /// After a failure; doubles with each further one.
    pause: Duration,
    /// When the frontier said that there may be more.
    next: Duration,
}

impl Worker {
    async fn claim_until(&mut self, stop: &CancellationToken) -> Ended {
        loop {
            while let Some(ended) = self.running.try_join_next() {
                self.let_go(ended.ok());
            }
            self.begin();
            if stop.is_cancelled() {
                return Ended::Stopped;
            }
            if self.claimed >= self.pace.max_tasks {
                return Ended::Recycled;
            }
            let room = if self.is_stocked() { 0 } else { self.room() };
            // Not interrupted: a claim whose answer nobody hears would idle until its lease ends.
            if room > 0 && self.claim(room).await {
                continue;
            }
            let claims = Arc::clone(&self.claims);
            let (pause, next) = (self.pause, self.next);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stopped,
                Some(ended) = self.running.join_next() => self.let_go(ended.ok()),
                () = idle(&claims, pause, next), if room > 0 => {}
            }
        }
    }

    /// Whether enough waits here for the slots that become free next: then a claim would be one for a single run, and each costs a round
    /// trip and a commit.
    fn is_stocked(&self) -> bool {
        self.running.len() >= self.pace.concurrency && self.waiting.len() > self.pace.concurrency / 2
    }

    /// How many more runs may be claimed: at most twice as many as run at the same time are held, so that one is at hand when a slot
    /// becomes free.
    fn room(&self) -> usize {
        let held = self.waiting.len() + self.running.len();
        let left = usize::try_from(self.pace.max_tasks.saturating_sub(self.claimed)).unwrap_or(usize::MAX);
        (2 * self.pace.concurrency).saturating_sub(held).min(left)
    }

    /// Claims, and says whether there was anything.
    async fn claim(&mut self, most: usize) -> bool {
        let asked = Instant::now();
        let claimed = match self.claims.claim(most).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.pause = (self.pause * 2).clamp(Duration::from_millis(200), MAX_PAUSE);
                tracing::warn!(%error, "Claiming failed; it is tried again.");
                return false;
            }
        };
        self.pause = Duration::ZERO;
        self.next = claimed.next.unwrap_or(IDLE);
        let claims = claimed.claims;
        self.claimed += claims.len() as u64;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for claim in &claims {
            let lease = HeldLease {
                lease: claim.lease(),
                lost: CancellationToken::new(),
                renewed: asked,
            };
            held.insert(claim.lease_token, lease);
        }
        drop(held);
        let any = !claims.is_empty();
        self.waiting.extend(claims);
        any
    }

    /// Starts what waits, as far as there are free slots.
    fn begin(&mut self) {
        while self.running.len() < self.pace.concurrency
            && let Some(claim) = self.waiting.pop_front()
        {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            // Lost while it waited.
            let Some(lease) = held.get(&claim.lease_token) else {
                continue;
            };
            let signals = Signals {
                stop: self.stop_runs.clone(),
                lost: lease.lost.clone(),
            };
            drop(held);
            let (engines, claims) = (self.engines.clone(), Arc::clone(&self.claims));
            self.running.spawn(async move {
                let outcome = Box::pin(task_run::run(&engines, &claims, &claim, &signals)).await;
                tracing::info!(task = %claim.id, ?outcome, "A run was let go.");
                claim.lease_token
            });
        }
    }

    /// Forgets the lease of a run that ended. One that panicked keeps it until it is not renewed any more.
    fn let_go(&self, ended: Option<Uuid>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = ended {
            held.remove(&token);
        } else {
            tracing::error!("A run panicked; another worker takes it when its lease ends.");
        }
    }

    /// Hands back what waits, and lets what runs come to its next page boundary.
    async fn drain(&mut self) {
        self.stop_runs.cancel();
        for claim in std::mem::take(&mut self.waiting) {
            if let Err(error) = self.claims.finish(&claim, &Ending::HandedBack, 0).await {
                tracing::warn!(task = %claim.id, %error, "A run could not be handed back; its lease runs out.");
            }
            self.let_go(Some(claim.lease_token));
        }
        while let Some(ended) = self.running.join_next().await {
            self.let_go(ended.ok());
        }
    }
}

/// Waits for the frontier's word, or for the moment that it named, for a while that differs between workers; after a failure for the pause.
async fn idle(claims: &Claims, pause: Duration, next: Duration) {
    if pause.is_zero() {
        let wait = jittered(IDLE).min(next.max(SHORTEST));
        let _ = timeout(wait, claims.wait()).await;
    } else {
        sleep(jittered(pause)).await;
    }
}

/// Renews the leases, three times in a lease's time. A run whose lease is lost is stopped at once: another worker may have it.
async fn renew(claims: Arc<Claims>, held: Held, lease: Duration) {
    let mut tick = interval(lease / 3);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let leases = leases(&held);
        if leases.is_empty() {
            continue;
        }
        let asked = Instant::now();
        match timeout(lease / 3, claims.renew(&leases)).await {
            Ok(Ok(renewed)) => settle(&held, &leases, &renewed, asked),
            Ok(Err(error)) => tracing::warn!(%error, "Leases could not be renewed."),
            Err(_) => tracing::warn!("Leases could not be renewed in time."),
        }
        give_up_expired(&held, lease);
    }
}

fn leases(held: &Held) -> Vec<Lease> {
    let held = held.lock().unwrap_or_else(PoisonError::into_inner);
    held.values().map(|held| held.lease).collect()
}

fn settle(held: &Held, asked_for: &[Lease], renewed: &[Renewed], asked: Instant) {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    for lease in asked_for {
        if renewed.iter().any(|renewed| renewed.id == lease.id) {
            if let Some(held) = held.get_mut(&lease.token) {
                held.renewed = asked;
            }
        } else if let Some(lost) = held.remove(&lease.token) {
            lost.lost.cancel();
        }
    }
}

/// What could not be renewed for a whole lease is another's by now, whatever the ledger would say.
fn give_up_expired(held: &Held, after: Duration) {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|_, held| {
        let ours = held.renewed.elapsed() < after;
        if !ours {
            tracing::warn!(task = %held.lease.id, "A lease ran out.");
            held.lost.cancel();
        }
        ours
    });
}
