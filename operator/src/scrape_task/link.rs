//! The link to one cluster: what is upserted goes out in batches, what happened comes in by one long poll. Nothing is asked per task.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use selextract_task::feed::{Change, KnownTask, MAX_ITEMS, Removals, Upsert, UpsertAnswer, Upserts};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    client::{ApiClient, POLL},
    sweep,
};

/// How long a batch waits for company.
const COLLECT: Duration = Duration::from_millis(40);
const QUEUE: usize = 1024;
/// Changes that wait to be written; more are not fetched before these are taken.
const MAX_WAITING: usize = 2 * MAX_ITEMS;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Whether the cluster's API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not known yet.
    Unknown,
    /// It answered last.
    Up,
    /// It did not, and why.
    Down(String),
}

/// What became of one item that was sent; the text is for a condition.
pub type Sent<T> = Result<T, String>;

/// The running link to one cluster.
pub struct Link {
    client: Arc<ApiClient>,
    upserts: mpsc::Sender<(Upsert, oneshot::Sender<Sent<UpsertAnswer>>)>,
    removals: mpsc::Sender<(String, oneshot::Sender<Sent<()>>)>,
    changes: Mutex<HashMap<String, Change>>,
    reach: watch::Sender<Reach>,
    stop: CancellationToken,
    /// The feed is to be read from its start again.
    rewind: Notify,
    /// Told when the ledger may know a task that is gone.
    doubts: Notify,
    around: Surroundings,
}

/// Whether a task that a ledger knows exists, where the watches can tell.
pub type Exists = Box<dyn Fn(&KnownTask) -> Option<bool> + Send + Sync>;

/// What a link needs to know of the rest.
pub struct Surroundings {
    /// Whether a change is news. What comes about unknown tasks is dropped: the answer to a task's first upsert holds its newest run.
    pub wants: Box<dyn Fn(&Change) -> bool + Send + Sync>,
    /// Whether a task that the ledger knows exists, where the watches can tell.
    pub exists: Exists,
    /// Told what happened.
    pub tell: Box<dyn Fn(Notice) + Send + Sync>,
}

/// What a link tells its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A change of this `ScrapeTask` waits to be taken.
    Changed(String),
    /// The cluster answers again.
    Reached,
}

impl Link {
    /// Starts the link's loops; they end with `stop` or when the link is dropped.
    pub fn start(client: Arc<ApiClient>, stop: CancellationToken, around: Surroundings) -> Arc<Self> {
        let (upserts, upsert_queue) = mpsc::channel(QUEUE);
        let (removals, removal_queue) = mpsc::channel(QUEUE);
        let link = Arc::new(Self {
            client: client.clone(),
            upserts,
            removals,
            changes: Mutex::default(),
            reach: watch::Sender::new(Reach::Unknown),
            stop: stop.clone(),
            rewind: Notify::new(),
            doubts: Notify::new(),
            around,
        });
        let jobs = [
            tokio::spawn(
                stop.clone()
                    .run_until_cancelled_owned(send_upserts(client.clone(), upsert_queue)),
            ),
            tokio::spawn(stop.clone().run_until_cancelled_owned(send_removals(
                client.clone(),
                link.clone(),
                removal_queue,
            ))),
            tokio::spawn(
                stop.clone()
                    .run_until_cancelled_owned(sweep::run(client.clone(), link.clone())),
            ),
            tokio::spawn(stop.run_until_cancelled_owned(follow(client, link.clone()))),
        ];
        // The loops own nothing that must be closed: canceling the token ends them.
        drop(jobs);
        link
    }

    /// The cluster's API, for what is not sent in batches.
    pub fn client(&self) -> &ApiClient {
        &self.client
    }

    /// Ends the loops.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Has the feed read from its start: tasks have become known whose changes were dropped until now.
    pub fn rewind(&self) {
        self.rewind.notify_one();
    }

    /// Whether the API answered last.
    pub fn is_up(&self) -> bool {
        *self.reach.borrow() == Reach::Up
    }

    /// Sends one item with the next batch and waits for its answer.
    ///
    /// # Errors
    /// A sentence that says why there was no answer.
    pub async fn upsert(&self, item: Upsert) -> Sent<UpsertAnswer> {
        let (answer, wait) = oneshot::channel();
        self.upserts.send((item, answer)).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }

    /// Removes one task with the next batch and waits until that is done.
    ///
    /// # Errors
    /// A sentence that says why it was not.
    pub async fn remove(&self, uid: &str) -> Sent<()> {
        let (answer, wait) = oneshot::channel();
        self.removals
            .send((uid.to_owned(), answer))
            .await
            .map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }

    /// Ends the run of a task that is gone, with the next batch; what that does not reach is found by a sweep.
    pub fn end(&self, uid: &str) {
        let (answer, _) = oneshot::channel();
        if self.removals.try_send((uid.to_owned(), answer)).is_err() {
            self.doubts.notify_one();
        }
    }

    /// Whether a task that the ledger knows exists; `None` where no watch can tell.
    pub fn exists(&self, task: &KnownTask) -> Option<bool> {
        (self.around.exists)(task)
    }

    /// Waits until the API answers.
    pub async fn reached(&self) {
        // The sender lives as long as this does: the wait cannot fail.
        let _ = self.reach.subscribe().wait_for(|reach| *reach == Reach::Up).await;
    }

    /// Waits until the ledger may know a task that is gone: the API does not answer any more, or an ending failed.
    pub async fn doubted(&self) {
        let mut reach = self.reach.subscribe();
        tokio::select! {
            _ = reach.wait_for(|reach| *reach != Reach::Up) => {}
            () = self.doubts.notified() => {}
        }
    }

    /// Takes the newest change of a task that was not taken yet.
    pub fn take(&self, uid: &str) -> Option<Change> {
        self.changes().remove(uid)
    }

    /// Puts a change back that could not be written, unless a newer one came in the meantime.
    pub fn put_back(&self, change: Change) {
        if (self.around.wants)(&change) {
            self.changes().entry(change.uid.clone()).or_insert(change);
        }
    }

    /// Whether the API answers; waits up to `patience` while that is not known yet.
    pub async fn reach(&self, patience: Duration) -> Reach {
        let mut reach = self.reach.subscribe();
        let known = tokio::time::timeout(patience, reach.wait_for(|reach| *reach != Reach::Unknown)).await;
        drop(known);
        self.reach.borrow().clone()
    }

    fn changes(&self) -> MutexGuard<'_, HashMap<String, Change>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changes wait to be taken; those that are no news by now do not.
    fn waiting(&self) -> usize {
        let mut changes = self.changes();
        changes.retain(|_, change| (self.around.wants)(change));
        changes.len()
    }

    /// Keeps the changes to be taken and says so.
    fn keep(&self, arrived: Vec<Change>) {
        for change in arrived {
            if (self.around.wants)(&change) {
                let uid = change.uid.clone();
                self.changes().insert(uid.clone(), change);
                (self.around.tell)(Notice::Changed(uid));
            }
        }
    }
}

fn stopped() -> String {
    "the link to the cluster was closed".to_owned()
}

/// Takes one item, waits a little for more, and returns at most [`MAX_ITEMS`] of them.
async fn collect<T>(queue: &mut mpsc::Receiver<T>) -> Option<Vec<T>> {
    let mut batch = vec![queue.recv().await?];
    let until = Instant::now() + COLLECT;
    while batch.len() < MAX_ITEMS {
        match timeout_at(until, queue.recv()).await {
            Ok(Some(item)) => batch.push(item),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

async fn send_upserts(
    client: Arc<ApiClient>,
    mut queue: mpsc::Receiver<(Upsert, oneshot::Sender<Sent<UpsertAnswer>>)>,
) {
    while let Some(batch) = collect(&mut queue).await {
        let (items, waiting): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let uids: Vec<String> = items.iter().map(|item| item.uid.clone()).collect();
        let mut answers = match client.upsert(&Upserts { items }).await {
            Ok(answers) => Ok(answers
                .items
                .into_iter()
                .map(|a| (a.uid.clone(), a))
                .collect::<HashMap<_, _>>()),
            Err(error) => Err(error.to_string()),
        };
        for (uid, waiting) in uids.into_iter().zip(waiting) {
            let answer = match &mut answers {
                Ok(answers) => answers
                    .remove(&uid)
                    .ok_or_else(|| "its API could not store it, and says why in its log".to_owned()),
                Err(error) => Err(error.clone()),
            };
            // Whoever no longer waits asks again.
            let _ = waiting.send(answer);
        }
    }
}

async fn send_removals(
    client: Arc<ApiClient>,
    link: Arc<Link>,
    mut queue: mpsc::Receiver<(String, oneshot::Sender<Sent<()>>)>,
) {
    while let Some(batch) = collect(&mut queue).await {
        let (uids, waiting): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let answer = client
            .remove(&Removals { uids })
            .await
            .map_err(|error| error.to_string());
        if answer.is_err() {
            link.doubts.notify_one();
        }
        for waiting in waiting {
            let _ = waiting.send(answer.clone());
        }
    }
}

/// Follows the feed for ever. It starts at 0: what is known already changes no status.
async fn follow(client: Arc<ApiClient>, link: Arc<Link>) {
    let (mut after, mut failures) = (0, 0_u32);
    loop {
        while link.waiting() >= MAX_WAITING {
            sleep(Duration::from_millis(200)).await;
        }
        // The first answer after a failure says that the cluster is there: it must not be held.
        let wait = if *link.reach.borrow() == Reach::Up {
            POLL
        } else {
            Duration::ZERO
        };
        let answer = tokio::select! {
            answer = client.changes(after, wait) => answer,
            () = link.rewind.notified() => {
                after = 0;
                continue;
            }
        };
        match answer {
            Ok(changes) => {
                failures = 0;
                after = changes.next;
                link.keep(changes.changes);
                if link.reach.send_replace(Reach::Up) != Reach::Up {
                    (link.around.tell)(Notice::Reached);
                }
            }
            Err(error) => {
                let why = error.to_string();
                if link.reach.send_replace(Reach::Down(why.clone())) == Reach::Up {
                    tracing::warn!(error = %why, "The change feed of a cluster broke off; it is asked again.");
                }
                failures = failures.saturating_add(1);
                let pause = pause(failures, rand::random());
                sleep(pause).await;
            }
        }
    }
}

fn pause(failures: u32, jitter: f64) -> Duration {
    let step = FIRST_PAUSE
        .saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX))
        .min(LONGEST_PAUSE);
    step.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_at_most_what_the_listener_takes() {
        let (send, mut queue) = mpsc::channel(2000);
        for n in 0..1200 {
            send.send(n).await.unwrap();
        }
        assert_eq!(collect(&mut queue).await.unwrap().len(), MAX_ITEMS);
        assert_eq!(collect(&mut queue).await.unwrap().len(), MAX_ITEMS);
        assert_eq!(collect(&mut queue).await.unwrap().len(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_item_waits_only_a_moment() {
        let (send, mut queue) = mpsc::channel(2);
        send.send(1).await.unwrap();
        let before = Instant::now();
        assert_eq!(collect(&mut queue).await.unwrap(), [1]);
        assert!(before.elapsed() <= COLLECT * 2);
    }

    #[test]
    fn the_feed_is_asked_again_at_most_every_fifteen_seconds_and_never_in_a_tight_loop() {
        assert!(pause(1, 0.0) >= Duration::from_millis(250));
        assert_eq!(pause(40, 1.0), LONGEST_PAUSE);
    }
}
