//! The keeper: what has to be done once for the whole platform, by whoever holds the ledger's keeper lease.
//!
//! Refill of the frontier, taking back expired leases, schedules, partitions and retention, counters, webhooks, and the platform-wide gauges. Two
//! keepers are correct: one is active, the other waits for the lease, and every step is safe to be done twice.

mod deliveries;
mod gauges;
mod health;
mod migrate;
mod poolers;
mod queue;
mod settings;
mod stores;
mod waits;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use deliveries::Deliveries;
use gauges::Gauges;
use health::Health;
use jiff::Timestamp;
pub use migrate::run as migrate;
use poolers::Poolers;
use prometheus::Registry;
use queue::{Dependencies, Queue};
use selextract_platform::{
    cache::Cache,
    frontier::Frontier,
    ledger::{
        Ledger, PoolSettings, Secret, TaskId,
        crawl::CrawlCursor,
        maintenance::{Epoch, FOLDED},
        refill::RefillCursor,
    },
    timings::Timings,
};
use selextract_telemetry::Container;
pub use settings::{KeeperSettings, MigrateSettings, PoolerPods};
use stores::{Sources, Stores};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::sealed::Seal;

/// How long the lease lives without being renewed; it is renewed with each turn.
const LEASE: Duration = Duration::from_secs(15);
/// How often the queue is measured: sizes of workers follow it.
const MEASURE: Duration = Duration::from_secs(2);
/// How often the keeper looks what is due.
const TURN: Duration = Duration::from_secs(1);
/// How long one refill goes on.
const REFILL: Duration = Duration::from_secs(1);
/// How long one folding of counters goes on.
const FOLD: Duration = Duration::from_secs(1);
/// Removing runs whose time is over.
const EXPIRY: Duration = Duration::from_mins(1);
/// Removing what artifacts left behind.
const REMOVALS: Duration = Duration::from_secs(10);
/// Partitions, retention and purging.
const HOUSEKEEPING: Duration = Duration::from_mins(10);

/// The keeper with what it works on.
struct Keeper {
    settings: KeeperSettings,
    ledger: Ledger,
    frontier: Frontier,
    gauges: Gauges,
    health: Arc<Health>,
    queue: Queue,
    stores: Stores,
    due: Due,
    refill_from: Option<RefillCursor>,
    waits_from: Option<TaskId>,
    purged_to: Option<TaskId>,
    refill_crawls_from: CrawlCursor,
    deliveries: Option<Arc<Deliveries>>,
    /// Go on beside the turns: a receiver may be slow.
    sending: JoinSet<()>,
    /// And so may the artifact store.
    removing: Option<JoinHandle<()>>,
}

/// When each loop is due next.
struct Due {
    refill: Instant,
    sweep: Instant,
    expiry: Instant,
    removals: Instant,
    housekeeping: Instant,
    waits: Instant,
    measure: Instant,
}

/// Runs until `end` is canceled; `timings` are those that the logs were started with.
pub async fn run(settings: KeeperSettings, timings: Timings, end: CancellationToken) -> Result<()> {
    let registry = Registry::new();
    let health = Arc::new(Health::new(registry.clone()));
    let listener = tokio::net::TcpListener::bind(settings.telemetry_addr)
        .await
        .with_context(|| format!("listening on {}", settings.telemetry_addr))?;
    let server =
        axum::serve(listener, health::routes(health.clone())).with_graceful_shutdown(end.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    let ledger = Ledger::connect_lazy(&PoolSettings {
        url: Secret(settings.database_direct_url.clone()),
        max_connections: 4,
        min_connections: 0,
        acquire_timeout: Duration::from_secs(5),
        max_lifetime: Duration::from_hours(1),
        application_name: "selextract-keeper",
    })?
    .with_artifacts(settings.artifacts.home()?)
    .timed(&timings, "direct");
    timings.register(&registry).context("registering the stores' timings")?;
    Container::register(&registry).context("registering the container's metrics")?;
    let frontier = Frontier::connect_lazy(&Secret(settings.redis_queue_url.clone()))?.timed(&timings);
    let url = settings.redis_cache_url.as_ref();
    let cache = url.map(|url| Cache::connect_lazy(&Secret(url.clone()))).transpose()?;
    let cache = cache.map(|cache| cache.timed(&timings));
    let dependencies = Dependencies::register(
        &registry,
        (pooled(&settings, &timings)?, ledger.clone()),
        (frontier.clone(), cache.clone()),
    )
    .context("registering the dependencies' metrics")?;
    tokio::spawn(dependencies.follow(end.clone()));
    let stores = Stores::register(&registry).context("registering the stores' metrics")?;
    let sources = Sources {
        ledger: ledger.clone(),
        queue: frontier.clone(),
        cache,
        poolers: settings
            .database_url
            .as_ref()
            .map(|url| Poolers::new(url, &settings.poolers)),
        postgres_storage: settings.postgres_storage,
        redis_queue_storage: settings.redis_queue_storage,
    };
    tokio::spawn(stores.clone().follow(sources, end.clone()));
    let now = Instant::now();
    let keeper = Keeper {
        stores,
        queue: Queue::register(&registry).context("registering the queue's metrics")?,
        frontier,
        gauges: Gauges::register(&registry)?,
        due: Due {
            refill: now,
            sweep: now,
            expiry: now,
            removals: now,
            housekeeping: now,
            waits: now,
            measure: now,
        },
        refill_from: None,
        waits_from: None,
        purged_to: None,
        refill_crawls_from: CrawlCursor::default(),
        deliveries: deliveries(&settings)?,
        sending: JoinSet::new(),
        removing: None,
        settings,
        ledger,
        health,
    };
    keeper.follow(&end).await;
    server.await.context("the telemetry listener")??;
    Ok(())
}

impl Keeper {
    async fn follow(mut self, end: &CancellationToken) {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut epoch = None;
        loop {
            tokio::select! {
                () = end.cancelled() => break,
                _ = turns.tick() => epoch = self.turn(epoch).await,
            }
        }
        // What was done beside the turns is taken up again: when a delivery's lease is over, or when the removal is due next.
        self.sending.abort_all();
        if let Some(removing) = self.removing.take() {
            removing.abort();
        }
        if let Some(epoch) = epoch
            && let Err(error) = self.ledger.drop_keeper_lease(epoch).await
        {
            warn!(%error, "The lease could not be given up; another keeper waits until it expires.");
        }
        self.ledger.close().await;
    }

    /// One look at what is due. Returns the epoch while this keeper is the active one.
    async fn turn(&mut self, held: Option<Epoch>) -> Option<Epoch> {
        let lease = self.ledger.hold_keeper_lease(&self.settings.name, LEASE).await;
        self.health.turned(lease.is_ok());
        let epoch = lease.unwrap_or_else(|error| {
            warn!(%error, "The keeper's lease could not be taken; trying again.");
            None
        });
        self.gauges.active(epoch.is_some());
        self.stores.active(epoch.is_some());
        if epoch.is_none() {
            self.queue.set(None);
        }
        if epoch.is_some() != held.is_some() {
            info!(active = epoch.is_some(), "The keeper's lease changed hands.");
        }
        if epoch.is_some() && tokio::time::timeout(LEASE, self.work()).await.is_err() {
            error!("A turn of the keeper took longer than its lease and was ended.");
        }
        epoch
    }

    /// Every step is tried whatever became of those before it: without Redis there are partitions still. What failed is told and tried
    /// again when it is due next, as every step can be repeated.
    async fn work(&mut self) {
        let now = Instant::now();
        if now >= self.due.housekeeping {
            self.due.housekeeping = now + HOUSEKEEPING;
            tell("Partitions and retention", self.housekeeping().await);
            tell(
                "Counting what each owner has in the frontier",
                self.frontier.count_owners().await.map_err(Into::into),
            );
        }
        if now >= self.due.expiry {
            let more = self.expire().await;
            // A backlog of removals is worked off in steps that leave time for the rest.
            self.due.expiry = if matches!(more, Ok(true)) { now } else { now + EXPIRY };
            tell("Removing runs whose time is over", more.map(drop));
        }
        self.send_deliveries();
        self.remove_artifacts(now);
        let ticked = self.ledger.tick_schedules(Timestamp::now()).await;
        let mut some_due = ticked.as_ref().is_ok_and(|ticked| ticked.started > 0);
        tell(
            "Starting scheduled runs",
            ticked.map(|ticked| self.gauges.ticked(ticked)).map_err(Into::into),
        );
        if now >= self.due.sweep {
            self.due.sweep = now + self.settings.sweep_interval.get();
            match self.sweep().await {
                Ok(some) => some_due |= some,
                Err(error) => tell("Taking expired leases back", Err(error)),
            }
        }
        if now >= self.due.measure {
            self.due.measure = now + MEASURE;
            tell("Measuring the queue", self.measure().await);
        }
        if now >= self.due.waits {
            self.due.waits = now + waits::ROUND;
            let round = waits::round(&self.ledger, &self.frontier, self.waits_from).await;
            self.waits_from = round.as_ref().ok().copied().flatten();
            tell("Looking why runs wait", round.map(drop));
        }
        if now >= self.due.refill || some_due {
            self.due.refill = now + self.settings.refill_interval.get();
            tell("Refilling the frontier", self.refill().await);
            tell(
                "Refilling the frontier with pages of crawls",
                self.refill_crawls().await,
            );
        }
    }

    /// Sends what webhooks are to be told, while receivers of earlier rounds may still be slow to answer.
    fn send_deliveries(&mut self) {
        let Some(deliveries) = &self.deliveries else { return };
        while self.sending.try_join_next().is_some() {}
        let (deliveries, ledger) = (Arc::clone(deliveries), self.ledger.clone());
        self.sending.spawn(async move {
            tell(
                "Telling webhooks",
                deliveries.send_due(&ledger).await.map(drop).map_err(Into::into),
            );
        });
    }

    /// Removes contents that nothing refers to, unless the round before still does.
    fn remove_artifacts(&mut self, now: Instant) {
        let busy = self.removing.as_ref().is_some_and(|removing| !removing.is_finished());
        if busy || now < self.due.removals {
            return;
        }
        self.due.removals = now + REMOVALS;
        let ledger = self.ledger.clone();
        self.removing = Some(tokio::spawn(async move {
            tell("Removing artifacts", remove_artifacts(&ledger).await);
        }));
    }

    /// Returns whether something waits again.
    async fn sweep(&self) -> Result<bool> {
        let swept = self.ledger.sweep().await? + self.ledger.sweep_crawls().await?;
        self.gauges.swept(swept);
        self.ledger.end_late_runs().await?;
        let end = Instant::now() + FOLD;
        while self.ledger.fold_counters().await? == FOLDED && Instant::now() < end {}
        self.ledger.hold_owners().await?;
        self.gauges.backlog(self.ledger.backlog().await?);
        Ok(swept.returned > 0)
    }

    /// What could not be measured is not known any more.
    async fn measure(&self) -> Result<()> {
        let size = self.frontier.size().await;
        self.queue.set(size.as_ref().ok().copied());
        self.gauges.frontier(size.context("measuring the frontier")?);
        Ok(())
    }

    /// Offers what waits: first what of every owner's comes first, then from where the last refill ended; a circle through a long backlog is
    /// made in some turns.
    async fn refill(&mut self) -> Result<()> {
        let end = Instant::now() + REFILL;
        let mut from = self.refill_from.take().map(RefillCursor::heads_first);
        loop {
            let (entries, next) = self.ledger.refill(from).await?;
            self.gauges.refilled(self.frontier.offer(&entries).await?);
            from = next;
            if from.is_none() || Instant::now() >= end {
                self.refill_from = from;
                return Ok(());
            }
        }
    }

    /// The same for the pages of crawls.
    async fn refill_crawls(&mut self) -> Result<()> {
        let end = Instant::now() + REFILL;
        let mut from = std::mem::take(&mut self.refill_crawls_from).heads_first();
        loop {
            let (entries, next) = self.ledger.refill_crawls(from).await?;
            self.gauges.refilled(self.frontier.offer(&entries).await?);
            let is_over = next.is_none();
            from = next.unwrap_or_default();
            if is_over || Instant::now() >= end {
                self.refill_crawls_from = from;
                return Ok(());
            }
        }
    }

    /// Returns whether there is more to remove.
    async fn expire(&self) -> Result<bool> {
        let removed = self.ledger.expire_runs().await? + self.ledger.trim_histories().await?;
        Ok(removed > 0)
    }

    async fn housekeeping(&mut self) -> Result<()> {
        let now = Timestamp::now();
        for name in self.ledger.make_partitions(now, self.settings.partitions_ahead).await? {
            info!(name, "A partition was made.");
        }
        for name in self.ledger.drop_partitions(now, self.settings.retention.get()).await? {
            info!(name, "A partition was beyond the retention and was dropped.");
        }
        self.ledger.purge().await?;
        self.purged_to = self.ledger.purge_reports(self.purged_to).await?;
        Ok(())
    }
}

/// Until nothing is due: a month's objects are many rounds.
async fn remove_artifacts(ledger: &Ledger) -> Result<()> {
    while ledger.remove_abandoned_uploads().await? > 0 {}
    loop {
        let removed = ledger.remove_objects().await?;
        if removed.left > 0 {
            warn!(
                left = removed.left,
                "Objects of artifacts that are gone could not be removed; it is tried again."
            );
        }
        if removed.gone == 0 {
            return Ok(());
        }
    }
}

/// The way to the ledger that API and workers take.
fn pooled(settings: &KeeperSettings, timings: &Timings) -> Result<Option<Ledger>> {
    let ledger = settings.database_url.as_ref().map(|url| {
        Ledger::connect_lazy(&PoolSettings {
            url: Secret(url.clone()),
            max_connections: 1,
            min_connections: 0,
            acquire_timeout: Duration::from_secs(2),
            max_lifetime: Duration::from_hours(1),
            application_name: "selextract-keeper-probe",
        })
    });
    Ok(ledger.transpose()?.map(|ledger| ledger.timed(timings, "pooler")))
}

fn deliveries(settings: &KeeperSettings) -> Result<Option<Arc<Deliveries>>> {
    let (Some(keys), Some(proxy)) = (&settings.data_key, &settings.egress_proxy) else {
        warn!("Webhooks are not told: SELEXTRACT_DATA_KEY or SELEXTRACT_EGRESS_PROXY is missing.");
        return Ok(None);
    };
    let deliveries = Deliveries::new(proxy, Seal::parse(keys)?).context("making the webhooks' client")?;
    Ok(Some(Arc::new(deliveries)))
}

fn tell(what: &str, result: Result<()>) {
    if let Err(error) = result {
        error!(error = format!("{error:#}"), "{what} failed; trying again.");
    }
}
