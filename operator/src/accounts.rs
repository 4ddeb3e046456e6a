//! Keeps the accounts of every cluster: once a minute how its promises are held, once an hour what it costs.
//!
//! Long ranges are dear for a Prometheus and change slowly, so they are asked for once an hour, with patience and beside the looks at now,
//! and passed on until they are asked for anew. What was not answered is not known; that the API is ready Kubernetes tells all the same.
//! Here is no decision: `slo` and `cost` say what the figures mean and when a status is due, the reconcile writes it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use selextract_crds::{CostStatus, SloStatus};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    cost::{self, Part},
    measure::{Clients, Place},
    monitoring::{
        client::{PATIENTLY, Prometheus, PrometheusError, SOON, Value},
        live::Live,
        queries::{
            self, Query, SIGNAL, Scope, api,
            recorded::{self, Days},
            resources, slo as asked, work,
        },
    },
    slo::{self, BurnWindow, Health, MONTH, Objective},
    telemetry::Telemetry,
    validated::{Cost, PrometheusEndpoint, Slo},
};

/// How often promises are looked at.
const EVERY: Duration = Duration::from_mins(1);
/// How often long ranges and costs are.
const SLOWLY: Duration = Duration::from_hours(1);
/// A new cluster is told what it costs soon, from what it reserves.
const FIRST: Duration = Duration::from_mins(1);
/// What was not answered is asked for again after so long: at once it would be as dear as before.
const AGAIN: Duration = Duration::from_mins(10);
/// What long ranges said is not known any more after so long.
const STALE: Duration = Duration::from_hours(3);

/// What a reconcile found, as the accounts need it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Where the cluster is.
    pub place: Place,
    /// Who measures it; without anybody readiness alone tells.
    pub endpoint: Option<PrometheusEndpoint>,
    /// What is promised.
    pub slo: Slo,
    /// What is paid.
    pub cost: Cost,
    /// What it consists of, unmeasured.
    pub parts: Vec<Part>,
    /// Whether an API pod is ready.
    pub ready: bool,
}

impl Followed {
    fn server(&self) -> Option<&str> {
        self.endpoint.as_ref().map(|endpoint| endpoint.url.as_str())
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Cluster {
            namespace: &self.place.0,
            name: &self.place.1,
        }
    }
}

/// What the status should say, where that is due.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// How promises are held.
    pub slo: Option<SloStatus>,
    /// What is paid.
    pub cost: Option<CostStatus>,
}

struct Account {
    followed: Followed,
    inputs: slo::Inputs,
    slo: Option<SloStatus>,
    cost: Option<CostStatus>,
    /// What is stored.
    written: Due,
    /// When long ranges are asked for.
    slowly_at: Instant,
    /// When they were answered last.
    known_at: Option<Instant>,
}

/// Every account, by the uid of its cluster.
#[derive(Default)]
pub struct Accounts(Mutex<HashMap<String, Account>>);

impl Accounts {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a cluster of which this is stored, and says what of its status is due.
    pub fn follow(&self, uid: &str, followed: Followed, stored: Due, now: Timestamp) -> Due {
        let mut all = self.all();
        // Whoever was in its place before is gone.
        all.retain(|other, account| other == uid || account.followed.place != followed.place);
        let account = all.entry(uid.to_owned()).or_insert_with(|| Account {
            followed: followed.clone(),
            inputs: slo::Inputs::default(),
            slo: stored.slo.clone(),
            cost: stored.cost.clone(),
            written: stored,
            slowly_at: Instant::now() + FIRST,
            known_at: None,
        });
        if account.followed.server() != followed.server() {
            // What one server measured says nothing of another, nor of none.
            account.inputs = slo::Inputs::default();
            (account.cost, account.written.cost) = (None, None);
            (account.slowly_at, account.known_at) = (Instant::now(), None);
        }
        account.followed = followed;
        account.due(now)
    }

    /// This was written.
    pub fn wrote(&self, uid: &str, due: Due) {
        if let Some(account) = self.all().get_mut(uid) {
            account.written.slo = due.slo.or(account.written.slo.take());
            account.written.cost = due.cost.or(account.written.cost.take());
        }
    }

    /// The cluster is gone.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    fn list(&self) -> Vec<(String, Followed)> {
        let all = self.all();
        let one = |(uid, account): (&String, &Account)| (uid.clone(), account.followed.clone());
        all.iter().map(one).collect()
    }

    /// Those whose long ranges are due.
    fn list_slowly(&self) -> Vec<(String, Followed)> {
        let now = Instant::now();
        let all = self.all();
        let due = all.iter().filter(|(_, account)| now >= account.slowly_at);
        due.map(|(uid, account)| (uid.clone(), account.followed.clone()))
            .collect()
    }

    /// Takes what a look at now found, and says whether a status is due.
    fn take(&self, uid: &str, found: Found, now: Timestamp) -> Option<(Vec<Live>, bool)> {
        let mut all = self.all();
        let account = all.get_mut(uid)?;
        account.add(found, now);
        let status = account.slo.clone().unwrap_or_default();
        let mut live = slo::live(&account.followed.slo, &account.inputs, &status);
        live.extend(account.cost.iter().flat_map(cost::live));
        let due = account.due(now);
        Some((live, due.slo.is_some() || due.cost.is_some()))
    }

    /// Takes what a look over days found, of the server that was asked. It is told with the next look at now.
    fn take_slowly(&self, uid: &str, (asked, found): (&Followed, Slowly), now: Timestamp) {
        let mut all = self.all();
        let account = all.get_mut(uid);
        if let Some(account) = account.filter(|account| account.followed.server() == asked.server()) {
            account.add_slowly(found, now);
        }
    }
}

impl Account {
    fn add(&mut self, found: Found, now: Timestamp) {
        self.inputs.health = Health::of(Some(self.followed.ready), found.answers);
        self.inputs.objectives = found.objectives;
        self.inputs.failed.retain(|window, _| window.is_long());
        self.inputs.failed.extend(found.failed);
        self.slo = Some(slo::observe(&self.followed.slo, &self.inputs, self.slo.as_ref(), now));
    }

    fn add_slowly(&mut self, found: Slowly, now: Timestamp) {
        self.inputs.failed.extend(found.failed);
        if let Some(availability) = found.availability {
            self.inputs.availability = availability;
            self.known_at = Some(Instant::now());
        } else if self.known_at.is_some_and(|at| at.elapsed() >= STALE) {
            self.inputs.availability = slo::Availability::default();
            self.inputs.failed.retain(|window, _| !window.is_long());
        }
        // What was paid for the last hour stands until the next is known; at first it is what is reserved.
        if found.used.is_some() || self.cost.is_none() {
            self.cost = Some(self.assess(&found.used.unwrap_or_default(), now));
        }
        self.slowly_at = Instant::now() + if found.complete { SLOWLY } else { AGAIN };
    }

    fn assess(&self, used: &Use, now: Timestamp) -> CostStatus {
        let mut parts = self.followed.parts.clone();
        for part in &mut parts {
            used.measure(part);
        }
        let inputs = cost::Inputs {
            parts,
            requests_per_second: used.platform.get(api::REQUEST_RATE.name).copied(),
            tasks_per_second: used.platform.get(asked::TASKS.name).copied(),
            active_users: used.platform.get(work::ACTIVE_USERS.name).copied(),
        };
        cost::assess(&self.followed.cost, &inputs, now)
    }

    fn due(&self, now: Timestamp) -> Due {
        let slo = self
            .slo
            .as_ref()
            .filter(|new| slo::should_write(self.written.slo.as_ref(), new, now));
        let cost = self
            .cost
            .as_ref()
            .filter(|new| cost::should_write(self.written.cost.as_ref(), new, now));
        Due {
            slo: slo.filter(|new| self.written.slo.as_ref() != Some(*new)).cloned(),
            cost: cost.filter(|new| self.written.cost.as_ref() != Some(*new)).cloned(),
        }
    }
}

/// What a look at now found: as much as was answered.
#[derive(Debug, Default)]
struct Found {
    answers: Option<f64>,
    objectives: BTreeMap<Objective, f64>,
    failed: BTreeMap<BurnWindow, slo::Failed>,
}

/// What a look over days found: as much as was answered.
#[derive(Debug, Default)]
struct Slowly {
    failed: BTreeMap<BurnWindow, slo::Failed>,
    availability: Option<slo::Availability>,
    used: Option<Use>,
    /// Whether everything was answered.
    complete: bool,
}

/// What is used of what is paid for.
#[derive(Debug, Default)]
struct Use {
    /// Figures of the platform as a whole.
    platform: BTreeMap<&'static str, f64>,
    /// Figures by component: query, component.
    parts: BTreeMap<(&'static str, String), f64>,
}

impl Use {
    fn measure(&self, part: &mut Part) {
        let of = |query: &Query| self.parts.get(&(query.name, part.component.to_owned())).copied();
        part.measured.mean_pods = of(&asked::MEAN_PODS);
        part.measured.cpu_mean = of(&asked::CPU_MEAN);
        part.measured.memory_mean = of(&asked::MEMORY_MEAN);
        part.measured.cpu_p95 = of(&asked::CPU_P95);
        let (pod, data) = (of(&asked::MEMORY_P95), of(&asked::REDIS_MEMORY_P95));
        part.measured.memory_p95 = pod.into_iter().chain(data).reduce(f64::max);
        part.measured.sent = of(&asked::SENT);
        part.measured.volume_used = of(&resources::STORAGE);
    }
}

/// The component that a figure is about: a volume has its component's name, and a Redis is `queue` or `cache`.
fn component(labels: &BTreeMap<String, String>) -> Option<String> {
    let named = labels.get("component").or_else(|| labels.get("volume"));
    named
        .cloned()
        .or_else(|| Some(format!("redis-{}", labels.get("redis")?)))
}

/// Looks until the operator stops; `tell` is told whose status is due. What is dear keeps nothing of now waiting.
pub async fn run(accounts: &Accounts, telemetry: &Telemetry, stop: CancellationToken, tell: impl Fn(Place)) {
    let now = look(accounts, telemetry, &stop, tell);
    tokio::join!(now, look_slowly(accounts, &stop));
}

async fn look(accounts: &Accounts, telemetry: &Telemetry, stop: &CancellationToken, tell: impl Fn(Place)) {
    let mut ticks = ticks();
    let mut clients = Clients::within(SOON);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let all = accounts.list();
        keep(&mut clients, &all);
        // One after another: nothing here is in a hurry, and a Prometheus may be small.
        for (uid, followed) in all {
            let mut found = Found::default();
            let client = followed.endpoint.as_ref().and_then(|endpoint| clients.at(endpoint));
            if let Some(client) = client {
                match stop.run_until_cancelled(fetch(&client, &followed, &mut found)).await {
                    None => return,
                    Some(Ok(())) => {}
                    // The measuring loop warns of a silent Prometheus.
                    Some(Err(error)) => {
                        let (namespace, name) = &followed.place;
                        tracing::debug!(%error, namespace, name, "Promises could not be looked at as a whole.");
                    }
                }
            }
            let (namespace, name) = &followed.place;
            if let Some((live, due)) = accounts.take(&uid, found, Timestamp::now()) {
                telemetry.live(namespace, name, &live);
                if due {
                    tell(followed.place.clone());
                }
            }
        }
    }
}

async fn look_slowly(accounts: &Accounts, stop: &CancellationToken) {
    let mut ticks = ticks();
    let mut clients = Clients::within(PATIENTLY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        keep(&mut clients, &accounts.list());
        for (uid, followed) in accounts.list_slowly() {
            let mut found = Slowly::default();
            let client = followed.endpoint.as_ref().and_then(|endpoint| clients.at(endpoint));
            if let Some(client) = client {
                let scope = followed.scope();
                let look = fetch_slowly(&client, &scope, &mut found);
                match stop.run_until_cancelled(look).await {
                    None => return,
                    Some(Ok(())) => found.complete = true,
                    Some(Err(error)) => {
                        let (namespace, name) = &followed.place;
                        tracing::warn!(%error, namespace, name, "What was promised and used over days could not be looked at as a whole; it is tried again in ten minutes.");
                    }
                }
            } else {
                // Nothing is measured, which is known at once.
                found = Slowly::unmeasured();
            }
            accounts.take_slowly(&uid, (&followed, found), Timestamp::now());
        }
    }
}

impl Slowly {
    /// What is known where nobody measures: what is reserved.
    fn unmeasured() -> Self {
        Self {
            used: Some(Use::default()),
            complete: true,
            ..Self::default()
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn keep(clients: &mut Clients, all: &[(String, Followed)]) {
    clients.keep(|client| {
        let mut endpoints = all.iter().filter_map(|(_, followed)| followed.endpoint.as_ref());
        endpoints.any(|endpoint| client.is_at(endpoint))
    });
}

/// Asks about now. What was found before an error stays in `found`.
async fn fetch(client: &Prometheus, followed: &Followed, found: &mut Found) -> Result<(), PrometheusError> {
    let scope = followed.scope();
    let wanted: Vec<Query> = Objective::ALL
        .into_iter()
        .map(Objective::query)
        .chain([asked::API_ANSWERS])
        .collect();
    let answer = client
        .query(&queries::together(&wanted, &scope, Objective::WINDOW))
        .await?;
    let most = greatest(&answer);
    found.answers = most.get(asked::API_ANSWERS.name).copied();
    for objective in Objective::ALL {
        if let Some(value) = most.get(objective.query().name) {
            found.objectives.insert(objective, *value);
        }
    }
    for window in BurnWindow::ALL.into_iter().filter(|window| !window.is_long()) {
        let failed = fetch_failed(client, &scope, window.duration(), window.shares()).await?;
        found.failed.insert(window, failed);
    }
    Ok(())
}

/// The shares of what failed over a window, by requests and by time.
async fn fetch_failed(
    client: &Prometheus,
    scope: &Scope<'_>,
    window: Duration,
    shares: [Query; 2],
) -> Result<slo::Failed, PrometheusError> {
    let answer = client.query(&queries::together(&shares, scope, window)).await?;
    let most = greatest(&answer);
    let [bad_requests, downtime] = shares.map(|query| most.get(query.name).copied());
    Ok((bad_requests, downtime))
}

/// Asks about days, what is cheaper first. What was found before an error stays in `found`.
async fn fetch_slowly(client: &Prometheus, scope: &Scope<'_>, found: &mut Slowly) -> Result<(), PrometheusError> {
    let days = fetch_form(client, scope).await?;
    let hours = client
        .query(&queries::together(&[days.measured_hours], scope, MONTH))
        .await?;
    let measured_hours = greatest(&hours).get(days.measured_hours.name).copied();
    let shares = [days.bad_requests, days.downtime];
    for window in BurnWindow::ALL.into_iter().filter(|window| window.is_long()) {
        let failed = fetch_failed(client, scope, window.duration(), shares).await?;
        found.failed.insert(window, failed);
    }
    found.used = Some(fetch_use(client, scope, &days, cost::window(measured_hours)).await?);
    let (bad_requests, downtime) = fetch_failed(client, scope, MONTH, shares).await?;
    found.availability = Some(slo::Availability {
        bad_requests,
        downtime,
        measured_hours,
    });
    Ok(())
}

/// What is looked back at: what was recorded, or where no rules record, the scrapes.
async fn fetch_form(client: &Prometheus, scope: &Scope<'_>) -> Result<Days, PrometheusError> {
    let answer = client.query(&recorded::IS_RECORDED.render(scope, None)).await?;
    Ok(if answer.is_empty() {
        recorded::SCRAPED
    } else {
        recorded::RECORDED
    })
}

async fn fetch_use(
    client: &Prometheus,
    scope: &Scope<'_>,
    days: &Days,
    window: Duration,
) -> Result<Use, PrometheusError> {
    let platform: Vec<_> = days.platform.into_iter().chain([work::ACTIVE_USERS]).collect();
    let answer = client.query(&queries::together(&platform, scope, window)).await?;
    let most = greatest(&answer);
    let known = |query: &Query| Some((query.name, *most.get(query.name)?));
    let of_parts = [asked::REDIS_MEMORY_P95, resources::STORAGE];
    let of_parts: Vec<_> = days.by_component.into_iter().chain(of_parts).collect();
    let answer = client.query(&queries::together(&of_parts, scope, window)).await?;
    let parts = answer.iter().filter_map(|value| {
        let signal = value.labels.get(SIGNAL)?;
        let query = of_parts.iter().find(|query| query.name == signal)?;
        Some(((query.name, component(&value.labels)?), value.value))
    });
    Ok(Use {
        platform: platform.iter().filter_map(known).collect(),
        parts: parts.collect(),
    })
}

/// The greatest finite value of each query.
fn greatest(values: &[Value]) -> BTreeMap<&str, f64> {
    let mut found: BTreeMap<&str, f64> = BTreeMap::new();
    for value in values.iter().filter(|value| value.value.is_finite()) {
        if let Some(signal) = value.labels.get(SIGNAL) {
            let most = found.entry(signal).or_insert(value.value);
            *most = most.max(value.value);
        }
    }
    found
}

#[cfg(test)]
mod tests;
