//! Calls that come at the same time are done together: one round trip, and one commit, for many.
//!
//! Nobody waits for company. While a batch is on its way the next one gathers, so that a lone call goes out at once and a crowd shares.
//! Each batch runs in a task of its own: a caller that goes away takes nobody's answer with it.

use std::{
    collections::VecDeque,
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many calls may wait for their batch; the next one is refused.
const WAITING: usize = 8_192;

/// What a batch does: as many answers as calls, in their order.
type Work<I, O> = Box<dyn Fn(Vec<I>) -> Pin<Box<dyn Future<Output = Vec<O>> + Send>> + Send + Sync>;
type Queue<I, O> = VecDeque<(I, oneshot::Sender<O>)>;

/// Gathers calls of one kind. Cheap to clone.
pub(crate) struct Gather<I, O>(Arc<Inner<I, O>>);

struct Inner<I, O> {
    queue: Mutex<Queue<I, O>>,
    /// Batches that are on their way at the same time.
    lanes: Arc<Semaphore>,
    most: usize,
    work: Work<I, O>,
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
            queue: Mutex::default(),
            lanes: Arc::new(Semaphore::new(lanes)),
            most,
            work: Box::new(move |batch| Box::pin(work(batch))),
        }))
    }

    /// Does it with others. `None` when too many calls wait, or when the batch ended without an answer.
    pub(crate) async fn call(&self, item: I) -> Option<O> {
        let (answer, answered) = oneshot::channel();
        {
            let mut queue = self.queue();
            if queue.len() >= WAITING {
                return None;
            }
            queue.push_back((item, answer));
        }
        // A lane gives its permit back under the queue's lock and only when the queue is empty: what was put in before is seen by it,
        // and what comes after finds the permit.
        if let Ok(lane) = self.0.lanes.clone().try_acquire_owned() {
            tokio::spawn(self.clone().drain(lane));
        }
        answered.await.ok()
    }

    async fn drain(self, lane: OwnedSemaphorePermit) {
        let mut lane = Some(lane);
        // Those who are ready in this moment come along.
        tokio::task::yield_now().await;
        while let Some((batch, answers)) = self.next(&mut lane) {
            // A panic leaves its own batch without answers, and nobody else.
            let work = AssertUnwindSafe((self.0.work)(batch)).catch_unwind();
            let done = work.await.unwrap_or_default();
            for (answer, done) in answers.into_iter().zip(done) {
                // Who asked may be gone.
                drop(answer.send(done));
            }
        }
    }

    fn next(&self, lane: &mut Option<OwnedSemaphorePermit>) -> Option<(Vec<I>, Vec<oneshot::Sender<O>>)> {
        let mut queue = self.queue();
        if queue.is_empty() {
            drop(lane.take());
            return None;
        }
        let count = queue.len().min(self.0.most);
        Some(queue.drain(..count).unzip())
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
