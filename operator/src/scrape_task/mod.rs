//! The controller of `ScrapeTask`s: watches their metadata alone, and looks at one when it, its cluster or its run changed.

mod client;
mod judge;
mod link;
mod links;
mod presence;
mod reconcile;
mod registry;
mod status;
mod sweep;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt, future::ready, stream::select_all};
use kube::{
    Api, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        Config,
        controller::{Action, applier},
        reflector::{ObjectRef, store},
        watcher::{self, watcher},
    },
};
use selextract_crds::{ScrapeTask, SelextractCluster};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    context::{Context, GuardedCluster},
    settings::Scope,
    triggers::{self, Told},
};
use links::Links;
use presence::Presence;
use registry::{Place, Registry};

/// What the store holds of a task: its name, uid and versions.
type TaskMeta = PartialObjectMeta<ScrapeTask>;

/// How many tasks are looked at at once: bounds the memory, and feeds the batches.
const CONCURRENCY: u16 = 100;
const LOOKS: usize = 1024;

/// The controllers of all scopes, which share links and memory.
#[derive(Clone)]
pub struct Controller {
    context: Arc<Context>,
    registry: Arc<Registry>,
    links: Arc<Links>,
    presence: Arc<Presence>,
    routes: Routes,
    stop: CancellationToken,
}

/// Which scope's controller a task's place belongs to; the key `None` is all namespaces.
type Routes = Arc<Mutex<HashMap<Option<String>, mpsc::Sender<Place>>>>;

/// What one look at a task needs.
struct Tools {
    context: Arc<Context>,
    registry: Arc<Registry>,
    links: Arc<Links>,
    presence: Arc<Presence>,
}

impl Controller {
    /// Prepares the shared parts; [`Controller::run`] runs one scope.
    pub fn new(context: Arc<Context>, stop: CancellationToken) -> Self {
        let registry = Arc::new(Registry::new(context.telemetry.clone()));
        let presence = Arc::new(Presence::default());
        let (looks, wanted) = mpsc::channel(LOOKS);
        let links = Links::new(
            context.client.clone(),
            context.settings.clone(),
            registry.clone(),
            presence.clone(),
            stop.clone(),
            looks,
        );
        let controller = Self {
            context,
            registry,
            links: Arc::new(links),
            presence,
            routes: Routes::default(),
            stop: stop.clone(),
        };
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(route(controller.routes.clone(), wanted)),
        );
        tokio::spawn(stop.run_until_cancelled_owned(controller.clone().follow_clusters()));
        controller
    }

    /// Runs the controller of one scope until the operator stops.
    pub async fn run(self, scope: Scope) {
        // Before the clusters are known every task would seem to name a missing one.
        if self
            .stop
            .run_until_cancelled(self.context.clusters.listed())
            .await
            .is_none()
        {
            return;
        }
        let (looks, wanted) = mpsc::channel(LOOKS);
        let route = match &scope {
            Scope::Namespace(namespace) => Some(namespace.clone()),
            Scope::All => None,
        };
        self.routes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(route, looks);

        let (reader, writer) = store();
        self.presence.add(scope.clone(), reader.clone());
        let api: Api<TaskMeta> = scope.api(self.context.client.clone());
        let (registry, links) = (self.registry.clone(), self.links.clone());
        let tell = move |told: Told<'_, TaskMeta>| {
            if let Told::Gone(task) = told {
                let uid = task.uid().unwrap_or_default();
                if let Some(cluster) = registry.forget(&uid) {
                    links.end(&cluster, &uid);
                }
            }
        };
        let watched = triggers::main_objects(watcher(api, watcher::Config::default()), writer, trim, tell);
        let looked = futures::stream::unfold(wanted, |mut wanted| async {
            let (namespace, name) = wanted.recv().await?;
            Some((ObjectRef::new(&name).within(&namespace), wanted))
        });
        let queue = select_all([watched, looked.boxed()])
            .map(Ok::<_, Infallible>)
            .take_until(self.stop.clone().cancelled_owned());
        let tools = Arc::new(Tools {
            context: self.context,
            registry: self.registry,
            links: self.links,
            presence: self.presence,
        });
        applier(
            |task, tools| Box::pin(reconcile::reconcile(task, tools)),
            |_, error: &Infallible, _| match *error {},
            tools,
            reader,
            queue,
            Config::default().concurrency(CONCURRENCY),
        )
        .take_until(triggers::drained(self.stop))
        .for_each(|_: Result<(ObjectRef<TaskMeta>, Action), _>| ready(()))
        .await;
    }

    /// A cluster that serves is linked to without a task as well: all that it had may have gone while no operator watched.
    fn link_to(&self, cluster: &GuardedCluster) {
        if let Some(cluster) = cluster.0.as_ref().ok().filter(|cluster| serves(cluster)) {
            self.links.to(cluster);
        }
    }

    /// Has the tasks of a cluster looked at again when it came, changed or went.
    async fn follow_clusters(self) {
        let mut news = self.context.clusters.news();
        self.context.clusters.listed().await;
        for cluster in self.context.clusters.all() {
            self.link_to(&cluster);
        }
        loop {
            let places = match news.recv().await {
                Ok(place) => {
                    let cluster = self.context.clusters.get(&place.0, &place.1);
                    let uid = cluster.as_ref().and_then(|cluster| cluster.meta().uid.clone());
                    self.links.keep_only(&place, uid.as_deref());
                    if let Some(cluster) = &cluster {
                        self.link_to(cluster);
                    }
                    self.registry.unsettle(&place)
                }
                Err(RecvError::Lagged(_)) => self.registry.unsettle_all(),
                Err(RecvError::Closed) => return,
            };
            self.links.look_at(places).await;
        }
    }
}

/// Whether the cluster's API answered when its status was written.
fn serves(cluster: &SelextractCluster) -> bool {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "ApiReady" && condition.status == "True")
}

async fn route(routes: Routes, mut wanted: mpsc::Receiver<Place>) {
    while let Some(place) = wanted.recv().await {
        let looks = {
            let routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
            routes
                .get(&Some(place.0.clone()))
                .or_else(|| routes.get(&None))
                .cloned()
        };
        if let Some(looks) = looks {
            // A controller that ended looks at nothing any more.
            let _ = looks.send(place).await;
        }
    }
}

/// Drops everything that a look does not need: ten thousand of these are kept.
fn trim(task: &mut TaskMeta) {
    let meta = &mut task.metadata;
    meta.managed_fields = None;
    meta.annotations = None;
    meta.labels = None;
    meta.owner_references = None;
    meta.generate_name = None;
    meta.self_link = None;
    task.types = None;
}
