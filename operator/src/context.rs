//! What every reconcile is given: the API server, the settings, the telemetry, and the clusters that are known.

use std::sync::Arc;

use kube::{
    Client, Resource,
    core::DeserializeGuard,
    runtime::{
        events::{Event, EventType, Recorder, Reporter},
        reflector::{ObjectRef, Store, store, store::Writer},
    },
};
use selextract_crds::SelextractCluster;
use tokio::sync::{broadcast, watch};

use crate::{
    accounts::Accounts,
    backoff::Backoffs,
    measure::Measures,
    settings::{Scope, Settings},
    telemetry::Telemetry,
};

/// A cluster that may not have been readable: one bad object must not break the watch.
pub type GuardedCluster = DeserializeGuard<SelextractCluster>;

/// What every reconcile is given.
pub struct Context {
    /// The API server, for calls: each ends within [`crate::run::CALL_TIMEOUT`] of silence.
    pub client: Client,
    /// The API server, for watches, which are silent for minutes.
    pub watches: Client,
    /// What the operator was told at its start.
    pub settings: Settings,
    /// Metrics and readiness.
    pub telemetry: Telemetry,
    /// The clusters that are known.
    pub clusters: Clusters,
    /// When to look again after an error.
    pub backoffs: Backoffs,
    /// How promises are held, and what is paid.
    pub accounts: Accounts,
    /// What was measured of the clusters that are sized.
    pub measures: Measures,
    recorder: Recorder,
}

impl Context {
    /// Puts the tools together.
    pub fn new(
        (client, watches): (Client, Client),
        settings: Settings,
        telemetry: Telemetry,
        clusters: Clusters,
    ) -> Self {
        let reporter = Reporter {
            controller: "selextract-operator".to_owned(),
            instance: settings.identity.clone(),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            watches,
            settings,
            telemetry,
            clusters,
            backoffs: Backoffs::default(),
            accounts: Accounts::default(),
            measures: Measures::default(),
            recorder,
        }
    }

    /// Publishes an event about an object. An event that cannot be published is logged: it must not stop the work.
    pub async fn event<K>(&self, about: &K, kind: EventType, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        self.telemetry.wrote("event");
        if let Err(error) = self.recorder.publish(&event, &about.object_ref(&())).await {
            tracing::warn!(%error, reason, "An event could not be published.");
        }
    }
}

/// The clusters of all scopes, and the news about them.
#[derive(Clone)]
pub struct Clusters {
    stores: Vec<Store<GuardedCluster>>,
    unlisted: Arc<watch::Sender<Vec<Scope>>>,
    news: broadcast::Sender<(String, String)>,
}

impl Clusters {
    /// One store for each scope; the writers belong to the watches.
    pub fn new(scopes: &[Scope]) -> (Self, Vec<Writer<GuardedCluster>>) {
        let (stores, writers) = scopes.iter().map(|_| store()).unzip();
        (
            Self {
                stores,
                unlisted: Arc::new(watch::Sender::new(scopes.to_vec())),
                news: broadcast::Sender::new(256),
            },
            writers,
        )
    }

    /// A scope was listed: its store holds everything.
    pub fn set_listed(&self, scope: &Scope) {
        self.unlisted
            .send_modify(|unlisted| unlisted.retain(|other| other != scope));
    }

    /// Waits until every scope was listed once. (A store's own readiness wakes one of those who wait for it, and the controller does.)
    pub async fn listed(&self) {
        // The sender lives as long as this does: the wait cannot fail.
        let _ = self.unlisted.subscribe().wait_for(Vec::is_empty).await;
    }

    /// A cluster by namespace and name, if it is there and readable.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<GuardedCluster>> {
        let key = ObjectRef::new(name).within(namespace);
        self.stores.iter().find_map(|store| store.get(&key))
    }

    /// Every cluster that is known.
    pub fn all(&self) -> Vec<Arc<GuardedCluster>> {
        self.stores.iter().flat_map(Store::state).collect()
    }

    /// Tells those who listen that something about a cluster changed that matters to its tasks.
    pub fn tell(&self, cluster: &ObjectRef<GuardedCluster>) {
        // Nobody listens before the tasks' controllers run; they read the stores then.
        let _ = self
            .news
            .send((cluster.namespace.clone().unwrap_or_default(), cluster.name.clone()));
    }

    /// The news from now on.
    pub fn news(&self) -> broadcast::Receiver<(String, String)> {
        self.news.subscribe()
    }
}
