//! Looks at every sized cluster every five seconds: asks its Prometheus, keeps what it answered, and tells who should be reconciled.
//!
//! One request to each Prometheus asks everything about all of its clusters. The reconcile decides and writes; here the same decision is
//! only looked at, to see whether there is anything to write. What is kept is bounded by the policies' windows and goes with its cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    monitoring::{
        client::{Prometheus, PrometheusError, Value},
        queries::{self, SIGNAL, Scope, scaling},
    },
    scaling::{
        Decision, Policies, Sample, State, Window, decide_api, decide_worker,
        readings::{Answers, Expected},
    },
    telemetry::Telemetry,
    validated::PrometheusEndpoint,
};

/// How often is looked. A backlog is seen by its keeper within 2 s, scraped within 5 s, and looked at within another 5 s.
pub const EVERY: Duration = Duration::from_secs(5);
/// A decision to hold for another reason than the stored one is written when it lasted: reasons that flicker are not news.
const LASTED: Duration = Duration::from_secs(30);

/// Namespace and name of a cluster.
pub type Place = (String, String);

/// What the last reconcile of a cluster found, as looking at it needs it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Where it is.
    pub place: Place,
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
}

/// Everything that is measured, by the uid of the cluster.
#[derive(Default)]
pub struct Measures(Mutex<HashMap<String, Entry>>);

impl Measures {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The states of API and workers as this process knows them: newer than any cache.
    pub fn states(&self, uid: &str) -> Option<(State, State)> {
        let entries = self.entries();
        let followed = &entries.get(uid)?.followed;
        Some((followed.api.clone(), followed.worker.clone()))
    }

    /// Follows a cluster, with what its reconcile found, and decides. Whoever was in its place before is gone.
    pub fn follow(&self, uid: &str, followed: Followed, now: Timestamp) -> Decisions {
        let mut entries = self.entries();
        entries.retain(|other, entry| other == uid || entry.followed.place != followed.place);
        let entry = entries.entry(uid.to_owned()).or_insert_with(|| Entry {
            followed: followed.clone(),
            window: Window::default(),
            other: None,
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

    /// The cluster is not measured any more.
    pub fn forget(&self, uid: &str) {
        self.entries().remove(uid);
    }

    /// Who is measured by whom.
    fn servers(&self) -> Vec<Server> {
        let mut servers: Vec<Server> = Vec::new();
        for (uid, entry) in self.entries().iter() {
            let followed = &entry.followed;
            let one = (uid.clone(), followed.place.clone());
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

    /// Keeps what was measured, and says whether the cluster should be reconciled.
    fn take(&self, uid: &str, answers: &Answers, now: Timestamp) -> Option<(Decisions, bool)> {
        let mut entries = self.entries();
        let entry = entries.get_mut(uid)?;
        let sample = entry.sample(answers, now);
        let keep = entry.followed.policies.memory();
        entry.window.push(sample, keep);
        let decisions = entry.decide(now);
        let news = entry.news(&decisions, now);
        Some((decisions, news))
    }
}

impl Entry {
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
    clusters: Vec<(String, Place)>,
}

/// Looks until the operator stops; `tell` is told whom to reconcile.
pub async fn run(measures: &Measures, telemetry: &Telemetry, stop: CancellationToken, tell: impl Fn(Place)) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clients = Clients::default();
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
#[derive(Default)]
pub struct Clients(Vec<Arc<Prometheus>>);

impl Clients {
    /// Drops those that nobody asks any more.
    pub fn keep(&mut self, asked: impl Fn(&Prometheus) -> bool) {
        self.0.retain(|client| asked(client));
    }

    /// The one at this endpoint; `None` where none can be made.
    pub fn at(&mut self, endpoint: &PrometheusEndpoint) -> Option<Arc<Prometheus>> {
        if let Some(client) = self.0.iter().find(|client| client.is_at(endpoint)) {
            return Some(client.clone());
        }
        match Prometheus::new(endpoint.clone()) {
            Ok(client) => {
                self.0.push(Arc::new(client));
                self.0.last().cloned()
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
        Err(error) if !news => {
            tracing::debug!(%error, url = %server.endpoint.url, "Still nothing is measured.");
            return;
        }
        Err(error) => {
            // Silence holds everything; the decision says so, and the log says why.
            tracing::warn!(%error, url = %server.endpoint.url, clusters = server.clusters.len(), "Nothing was measured.");
            return;
        }
    };
    let now = Timestamp::now();
    for (uid, place) in &server.clusters {
        let found = answers.remove(place).unwrap_or_default();
        let Some((decisions, news)) = measures.take(uid, &found, now) else {
            continue;
        };
        for decision in decisions.iter() {
            telemetry.signals(&place.0, &place.1, decision);
        }
        if news {
            tell(place.clone());
        }
    }
}

/// One request for all clusters of a server.
async fn fetch_answers(server: &Server, client: &Prometheus) -> Result<HashMap<Place, Answers>, PrometheusError> {
    let scope = match server.clusters.as_slice() {
        [(_, (namespace, name))] => Scope::Cluster { namespace, name },
        _ => Scope::All,
    };
    let values = client
        .query(&queries::together(&scaling::SIGNALS, &scope, scaling::WINDOW))
        .await?;
    Ok(sort(values))
}

fn sort(values: Vec<Value>) -> HashMap<Place, Answers> {
    let mut found: HashMap<Place, Answers> = HashMap::new();
    for Value { mut labels, value, .. } in values {
        let (Some(namespace), Some(cluster), Some(signal)) =
            (labels.remove("namespace"), labels.remove("cluster"), labels.get(SIGNAL))
        else {
            continue;
        };
        let dependency = labels.get("dependency").map(String::as_str);
        found
            .entry((namespace, cluster))
            .or_default()
            .add(signal, dependency, value);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        scaling::{
            Reason,
            properties::{at, guide},
        },
        validated::Credentials,
    };

    fn followed(name: &str) -> Followed {
        let (_, worker) = guide();
        let state = State {
            current: 2,
            ready: 2,
            ..State::default()
        };
        Followed {
            place: ("web".into(), name.into()),
            endpoint: PrometheusEndpoint {
                url: "http://prometheus.example.org".parse().unwrap(),
                credentials: Credentials::None,
                authority: None,
            },
            policies: Policies {
                api: None,
                worker: Some(worker),
            },
            api: state.clone(),
            worker: state,
            told: (None, Some("Steady".into())),
        }
    }

    fn answers(backlog: f64) -> Answers {
        let labels = |signal: &str| {
            [("namespace", "web"), ("cluster", "shop"), (SIGNAL, signal)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        let values = [
            ("worker_pods", 2.0),
            ("keeper_pods", 1.0),
            ("worker_cpu_ratio", 0.5),
            ("worker_busy", 7.0),
            ("task_processing_mean", 2.0),
            ("backlog", backlog),
            ("backlog_wait", 1.0),
            ("backlog_limited", 0.0),
        ];
        let values = values.map(|(signal, value)| Value {
            labels: labels(signal),
            at: 0.0,
            value,
        });
        sort(values.into())
            .remove(&("web".to_owned(), "shop".to_owned()))
            .unwrap()
    }

    #[test]
    fn another_number_is_news_at_once_and_another_reason_when_it_lasted() {
        let measures = Measures::default();
        measures.follow("u", followed("shop"), at(0));
        let (_, news) = measures.take("u", &answers(0.0), at(0)).unwrap();
        assert!(!news, "as stored");
        let (decisions, news) = measures.take("u", &answers(2000.0), at(5)).unwrap();
        assert!(news);
        let decision = decisions.worker.clone().unwrap();
        assert_eq!((decision.to, decision.reason), (3, Reason::QueueLong));
        assert!(decisions.held().worker.is_none());
        measures.set("u", &decisions);
        let states = measures.states("u").unwrap();
        assert_eq!((states.1.current, states.1.changed), (3, Some(at(5))));
        let news: Vec<_> = (2..=8)
            .map(|look| measures.take("u", &answers(0.0), at(5 * look)).unwrap().1)
            .collect();
        assert_eq!(
            news,
            [false, false, false, false, false, false, true],
            "30 s of another reason"
        );
        let (decisions, _) = measures.take("u", &answers(0.0), at(45)).unwrap();
        measures.set("u", &decisions.held());
        assert!(!measures.take("u", &answers(0.0), at(50)).unwrap().1, "told");
    }

    #[test]
    fn a_cluster_that_is_made_again_takes_the_place_of_the_one_before() {
        let measures = Measures::default();
        for uid in ["before", "now"] {
            measures.follow(uid, followed("shop"), at(0));
        }
        let servers = measures.servers();
        assert_eq!(
            servers[0].clusters,
            [("now".to_owned(), ("web".to_owned(), "shop".to_owned()))]
        );
    }

    #[test]
    fn clusters_of_one_server_are_asked_together() {
        let measures = Measures::default();
        for number in 0..50 {
            measures.follow(&format!("u{number}"), followed(&format!("shop-{number}")), at(0));
        }
        let servers = measures.servers();
        assert_eq!((servers.len(), servers[0].clusters.len()), (1, 50));
        measures.forget("u0");
        assert_eq!(measures.servers()[0].clusters.len(), 49);
    }
}
