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
    future::{join, join_all, try_join, try_join_all},
    stream,
};
use selextract_platform::{
    frontier::{Entry, Frontier, Unvisited},
    ledger::{
        Ledger, Secret, TaskId, UserId,
        claims::{Claim, Ending},
        tasks::NewTask,
    },
};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

use super::stage;

/// Requests that are under way at a time, as from so many clients.
const CLIENTS: usize = 64;
/// Hosts that the tasks are spread over.
const HOSTS: usize = 500;
/// The same where nobody tells hosts that their tasks did not visit them: enough that none is full.
const HOSTS_THAT_REST: usize = 10_000;
/// Entries of one offer, as in the API.
const OFFERS: usize = 500;
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
        /// Only offered to the frontier: what the queue costs without what makes it durable.
        #[arg(long)]
        without_ledger: bool,
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
        /// Only taken from the frontier.
        #[arg(long)]
        without_ledger: bool,
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
            Self::Make {
                tasks,
                batch,
                owner,
                without_ledger,
            } => {
                let maker = Maker {
                    ledger: (!without_ledger).then_some(ledger),
                    owner: UserId(owner),
                    tasks,
                    batch,
                };
                maker.run(&frontier).await
            }
            Self::Tabs { .. } => Ok(()),
            Self::Do { batch, without_ledger } => {
                let doer = Doer {
                    ledger: (!without_ledger).then_some(ledger),
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

/// What makes tasks.
struct Maker {
    /// `None` for entries of the frontier alone.
    ledger: Option<Ledger>,
    owner: UserId,
    tasks: usize,
    batch: usize,
}

impl Maker {
    /// Ends when all are committed and offered.
    async fn run(&self, frontier: &Frontier) -> Result<()> {
        let template = empty_task("site.test")?;
        let (offers, waiting) = mpsc::channel(OFFERS);
        let making = stream::iter((0..self.tasks).step_by(self.batch))
            .map(|first| self.accept(&template, first, offers.clone()))
            .buffer_unordered((CLIENTS / self.batch).max(2))
            .try_for_each(|()| async { Ok(()) });
        try_join(making, offer(frontier, waiting, self.tasks)).await?;
        Ok(())
    }

    async fn accept(&self, template: &NewTask, first: usize, offers: mpsc::Sender<Entry>) -> Result<()> {
        let accepted = (first..first + self.batch).map(|number| self.accept_one(template, number));
        for entry in try_join_all(accepted).await? {
            offers.send(entry).await?;
        }
        Ok(())
    }

    async fn accept_one(&self, template: &NewTask, number: usize) -> Result<Entry> {
        let mut task = template.clone();
        let hosts = if self.ledger.is_some() { HOSTS } else { HOSTS_THAT_REST };
        task.host = format!("site-{}.test", number % hosts);
        task.spec.url = format!("http://{}/list?category=all&sort=price", task.host);
        let id = match &self.ledger {
            Some(ledger) => ledger.accept(self.owner, &task, None).await?.id,
            None => TaskId::new(),
        };
        Ok(entry(id, self.owner, &task))
    }
}

/// As the API does: while one call is on its way, the entries of the next one gather.
async fn offer(frontier: &Frontier, mut waiting: mpsc::Receiver<Entry>, mut left: usize) -> Result<()> {
    let mut entries = Vec::new();
    while left > 0 && waiting.recv_many(&mut entries, OFFERS).await > 0 {
        frontier.offer(&entries).await?;
        left = left.saturating_sub(entries.len());
        entries.clear();
    }
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
    /// Where tasks are claimed; `None` for entries of the frontier alone.
    pub ledger: Option<Ledger>,
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
            let Some(ledger) = &self.ledger else { continue };
            let claims = ledger.claim(&taken.ids, "a-worker", LEASE).await?;
            begun(&claims);
            let left: Vec<TaskId> = taken
                .ids
                .iter()
                .filter(|id| claims.iter().all(|claim| claim.id != **id))
                .copied()
                .collect();
            if !left.is_empty() {
                // The refill offered what was done meanwhile.
                let left = ledger.unclaimed(&left).await?;
                let unvisited: Vec<_> = left.iter().map(|(entry, _)| entry.unvisited()).collect();
                self.frontier.release(&unvisited).await?;
            }
            self.let_go(ledger, &claims).await?;
        }
    }

    /// As the worker lets runs go that visited nobody.
    async fn let_go(&self, ledger: &Ledger, claims: &[Claim]) -> Result<()> {
        let unvisited: Vec<_> = claims
            .iter()
            .filter_map(|claim| {
                Some(Unvisited {
                    id: claim.id,
                    owner: claim.user_id,
                    host: claim.spec.url.split('/').nth(2)?,
                })
            })
            .collect();
        let ends = claims
            .iter()
            .map(|claim| ledger.finish(claim.lease(), &Ending::Succeeded, 1));
        let (released, ends) = join(self.frontier.release(&unvisited), join_all(ends)).await;
        released?;
        for end in ends {
            if end?.is_err() {
                bail!("a lease was lost");
            }
        }
        Ok(())
    }
}
