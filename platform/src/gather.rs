//! Calls that come at the same time are done together: one round trip, and one commit, for many.
//!
//! While a batch is on its way the next one gathers, so that a lone call goes out at once and a crowd shares. Who has time to spare says so
//! ([`Gather::call_within`]) and waits for company that long; with who has none everybody leaves at once.
//! Each batch runs in a task of its own: a caller that goes away takes nobody's answer with it.

use std::{
    collections::VecDeque,
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

/// How many calls may wait for their batch; the next one is refused.
const WAITING: usize = 8_192;

/// What a batch does: as many answers as calls, in their order.
type Work<I, O> = Box<dyn Fn(Vec<I>) -> Pin<Box<dyn Future<Output = Vec<O>> + Send>> + Send + Sync>;

/// Gathers calls of one kind. Cheap to clone.
pub(crate) struct Gather<I, O>(Arc<Inner<I, O>>);

struct Inner<I, O> {
    queue: Mutex<Queue<I, O>>,
    /// Batches that are on their way at the same time.
    lanes: Arc<Semaphore>,
    /// Tells the lane that waits for company to wait no longer.
    hurry: Notify,
    most: usize,
    work: Work<I, O>,
}

struct Queue<I, O> {
    calls: VecDeque<Call<I, O>>,
    /// Until when a lane waits for company; `None` while none does.
    lingers: Option<Instant>,
}

struct Call<I, O> {
    item: I,
    answer: oneshot::Sender<O>,
    /// When it is to be on its way.
    leaves: Instant,
}

/// What a lane does next.
enum Next<I, O> {
    Leave(Vec<I>, Vec<oneshot::Sender<O>>),
    Linger(Instant),
    Nothing,
}

impl<I, O> Clone for Gather<I, O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I, O> fmt::Debug for Gather<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

impl<I: Send + 'static, O: Send + 'static> Gather<I, O> {
    /// Batches of at most `most` calls, on so many lanes.
    pub(crate) fn new<W>(most: usize, lanes: usize, work: impl Fn(Vec<I>) -> W + Send + Sync + 'static) -> Self
    where
        W: Future<Output = Vec<O>> + Send + 'static,
    {
        Self(Arc::new(Inner {
            queue: Mutex::new(Queue {
                calls: VecDeque::new(),
                lingers: None,
            }),
            lanes: Arc::new(Semaphore::new(lanes)),
            hurry: Notify::new(),
            most,
            work: Box::new(move |batch| Box::pin(work(batch))),
        }))
    }

    /// Does it with others. `None` when too many calls wait, or when the batch ended without an answer.
    pub(crate) async fn call(&self, item: I) -> Option<O> {
        self.call_within(item, Duration::ZERO).await
    }

    /// The same for who may wait so long for company.
    pub(crate) async fn call_within(&self, item: I, spare: Duration) -> Option<O> {
        let (answer, answered) = oneshot::channel();
        if !self.enqueue(Call {
            item,
            answer,
            leaves: Instant::now() + spare,
        }) {
            return None;
        }
        answered.await.ok()
    }

    /// Puts a call in and sees to it that a lane takes it; whether there was room.
    fn enqueue(&self, call: Call<I, O>) -> bool {
        let mut queue = self.queue();
        if queue.calls.len() >= WAITING {
            return false;
        }
        let leaves = call.leaves;
        queue.calls.push_back(call);
        match queue.lingers {
            Some(until) if leaves < until || queue.calls.len() >= self.0.most => self.0.hurry.notify_one(),
            Some(_) => {}
            // A lane gives its permit back under the queue's lock, and only when the queue is empty or another lane waits there: what was
            // put in before is seen by one of them, and what comes after finds the permit.
            None => {
                if let Ok(lane) = self.0.lanes.clone().try_acquire_owned() {
                    tokio::spawn(self.clone().drain(lane));
                }
            }
        }
        true
    }

    async fn drain(self, lane: OwnedSemaphorePermit) {
        let mut lane = Some(lane);
        // Those who are ready in this moment come along.
        tokio::task::yield_now().await;
        loop {
            match self.next(&mut lane) {
                Next::Leave(batch, answers) => self.work(batch, answers).await,
                Next::Linger(until) => {
                    // Whoever is in a hurry may have said so already.
                    let _ = timeout_at(until, self.0.hurry.notified()).await;
                    self.queue().lingers = None;
                }
                Next::Nothing => return,
            }
        }
    }

    async fn work(&self, batch: Vec<I>, answers: Vec<oneshot::Sender<O>>) {
        // A panic leaves its own batch without answers, and nobody else.
        let work = AssertUnwindSafe((self.0.work)(batch)).catch_unwind();
        let done = work.await.unwrap_or_default();
        for (answer, done) in answers.into_iter().zip(done) {
            // Who asked may be gone.
            drop(answer.send(done));
        }
    }

    fn next(&self, lane: &mut Option<OwnedSemaphorePermit>) -> Next<I, O> {
        let mut queue = self.queue();
        let first = queue.calls.iter().map(|call| call.leaves).min();
        let Some(first) = first.filter(|_| queue.lingers.is_none()) else {
            drop(lane.take());
            return Next::Nothing;
        };
        if first > Instant::now() && queue.calls.len() < self.0.most {
            queue.lingers = Some(first);
            return Next::Linger(first);
        }
        let count = queue.calls.len().min(self.0.most);
        let (batch, answers) = queue.calls.drain(..count).map(|call| (call.item, call.answer)).unzip();
        Next::Leave(batch, answers)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue<I, O>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    /// Doubles numbers, and waits for a permit before each batch.
    fn doubling(most: usize, lanes: usize) -> (Gather<u32, u32>, Arc<Semaphore>, Arc<AtomicUsize>) {
        let (gate, batches) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (inside, counted) = (Arc::clone(&gate), Arc::clone(&batches));
        let gather = Gather::new(most, lanes, move |batch: Vec<u32>| {
            let (gate, batches) = (Arc::clone(&inside), Arc::clone(&counted));
            async move {
                gate.acquire().await.unwrap().forget();
                batches.fetch_add(1, Ordering::SeqCst);
                batch.into_iter().map(|number| number * 2).collect()
            }
        });
        (gather, gate, batches)
    }

    #[tokio::test]
    async fn everybody_gets_the_own_answer_and_a_crowd_shares_batches() {
        let (gather, gate, batches) = doubling(64, 1);
        gate.add_permits(1000);
        let answers = join_all((0..500).map(|number| gather.call(number))).await;
        assert!(
            answers
                .iter()
                .zip(0..)
                .all(|(answer, number)| *answer == Some(number * 2))
        );
        assert!(batches.load(Ordering::SeqCst) <= 10, "{batches:?}");
    }

    #[tokio::test]
    async fn a_batch_is_never_larger_than_the_most() {
        let (gather, gate, batches) = doubling(10, 1);
        gate.add_permits(1000);
        join_all((0..100).map(|number| gather.call(number))).await;
        assert!(batches.load(Ordering::SeqCst) >= 10);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_takes_nobodys_answer_with_it() {
        let (gather, gate, _) = doubling(64, 1);
        let first = tokio::spawn({
            let gather = gather.clone();
            async move { gather.call(1).await }
        });
        let second = tokio::spawn({
            let gather = gather.clone();
            async move { gather.call(2).await }
        });
        tokio::task::yield_now().await;
        first.abort();
        assert!(first.await.is_err());
        gate.add_permits(1000);
        assert_eq!(second.await.unwrap(), Some(4));
        assert_eq!(gather.call(3).await, Some(6), "the lane is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_time_waits_for_company_and_leaves_with_the_first_who_has_none() {
        let (gather, gate, batches) = doubling(64, 2);
        gate.add_permits(1000);
        let started = Instant::now();
        let patient = [5, 3].map(|number| gather.call_within(number, Duration::from_millis(50)));
        assert_eq!(join_all(patient).await, [Some(10), Some(6)]);
        assert_eq!((started.elapsed().as_millis(), batches.load(Ordering::SeqCst)), (50, 1));
        let hasty = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            gather.call(2).await
        };
        let (patient, hasty) = tokio::join!(gather.call_within(1, Duration::from_millis(50)), hasty);
        assert_eq!((patient, hasty), (Some(2), Some(4)));
        assert_eq!((started.elapsed().as_millis(), batches.load(Ordering::SeqCst)), (60, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_does_not_wait_for_company() {
        let (gather, gate, batches) = doubling(4, 1);
        gate.add_permits(1000);
        let started = Instant::now();
        let calls = (0..9).map(|number| gather.call_within(number, Duration::from_secs(1)));
        join_all(calls).await;
        assert_eq!(
            (started.elapsed().as_millis(), batches.load(Ordering::SeqCst)),
            (1000, 3)
        );
    }

    #[tokio::test]
    async fn a_batch_that_panics_leaves_the_next_one_alone() {
        let gather = Gather::new(1, 1, |batch: Vec<u32>| async move {
            assert!(!batch.contains(&7), "seven");
            batch
        });
        // The second waits behind the first.
        assert_eq!(join_all([gather.call(7), gather.call(8)]).await, [None, Some(8)]);
    }
}
