//! What waits to be looked at: each object once, never twice at a time, at once or after a while. Knows nothing of what a look does.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// What is under way when the operator stops has this long to end.
const DRAIN: Duration = Duration::from_secs(2);
/// When an object is looked at again whose look broke down altogether.
const BROKEN: Duration = Duration::from_mins(1);

/// When an object is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something happens to it.
    OnNews,
    /// After this long, if nothing happens before.
    After(Duration),
}

/// The queue of one controller. Its size is bounded by the number of objects: each is in it once.
pub struct Queue<K> {
    state: Mutex<State<K>>,
    news: Notify,
    moved: Box<dyn Fn(i64) + Send + Sync>,
}

struct State<K> {
    ready: VecDeque<K>,
    /// What is in `ready`.
    waiting: HashSet<K>,
    running: HashSet<K>,
    /// What came in while it was running.
    again: HashSet<K>,
    later: BTreeSet<(Instant, K)>,
    /// When each in `later` is due.
    due: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// An empty one; `moved` is told by how much the number of those that wait for their look changed.
    pub fn new(moved: impl Fn(i64) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashSet::new(),
                running: HashSet::new(),
                again: HashSet::new(),
                later: BTreeSet::new(),
                due: HashMap::new(),
            }),
            news: Notify::new(),
            moved: Box::new(moved),
        })
    }

    /// Something happened to this object: it is looked at as soon as may be.
    pub fn add(&self, key: K) {
        self.with(|state| state.add(key));
        self.news.notify_one();
    }

    /// As [`Queue::add`], unless the object is looked at anyway: now, soon, or at a time that was set for it.
    pub fn add_idle(&self, key: K) {
        self.with(|state| {
            if !state.running.contains(&key) && !state.due.contains_key(&key) {
                state.add(key);
            }
        });
        self.news.notify_one();
    }

    /// As [`Queue::add`], for each.
    pub fn extend(&self, keys: impl IntoIterator<Item = K>) {
        self.with(|state| keys.into_iter().for_each(|key| state.add(key)));
        self.news.notify_one();
    }

    /// Waits for the next object; it is under way until the turn is dropped.
    async fn next(self: &Arc<Self>) -> Turn<K> {
        loop {
            let (found, wake) = self.with(|state| {
                state.promote(Instant::now());
                (state.start(), state.later.first().map(|(at, _)| *at))
            });
            if let Some(key) = found {
                return Turn {
                    queue: self.clone(),
                    key,
                    next: Next::After(BROKEN),
                };
            }
            match wake {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.news.notified() => {}
                },
                None => self.news.notified().await,
            }
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State<K>) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.ready.len();
        let result = work(&mut state);
        let after = state.ready.len();
        drop(state);
        if after != before {
            (self.moved)(i64::try_from(after).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX));
        }
        result
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn add(&mut self, key: K) {
        if let Some(at) = self.due.remove(&key) {
            self.later.remove(&(at, key.clone()));
        }
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        let sooner = self.due.get(&key).is_some_and(|due| *due <= at);
        if sooner || self.waiting.contains(&key) || self.again.contains(&key) {
            return;
        }
        if let Some(due) = self.due.insert(key.clone(), at) {
            self.later.remove(&(due, key.clone()));
        }
        self.later.insert((at, key));
    }

    /// What is due by now waits with the others.
    fn promote(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.later.pop_first() {
                self.add(key);
            }
        }
    }

    fn start(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn end(&mut self, key: K, next: Next) {
        self.running.remove(&key);
        match next {
            _ if self.again.remove(&key) => self.add(key),
            Next::After(wait) => self.add_at(key, Instant::now() + wait),
            Next::OnNews => {}
        }
    }
}

/// One object's turn. Dropped without an end, its look broke down: it has another one later.
struct Turn<K: Clone + Eq + Hash + Ord> {
    queue: Arc<Queue<K>>,
    key: K,
    next: Next,
}

impl<K: Clone + Eq + Hash + Ord> Turn<K> {
    fn end(mut self, next: Next) {
        self.next = next;
    }
}

impl<K: Clone + Eq + Hash + Ord> Drop for Turn<K> {
    fn drop(&mut self) {
        self.queue.with(|state| state.end(self.key.clone(), self.next));
        self.queue.news.notify_one();
    }
}

/// Looks at what the queue yields, at most `at_once` at a time, until the operator stops; what is under way then may end.
pub async fn run<K, F>(queue: Arc<Queue<K>>, at_once: usize, stop: CancellationToken, look: impl Fn(K) -> F)
where
    K: Clone + Eq + Hash + Ord + Send + 'static,
    F: Future<Output = Next> + Send + 'static,
{
    let mut looks = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = looks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "A look broke down; the object is looked at again.");
                }
            }
            turn = queue.next(), if looks.len() < at_once => {
                let look = look(turn.key.clone());
                looks.spawn(async move { turn.end(look.await) });
            }
        }
    }
    let ended = async { while looks.join_next().await.is_some() {} };
    if timeout(DRAIN, ended).await.is_err() {
        tracing::info!("Looks that were under way are broken off.");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

    use tokio::time::sleep;

    use super::*;

    fn queue() -> Arc<Queue<&'static str>> {
        Queue::new(|_| ())
    }

    /// Whose turn it is now, if it is somebody's; nothing is awaited.
    fn turn(queue: &Queue<&'static str>) -> Option<&'static str> {
        queue.with(|state| {
            state.promote(Instant::now());
            state.start()
        })
    }

    fn later(queue: &Queue<&'static str>, key: &'static str, seconds: u64) {
        queue.with(|state| state.add_at(key, Instant::now() + Duration::from_secs(seconds)));
    }

    fn end(queue: &Queue<&'static str>, key: &'static str, next: Next) {
        queue.with(|state| state.end(key, next));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_added_often_is_looked_at_once() {
        let queue = queue();
        queue.extend(["a", "b", "a"]);
        assert_eq!((turn(&queue), turn(&queue), turn(&queue)), (Some("a"), Some("b"), None));
    }

    #[tokio::test(start_paused = true)]
    async fn news_during_a_look_ask_for_another_one_after_it() {
        let queue = queue();
        queue.add("a");
        assert_eq!(turn(&queue), Some("a"));
        queue.add("a");
        assert_eq!(turn(&queue), None, "never twice at a time");
        end(&queue, "a", Next::After(Duration::from_mins(5)));
        assert_eq!(turn(&queue), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_holds_and_news_come_before_both() {
        let queue = queue();
        later(&queue, "a", 5);
        later(&queue, "a", 60);
        queue.add_idle("a");
        assert_eq!(turn(&queue), None);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(turn(&queue), Some("a"));
        end(&queue, "a", Next::After(Duration::from_mins(1)));
        queue.add("a");
        assert_eq!(turn(&queue), Some("a"));
        end(&queue, "a", Next::OnNews);
        sleep(Duration::from_mins(2)).await;
        assert_eq!(turn(&queue), None, "the time that was set is done with");
    }

    #[tokio::test(start_paused = true)]
    async fn looks_at_once_are_bounded_and_one_that_panics_is_made_again() {
        let depth = Arc::new(AtomicI64::new(0));
        let (told, stop) = (depth.clone(), CancellationToken::new());
        let queue: Arc<Queue<usize>> = Queue::new(move |by| {
            told.fetch_add(by, SeqCst);
        });
        queue.extend(0..20);
        assert_eq!(depth.load(SeqCst), 20);
        let counts: Arc<[AtomicUsize; 3]> = Arc::default();
        let (seen, ends) = (counts.clone(), stop.clone());
        let look = move |key: usize| {
            let (seen, ends) = (seen.clone(), ends.clone());
            async move {
                let [now, most, all] = &*seen;
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, SeqCst);
                let done = all.fetch_add(1, SeqCst) + 1;
                assert!(key != 3 || done > 20, "the first look at 3 breaks down");
                if done == 21 {
                    ends.cancel();
                }
                Next::OnNews
            }
        };
        timeout(Duration::from_mins(5), run(queue, 4, stop, look))
            .await
            .unwrap();
        assert_eq!(counts[1].load(SeqCst), 4);
        assert_eq!((counts[2].load(SeqCst), depth.load(SeqCst)), (21, 0));
    }
}
