//! The controller of `ScrapeTask`s: looks at one when it, its cluster or its run changed.

mod client;
mod credentials;
mod judge;
mod link;
mod links;
mod reconcile;
mod registry;
mod status;
mod sweep;
mod watch;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::join_all};
use kube::{Resource, ResourceExt};
use selextract_crds::SelextractCluster;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff,
    context::{Context, GuardedCluster},
    queue::{self, Queue},
    settings::Scope,
};
use credentials::Credentials;
use links::Links;
use registry::{Place, Registry, Uid};

/// How many tasks are looked at at once: bounds the memory, and feeds the batches.
const AT_ONCE: usize = 100;
/// How often some of the statuses that were believed at the start are confirmed, and how many: ten thousand within twenty minutes.
const CONFIRM_PAUSE: Duration = Duration::from_secs(10);
const CONFIRM: usize = 100;

/// What a look at a task needs.
struct Tools {
    context: Arc<Context>,
    registry: Arc<Registry>,
    links: Links,
    credentials: Credentials,
    queue: Arc<Queue<Uid>>,
}

impl Tools {
    fn new(context: Arc<Context>, stop: CancellationToken) -> Self {
        let registry = Arc::new(Registry::new(context.telemetry.clone()));
        let telemetry = context.telemetry.clone();
        let queue = Queue::new(move |by| telemetry.queued("ScrapeTask", by));
        let links = Links::new(
            context.client.clone(),
            context.settings.clone(),
            registry.clone(),
            stop,
            queue.clone(),
        );
        Self {
            context,
            registry,
            links,
            credentials: Credentials::default(),
            queue,
        }
    }
}

/// Runs the controller, with one watch for each scope, until the operator stops.
pub async fn run(context: Arc<Context>, scopes: Vec<Scope>, stop: CancellationToken) {
    let news = context.clusters.news();
    // Before the clusters are known every task would seem to name a missing one.
    if stop.run_until_cancelled(context.clusters.listed()).await.is_none() {
        return;
    }
    let tools = Arc::new(Tools::new(context, stop.clone()));
    let queue = tools.queue.clone();
    let watches = scopes
        .into_iter()
        .map(|scope| watch::follow(scope, tools.clone()).boxed());
    let background = join_all(watches.chain([
        follow_clusters(tools.clone(), news).boxed(),
        calm_rounds(tools.clone()).boxed(),
        credentials::rounds(tools.clone()).boxed(),
    ]));
    let look = move |uid: Uid| reconcile::reconcile(uid, tools.clone());
    tokio::join!(
        stop.run_until_cancelled(background),
        queue::run(queue, AT_ONCE, stop.clone(), look),
    );
}

/// What of a cluster its tasks depend on: which one it is, whom it admits, and its pools. `None` is one that is gone or going, or cannot be read.
type Standing = Option<(String, Vec<String>, Vec<String>)>;

fn standing(cluster: Option<&GuardedCluster>) -> Standing {
    let cluster = cluster?.0.as_ref().ok()?;
    let stays = cluster.meta().deletion_timestamp.is_none();
    stays.then(|| {
        (
            cluster.uid().unwrap_or_default(),
            cluster.spec.allowed_namespaces.clone(),
            cluster
                .spec
                .egress
                .upstreams
                .iter()
                .map(|pool| pool.name.clone())
                .collect(),
        )
    })
}

/// Has the tasks of a cluster looked at again when it came or went or admits others.
async fn follow_clusters(tools: Arc<Tools>, mut news: tokio::sync::broadcast::Receiver<Place>) {
    let clusters = &tools.context.clusters;
    let seen = clusters.all().into_iter();
    let mut standings: HashMap<Place, Standing> = seen
        .map(|cluster| {
            let place = (cluster.namespace().unwrap_or_default(), cluster.name_any());
            (place, standing(Some(&cluster)))
        })
        .collect();
    clusters.all().iter().for_each(|cluster| link_to(&tools, cluster));
    loop {
        let uids = match news.recv().await {
            Ok(place) => {
                let cluster = clusters.get(&place.0, &place.1);
                let uid = cluster.as_ref().and_then(|cluster| cluster.meta().uid.clone());
                tools.links.keep_only(&place, uid.as_deref());
                if let Some(cluster) = &cluster {
                    link_to(&tools, cluster);
                }
                let now = standing(cluster.as_deref());
                match standings.insert(place.clone(), now.clone()) {
                    Some(before) if before == now => continue,
                    _ => {}
                }
                if cluster.is_none() {
                    standings.remove(&place);
                }
                tools.registry.unsettle(&place)
            }
            Err(RecvError::Lagged(_)) => tools.registry.unsettle_all(),
            Err(RecvError::Closed) => return,
        };
        tools.queue.extend(uids);
    }
}

/// A cluster that serves is linked to without a task as well: all that it had may have gone while no operator watched.
fn link_to(tools: &Tools, cluster: &GuardedCluster) {
    let readable = cluster.0.as_ref().ok();
    if let Some(cluster) = readable.filter(|cluster| serves(cluster)) {
        tools.links.to(cluster);
    }
}

/// Whether the cluster stays, and its API answered when its status was written.
fn serves(cluster: &SelextractCluster) -> bool {
    let mut conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    cluster.meta().deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "ApiReady" && condition.status == "True")
}

/// The net below the watches and feeds: what is left over is looked at within five minutes, and what was only believed is confirmed
/// bit by bit. Nothing is kept for tasks at rest.
async fn calm_rounds(tools: Arc<Tools>) {
    let mut round = Instant::now() + backoff::calm_round();
    loop {
        sleep(CONFIRM_PAUSE).await;
        for uid in tools.registry.doubt(CONFIRM) {
            tools.queue.add_idle(uid);
        }
        if Instant::now() >= round {
            round = Instant::now() + backoff::calm_round();
            for uid in tools.registry.left_over() {
                tools.queue.add_idle(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests;
