//! The controller of `ScrapeTask`s: watches their metadata alone, and looks at one when it, its cluster or its run changed.

mod client;
mod finalize;
mod judge;
mod link;
mod links;
mod reconcile;
mod registry;
mod status;

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
use selextract_crds::ScrapeTask;
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    settings::Scope,
    triggers::{self, Told},
};
use links::Links;
use registry::{Place, Registry};

/// What the store holds of a task: its name, uid, versions and finalizers.
type TaskMeta = PartialObjectMeta<ScrapeTask>;

/// The finalizer that ends the run of a task that is deleted.
pub const FINALIZER: &str = "selextract.io/run";

/// How many tasks are looked at at once: bounds the memory, and feeds the batches.
const CONCURRENCY: u16 = 100;
const LOOKS: usize = 1024;

/// The controllers of all scopes, which share links and memory.
#[derive(Clone)]
pub struct Controller {
    context: Arc<Context>,
    registry: Arc<Registry>,
    links: Arc<Links>,
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
}

impl Controller {
    /// Prepares the shared parts; [`Controller::run`] runs one scope.
    pub fn new(context: Arc<Context>, stop: CancellationToken) -> Self {
        let registry = Arc::new(Registry::new(context.telemetry.clone()));
        let (looks, wanted) = mpsc::channel(LOOKS);
        let links = Links::new(
            context.client.clone(),
            context.settings.clone(),
            registry.clone(),
            stop.clone(),
            looks,
        );
        let controller = Self {
            context,
            registry,
            links: Arc::new(links),
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
        let api: Api<TaskMeta> = scope.api(self.context.client.clone());
        let registry = self.registry.clone();
        let tell = move |told: Told<'_, TaskMeta>| {
            if let Told::Gone(task) = told {
                registry.forget(&task.uid().unwrap_or_default());
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

    /// Has the tasks of a cluster looked at again when it came, changed or went.
    async fn follow_clusters(self) {
        let mut news = self.context.clusters.news();
        loop {
            let places = match news.recv().await {
                Ok(place) => {
                    let cluster = self.context.clusters.get(&place.0, &place.1);
                    let uid = cluster.and_then(|cluster| cluster.meta().uid.clone());
                    self.links.keep_only(&place, uid.as_deref());
                    self.registry.unsettle(&place)
                }
                Err(RecvError::Lagged(_)) => self.registry.unsettle_all(),
                Err(RecvError::Closed) => return,
            };
            self.links.look_at(places).await;
        }
    }
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
