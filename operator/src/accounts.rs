//! Keeps the accounts of every measured cluster: once a minute how its promises are held, once an hour what it costs.
//!
//! Long ranges are dear for a Prometheus and change slowly, so they are asked for once an hour and passed on until they are asked for
//! anew. Here is no decision: `slo` and `cost` say what the figures mean and when a status is due, the reconcile writes it.

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
        client::{Prometheus, PrometheusError, Value},
        queries::{self, Query, SIGNAL, Scope, api, slo as asked, work},
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
const SOON: Duration = Duration::from_mins(1);

/// What a reconcile found, as the accounts need it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Where the cluster is.
    pub place: Place,
    /// Who measures it.
    pub endpoint: PrometheusEndpoint,
    /// What is promised.
    pub slo: Slo,
    /// What is paid.
    pub cost: Cost,
    /// What it consists of, unmeasured.
    pub parts: Vec<Part>,
    /// Whether an API pod is ready.
    pub ready: bool,
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
    slowly_at: Instant,
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
            slowly_at: Instant::now() + SOON,
        });
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

    /// The cluster is not measured any more.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    fn list(&self) -> Vec<(String, Followed, bool)> {
        let now = Instant::now();
        let all = self.all();
        let one =
            |(uid, account): (&String, &Account)| (uid.clone(), account.followed.clone(), now >= account.slowly_at);
        all.iter().map(one).collect()
    }

    /// Takes what was measured, and says whether a status is due.
    fn take(&self, uid: &str, found: Found, now: Timestamp) -> Option<(Vec<crate::monitoring::live::Live>, bool)> {
        let mut all = self.all();
        let account = all.get_mut(uid)?;
        account.add(found, now);
        let status = account.slo.clone().unwrap_or_default();
        let mut live = slo::live(&account.followed.slo, &account.inputs, &status);
        live.extend(account.cost.iter().flat_map(cost::live));
        let due = account.due(now);
        Some((live, due.slo.is_some() || due.cost.is_some()))
    }
}

impl Account {
    fn add(&mut self, found: Found, now: Timestamp) {
        self.inputs.health = Health::of(Some(self.followed.ready), found.answers);
        self.inputs.objectives = found.objectives;
        self.inputs.failed.extend(found.failed);
        if let Some(slowly) = found.slowly {
            self.inputs.availability = slowly.availability;
            let mut parts = self.followed.parts.clone();
            for part in &mut parts {
                slowly.measure(part);
            }
            let inputs = cost::Inputs {
                parts,
                requests_per_second: slowly.whole.get(api::REQUEST_RATE.name).copied(),
                tasks_per_second: slowly.whole.get(asked::TASKS.name).copied(),
                active_users: slowly.whole.get(work::ACTIVE_USERS.name).copied(),
            };
            self.cost = Some(cost::assess(&self.followed.cost, &inputs, now));
            self.slowly_at = Instant::now() + SLOWLY;
        }
        self.slo = Some(slo::observe(&self.followed.slo, &self.inputs, self.slo.as_ref(), now));
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

/// What one look found.
#[derive(Debug, Default)]
struct Found {
    answers: Option<f64>,
    objectives: BTreeMap<Objective, f64>,
    failed: BTreeMap<BurnWindow, slo::Failed>,
    slowly: Option<Slowly>,
}

/// What is asked for once an hour.
#[derive(Debug, Default)]
struct Slowly {
    availability: slo::Availability,
    /// Figures of the platform as a whole.
    whole: BTreeMap<&'static str, f64>,
    /// Figures by component: query, component.
    parts: BTreeMap<(&'static str, String), f64>,
}

impl Slowly {
    fn measure(&self, part: &mut Part) {
        let of = |query: &Query| self.parts.get(&(query.name, part.component.to_owned())).copied();
        part.measured.mean_pods = of(&asked::MEAN_PODS);
        part.measured.cpu_mean = of(&asked::CPU_MEAN);
        part.measured.memory_mean = of(&asked::MEMORY_MEAN);
        part.measured.cpu_p95 = of(&asked::CPU_P95);
        part.measured.memory_p95 = of(&asked::MEMORY_P95);
        part.measured.sent = of(&asked::SENT);
    }
}

/// Looks until the operator stops; `tell` is told whose status is due.
pub async fn run(accounts: &Accounts, telemetry: &Telemetry, stop: CancellationToken, tell: impl Fn(Place)) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clients = Clients::default();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let all = accounts.list();
        clients.keep(|client| all.iter().any(|(_, followed, _)| client.is_at(&followed.endpoint)));
        // One after another: nothing here is in a hurry, and a Prometheus may be small.
        for (uid, followed, slowly) in all {
            let Some(client) = clients.at(&followed.endpoint) else {
                continue;
            };
            let look = fetch(&client, &followed, slowly);
            let found = match stop.run_until_cancelled(look).await {
                None => return,
                Some(Ok(found)) => found,
                Some(Err(error)) => {
                    // The measuring loop warns of a silent Prometheus.
                    tracing::debug!(%error, url = %followed.endpoint.url, "Promises could not be looked at.");
                    continue;
                }
            };
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

async fn fetch(client: &Prometheus, followed: &Followed, slowly: bool) -> Result<Found, PrometheusError> {
    let scope = Scope::Cluster {
        namespace: &followed.place.0,
        name: &followed.place.1,
    };
    let mut found = Found::default();
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
    for window in BurnWindow::ALL {
        if slowly || window <= BurnWindow::Hour {
            let failed = fetch_failed(client, &scope, (window.duration(), window.downtime())).await?;
            found.failed.insert(window, failed);
        }
    }
    if slowly {
        found.slowly = Some(fetch_slowly(client, &scope).await?);
    }
    Ok(found)
}

/// The shares of what failed over a window, by requests and by time.
async fn fetch_failed(
    client: &Prometheus,
    scope: &Scope<'_>,
    (window, downtime): (Duration, Query),
) -> Result<slo::Failed, PrometheusError> {
    let answer = client
        .query(&queries::together(&[asked::BAD_REQUEST_RATIO, downtime], scope, window))
        .await?;
    let most = greatest(&answer);
    let of = |query: &Query| most.get(query.name).copied();
    Ok((of(&asked::BAD_REQUEST_RATIO), of(&downtime)))
}

async fn fetch_slowly(client: &Prometheus, scope: &Scope<'_>) -> Result<Slowly, PrometheusError> {
    let (bad_requests, downtime) = fetch_failed(client, scope, (MONTH, asked::DOWNTIME_RATIO_OF_DAYS)).await?;
    let hours = client
        .query(&queries::together(&[asked::MEASURED_HOURS], scope, MONTH))
        .await?;
    let measured_hours = greatest(&hours).get(asked::MEASURED_HOURS.name).copied();
    let window = cost::window(measured_hours);
    let whole = [api::REQUEST_RATE, asked::TASKS, work::ACTIVE_USERS];
    let answer = client.query(&queries::together(&whole, scope, window)).await?;
    let most = greatest(&answer);
    let known = |query: &Query| Some((query.name, *most.get(query.name)?));
    let by_component = [
        asked::MEAN_PODS,
        asked::CPU_MEAN,
        asked::MEMORY_MEAN,
        asked::CPU_P95,
        asked::MEMORY_P95,
        asked::SENT,
    ];
    let answer = client.query(&queries::together(&by_component, scope, window)).await?;
    let parts = answer.iter().filter_map(|value| {
        let signal = value.labels.get(SIGNAL)?;
        let query = by_component.iter().find(|query| query.name == signal)?;
        Some(((query.name, value.labels.get("component")?.clone()), value.value))
    });
    Ok(Slowly {
        availability: slo::Availability {
            bad_requests,
            downtime,
            measured_hours,
        },
        whole: whole.iter().filter_map(known).collect(),
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
mod tests {
    use super::*;
    use crate::{build::fixture, validated::Credentials};

    fn followed(ready: bool) -> Followed {
        let cluster = fixture::minimal();
        Followed {
            place: ("web".into(), "shop".into()),
            endpoint: PrometheusEndpoint {
                url: "http://prometheus.example.org".parse().unwrap(),
                credentials: Credentials::None,
                authority: None,
            },
            parts: cost::parts(&cluster, |_| 2, |_| None),
            slo: cluster.slo,
            cost: cluster.cost,
            ready,
        }
    }

    fn found(answers: f64) -> Found {
        Found {
            answers: Some(answers),
            ..Found::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_status_is_due_once_and_then_when_something_happens() {
        let accounts = Accounts::default();
        assert_eq!(
            accounts.follow("u", followed(true), Due::default(), at(0)),
            Due::default()
        );
        let (_, due) = accounts.take("u", found(1.0), at(0)).unwrap();
        assert!(due, "the first look");
        let first = accounts.follow("u", followed(true), Due::default(), at(1));
        assert!(first.slo.is_some() && first.cost.is_none());
        accounts.wrote("u", first);
        assert!(!accounts.take("u", found(1.0), at(60)).unwrap().1, "nothing happened");
        accounts.follow("u", followed(false), Due::default(), at(70));
        let (_, due) = accounts.take("u", found(0.0), at(120)).unwrap();
        assert!(due, "an outage begins");
    }

    #[test]
    fn costs_are_told_from_what_was_found_once_an_hour() {
        let accounts = Accounts::default();
        accounts.follow("u", followed(true), Due::default(), at(0));
        let slowly = Found {
            slowly: Some(Slowly::default()),
            ..found(1.0)
        };
        let (live, _) = accounts.take("u", slowly, at(0)).unwrap();
        assert!(
            live.iter().any(|live| live.name.starts_with("selextract_cost_")),
            "{live:?}"
        );
        let due = accounts.follow("u", followed(true), Due::default(), at(1));
        assert_ne!(due.cost.unwrap().monthly, "0");
    }
}
