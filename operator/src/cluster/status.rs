//! What a cluster's status says. Pure: computed from what was read and applied; written only when it differs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use selextract_crds::{
    ComponentStatus, DatabaseStatus, Endpoints, ImageStatus, ReplicaSlotStatus, ScaleStatus, ScalingStatus,
    SelextractClusterStatus,
};
use serde_json::Value;

use super::{
    apply::Refused,
    dereference::SandboxNodes,
    objects::{Key, Live},
    pods::Trouble,
    workload::{self, Count, Progress},
};
use crate::{
    build::{Child, Component, Stage, slot_name},
    conditions::{self, Summary, Verdict},
    validated::ValidatedCluster,
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

/// The conditions of the parts, each with its components and the stage in which they come.
const PARTS: [(&str, &[Component], Stage); 8] = [
    ("DatabaseReady", &[Component::Postgres], Stage::Data),
    (
        "QueueReady",
        &[Component::RedisQueue, Component::RedisCache],
        Stage::Data,
    ),
    ("EgressReady", &[Component::Egress], Stage::Data),
    ("ReplicasReady", &[Component::PostgresReplica], Stage::Pooling),
    (
        "PoolerReady",
        &[Component::PgBouncerRw, Component::PgBouncerRo],
        Stage::Pooling,
    ),
    ("Migrated", &[Component::Migrate], Stage::Migration),
    ("ApiReady", &[Component::Api, Component::Keeper], Stage::Programs),
    ("WorkersReady", &[Component::Worker], Stage::Programs),
];

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
    verdicts.push(outcome.sandbox());
    let mut status = old.clone();
    status.conditions = conditions::merge(&old.conditions, verdicts, generation, now);
    status.observed_generation = generation;
    // What was not built was not looked at: the last that is known of it stays.
    if let Some(cluster) = outcome.cluster.filter(|_| !outcome.children.is_empty()) {
        status.components = outcome.components();
        status.scaling = Some(outcome.scaling());
        status.database = Some(outcome.database(cluster));
        status.endpoints = Some(endpoints(cluster));
        status.image = outcome.image(old.image.as_ref());
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
    fn parts(&self) -> Vec<Verdict> {
        let certificates = match self.fault("CertificatesReady") {
            Some(fault) => Verdict::no("CertificatesReady", &fault.reason, fault.message.clone()),
            None if self.cluster.is_none() => waiting("CertificatesReady"),
            None => Verdict::yes(
                "CertificatesReady",
                "Issued",
                "Every server has a certificate of the cluster's authority.",
            ),
        };
        let parts = PARTS
            .iter()
            .map(|(kind, components, stage)| self.part(kind, components, *stage));
        [certificates].into_iter().chain(parts).collect()
    }

    fn fault(&self, kind: &str) -> Option<&Fault> {
        self.faults.iter().find(|fault| fault.condition == Some(kind))
    }

    /// The worst that is known about a part: a fault, a refusal, a failed migration, pods in trouble, or how far it is.
    fn part(&self, kind: &'static str, components: &[Component], stage: Stage) -> Verdict {
        if let Some(fault) = self.fault(kind) {
            return Verdict::no(kind, &fault.reason, fault.message.clone());
        }
        if self.children.is_empty() {
            return Verdict::unknown(kind, "NotEvaluated", "It is left as it is until the fault is mended.");
        }
        let concerned = |name: &str| components.iter().any(|component| component.as_str() == name);
        if let Some(refused) = self.refused.iter().find(|refused| concerned(&refused.component)) {
            return Verdict::no(kind, refused.reason, refused.message.clone());
        }
        let external = self.cluster.is_some_and(|cluster| !cluster.postgres.is_managed());
        if kind == "DatabaseReady" && external {
            return self.external_database();
        }
        if kind == "Migrated"
            && let Some(failure) = &self.migration_failure
        {
            return Verdict::no(kind, "MigrationFailed", format!("The migration failed: {failure}"));
        }
        if let Some(trouble) = components.iter().filter_map(|c| self.troubles.get(c.as_str())).min() {
            return Verdict::no(kind, trouble.cause.as_str(), trouble.message.clone());
        }
        if kind == "PoolerReady"
            && let Some(version) = self.pooler_version.as_deref().filter(|version| is_dangerous(version))
        {
            let message = format!(
                "{version} does not track prepared statements and would hand clients each other's rows; use an image with 1.21 or newer."
            );
            return Verdict::no(kind, "PoolerTooOld", message);
        }
        self.progress(kind, components, stage)
    }

    fn progress(&self, kind: &'static str, components: &[Component], stage: Stage) -> Verdict {
        let of_part: Vec<&Child> = self.workloads().filter(|child| belongs(child, components)).collect();
        if self.cluster.is_none() || (self.reached < stage && !of_part.is_empty()) {
            return waiting(kind);
        }
        if of_part.is_empty() {
            return Verdict::yes(kind, "NotWanted", "The spec asks for none.");
        }
        let unfinished: Vec<String> = of_part
            .iter()
            .filter(|child| self.progress_of(child) != Progress::Done)
            .map(|child| self.describe(child))
            .collect();
        if unfinished.is_empty() {
            let reason = if kind == "Migrated" { "Migrated" } else { "Available" };
            return Verdict::yes(kind, reason, "");
        }
        Verdict::no(kind, "Progressing", unfinished.join(" "))
    }

    /// A database that exists is checked by the migration Job, which talks to it.
    fn external_database(&self) -> Verdict {
        const KIND: &str = "DatabaseReady";
        if let Some(failure) = &self.migration_failure {
            return Verdict::no(
                KIND,
                "CheckFailed",
                format!("The external database cannot be used: {failure}"),
            );
        }
        match self.progress("Migrated", &[Component::Migrate], Stage::Migration) {
            done if done.holds() => Verdict::yes(KIND, "Available", "The external database was reached and migrated."),
            _ => Verdict::unknown(
                KIND,
                "NotChecked",
                "The migration Job has not yet reached the external database.",
            ),
        }
    }

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

    fn describe(&self, child: &Child) -> String {
        match self.live_of(child).and_then(workload::count) {
            Some(Count { ready, .. }) => {
                format!(
                    "{ready} of {} pods of {} are ready and up to date.",
                    child.replicas.unwrap_or(1),
                    child.name()
                )
            }
            None => format!("{} {} has not finished.", child.kind(), child.name()),
        }
    }

    /// Which summary is True, and in which words: those of the first part that does not hold.
    fn summary(&self, parts: &[Verdict]) -> (Summary, String, String) {
        if let Some(fault) = self.faults.first() {
            return (Summary::Stalled, fault.reason.clone(), fault.message.clone());
        }
        if let Some(refused) = self.refused.first() {
            return (Summary::Stalled, refused.reason.to_owned(), refused.message.clone());
        }
        if let Some(trouble) = self
            .troubles
            .values()
            .find(|trouble| trouble.cause == super::pods::Cause::ForeignData)
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

    fn sandbox(&self) -> Verdict {
        const KIND: &str = "BrowserSandbox";
        match self.sandbox {
            SandboxNodes::Present => Verdict::yes(
                KIND,
                "ProfileInstalled",
                "Nodes carry the seccomp profile for Chromium's sandbox.",
            ),
            SandboxNodes::Absent => Verdict::no(
                KIND,
                "ProfileMissing",
                "No node carries the label selextract.io/seccomp-chromium=v1, so Chromium runs without its own sandbox. Install the \
                 profile with the chart selextract-operator: --set seccompInstaller.enabled=true.",
            ),
            SandboxNodes::Unknown => Verdict::unknown(
                KIND,
                "NodesNotReadable",
                "The operator may not list nodes, so the sandbox is taken to be off. Grant it list on nodes.",
            ),
        }
    }

    fn components(&self) -> Vec<ComponentStatus> {
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

    fn scaling(&self) -> ScalingStatus {
        let scale = |component: Component| {
            let child = self.workloads().find(|child| belongs(child, &[component]))?;
            let current = self
                .live_of(child)
                .and_then(|live| live.pointer("/status/replicas"))
                .and_then(Value::as_i64);
            let current = i32::try_from(current.unwrap_or_default()).unwrap_or(i32::MAX);
            Some(ScaleStatus {
                desired: child.replicas.unwrap_or_default(),
                current,
            })
        };
        ScalingStatus {
            api: scale(Component::Api),
            worker: scale(Component::Worker),
        }
    }

    fn database(&self, cluster: &ValidatedCluster) -> DatabaseStatus {
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
            server_version: self.server_version.clone(),
            pooler_version: self.pooler_version.clone(),
            slots: (0..u32::from(cluster.postgres.read_replicas)).map(slot).collect(),
        }
    }

    /// The images that were rolled out last: they change when everything that runs them is done.
    fn image(&self, old: Option<&ImageStatus>) -> Option<ImageStatus> {
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

fn belongs(child: &Child, components: &[Component]) -> bool {
    let label = child
        .object
        .pointer("/metadata/labels/app.kubernetes.io~1component")
        .and_then(Value::as_str);
    components.iter().any(|component| Some(component.as_str()) == label)
}

fn waiting(kind: &'static str) -> Verdict {
    Verdict::no(kind, "Waiting", "It waits for an earlier part.")
}

fn endpoints(cluster: &ValidatedCluster) -> Endpoints {
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
fn tag(image: &str) -> &str {
    if let Some((_, digest)) = image.split_once('@') {
        return digest;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map_or("latest", |(_, tag)| tag)
}

/// Before 1.21 `PgBouncer` tracks no prepared statements. A text without a version is not judged.
fn is_dangerous(version: &str) -> bool {
    let number = version.split_whitespace().find_map(|word| {
        let (major, rest) = word.trim_start_matches('v').split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    number.is_some_and(|number| number < (1, 21))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
