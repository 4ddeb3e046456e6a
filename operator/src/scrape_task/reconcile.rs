//! One look at one `ScrapeTask`: judge it, send it, mirror what became of it. Writes nothing when nothing changed.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::error_boundary::InvalidObject,
    discovery::ApiResource,
    runtime::events::EventType,
};
use selextract_crds::{ScrapeTask, ScrapeTaskStatus};
use selextract_task::feed::{Change, Upsert};
use serde_json::{Value, json};
use snafu::{ResultExt, Snafu};
use tokio::time::{Instant, timeout};

use super::{
    Tools,
    credentials::Brought,
    judge::{self, Fault},
    link::{Link, Reach},
    registry::{Beginning, Uid},
    status::{self, Outcome},
    watch::GuardedTask,
};
use crate::queue::Next;

const PATIENCE: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// Why a look broke off; it is tried again with backoff.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(super)))]
pub enum TaskError {
    /// The API server did not do it.
    #[snafu(display("cannot {verb} the ScrapeTask"))]
    Kube {
        /// What was tried.
        verb: &'static str,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The cluster's API answers, but did not take the task.
    #[snafu(display("the cluster has not taken the ScrapeTask: {why}"))]
    NotTaken {
        /// As in the condition.
        why: String,
    },
}

/// Looks at one task; errors are handled here: logged once, counted, tried again.
pub async fn reconcile(uid: Uid, tools: Arc<Tools>) -> Next {
    let Some(beginning) = tools.registry.begin(&uid).filter(|beginning| !beginning.settled) else {
        return Next::OnNews;
    };
    let (namespace, name) = (beginning.namespace.clone(), beginning.name.clone());
    let started = Instant::now();
    let outcome = look(&uid, &beginning, &tools).await;
    tools
        .context
        .telemetry
        .reconciled("ScrapeTask", &namespace, &name, started.elapsed(), outcome.is_err());
    match outcome {
        Ok(next) => {
            tools.context.backoffs.reset(&uid);
            next
        }
        Err(error) => {
            let wait = tools.context.backoffs.after_failure(&uid);
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, source, %namespace, name, ?wait, "A look at a ScrapeTask broke off; it is tried again.");
            Next::After(wait)
        }
    }
}

async fn look(uid: &str, beginning: &Beginning, tools: &Tools) -> Result<Next, TaskError> {
    let api: Api<GuardedTask> = Api::namespaced(tools.context.client.clone(), &beginning.namespace);
    let found = api
        .get_opt(&beginning.name)
        .await
        .map_err(Box::new)
        .context(KubeSnafu { verb: "read" })?;
    // Gone, or made anew: the watch tells, under its own uid.
    let Some(found) = found.filter(|found| found.meta().uid.as_deref() == Some(uid)) else {
        return Ok(Next::OnNews);
    };
    let look = Look {
        uid,
        news: beginning.news,
        tools,
    };
    match found.0 {
        Err(invalid) => unreadable(&invalid, &look).await,
        Ok(task) if task.meta().deletion_timestamp.is_some() => {
            // Somebody else's finalizer holds the object; its run ends now.
            tools.links.end(&judge::cluster_of(&task), uid);
            Ok(Next::OnNews)
        }
        Ok(task) => drive(task, &look).await,
    }
}

/// One look under way.
pub(super) struct Look<'a> {
    pub(super) uid: &'a str,
    /// How much news there were when it began.
    pub(super) news: u32,
    pub(super) tools: &'a Tools,
}

async fn drive(task: ScrapeTask, look: &Look<'_>) -> Result<Next, TaskError> {
    let (uid, tools) = (look.uid, look.tools);
    let generation = task.meta().generation.unwrap_or_default();
    let (namespace, name) = judge::cluster_of(&task);
    let guarded = tools.context.clusters.get(&namespace, &name);
    let cluster = guarded
        .as_deref()
        .and_then(|guarded| guarded.0.as_ref().ok())
        .filter(|c| c.meta().deletion_timestamp.is_none());
    let judged = judge::admit(&task, cluster).and_then(|()| judge::compile(&task));
    let (upsert, cluster) = match (judged, cluster) {
        (Ok(upsert), Some(cluster)) => (upsert, cluster),
        // It is admitted by a cluster, or there is none and that is the fault.
        (Ok(_), None) => return Ok(Next::OnNews),
        (Err(fault), _) => return settle(&task, &Outcome::Stalled(fault), look).await,
    };
    let cluster_uid = cluster.uid().unwrap_or_default();
    let link = tools.links.to(cluster);
    if let Some(next) = bring_credentials(&task, (&cluster_uid, &link), look).await? {
        return Ok(next);
    }
    let change = link.take(uid);
    let settled = if tools.registry.is_accepted(uid, &cluster_uid, generation) {
        let outcome = change.as_ref().map_or_else(|| known(&task), told);
        settle(&task, &outcome, look).await
    } else {
        accept(task, upsert, (&cluster_uid, &link), look).await
    };
    if let (Err(TaskError::Kube { .. }), Some(change)) = (&settled, change) {
        link.put_back(change);
    }
    settled
}

/// Hands the Secret that the task names to its cluster. A look that cannot go on without it ends here.
async fn bring_credentials(
    task: &ScrapeTask,
    (cluster_uid, link): (&str, &Link),
    look: &Look<'_>,
) -> Result<Option<Next>, TaskError> {
    let tools = look.tools;
    let brought = tools
        .credentials
        .bring(&tools.context.client, task, (cluster_uid, link));
    match brought.await.map_err(Box::new).context(KubeSnafu {
        verb: "read the Secret of",
    })? {
        Brought::Done => Ok(None),
        Brought::Fault(fault) => settle(task, &Outcome::Stalled(fault), look).await.map(Some),
        Brought::NotTaken(why) => {
            let next = settle(task, &unreachable(&why), look).await?;
            if link.is_up() {
                return NotTakenSnafu { why }.fail();
            }
            Ok(Some(next))
        }
    }
}

/// Sends the task to its cluster.
async fn accept(
    task: ScrapeTask,
    upsert: Upsert,
    (cluster_uid, link): (&str, &Link),
    look: &Look<'_>,
) -> Result<Next, TaskError> {
    let outcome = send(link, upsert).await;
    if look.tools.registry.begin(look.uid).is_none() {
        // It went while it was sent: the ending that followed may have come first.
        link.end(look.uid);
        return Ok(Next::OnNews);
    }
    if matches!(outcome, Outcome::Accepted { .. }) {
        let generation = task.meta().generation.unwrap_or_default();
        look.tools.registry.accept(look.uid, cluster_uid, generation);
    }
    let next = settle(&task, &outcome, look).await?;
    match outcome {
        // Where the cluster cannot be reached the link says when it can; where it can, there is nobody else to wait for.
        Outcome::Waiting { message, .. } if link.is_up() => NotTakenSnafu { why: message }.fail(),
        _ => Ok(next),
    }
}

fn told(change: &Change) -> Outcome {
    Outcome::Accepted {
        run: Some(Box::new(change.run.clone())),
        next_run_at: change.next_run_at.clone(),
        held: change.held.as_deref().map(status::tick_waits),
    }
}

/// Accepted, and nothing new about its run.
fn known(task: &ScrapeTask) -> Outcome {
    let status = task.status.as_ref();
    Outcome::Accepted {
        run: None,
        next_run_at: status.and_then(|status| status.next_run_time.clone()),
        held: status.and_then(status::held_tick).map(str::to_owned),
    }
}

async fn send(link: &Link, upsert: Upsert) -> Outcome {
    match link.reach(PATIENCE).await {
        Reach::Up => {}
        Reach::Unknown => return unreachable("it has not answered yet"),
        Reach::Down(why) => return unreachable(&why),
    }
    match timeout(ANSWER_TIMEOUT, link.upsert(upsert)).await {
        Ok(Ok(answer)) => match answer.refused {
            Some(message) if answer.quota_exceeded => Outcome::Waiting {
                reason: status::QUOTA,
                message: format!("The namespace may have no further task for now: {message}."),
            },
            Some(message) => Outcome::Stalled(Fault {
                reason: "Refused",
                message,
            }),
            None => Outcome::Accepted {
                run: answer.run.map(Box::new),
                next_run_at: answer.next_run_at,
                held: answer.held.as_deref().map(status::tick_waits),
            },
        },
        Ok(Err(why)) if link.is_up() => Outcome::Waiting {
            reason: "NotTaken",
            message: format!("The cluster has not taken the task: {why}. It is sent again."),
        },
        Ok(Err(why)) => unreachable(&why),
        Err(_) => unreachable("it did not answer in time"),
    }
}

/// The task waits for its cluster; a person looks there, not at the task.
fn unreachable(why: &str) -> Outcome {
    Outcome::Waiting {
        reason: "ClusterUnreachable",
        message: format!(
            "The cluster's API cannot be reached: {why}. The task is sent when it can; the conditions of the SelextractCluster say what is \
             wrong with it."
        ),
    }
}

/// Writes the status if it differs, and remembers that all was done.
pub(super) async fn settle(task: &ScrapeTask, outcome: &Outcome, look: &Look<'_>) -> Result<Next, TaskError> {
    let old = task.status.clone().unwrap_or_default();
    let generation = task.meta().generation.unwrap_or_default();
    let new = status::next(&old, generation, outcome, Timestamp::now());
    let mut version = task.resource_version().unwrap_or_default();
    if new != old {
        version = patch_status(task.meta(), whole(&new), look.tools).await?;
        tell_drift(task, &old, &new, look.tools).await;
        tell_quota(task, &old, &new, look.tools).await;
    }
    let done = !matches!(outcome, Outcome::Waiting { .. });
    let version = done.then_some(version.as_str());
    look.tools.registry.settle(look.uid, look.news, version, &new);
    Ok(Next::OnNews)
}

/// An event when something drifted that had not before.
async fn tell_drift(task: &ScrapeTask, old: &ScrapeTaskStatus, new: &ScrapeTaskStatus, tools: &Tools) {
    let told = new.conditions.iter().find(|condition| condition.type_ == status::DRIFT);
    if let Some(condition) = told.filter(|_| status::has_drifted(new) && new.drift != old.drift) {
        let note = condition.message.clone();
        tools
            .context
            .event(task, EventType::Warning, status::DRIFT, "Compare", note)
            .await;
    }
}

/// An event when the task, its run or a tick begins to wait for a quota; not for each figure of it that moves.
async fn tell_quota(task: &ScrapeTask, old: &ScrapeTaskStatus, new: &ScrapeTaskStatus, tools: &Tools) {
    for (what, message) in status::quotas_exceeded(new) {
        if status::quotas_exceeded(old).any(|(told, _)| told == what) {
            continue;
        }
        let note = message.to_owned();
        tools
            .context
            .event(task, EventType::Warning, status::QUOTA, what, note)
            .await;
    }
}

/// Every field is in the patch: one that has no value now must not keep its old one.
fn whole(status: &ScrapeTaskStatus) -> Value {
    let mut fields = json!({
        "runId": null, "specHash": null, "state": null, "waiting": null, "drift": null, "pages": null, "records": null, "error": null, "createdAt": null,
        "startedAt": null, "finishedAt": null, "nextRunTime": null, "preview": null, "results": null,
    });
    let known = serde_json::to_value(status).unwrap_or_default();
    if let (Some(fields), Value::Object(known)) = (fields.as_object_mut(), known) {
        fields.extend(known);
    }
    fields
}

/// Writes a status over that of this very object, which need not be readable; returns the version that it made.
async fn patch_status(meta: &ObjectMeta, status: Value, tools: &Tools) -> Result<String, TaskError> {
    let resource = ApiResource::erase::<ScrapeTask>(&());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(tools.context.client.clone(), namespace, &resource);
    let patch = json!({"metadata": {"uid": meta.uid}, "status": status});
    tools.context.telemetry.wrote("scrape task status");
    let written = api
        .patch_status(
            meta.name.as_deref().unwrap_or_default(),
            &PatchParams::apply(crate::cluster::FIELD_MANAGER),
            &Patch::Merge(&patch),
        )
        .await
        .map_err(Box::new)
        .context(KubeSnafu {
            verb: "write the status of",
        })?;
    Ok(written.resource_version().unwrap_or_default())
}

/// A task that this version of the operator cannot read says so, and does not break the others.
async fn unreadable(invalid: &InvalidObject, look: &Look<'_>) -> Result<Next, TaskError> {
    let fault = Fault {
        reason: "Unreadable",
        message: format!("The operator cannot read the object: {}", invalid.error),
    };
    let generation = invalid.metadata.generation.unwrap_or_default();
    let status = status::next(
        &ScrapeTaskStatus::default(),
        generation,
        &Outcome::Stalled(fault),
        // The same words at every try: the API server does not store what is the same.
        Timestamp::UNIX_EPOCH,
    );
    let words = json!({"observedGeneration": status.observed_generation, "conditions": status.conditions});
    let version = patch_status(&invalid.metadata, words, look.tools).await?;
    look.tools.registry.settle(look.uid, look.news, Some(&version), &status);
    Ok(Next::OnNews)
}
