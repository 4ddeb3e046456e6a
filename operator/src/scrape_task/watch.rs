//! The watch of `ScrapeTask`s in one scope: keeps the registry true and says which tasks are to be looked at.
//!
//! Whole objects pass by here and none is kept. At the operator's start that spares a read and a write of each task: whose status
//! says that its cluster has accepted it as it is, is believed for now.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use selextract_crds::ScrapeTask;

use super::{
    Tools, judge,
    registry::{Sight, Sighting, hash},
};
use crate::settings::Scope;

/// Objects in one answer of the API server: bounds what a list takes, spec and preview of each may be kilobytes.
const PAGE: u32 = 200;

/// A task that may not have been readable: one bad object must not break the watch.
pub type GuardedTask = DeserializeGuard<ScrapeTask>;

/// Follows one scope for ever.
pub async fn follow(scope: Scope, tools: Arc<Tools>) {
    let api: Api<GuardedTask> = scope.api(tools.context.watches.clone());
    let mut events = watcher(api, watcher::Config::default().page_size(PAGE))
        .default_backoff()
        .boxed();
    let mut watched = Watched { scope, tools, round: 0 };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => watched.take(event),
            Err(error) => tracing::warn!(%error, "The watch of ScrapeTasks broke off and begins again."),
        }
    }
}

struct Watched {
    scope: Scope,
    tools: Arc<Tools>,
    /// Counts the lists.
    round: u32,
}

impl Watched {
    fn take(&mut self, event: Event<GuardedTask>) {
        match event {
            Event::Init => self.round = self.round.wrapping_add(1),
            Event::InitApply(task) | Event::Apply(task) => self.see(&task),
            Event::InitDone => self.listed(),
            Event::Delete(task) => self.forget(&task.uid().unwrap_or_default()),
        }
    }

    fn see(&self, guarded: &GuardedTask) {
        let meta = guarded.meta();
        let task = guarded.0.as_ref().ok();
        let (namespace, name) = task.map(judge::cluster_of).unwrap_or_default();
        self.tools
            .credentials
            .see(meta.uid.as_deref().unwrap_or_default(), task);
        let sight = self.tools.registry.see(&Sighting {
            uid: meta.uid.as_deref().unwrap_or_default(),
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            name: meta.name.as_deref().unwrap_or_default(),
            cluster: (&namespace, &name),
            version: meta.resource_version.as_deref().unwrap_or_default(),
            mark: mark(meta, task.is_some()),
            round: self.round,
        });
        match sight {
            Sight::Same => {}
            Sight::New(uid) => match task.filter(|task| self.is_accepted(task)) {
                Some(task) => {
                    let status = task.status.clone().unwrap_or_default();
                    self.tools.registry.believe(&uid, &status);
                }
                None => self.tools.queue.add(uid),
            },
            Sight::Changed(uid) => self.tools.queue.add(uid),
        }
    }

    /// Whether the cluster that there is has accepted the task, as its status says.
    fn is_accepted(&self, task: &ScrapeTask) -> bool {
        let (namespace, name) = judge::cluster_of(task);
        let guarded = self.tools.context.clusters.get(&namespace, &name);
        let cluster = guarded.as_deref().and_then(|guarded| guarded.0.as_ref().ok());
        cluster.is_some_and(|cluster| judge::is_accepted_by(task, cluster))
    }

    /// All there is was named: what was not is gone, and the clusters' feeds are read from their start, now that all tasks are known.
    fn listed(&self) {
        let namespace = match &self.scope {
            Scope::Namespace(namespace) => Some(namespace.as_str()),
            Scope::All => None,
        };
        for (uid, cluster) in self.tools.registry.end_list(namespace, self.round) {
            self.tools.context.backoffs.reset(&uid);
            self.tools.credentials.forget(&uid);
            self.tools.links.end(&cluster, &uid);
        }
        self.tools.links.rewind();
        for (namespace, name) in self.tools.registry.clusters() {
            let guarded = self.tools.context.clusters.get(&namespace, &name);
            if let Some(cluster) = guarded.as_deref().and_then(|guarded| guarded.0.as_ref().ok())
                && cluster.meta().deletion_timestamp.is_none()
            {
                self.tools.links.to(cluster);
            }
        }
    }

    fn forget(&self, uid: &str) {
        self.tools.context.backoffs.reset(uid);
        self.tools.credentials.forget(uid);
        if let Some(cluster) = self.tools.registry.forget(uid) {
            self.tools.links.end(&cluster, uid);
        }
    }
}

/// Changes with everything that a look depends on: the spec, deletion, and whether the object can be read.
fn mark(meta: &ObjectMeta, readable: bool) -> u64 {
    hash(&format!(
        "{:?} {:?} {readable}",
        meta.generation, meta.deletion_timestamp
    ))
}
