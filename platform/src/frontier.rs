//! The frontier: which tasks may run now, fairly and politely. An index in Redis that can be lost: the keeper refills it from the ledger.
//!
//! Owners take turns by virtual time; an owner's hosts by the moment at which they may be visited again; within (owner, host) tasks go by
//! priority, then by due time. One Lua call takes a batch. The window is bounded: where it is full, the owner with the most entries makes room
//! for one with fewer, and an owner's last entry for one that comes before it; what finds no room, or made it, comes back by the refill. What a
//! host allows is in [`hosts`].

pub mod hosts;
pub mod logins;
pub mod rendering;
mod robots;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use redis::Script;
use snafu::{ResultExt, Snafu};
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    ledger::{Secret, TaskId, UserId},
    redis_store::{RedisStore, Timed},
    timings::Timings,
};

/// The most entries for one owner and host.
pub const QUEUE_WINDOW: usize = 1_000;
/// The most entries in all.
pub const WINDOW: usize = 200_000;
/// After this long a worker that was not woken looks again.
pub const POLL: Duration = Duration::from_secs(1);

const TIMEOUT: Duration = Duration::from_secs(2);
const WAKE: &str = "sx:wake";
const HELD: &str = "sx:held";
/// How many entries are counted in one step, while others wait for Redis.
const COUNTED: usize = 1_000;
/// The most hosts that are looked at to tell how much may run now.
const SIZE_HOSTS: usize = 500;

/// Something that waits to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The task.
    pub id: TaskId,
    /// Whose turn it takes.
    pub owner: UserId,
    /// The host of its next page.
    pub host: String,
    /// 0 (last) to 9 (first).
    pub priority: u8,
    /// Not before this moment, in milliseconds since the epoch.
    pub due_milliseconds: i64,
}

/// Something that was taken and whose page never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unvisited<'a> {
    /// The task.
    pub id: TaskId,
    /// Whose turn it took.
    pub owner: UserId,
    /// The host that it was taken for.
    pub host: &'a str,
}

impl Entry {
    /// The same, taken by somebody whose page never begins.
    pub fn unvisited(&self) -> Unvisited<'_> {
        Unvisited {
            id: self.id,
            owner: self.owner,
            host: &self.host,
        }
    }
}

/// What was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The tasks, in the order of their turns.
    pub ids: Vec<TaskId>,
    /// When there may be more; `None` when nothing waits for a moment.
    pub next: Option<Duration>,
}

/// What the frontier holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Entries that may run now; of a host that rests between its pages at most one, of all its owners together.
    pub runnable: u64,
    /// Entries whose hosts rest, are full, or are unavailable: more workers would not help them.
    pub limited: u64,
    /// Entries that wait for their time.
    pub later: u64,
    /// How long those that may run now have waited for a worker, in the mean.
    pub waited: Duration,
    /// And the longest of them.
    pub longest: Duration,
}

/// The frontier did not answer, or not in time.
#[derive(Debug, Snafu)]
#[snafu(display("{doing} the frontier: {source}"))]
pub struct FrontierError {
    doing: &'static str,
    source: redis::RedisError,
}

/// The frontier. Cheap to clone.
#[derive(Clone)]
pub struct Frontier {
    redis: RedisStore,
    scripts: Arc<Scripts>,
}

struct Scripts {
    offer: Script,
    take: Script,
    visit: Script,
    states: Script,
    size: Script,
    release: Script,
}

/// A script behind what all of them know about hosts.
macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("frontier/hosts.lua"), include_str!($file)))
    };
}

impl Frontier {
    /// A frontier whose connection is made when it is needed. Fails only on a URL that is none.
    pub fn connect_lazy(url: &Secret) -> Result<Self, FrontierError> {
        Ok(Self {
            redis: RedisStore::connect_lazy(url, TIMEOUT).context(FrontierSnafu { doing: "opening" })?,
            scripts: Arc::new(Scripts {
                offer: script!("frontier/offer.lua"),
                take: script!("frontier/take.lua"),
                visit: script!("frontier/visit.lua"),
                states: script!("frontier/states.lua"),
                size: script!("frontier/size.lua"),
                release: script!("frontier/release.lua"),
            }),
        })
    }

    /// The same frontier, measured.
    #[must_use]
    pub fn timed(self, timings: &Timings) -> Self {
        Self {
            redis: self.redis.timed(timings.queue()),
            ..self
        }
    }

    /// Puts entries in and wakes workers that found nothing. An entry that is there already stays; returns how many were taken in, whatever made
    /// room for them.
    pub async fn offer(&self, entries: &[Entry]) -> Result<u64, FrontierError> {
        let mut taken = 0;
        for batch in entries.chunks(500) {
            let mut call = self.scripts.offer.prepare_invoke();
            call.arg(QUEUE_WINDOW).arg(WINDOW);
            for entry in batch {
                call.arg(entry.id.to_string())
                    .arg(entry.owner.to_string())
                    .arg(&entry.host)
                    .arg(entry.priority)
                    .arg(entry.due_milliseconds);
            }
            let mut connection = self.connection("offer").await?;
            let count: u64 = call
                .invoke_async(&mut connection)
                .await
                .context(FrontierSnafu { doing: "offering to" })?;
            taken += count;
        }
        Ok(taken)
    }

    /// Counts anew how many entries each owner has. What comes and goes meanwhile may be missed: it is for finding who has the most, and a
    /// version that did not count may have been at work.
    pub async fn count_owners(&self) -> Result<(), FrontierError> {
        let context = FrontierSnafu { doing: "counting in" };
        let mut connection = self.connection("count_owners").await?;
        let (mut counts, mut cursor) = (HashMap::<String, u64>::new(), 0);
        loop {
            let (next, fields): (u64, Vec<(String, String)>) = redis::cmd("HSCAN")
                .arg("sx:entries")
                .arg(cursor)
                .arg("COUNT")
                .arg(COUNTED)
                .query_async(&mut connection)
                .await
                .context(context)?;
            for (_, entry) in fields {
                let owner = entry.split('|').next().unwrap_or_default();
                *counts.entry(owner.to_owned()).or_default() += 1;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let mut write = redis::pipe();
        write.atomic().del(HELD);
        for (owner, count) in &counts {
            write.zadd(HELD, owner, *count);
        }
        write.exec_async(&mut connection).await.context(context)
    }

    /// Takes up to `count` entries that may run now. They are gone from here: what is not claimed comes back by the refill.
    pub async fn take(&self, count: usize) -> Result<Taken, FrontierError> {
        let mut connection = self.connection("take").await?;
        let answer: Vec<String> = self
            .scripts
            .take
            .arg(count)
            .invoke_async(&mut connection)
            .await
            .context(FrontierSnafu { doing: "taking from" })?;
        let mut words = answer.into_iter();
        let next = words.next().and_then(|milliseconds| milliseconds.parse().ok());
        Ok(Taken {
            ids: words.filter_map(|id| id.parse().ok()).collect(),
            next: next.map(Duration::from_millis),
        })
    }

    /// Gives the places back that entries were taken with and that no page began with. One that is not told of expires in ten seconds,
    /// and until then its host counts it as a page.
    pub async fn release(&self, unvisited: &[Unvisited<'_>]) -> Result<(), FrontierError> {
        for batch in unvisited.chunks(500) {
            let mut call = self.scripts.release.prepare_invoke();
            for entry in batch {
                call.arg(entry.host)
                    .arg(entry.id.to_string())
                    .arg(entry.owner.to_string());
            }
            let mut connection = self.connection("release").await?;
            call.invoke_async::<()>(&mut connection).await.context(FrontierSnafu {
                doing: "giving places back to",
            })?;
        }
        Ok(())
    }

    /// What it holds now.
    pub async fn size(&self) -> Result<Size, FrontierError> {
        let mut connection = self.connection("size").await?;
        let (runnable, limited, later, waited, longest) = self
            .scripts
            .size
            .arg(SIZE_HOSTS)
            .invoke_async(&mut connection)
            .await
            .context(FrontierSnafu { doing: "measuring" })?;
        Ok(Size {
            runnable,
            limited,
            later,
            waited: Duration::from_millis(waited),
            longest: Duration::from_millis(longest),
        })
    }

    /// How many workers listen to its word.
    pub async fn workers(&self) -> Result<u64, FrontierError> {
        let mut connection = self.connection("workers").await?;
        let (_, listening): (String, u64) = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(WAKE)
            .query_async(&mut connection)
            .await
            .context(FrontierSnafu { doing: "asking" })?;
        Ok(listening)
    }

    /// What Redis says about itself.
    pub async fn info(&self) -> Result<String, FrontierError> {
        let mut connection = self.connection("info").await?;
        let info = redis::cmd("INFO").query_async(&mut connection).await;
        info.context(FrontierSnafu { doing: "asking" })
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), FrontierError> {
        self.redis.ping().await.context(FrontierSnafu { doing: "reaching" })
    }

    /// Notifies `wake` when something is offered after a worker took nothing, for as long as the future is polled. It connects again by itself; a worker polls besides.
    pub async fn listen(&self, wake: &Notify) {
        loop {
            if let Err(error) = self.listen_once(wake).await {
                warn!(%error, "listening to the frontier failed; polling until it works again");
            }
            tokio::time::sleep(POLL + Duration::from_millis(rand::random_range(0..500))).await;
        }
    }

    async fn listen_once(&self, wake: &Notify) -> Result<(), redis::RedisError> {
        let mut channel = tokio::time::timeout(TIMEOUT, self.redis.client.get_async_pubsub())
            .await
            .map_err(timed_out)??;
        tokio::time::timeout(TIMEOUT, channel.subscribe(WAKE))
            .await
            .map_err(timed_out)??;
        let mut messages = channel.on_message();
        while messages.next().await.is_some() {
            wake.notify_one();
        }
        Ok(())
    }

    async fn connection(&self, operation: &'static str) -> Result<Timed, FrontierError> {
        let connection = self.redis.connection(operation).await;
        connection.context(FrontierSnafu { doing: "reaching" })
    }
}

fn timed_out(_: tokio::time::error::Elapsed) -> redis::RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
