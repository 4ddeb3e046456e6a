//! The conditions of the parts: the worst that is known about each. Pure.

use selextract_crds::{Resolves, SandboxMode};

use super::{Fault, Outcome, belongs};
use crate::{
    build::{Child, Component, Stage},
    cluster::{
        dereference::SandboxNodes,
        workload::{self, Count, Progress},
    },
    conditions::Verdict,
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

const NO_NODE: &str = "No node carries the label selextract.io/seccomp-chromium=v1";
const INSTALL: &str = "Install the profile with the chart selextract-operator: --set seccompInstaller.enabled=true.";

impl Outcome<'_> {
    /// One verdict for each part.
    pub(super) fn parts(&self) -> Vec<Verdict> {
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
            return unevaluated(kind);
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

    /// Whether the pools of upstream proxies have their credentials, and where they leave what the egress proxy has checked, if there are
    /// pools.
    pub(super) fn proxy_pools(&self) -> Option<Verdict> {
        const KIND: &str = "ProxyPools";
        let pools = &self.cluster?.egress.upstreams;
        if let Some(fault) = self.upstreams.filter(|_| !pools.is_empty()) {
            return Some(Verdict::no(KIND, fault.reason, fault.message.clone()));
        }
        let ends: Vec<&str> = pools
            .iter()
            .filter(|pool| pool.resolves == Resolves::Upstream)
            .map(|pool| pool.name.as_str())
            .collect();
        match (pools.is_empty(), ends.is_empty()) {
            (true, _) => None,
            (false, true) => Some(Verdict::yes(
                KIND,
                "Pinned",
                "Every upstream proxy is asked for the address that the egress proxy has checked.",
            )),
            (false, false) => Some(Verdict::yes(
                KIND,
                "PinEndsAtUpstream",
                format!(
                    "The upstream proxies of {} resolve names for themselves: what they dial nobody has checked.",
                    ends.join(", ")
                ),
            )),
        }
    }

    /// Whether Chromium runs in its own sandbox: what the spec asks for, and whether the nodes have what that takes.
    pub(super) fn sandbox(&self) -> Verdict {
        const KIND: &str = "BrowserSandbox";
        let Some(cluster) = self.cluster else {
            return unevaluated(KIND);
        };
        let mode = cluster.worker.browser.sandbox;
        match (mode, self.sandbox) {
            (SandboxMode::Disabled, _) => Verdict::no(
                KIND,
                "DisabledBySpec",
                "spec.worker.browser.sandbox is Disabled, so Chromium runs without its own sandbox, whatever the nodes have. Set it to \
                 Auto or Required to turn the sandbox on.",
            ),
            (SandboxMode::Auto | SandboxMode::Required, SandboxNodes::Present) => Verdict::yes(
                KIND,
                "ProfileInstalled",
                "Nodes carry the seccomp profile for Chromium's sandbox, and workers run there.",
            ),
            (SandboxMode::Auto, SandboxNodes::Absent) => Verdict::no(
                KIND,
                "ProfileMissing",
                format!("{NO_NODE}, so Chromium runs without its own sandbox. {INSTALL}"),
            ),
            (SandboxMode::Required, SandboxNodes::Absent) => Verdict::no(
                KIND,
                "ProfileMissing",
                format!("{NO_NODE}, and spec.worker.browser.sandbox is Required, so no worker starts. {INSTALL}"),
            ),
            (SandboxMode::Auto, SandboxNodes::Unknown) => Verdict::unknown(
                KIND,
                "NodesNotReadable",
                "The operator may not list nodes, so the sandbox is taken to be off. Grant it list on nodes.",
            ),
            (SandboxMode::Required, SandboxNodes::Unknown) => Verdict::unknown(
                KIND,
                "NodesNotReadable",
                "The operator may not list nodes, so whether a node can take the workers is not known. Grant it list on nodes.",
            ),
        }
    }
}

fn waiting(kind: &'static str) -> Verdict {
    Verdict::no(kind, "Waiting", "It waits for an earlier part.")
}

fn unevaluated(kind: &'static str) -> Verdict {
    Verdict::unknown(kind, "NotEvaluated", "It is left as it is until the fault is mended.")
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
