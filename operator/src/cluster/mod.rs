//! The controller of `SelextractCluster`s: dereference, validate, decide, build, apply, status.

mod account;
mod apply;
mod bucket;
mod certificates;
mod conclude;
mod dereference;
mod drift;
mod external;
mod idlest;
mod migration;
mod monitoring;
mod objects;
mod pods;
mod reconcile;
mod scaler;
mod secrets;
mod sizing;
mod status;
mod upstreams;
mod workload;

pub(crate) use apply::FIELD_MANAGER;

use std::sync::Arc;

use futures::{
    StreamExt,
    future::ready,
    stream::{BoxStream, select_all},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::DynamicObject,
    core::PartialObjectMeta,
    runtime::{
        reflector::{ObjectRef, store::Writer},
        watcher::{self, watcher},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    accounts,
    context::{Context, GuardedCluster},
    measure,
    queue::{self, Next, Queue},
    settings::Scope,
    triggers::{self, Told},
};
use objects::{INSTANCE, MANAGED_BY, MANAGER};

/// How many clusters are worked on at once.
const AT_ONCE: usize = 4;

/// What the reconciles share.
struct Tools {
    context: Arc<Context>,
    answers: drift::Answers,
    discovered: monitoring::Discovered,
}

/// Namespace and name of a cluster.
type Place = (String, String);

/// Runs the controller, with the watches of each scope, until the operator stops.
pub async fn run(context: Arc<Context>, scopes: Vec<(Scope, Writer<GuardedCluster>)>, stop: CancellationToken) {
    let telemetry = context.telemetry.clone();
    let queue = Queue::new(move |by| telemetry.queued("SelextractCluster", by));
    let watches = scopes
        .into_iter()
        .flat_map(|(scope, writer)| watches(&context, &scope, writer));
    let feed = select_all(watches).for_each(|cluster| {
        queue.add((cluster.namespace.unwrap_or_default(), cluster.name));
        ready(())
    });
    let tools = Arc::new(Tools {
        context: context.clone(),
        answers: drift::Answers::default(),
        discovered: monitoring::Discovered::default(),
    });
    let look = move |place| look(place, tools.clone());
    let measuring = measure::run(&context.measures, &context.telemetry, stop.clone(), |place| {
        queue.add(place);
    });
    let accounting = accounts::run(&context.accounts, &context.telemetry, stop.clone(), |place| {
        queue.add(place);
    });
    tokio::join!(
        measuring,
        accounting,
        stop.run_until_cancelled(feed),
        queue::run(queue.clone(), AT_ONCE, stop.clone(), look),
    );
}

async fn look((namespace, name): Place, tools: Arc<Tools>) -> Next {
    match tools.context.clusters.get(&namespace, &name) {
        Some(cluster) => {
            let next = Box::pin(reconcile::reconcile(&cluster, &tools)).await;
            // It may have gone meanwhile, and what was forgotten then may have been followed since.
            let now = tools.context.clusters.get(&namespace, &name);
            if now.is_none_or(|now| now.uid() != cluster.uid()) {
                forget(
                    &tools.context,
                    &ObjectRef::from_obj(&*cluster),
                    &cluster.uid().unwrap_or_default(),
                );
            }
            next
        }
        // It is gone, or a child of it was seen before it was itself.
        None => Next::OnNews,
    }
}

/// The clusters themselves, their children and their pods.
fn watches(
    context: &Arc<Context>,
    scope: &Scope,
    writer: Writer<GuardedCluster>,
) -> Vec<BoxStream<'static, ObjectRef<GuardedCluster>>> {
    let client = &context.watches;
    let clusters: Api<GuardedCluster> = scope.api(client.clone());
    let listener = context.clone();
    let at = scope.clone();
    let tell = move |told: Told<'_, GuardedCluster>| match told {
        Told::Gone(cluster, uid) => forget(&listener, cluster, uid),
        Told::Listed => listener.clusters.set_listed(&at),
    };
    let news = context.clone();
    let main = triggers::main_objects(watcher(clusters, watcher::Config::default()), writer, trim, tell)
        .inspect(move |cluster| news.clusters.tell(cluster))
        .boxed();

    let ours = format!("{MANAGED_BY}={MANAGER}");
    let children = objects::kinds().into_iter().map(|resource| {
        let api: Api<PartialObjectMeta<DynamicObject>> = scope.dynamic_api(client.clone(), &resource);
        triggers::metadata(api, &ours)
            .filter_map(|child| ready(cluster_of(&child)))
            .boxed()
    });
    let pods: Api<PartialObjectMeta<Pod>> = scope.api(client.clone());
    let pods = triggers::metadata(pods, &ours)
        .filter_map(|pod| ready(cluster_of(&pod)))
        .boxed();
    children.chain([main, pods]).collect()
}

/// The cluster that a child or a pod belongs to, by its label: retained children have no owner.
fn cluster_of(child: &impl ResourceExt) -> Option<ObjectRef<GuardedCluster>> {
    let name = child.labels().get(INSTANCE)?;
    Some(ObjectRef::new(name).within(&child.namespace()?))
}

/// What others count in an object is of no use here and takes most of its room.
fn trim(cluster: &mut GuardedCluster) {
    cluster.managed_fields_mut().clear();
    cluster
        .annotations_mut()
        .remove("kubectl.kubernetes.io/last-applied-configuration");
}

fn forget(context: &Context, cluster: &ObjectRef<GuardedCluster>, uid: &str) {
    context.backoffs.reset(uid);
    context.measures.forget(uid);
    context.accounts.forget(uid);
    let namespace = cluster.namespace.as_deref().unwrap_or_default();
    context
        .telemetry
        .forget_cluster(namespace, &cluster.name, &status::COMPONENTS);
}
