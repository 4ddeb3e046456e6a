//! What the status says beside the conditions: components, replicas, the database, images, endpoints. Pure.

use selextract_crds::{
    ComponentStatus, DatabaseStatus, Endpoints, ImageStatus, ReplicaSlotStatus, ScaleStatus, ScalingStatus,
};
use serde_json::Value;

use super::{Outcome, belongs};
use crate::{
    build::{Component, Stage, slot_name},
    cluster::{
        objects::Key,
        workload::{self, Progress},
    },
    scaling::{self, Decision},
    validated::ValidatedCluster,
};

impl Outcome<'_> {
    pub(super) fn components(&self) -> Vec<ComponentStatus> {
        let counts = Component::ALL
            .iter()
            .filter(|component| **component != Component::Migrate)
            .map(|component| {
                let of_it = self.workloads().filter(|child| belongs(child, &[*component]));
                let (mut desired, mut ready, mut wanted) = (0, 0, false);
                for child in of_it {
                    wanted = true;
                    desired += child.replicas.unwrap_or_default();
                    ready += self.live_of(child).and_then(workload::count).unwrap_or_default().ready;
                }
                wanted.then(|| ComponentStatus {
                    name: component.as_str().to_owned(),
                    desired,
                    ready,
                })
            });
        counts.flatten().collect()
    }

    /// The replicas of API and workers. Where the operator sizes them, the last decision that differed and the last changes stay.
    pub(super) fn scaling(&self, old: Option<&ScalingStatus>) -> ScalingStatus {
        let decisions = self.decisions;
        ScalingStatus {
            api: self.scale(
                Component::Api,
                decisions.api.as_ref(),
                old.and_then(|old| old.api.as_ref()),
            ),
            worker: self.scale(
                Component::Worker,
                decisions.worker.as_ref(),
                old.and_then(|old| old.worker.as_ref()),
            ),
        }
    }

    fn scale(
        &self,
        component: Component,
        decision: Option<&Decision>,
        old: Option<&ScaleStatus>,
    ) -> Option<ScaleStatus> {
        let child = self.workloads().find(|child| belongs(child, &[component]))?;
        let live = self.live_of(child);
        let current = live
            .and_then(|live| live.pointer("/status/replicas"))
            .and_then(Value::as_i64);
        let current = i32::try_from(current.unwrap_or_default()).unwrap_or(i32::MAX);
        let old = old.cloned().unwrap_or_default();
        Some(match decision {
            Some(decision) => scaling::next_status(&old, decision, current),
            // Nothing is decided before the programs are reached, such as while the database is down: what was decided last holds.
            None if self.reached < Stage::Programs && old.decision.is_some() => ScaleStatus { current, ..old },
            None => ScaleStatus {
                desired: child.replicas.unwrap_or_default(),
                current,
                decision: None,
                history: old.history,
            },
        })
    }

    /// The database. A version that nobody tells any more, such as that of a Job whose pod was cleared away, stays.
    pub(super) fn database(&self, cluster: &ValidatedCluster, old: Option<&DatabaseStatus>) -> DatabaseStatus {
        let streams = |number: u32| {
            let live = self.live.get(&Key {
                kind: "StatefulSet".into(),
                name: format!("{}-postgres-replica-{number}", cluster.name),
            });
            live.and_then(workload::count).is_some_and(|count| count.ready > 0)
        };
        let slot = |number: u32| ReplicaSlotStatus {
            name: slot_name(number),
            state: if streams(number) { "Streaming" } else { "Waiting" }.to_owned(),
        };
        DatabaseStatus {
            provider: if cluster.postgres.is_managed() {
                "Managed"
            } else {
                "External"
            }
            .to_owned(),
            server_version: self
                .server_version
                .clone()
                .or_else(|| old.and_then(|old| old.server_version.clone())),
            pooler_version: self.pooler_version.clone(),
            pool_size: Some(cluster.pgbouncer.default_pool_size.into()),
            slots: (0..u32::from(cluster.postgres.read_replicas)).map(slot).collect(),
        }
    }

    /// The images that were rolled out last: they change when everything that runs them is done.
    pub(super) fn image(&self, old: Option<&ImageStatus>) -> Option<ImageStatus> {
        let cluster = self.cluster?;
        let done = |component: Component| {
            let mut of_it = self.workloads().filter(|child| belongs(child, &[component])).peekable();
            of_it.peek().is_some() && of_it.all(|child| self.progress_of(child) == Progress::Done)
        };
        let mut image = old.cloned().unwrap_or_default();
        if done(Component::Migrate) {
            image.migrated = Some(cluster.images.platform.clone());
        }
        if self.reached == Stage::Programs && done(Component::Api) && done(Component::Keeper) {
            tag(&cluster.images.platform).clone_into(&mut image.tag);
        }
        (image != ImageStatus::default()).then_some(image)
    }
}

/// Where the platform is reached.
pub(super) fn endpoints(cluster: &ValidatedCluster) -> Endpoints {
    let inside = || format!("http://{}-api.{}.svc:8080", cluster.name, cluster.namespace);
    let outside = cluster.api.ingress.as_ref().map(|ingress| {
        let scheme = if ingress.tls_secret_name.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", ingress.host)
    });
    Endpoints {
        api: Some(outside.unwrap_or_else(inside)),
        admin_secret: Some(format!("{}-api", cluster.name)),
    }
}

/// The tag of an image, or its digest.
pub(super) fn tag(image: &str) -> &str {
    if let Some((_, digest)) = image.split_once('@') {
        return digest;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map_or("latest", |(_, tag)| tag)
}
