//! The end of a reconcile: the status is computed, written if it differs, and told; and when to look again is said.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    discovery::ApiResource,
    runtime::events::EventType,
};
use selextract_crds::{SelextractCluster, SelextractClusterStatus};
use serde_json::json;
use snafu::ResultExt;

use super::{
    Tools,
    dereference::{self, Observed, SandboxNodes},
    migration,
    objects::{self, Key, Live},
    pods,
    reconcile::{ClusterError, Pursued, StatusSnafu, user_secrets},
    status::{self, Fault, MonitoringFound, Outcome},
    upstreams,
    workload::{self, Progress},
};
use crate::{
    accounts::Due,
    backoff,
    build::{Child, Component, Stage},
    canonical,
    measure::Decisions,
    merge_patch,
    queue::Next,
    validated::ValidatedCluster,
};

/// While something is not ready, changes trigger a look; this is the net below them, and the clock for what cannot be watched.
const UNSETTLED: Duration = Duration::from_secs(15);
/// Ready, but nodes may still get the label of the seccomp profile.
const WITHOUT_SANDBOX: Duration = Duration::from_mins(1);
/// Ready, but Secrets of the user's own, of an external database, a bucket or upstream proxies, change, and Secrets are never watched.
const WITH_USER_SECRETS: Duration = Duration::from_mins(1);

/// Computes the status, writes it if it differs, and says when to look again.
pub async fn conclude(
    cluster: &SelextractCluster,
    validated: Option<&ValidatedCluster>,
    observed: &Observed,
    pursued: Pursued,
    tools: &Tools,
) -> Result<Next, ClusterError> {
    let (namespace, name) = objects::namespace_and_name(cluster);
    let mut troubles = pods::troubles(&observed.pods);
    for (component, trouble) in dereference::fetch_refusals(&tools.context.client, &namespace, &observed.live).await {
        troubles.entry(component).or_insert(trouble);
    }
    let upstreams = validated.and_then(|cluster| upstreams::check(&cluster.egress.upstreams, &observed.users).err());
    let outcome = Outcome {
        cluster: validated,
        children: &pursued.children,
        live: &observed.live,
        reached: pursued.reached,
        faults: &pursued.faults,
        refused: &pursued.refused,
        troubles: &troubles,
        migration_failure: migration_failure(&pursued.children, observed),
        pooler_version: pods::version(&observed.pods, Component::PgBouncerRw.as_str()),
        server_version: server_version(&pursued.children, observed),
        sandbox: observed.sandbox_nodes,
        upstreams: upstreams.as_ref(),
        monitoring: &pursued.monitoring,
        decisions: &pursued.decisions,
        due: &pursued.due,
    };
    // The store may be behind the last write: what is compared is what the API server has.
    let old = fetch_status(cluster, tools).await?;
    let new = status::next(
        &old,
        cluster.meta().generation.unwrap_or_default(),
        &outcome,
        Timestamp::now(),
    );
    for component in &new.components {
        tools
            .context
            .telemetry
            .replicas(&namespace, &name, &component.name, component.desired, component.ready);
    }
    tools
        .context
        .telemetry
        .cluster(&namespace, &name, status::is_ready(&new));
    write_status(cluster, &old, &new, tools).await?;
    tools
        .context
        .accounts
        .wrote(&cluster.uid().unwrap_or_default(), pursued.due);
    tell_summary(cluster, &old, &new, tools).await;
    Ok(Next::After(next_look(cluster, &new)))
}

/// At rest calmly; sooner where something outside may change that no watch tells.
fn next_look(cluster: &SelextractCluster, status: &SelextractClusterStatus) -> Duration {
    let waits_for_nodes = |reason: &str| ["ProfileMissing", "NodesNotReadable"].contains(&reason);
    let sandbox = status.conditions.iter().find(|c| c.type_ == "BrowserSandbox");
    if !status::is_ready(status) {
        UNSETTLED
    } else if sandbox.is_some_and(|condition| waits_for_nodes(&condition.reason)) {
        WITHOUT_SANDBOX
    } else if !user_secrets(cluster).is_empty() || asks_outside(cluster) {
        WITH_USER_SECRETS
    } else {
        backoff::calm_round()
    }
}

/// Kinds of the Prometheus operator, and a right to ask the kubelets, come and go unseen.
fn asks_outside(cluster: &SelextractCluster) -> bool {
    let prometheus = &cluster.spec.monitoring.prometheus;
    prometheus.pod_monitors || prometheus.rules || prometheus.managed.kubelet_metrics
}

fn pods_of<'a>(job: &'a Child, observed: &'a Observed) -> impl Iterator<Item = &'a Pod> {
    let name = |pod: &&Pod| pod.labels().get("batch.kubernetes.io/job-name").map(String::as_str) == Some(job.name());
    observed.pods.iter().filter(name)
}

/// The last words of a failing migration: a Job that is given up, or one that failed and tries again.
fn migration_failure(children: &[(Stage, Child)], observed: &Observed) -> Option<String> {
    let job = migration::job(children)?;
    let live = observed.live.get(&Key {
        kind: "Job".to_owned(),
        name: job.name().to_owned(),
    })?;
    let said = pods::last_failure(pods_of(job, observed));
    match workload::progress(live) {
        Progress::Done => None,
        Progress::Failed(why) => Some(said.unwrap_or(why)),
        Progress::Rolling => said,
    }
}

/// What the migration Job, which talks to the database whoever runs it, said of the server.
fn server_version(children: &[(Stage, Child)], observed: &Observed) -> Option<String> {
    pods::last_report(pods_of(migration::job(children)?, observed))
}

async fn fetch_status(cluster: &SelextractCluster, tools: &Tools) -> Result<SelextractClusterStatus, ClusterError> {
    let api: Api<SelextractCluster> =
        Api::namespaced(tools.context.client.clone(), &cluster.namespace().unwrap_or_default());
    let found = api
        .get_opt(&cluster.name_any())
        .await
        .map_err(Box::new)
        .context(StatusSnafu)?;
    Ok(found
        .filter(|found| found.uid() == cluster.uid())
        .and_then(|found| found.status)
        .unwrap_or_default())
}

async fn write_status(
    cluster: &SelextractCluster,
    old: &SelextractClusterStatus,
    new: &SelextractClusterStatus,
    tools: &Tools,
) -> Result<(), ClusterError> {
    let (old, new) = (canonical::sorted(&json!(old)), canonical::sorted(&json!(new)));
    let Some(patch) = merge_patch::between(&old, &new) else {
        return Ok(());
    };
    let api: Api<SelextractCluster> =
        Api::namespaced(tools.context.client.clone(), &cluster.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"uid": cluster.uid()}, "status": patch});
    tools.context.telemetry.wrote("cluster status");
    match api
        .patch_status(
            &cluster.name_any(),
            &PatchParams::apply(super::FIELD_MANAGER),
            &Patch::Merge(&patch),
        )
        .await
    {
        Ok(_) => Ok(()),
        // It was deleted meanwhile, perhaps made anew: its own reconcile comes.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(Box::new(error)).context(StatusSnafu),
    }
}

/// An event when the summary's reason changes.
async fn tell_summary(
    cluster: &SelextractCluster,
    old: &SelextractClusterStatus,
    new: &SelextractClusterStatus,
    tools: &Tools,
) {
    let ready = |status: &SelextractClusterStatus| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .map(|c| (c.reason.clone(), c.message.clone()))
    };
    let (Some((reason, message)), before) = (ready(new), ready(old)) else {
        return;
    };
    if before.is_some_and(|(old_reason, _)| old_reason == reason)
        || ["Waiting", "Progressing"].contains(&reason.as_str())
    {
        return;
    }
    let kind = if status::is_ready(new) {
        EventType::Normal
    } else {
        EventType::Warning
    };
    tools.context.event(cluster, kind, &reason, "Reconcile", message).await;
}

/// A cluster that this version of the operator cannot read says so, and does not break the others.
pub async fn unreadable(
    namespace: &str,
    name: &str,
    error: &str,
    generation: i64,
    tools: &Tools,
) -> Result<Next, ClusterError> {
    let fault = Fault {
        condition: None,
        reason: "Unreadable".to_owned(),
        message: format!("The operator cannot read the object: {error}"),
    };
    let outcome = Outcome {
        cluster: None,
        children: &[],
        live: &Live::new(),
        reached: Stage::Foundation,
        faults: &[fault],
        refused: &[],
        troubles: &BTreeMap::new(),
        migration_failure: None,
        pooler_version: None,
        server_version: None,
        sandbox: SandboxNodes::Unknown,
        upstreams: None,
        monitoring: &MonitoringFound::default(),
        decisions: &Decisions::default(),
        due: &Due::default(),
    };
    // The same words at every try: the API server does not store what is the same.
    let status = status::next(
        &SelextractClusterStatus::default(),
        generation,
        &outcome,
        Timestamp::UNIX_EPOCH,
    );
    let resource = ApiResource::erase::<SelextractCluster>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(tools.context.client.clone(), namespace, &resource);
    let patch = json!({"status": {"observedGeneration": generation, "conditions": status.conditions}});
    api.patch_status(name, &PatchParams::apply(super::FIELD_MANAGER), &Patch::Merge(&patch))
        .await
        .map_err(Box::new)
        .context(StatusSnafu)?;
    Ok(Next::After(backoff::calm_round()))
}
