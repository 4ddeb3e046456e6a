//! Looks at every sized cluster every five seconds: asks its Prometheus, keeps what it answered, and tells who should be reconciled.
//!
//! One request to each Prometheus asks everything about all of its clusters. The reconcile decides and writes; here the same decision is
//! only looked at, to see whether there is anything to write. What is kept is bounded by the policies' windows and goes with its cluster; at
//! the first look at a cluster, which is every cluster's after a restart, it is read back from Prometheus.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use crate::monitoring::history::Place;
use crate::{
    monitoring::{
        client::{Prometheus, PrometheusError, SOON},
        history::{self, Moments, fetch_past},
        queries::{self, Scope, scaling},
    },
    scaling::{
        Decision, Policies, Sample, State, Target, Window, decide_api, decide_worker,
        readings::{Answers, Expected},
    },
    telemetry::Telemetry,
    validated::PrometheusEndpoint,
};

/// How often is looked. A backlog is seen by its keeper within 2 s, scraped within 5 s, and looked at within another 5 s.
pub const EVERY: Duration = Duration::from_secs(5);
/// A decision to hold for another reason than the stored one is written when it lasted: reasons that flicker are not news.
const LASTED: Duration = Duration::from_secs(30);

/// What the last reconcile of a cluster found, as looking at it needs it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Where it is.
    pub place: Place,
    /// When it was made. What was measured before was another one of its name.
    pub made: Option<Timestamp>,
    /// Who measures it.
    pub endpoint: PrometheusEndpoint,
    /// How it is sized.
    pub policies: Policies,
    /// The API now.
    pub api: State,
    /// The workers now.
    pub worker: State,
    /// The reasons that are stored, of API and workers.
    pub told: (Option<String>, Option<String>),
}

/// What was decided for a cluster.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    /// For the API, where the operator sizes it.
    pub api: Option<Decision>,
    /// For the workers, where it does.
    pub worker: Option<Decision>,
}

impl Decisions {
    /// Both that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Decision> {
        self.api.iter().chain(&self.worker)
    }

    /// That of one target.
    pub fn of(&self, target: Target) -> Option<&Decision> {
        match target {
            Target::Api => self.api.as_ref(),
            Target::Worker => self.worker.as_ref(),
        }
    }

    /// Those that leave their number as it is.
    pub fn held(&self) -> Self {
        let held = |decision: &Option<Decision>| decision.clone().filter(|decision| decision.to == decision.from);
        Self {
            api: held(&self.api),
            worker: held(&self.worker),
        }
    }
}

struct Entry {
    followed: Followed,
    window: Window,
    /// Since when the decision differs from what is stored, in its reason alone.
    other: Option<Timestamp>,
    /// Why its Prometheus was in vain asked about it the last time.
    silence: Option<Silence>,
    /// The connections that its database admits, as it said last.
    admitted: Option<u32>,
}

/// A Prometheus that does not answer.
struct Silence {
    since: Timestamp,
    words: String,
    /// It lasted, so that the status says so.
    lasted: bool,
}

/// Everything that is measured, by the uid of the cluster.
#[derive(Default)]
pub struct Measures(Mutex<HashMap<String, Entry>>);

impl Measures {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The states of API and workers as this process set them: newer than any cache. Of one that it does not size it knows none: its
    /// number is somebody else's, and what the last reconcile read of it is old.
    pub fn states(&self, uid: &str) -> (Option<State>, Option<State>) {
        let entries = self.entries();
        let Some(entry) = entries.get(uid) else {
            return (None, None);
        };
        let Followed {
            policies, api, worker, ..
        } = &entry.followed;
        (
            policies.api.is_some().then(|| api.clone()),
            policies.worker.is_some().then(|| worker.clone()),
        )
    }

    /// Follows a cluster, with what its reconcile found, and decides. Whoever was in its place before is gone.
    pub fn follow(&self, uid: &str, followed: Followed, now: Timestamp) -> Decisions {
        let mut entries = self.entries();
        entries.retain(|other, entry| other == uid || entry.followed.place != followed.place);
        let entry = entries.entry(uid.to_owned()).or_insert_with(|| Entry {
            followed: followed.clone(),
            window: Window::default(),
            other: None,
            silence: None,
            admitted: None,
        });
        entry.followed = followed;
        entry.decide(now)
    }

    /// The numbers that were set, and what is stored about them.
    pub fn set(&self, uid: &str, decisions: &Decisions) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(uid) else { return };
        let followed = &mut entry.followed;
        let both = [
            (&decisions.api, &mut followed.api, &mut followed.told.0),
            (&decisions.worker, &mut followed.worker, &mut followed.told.1),
        ];
        for (decision, state, told) in both {
            let Some(decision) = decision else { continue };
            if decision.to != decision.from {
                state.changed = Some(decision.at);
            }
            state.current = decision.to;
            *told = Some(decision.reason.as_str().to_owned());
        }
        entry.other = None;
    }

    /// The connections that a cluster's database admits, as it said last.
    pub fn admitted(&self, uid: &str) -> Option<u32> {
        self.entries().get(uid)?.admitted
    }

    /// Why nothing is measured of a cluster, once that lasted.
    pub fn silence(&self, uid: &str) -> Option<String> {
        let entries = self.entries();
        let silence = entries.get(uid)?.silence.as_ref()?;
        silence.lasted.then(|| silence.words.clone())
    }

    /// A cluster's Prometheus was asked in vain; what is decided without it, and whether that is to be told now.
    fn miss(&self, uid: &str, words: &str, now: Timestamp) -> Option<(Decisions, bool)> {
        let mut entries = self.entries();
        let entry = entries.get_mut(uid)?;
        let silence = entry.silence.get_or_insert_with(|| Silence {
            since: now,
            words: String::new(),
            lasted: false,
        });
        let same = silence.words == words;
        if !same {
            words.clone_into(&mut silence.words);
        }
        let lasts = crate::scaling::since(silence.since, now) >= LASTED;
        let news = lasts && !(silence.lasted && same);
        silence.lasted = lasts;
        Some((entry.decide(now), news))
    }

    /// The cluster is not measured any more.
    pub fn forget(&self, uid: &str) {
        self.entries().remove(uid);
    }

    /// Who is measured by whom.
    fn servers(&self) -> Vec<Server> {
        let mut servers: Vec<Server> = Vec::new();
        for (uid, entry) in self.entries().iter() {
            let followed = &entry.followed;
            let one = Looked {
                uid: uid.clone(),
                place: followed.place.clone(),
                missing: entry.window.last().is_none().then(|| followed.policies.memory()),
            };
            match servers.iter_mut().find(|server| server.endpoint == followed.endpoint) {
                Some(server) => server.clusters.push(one),
                None => servers.push(Server {
                    endpoint: followed.endpoint.clone(),
                    clusters: vec![one],
                }),
            }
        }
        servers
    }

    /// Keeps what was measured before and now, and says whether the cluster should be reconciled. A past is believed once, at the first look.
    fn take(&self, uid: &str, past: &Moments, answers: &Answers, now: Timestamp) -> Option<(Decisions, bool)> {
        let mut entries = self.entries();
        let entry = entries.get_mut(uid)?;
        entry.recall(past, now);
        let sample = entry.sample(answers, now);
        let keep = entry.followed.policies.memory();
        entry.window.push(sample, keep);
        entry.admitted = answers.admitted().or(entry.admitted);
        let decisions = entry.decide(now);
        let speaks_again = entry.silence.take().is_some_and(|silence| silence.lasted);
        let news = entry.news(&decisions, now) || speaks_again;
        Some((decisions, news))
    }
}

impl Entry {
    /// Fills an empty window. How many pods were ready then nobody knows; as many as now must have answered, and fewer are not known.
    fn recall(&mut self, past: &Moments, now: Timestamp) {
        if self.window.last().is_some() {
            return;
        }
        let keep = self.followed.policies.memory();
        let made = self.followed.made;
        let own = past
            .iter()
            .filter(|(at, _)| **at < now && made.is_none_or(|made| **at > made));
        for (at, answers) in own {
            let sample = self.sample(answers, *at);
            self.window.push(sample, keep);
        }
    }

    fn sample(&self, answers: &Answers, now: Timestamp) -> Sample {
        let expected = Expected {
            api: self.followed.api.ready,
            worker: self.followed.worker.ready,
        };
        answers.sample(expected, now)
    }

    fn decide(&self, now: Timestamp) -> Decisions {
        let followed = &self.followed;
        let (api, worker) = (&followed.policies.api, &followed.policies.worker);
        Decisions {
            api: api
                .as_ref()
                .map(|policy| decide_api(policy, &self.window, &followed.api, now)),
            worker: worker
                .as_ref()
                .map(|policy| decide_worker(policy, &self.window, &followed.worker, now)),
        }
    }

    /// Another number is news at once, another reason when it lasted.
    fn news(&mut self, decisions: &Decisions, now: Timestamp) -> bool {
        let told = |decision: &Option<Decision>, told: &Option<String>| {
            let reason = decision.as_ref().map(|decision| decision.reason.as_str());
            reason.is_none() || reason == told.as_deref()
        };
        let same = told(&decisions.api, &self.followed.told.0) && told(&decisions.worker, &self.followed.told.1);
        if decisions.iter().any(|decision| decision.to != decision.from) {
            return true;
        }
        if same {
            self.other = None;
            return false;
        }
        let since = *self.other.get_or_insert(now);
        crate::scaling::since(since, now) >= LASTED
    }
}

struct Server {
    endpoint: PrometheusEndpoint,
    clusters: Vec<Looked>,
}

/// A cluster that is looked at.
#[derive(Debug, PartialEq)]
struct Looked {
    uid: String,
    place: Place,
    /// How much of the past nobody has, at the first look.
    missing: Option<Duration>,
}

impl Server {
    /// What is asked about so many of its clusters.
    fn scope<'a>(clusters: &[&'a Looked]) -> Scope<'a> {
        match clusters {
            [Looked { place, .. }] => Scope::Cluster {
                namespace: &place.0,
                name: &place.1,
            },
            _ => Scope::All,
        }
    }
}

/// Looks until the operator stops; `tell` is told whom to reconcile.
pub async fn run(measures: &Measures, telemetry: &Telemetry, stop: CancellationToken, tell: impl Fn(Place)) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clients = Clients::within(SOON);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let servers = measures.servers();
        clients.keep(|client| servers.iter().any(|server| client.is_at(&server.endpoint)));
        // As many as there are servers, which are as many as clusters at the most.
        let mut looks = FuturesUnordered::new();
        for server in servers {
            if let Some(client) = clients.at(&server.endpoint) {
                looks.push(look(measures, telemetry, server, client, &tell));
            }
        }
        while stop.run_until_cancelled(looks.next()).await.flatten().is_some() {}
    }
}

/// One client for each server, kept as long as somebody asks it.
pub struct Clients {
    timeout: Duration,
    all: Vec<Arc<Prometheus>>,
}

impl Clients {
    /// None yet; an answer may take so long.
    pub fn within(timeout: Duration) -> Self {
        Self {
            timeout,
            all: Vec::new(),
        }
    }

    /// Drops those that nobody asks any more.
    pub fn keep(&mut self, asked: impl Fn(&Prometheus) -> bool) {
        self.all.retain(|client| asked(client));
    }

    /// The one at this endpoint; `None` where none can be made.
    pub fn at(&mut self, endpoint: &PrometheusEndpoint) -> Option<Arc<Prometheus>> {
        if let Some(client) = self.all.iter().find(|client| client.is_at(endpoint)) {
            return Some(client.clone());
        }
        match Prometheus::within(self.timeout, endpoint.clone()) {
            Ok(client) => {
                self.all.push(Arc::new(client));
                self.all.last().cloned()
            }
            Err(error) => {
                tracing::warn!(%error, url = %endpoint.url, "A Prometheus cannot be asked.");
                None
            }
        }
    }
}

async fn look(
    measures: &Measures,
    telemetry: &Telemetry,
    server: Server,
    client: Arc<Prometheus>,
    tell: &impl Fn(Place),
) {
    let started = Instant::now();
    let answer = fetch_answers(&server, &client).await;
    telemetry.measured(started.elapsed(), answer.is_err());
    let news = client.is_news(answer.is_ok());
    let mut answers = match answer {
        Ok(answers) => answers,
        Err(error) => {
            // Silence holds everything; the decision says so, and the log and the condition MonitoringReady say why.
            if news {
                tracing::warn!(%error, url = %server.endpoint.url, clusters = server.clusters.len(), "Nothing was measured.");
            } else {
                tracing::debug!(%error, url = %server.endpoint.url, "Still nothing is measured.");
            }
            let (words, now) = (error.to_string(), Timestamp::now());
            for Looked { uid, place, .. } in server.clusters {
                let missed = measures.miss(&uid, &words, now);
                settle(telemetry, place, missed, tell);
            }
            return;
        }
    };
    let now = Timestamp::now();
    let mut past = recall(&server, &client, now).await;
    for Looked { uid, place, .. } in &server.clusters {
        let found = answers.remove(place).unwrap_or_default();
        let before = past.remove(place).unwrap_or_default();
        let taken = measures.take(uid, &before, &found, now);
        settle(telemetry, place.clone(), taken, tell);
    }
}

/// What a decision saw is measured, also that it saw nothing; and who has news is told.
fn settle(telemetry: &Telemetry, place: Place, decided: Option<(Decisions, bool)>, tell: &impl Fn(Place)) {
    let Some((decisions, news)) = decided else { return };
    for decision in decisions.iter() {
        telemetry.signals(&place.0, &place.1, decision);
    }
    if news {
        tell(place);
    }
}

/// One request for all clusters of a server.
async fn fetch_answers(server: &Server, client: &Prometheus) -> Result<HashMap<Place, Answers>, PrometheusError> {
    let all: Vec<_> = server.clusters.iter().collect();
    let query = queries::together(&scaling::SIGNALS, &Server::scope(&all), scaling::WINDOW);
    let values = client.query(&query).await?;
    // All of it is of one moment.
    let newest = history::sort(values)
        .into_iter()
        .filter_map(|(place, moments)| Some((place, moments.into_values().next_back()?)));
    Ok(newest.collect())
}

/// What was measured before this process looked, of the clusters that it looks at for the first time; one request for all of them. It is
/// asked for once: a Prometheus that does not know leaves windows to begin now.
async fn recall(server: &Server, client: &Prometheus, now: Timestamp) -> HashMap<Place, Moments> {
    let first: Vec<_> = server
        .clusters
        .iter()
        .filter(|looked| looked.missing.is_some())
        .collect();
    let Some(memory) = first.iter().filter_map(|looked| looked.missing).max() else {
        return HashMap::new();
    };
    match fetch_past(client, (&Server::scope(&first), first.len()), memory, now).await {
        Ok(past) => past,
        Err(error) => {
            tracing::warn!(%error, url = %server.endpoint.url, clusters = first.len(), "What was measured before is not known: it is measured from now on.");
            HashMap::new()
        }
    }
}

#[cfg(test)]
mod tests;
