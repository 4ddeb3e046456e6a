//! What a cluster's status says. Pure: computed from what was read and applied; written only when it differs.

mod figures;
mod monitoring;
mod parts;

use std::collections::BTreeMap;

use jiff::Timestamp;
pub use monitoring::MonitoringFound;
use selextract_crds::SelextractClusterStatus;
use serde_json::Value;

use super::{
    apply::Refused,
    dereference::SandboxNodes,
    objects::{Key, Live},
    pods::{Cause, Trouble},
    workload::{self, Progress},
};
use crate::{
    accounts::Due,
    build::{Child, Component, Stage},
    conditions::{self, Summary, Verdict},
    measure::Decisions,
    validated::{Refusal, ValidatedCluster},
};

/// The names of all components.
pub const COMPONENTS: [&str; Component::ALL.len()] = {
    let mut names = [""; Component::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Component::ALL[index].as_str();
        index += 1;
    }
    names
};

/// A fault that was found before anything was built or applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The condition that it belongs to; `None` is the cluster as a whole.
    pub condition: Option<&'static str>,
    /// The condition's reason.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

/// What a reconcile found and did.
pub struct Outcome<'a> {
    /// The cluster; `None` when its spec is refused.
    pub cluster: Option<&'a ValidatedCluster>,
    /// What should exist.
    pub children: &'a [(Stage, Child)],
    /// What exists.
    pub live: &'a Live,
    /// The last stage that was applied.
    pub reached: Stage,
    /// What a person must mend.
    pub faults: &'a [Fault],
    /// What the API server refused.
    pub refused: &'a [Refused],
    /// What keeps pods from running, by component.
    pub troubles: &'a BTreeMap<String, Trouble>,
    /// Why the migration failed.
    pub migration_failure: Option<String>,
    /// The pooler's version, as it says itself.
    pub pooler_version: Option<String>,
    /// The database server's version, as it says itself.
    pub server_version: Option<String>,
    /// Nodes for Chromium's sandbox.
    pub sandbox: SandboxNodes,
    /// What a pool of upstream proxies lacks.
    pub upstreams: Option<&'a Refusal>,
    /// What was found about monitoring.
    pub monitoring: &'a MonitoringFound,
    /// How many pods were decided, and why.
    pub decisions: &'a Decisions,
    /// What is due about promises and costs.
    pub due: &'a Due,
}

/// The status to store.
pub fn next(
    old: &SelextractClusterStatus,
    generation: i64,
    outcome: &Outcome<'_>,
    now: Timestamp,
) -> SelextractClusterStatus {
    let parts = outcome.parts();
    let (summary, reason, message) = outcome.summary(&parts);
    let mut verdicts = conditions::summaries(summary, &reason, &message);
    verdicts.extend(parts);
    verdicts.push(outcome.monitoring());
    verdicts.push(outcome.sandbox());
    verdicts.extend(outcome.proxy_pools());
    let mut status = old.clone();
    status.conditions = conditions::merge(&old.conditions, verdicts, generation, now);
    status.observed_generation = generation;
    // What was not built was not looked at: the last that is known of it stays.
    if let Some(cluster) = outcome.cluster.filter(|_| !outcome.children.is_empty()) {
        status.components = outcome.components();
        status.scaling = Some(outcome.scaling(old.scaling.as_ref()));
        status.database = Some(outcome.database(cluster, old.database.as_ref()));
        status.endpoints = Some(figures::endpoints(cluster));
        status.image = outcome.image(old.image.as_ref());
    }
    if let Some(slo) = &outcome.due.slo {
        status.slo = Some(slo.clone());
    }
    if let Some(cost) = &outcome.due.cost {
        status.cost = Some(cost.clone());
    }
    status
}

/// Whether a status says that the cluster is ready.
pub fn is_ready(status: &SelextractClusterStatus) -> bool {
    holds(status, "Ready")
}

/// Whether a condition of a status holds.
pub fn holds(status: &SelextractClusterStatus, kind: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

impl Outcome<'_> {
    fn workloads(&self) -> impl Iterator<Item = &Child> {
        self.children
            .iter()
            .map(|(_, child)| child)
            .filter(|child| child.replicas.is_some() || child.kind() == "Job")
    }

    fn live_of(&self, child: &Child) -> Option<&Value> {
        self.live.get(&Key {
            kind: child.kind().to_owned(),
            name: child.name().to_owned(),
        })
    }

    fn progress_of(&self, child: &Child) -> Progress {
        self.live_of(child).map_or(Progress::Rolling, workload::progress)
    }

    /// Which summary is True, and in which words: those of the first part that does not hold.
    fn summary(&self, parts: &[Verdict]) -> (Summary, String, String) {
        if let Some(fault) = self.faults.first() {
            return (Summary::Stalled, fault.reason.clone(), fault.message.clone());
        }
        // Nothing waits for monitoring.
        let mut refused = self.refused.iter();
        if let Some(refused) = refused.find(|refused| !monitoring::is_monitoring(&refused.component)) {
            return (Summary::Stalled, refused.reason.to_owned(), refused.message.clone());
        }
        if let Some(trouble) = self
            .troubles
            .values()
            .find(|trouble| trouble.cause == Cause::ForeignData)
        {
            return (
                Summary::Stalled,
                trouble.cause.as_str().to_owned(),
                trouble.message.clone(),
            );
        }
        // What is wrong says more than what waits for it.
        let open = parts.iter().filter(|part| !part.holds());
        match open.min_by_key(|part| ["Waiting", "NotChecked"].contains(&part.reason.as_str())) {
            Some(part) => (
                Summary::Reconciling,
                part.reason.clone(),
                format!("{}: {}", part.kind, part.message),
            ),
            None => (
                Summary::Ready,
                "Ready".to_owned(),
                "Every part of the platform is ready.".to_owned(),
            ),
        }
    }
}

/// Whether a child is part of one of these components, by its label.
pub fn belongs(child: &Child, components: &[Component]) -> bool {
    components.iter().any(|component| belongs_to(&child.object, *component))
}

/// Whether an object is part of a component, by its label.
pub fn belongs_to(object: &Value, component: Component) -> bool {
    let label = object.pointer("/metadata/labels/app.kubernetes.io~1component");
    label.and_then(Value::as_str) == Some(component.as_str())
}

#[cfg(test)]
mod tests;
