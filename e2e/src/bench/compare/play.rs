//! The parts that this program plays in processes of their own, so that their CPU is counted: who makes empty tasks and who does them.
//!
//! They use the ledger and the frontier as the API and the worker do. An empty task is claimed and let go without a page.

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use futures::{
    StreamExt, TryStreamExt,
    future::{join_all, try_join_all},
    stream,
};
use selextract_platform::{
    frontier::{Entry, Frontier},
    ledger::{
        Ledger, Secret, TaskId, UserId,
        claims::{Claim, Ending},
        tasks::NewTask,
    },
};
use tokio::{sync::Notify, time::timeout};

use super::stage;

/// Requests that are under way at a time, as from so many clients.
const CLIENTS: usize = 64;
/// Hosts that the tasks are spread over.
const HOSTS: usize = 500;
/// As in the worker.
const LEASE: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(2);

/// A part.
#[derive(Subcommand)]
pub enum Part {
    /// Makes empty tasks of one owner and ends when all are committed and offered.
    Make {
        /// How many.
        #[arg(long)]
        tasks: usize,
        /// How many at a time; each is acknowledged when it is committed.
        #[arg(long)]
        batch: usize,
        /// Whose.
        #[arg(long)]
        owner: uuid::Uuid,
    },
    /// Keeps pages open in a browser of ours, each in a context of its own, until it is killed.
    Tabs {
        /// How many.
        #[arg(long)]
        tabs: usize,
        /// The page.
        #[arg(long)]
        url: url::Url,
        /// The way out.
        #[arg(long)]
        proxy: url::Url,
    },
    /// Does tasks until it is killed.
    Do {
        /// How many are taken at a time.
        #[arg(long)]
        batch: usize,
    },
}

impl Part {
    /// Plays it.
    pub async fn play(self) -> Result<()> {
        if let Self::Tabs { tabs, url, proxy } = self {
            return super::browser::keep_open(tabs, &url, proxy).await;
        }
        let read = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
        let ledger = stage::ledger(&read("SELEXTRACT_DATABASE_URL")?)?;
        let frontier = Frontier::connect_lazy(&Secret(read("SELEXTRACT_REDIS_QUEUE_URL")?))?;
        match self {
            Self::Make { tasks, batch, owner } => make(&ledger, &frontier, UserId(owner), tasks, batch).await,
            Self::Tabs { .. } => Ok(()),
            Self::Do { batch } => {
                let doer = Doer {
                    ledger,
                    frontier,
                    batch,
                };
                doer.run(|_| {}).await
            }
        }
    }
}

/// A task of about 300 bytes on this host.
pub fn empty_task(host: &str) -> Result<NewTask> {
    let spec = serde_json::json!({
        "name": "a benchmark", "url": format!("http://{host}/list?category=all&sort=price"), "items": "ul.results > li.item",
        "fields": [
            { "name": "title", "selector": "h2 a", "required": true },
            { "name": "price", "selector": ".price" },
            { "name": "link", "type": "Link", "selector": "h2 a" },
        ],
    });
    Ok(NewTask {
        spec: serde_json::from_value(spec)?,
        host: host.to_owned(),
        priority: 5,
        ttl: None,
    })
}

async fn make(ledger: &Ledger, frontier: &Frontier, owner: UserId, tasks: usize, batch: usize) -> Result<()> {
    // Of one host the frontier takes a thousand at a time, and the rest by the keeper's refill.
    let hosts: Vec<_> = (0..HOSTS)
        .map(|host| empty_task(&format!("site-{host}.test")))
        .collect::<Result<_>>()?;
    stream::iter((0..tasks).step_by(batch))
        .map(|first| accept_many(ledger, frontier, owner, &hosts[first / batch % HOSTS], batch))
        .buffer_unordered((CLIENTS / batch).max(2))
        .try_for_each(|()| async { Ok(()) })
        .await
}

async fn accept_many(ledger: &Ledger, frontier: &Frontier, owner: UserId, task: &NewTask, batch: usize) -> Result<()> {
    let accepted = try_join_all((0..batch).map(|_| ledger.accept(owner, task, None))).await?;
    let entries: Vec<_> = accepted
        .iter()
        .map(|accepted| entry(accepted.id, owner, task))
        .collect();
    frontier.offer(&entries).await?;
    Ok(())
}

/// Commits a task and offers it, as the API does; when it was committed.
pub async fn accept(ledger: &Ledger, frontier: &Frontier, owner: UserId, task: &NewTask) -> Result<(TaskId, Instant)> {
    let accepted = ledger.accept(owner, task, None).await?;
    let committed = Instant::now();
    frontier.offer(&[entry(accepted.id, owner, task)]).await?;
    Ok((accepted.id, committed))
}

fn entry(id: TaskId, owner: UserId, task: &NewTask) -> Entry {
    Entry {
        id,
        owner,
        host: task.host.clone(),
        priority: task.priority,
        due_milliseconds: id.unix_milliseconds(),
    }
}

/// Does empty tasks.
#[derive(Clone)]
pub struct Doer {
    /// Where tasks are claimed.
    pub ledger: Ledger,
    /// Where they are taken from.
    pub frontier: Frontier,
    /// How many are taken at a time.
    pub batch: usize,
}

impl Doer {
    /// Does tasks for as long as it is polled, and tells which were begun.
    pub async fn run(&self, mut begun: impl FnMut(&[Claim])) -> Result<()> {
        let wake = Arc::new(Notify::new());
        let (frontier, heard) = (self.frontier.clone(), Arc::clone(&wake));
        let listening = tokio::spawn(async move { frontier.listen(&heard).await });
        let ended = self.claim(&wake, &mut begun).await;
        listening.abort();
        ended
    }

    async fn claim(&self, wake: &Notify, begun: &mut impl FnMut(&[Claim])) -> Result<()> {
        loop {
            let taken = self.frontier.take(self.batch).await?;
            if taken.ids.is_empty() {
                // Somebody else's word, or nobody's: it looks again.
                let _ = timeout(taken.next.unwrap_or(IDLE).min(IDLE), wake.notified()).await;
                continue;
            }
            let claims = self.ledger.claim(&taken.ids, "a-worker", LEASE).await?;
            begun(&claims);
            self.let_go(&claims).await?;
        }
    }

    async fn let_go(&self, claims: &[Claim]) -> Result<()> {
        let ends = claims
            .iter()
            .map(|claim| self.ledger.finish(claim.lease(), &Ending::Succeeded, 1));
        for end in join_all(ends).await {
            if end?.is_err() {
                bail!("a lease was lost");
            }
        }
        Ok(())
    }
}
