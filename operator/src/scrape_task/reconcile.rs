//! One look at one `ScrapeTask`: judge it, send it, mirror what became of it. Writes nothing when nothing changed.

use std::{convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::controller::Action,
};
use selextract_crds::{ScrapeTask, ScrapeTaskStatus};
use selextract_task::feed::{Change, KnownTask};
use serde_json::json;
use snafu::{ResultExt, Snafu};
use tokio::time::{Instant, timeout};

use super::{
    TaskMeta, Tools,
    judge::{self, Fault},
    link::{Link, Reach},
    registry::Settled,
    status::{self, Outcome},
};
use crate::backoff;

const PATIENCE: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// While the cluster cannot be reached the link itself looks for it; this is only the net below.
const WAITING: Duration = Duration::from_mins(1);

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
}

/// Looks at one task; errors are handled here: logged once, counted, tried again.
pub async fn reconcile(meta: Arc<TaskMeta>, tools: Arc<Tools>) -> Result<Action, Infallible> {
    let started = Instant::now();
    let (namespace, name, uid) = (
        meta.namespace().unwrap_or_default(),
        meta.name_any(),
        meta.uid().unwrap_or_default(),
    );
    let outcome = look(&meta, &tools).await;
    tools
        .context
        .telemetry
        .reconciled("ScrapeTask", &namespace, &name, started.elapsed(), outcome.is_err());
    Ok(match outcome {
        Ok(action) => {
            tools.context.backoffs.reset(&uid);
            action
        }
        Err(error) => {
            let wait = tools.context.backoffs.after_failure(&uid);
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, source, namespace, name, ?wait, "A look at a ScrapeTask broke off; it is tried again.");
            Action::requeue(wait)
        }
    })
}

async fn look(meta: &TaskMeta, tools: &Tools) -> Result<Action, TaskError> {
    let api: Api<DeserializeGuard<ScrapeTask>> =
        Api::namespaced(tools.context.client.clone(), &meta.namespace().unwrap_or_default());
    let uid = meta.uid().unwrap_or_default();
    if is_settled(meta, &uid, tools) {
        return Ok(Action::requeue(backoff::calm_round()));
    }
    let Some(found) = api
        .get_opt(&meta.name_any())
        .await
        .map_err(Box::new)
        .context(KubeSnafu { verb: "read" })?
    else {
        return Ok(Action::await_change());
    };
    let task = match found.0 {
        Ok(task) => task,
        Err(invalid) => return unreadable(&invalid, tools).await,
    };
    let news = tools.registry.enter(
        &uid,
        (task.namespace().unwrap_or_default(), task.name_any()),
        judge::cluster_of(&task),
    );
    if task.meta().deletion_timestamp.is_some() {
        // Somebody else's finalizer holds the object; its run ends now.
        tools.links.end(&judge::cluster_of(&task), &uid);
        return Ok(Action::await_change());
    }
    let look = Look { uid: &uid, news, tools };
    drive(task, &look).await
}

/// Whether the object, its cluster and its run are what they were when all was done.
fn is_settled(meta: &TaskMeta, uid: &str, tools: &Tools) -> bool {
    if meta.meta().deletion_timestamp.is_some() {
        return false;
    }
    // News about the cluster and its changes unsettle the task, so the uid need not be looked up again.
    meta.resource_version()
        .is_some_and(|version| tools.registry.is_settled(uid, &version))
}

/// One look under way.
struct Look<'a> {
    uid: &'a str,
    /// How much news there were when it began.
    news: u64,
    tools: &'a Tools,
}

async fn drive(task: ScrapeTask, look: &Look<'_>) -> Result<Action, TaskError> {
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
        (Ok(_), None) => return Ok(Action::requeue(WAITING)),
        (Err(fault), _) => return settle(task, &Outcome::Stalled(fault), None, look).await,
    };
    let cluster_uid = cluster.uid().unwrap_or_default();
    let link = tools.links.to(cluster);
    let change = link.take(uid);
    if tools.registry.is_accepted(uid, &cluster_uid, generation) {
        let outcome = match &change {
            Some(change) => told(change),
            None => known(&task),
        };
        return settle(task, &outcome, Some((&link, change)), look).await;
    }
    let this = KnownTask {
        uid: uid.to_owned(),
        namespace: upsert.namespace.clone(),
        name: upsert.name.clone(),
    };
    let outcome = send(&link, upsert).await;
    if tools.presence.of(&this) == Some(false) {
        // It went while it was sent: the ending that followed may have come first.
        tools.registry.forget(uid);
        link.end(uid);
        return Ok(Action::await_change());
    }
    if matches!(outcome, Outcome::Accepted { .. }) {
        tools.registry.accept(uid, &cluster_uid, generation);
    }
    settle(task, &outcome, Some((&link, change)), look).await
}

fn told(change: &Change) -> Outcome {
    Outcome::Accepted {
        run: Some(Box::new(change.run.clone())),
        next_run_at: change.next_run_at.clone(),
    }
}

/// Accepted, and nothing new about its run.
fn known(task: &ScrapeTask) -> Outcome {
    let next_run_at = task.status.as_ref().and_then(|status| status.next_run_time.clone());
    Outcome::Accepted { run: None, next_run_at }
}

async fn send(link: &Link, upsert: selextract_task::feed::Upsert) -> Outcome {
    const REASON: &str = "ClusterUnreachable";
    match link.reach(PATIENCE).await {
        Reach::Up => {}
        Reach::Unknown => {
            return Outcome::Waiting {
                reason: REASON,
                message: "The cluster's API has not answered yet.".into(),
            };
        }
        Reach::Down(why) => {
            return Outcome::Waiting {
                reason: REASON,
                message: format!("The cluster's API cannot be reached: {why}."),
            };
        }
    }
    match timeout(ANSWER_TIMEOUT, link.upsert(upsert)).await {
        Ok(Ok(answer)) => match answer.refused {
            Some(message) => Outcome::Stalled(Fault {
                reason: "Refused",
                message,
            }),
            None => Outcome::Accepted {
                run: answer.run.map(Box::new),
                next_run_at: answer.next_run_at,
            },
        },
        Ok(Err(why)) => Outcome::Waiting {
            reason: REASON,
            message: format!("The cluster's API cannot be reached: {why}."),
        },
        Err(_) => Outcome::Waiting {
            reason: REASON,
            message: "The cluster's API did not answer in time.".into(),
        },
    }
}

/// Writes the status if it differs, and remembers that all was done.
async fn settle(
    task: ScrapeTask,
    outcome: &Outcome,
    link: Option<(&Link, Option<Change>)>,
    look: &Look<'_>,
) -> Result<Action, TaskError> {
    let old = task.status.clone().unwrap_or_default();
    let new = status::next(
        &old,
        task.meta().generation.unwrap_or_default(),
        outcome,
        Timestamp::now(),
    );
    let mut version = task.resource_version().unwrap_or_default();
    if new != old {
        match write_status(&task, &new, look.tools).await {
            Ok(written) => version = written,
            Err(error) => {
                if let Some((link, Some(change))) = link {
                    link.put_back(change);
                }
                return Err(error);
            }
        }
    }
    let done = !matches!(outcome, Outcome::Waiting { .. });
    let settled = done.then_some(Settled {
        resource_version: version,
    });
    look.tools
        .registry
        .settle(look.uid, look.news, settled, status::state_label(&new));
    Ok(Action::requeue(if done { backoff::calm_round() } else { WAITING }))
}

async fn write_status(task: &ScrapeTask, new: &ScrapeTaskStatus, tools: &Tools) -> Result<String, TaskError> {
    let api: Api<ScrapeTask> = Api::namespaced(tools.context.client.clone(), &task.namespace().unwrap_or_default());
    // Every field is in the patch: one that has no value now must not keep its old one.
    let mut fields = json!({
        "runId": null, "specHash": null, "state": null, "pages": null, "records": null, "error": null, "createdAt": null,
        "startedAt": null, "finishedAt": null, "nextRunTime": null, "preview": null, "results": null,
    });
    let known = serde_json::to_value(new).unwrap_or_default();
    if let (Some(fields), Some(known)) = (fields.as_object_mut(), known.as_object()) {
        fields.extend(known.clone());
    }
    let patch = json!({"metadata": {"uid": task.uid()}, "status": fields});
    let written = api
        .patch_status(
            &task.name_any(),
            &PatchParams::apply(crate::cluster::FIELD_MANAGER),
            &Patch::Merge(&patch),
        )
        .await
        .map_err(Box::new)
        .context(KubeSnafu {
            verb: "write the status of",
        })?;
    tools.context.telemetry.wrote("scrape task status");
    Ok(written.resource_version().unwrap_or_default())
}

/// A task that this version of the operator cannot read says so, and does not break the others.
async fn unreadable(invalid: &kube::core::error_boundary::InvalidObject, tools: &Tools) -> Result<Action, TaskError> {
    let meta = &invalid.metadata;
    let mut task = ScrapeTaskStatus::default();
    let fault = Fault {
        reason: "Unreadable",
        message: format!("The operator cannot read the object: {}", invalid.error),
    };
    task = status::next(
        &task,
        meta.generation.unwrap_or_default(),
        &Outcome::Stalled(fault),
        Timestamp::UNIX_EPOCH,
    );
    let patch = json!({"status": {"observedGeneration": task.observed_generation, "conditions": task.conditions}});
    let api: Api<TaskMetaOnly> = Api::namespaced_with(
        tools.context.client.clone(),
        meta.namespace.as_deref().unwrap_or_default(),
        &kube::discovery::ApiResource::erase::<ScrapeTask>(&()),
    );
    // The same words at every try: the API server does not store what is the same.
    api.patch_status(
        meta.name.as_deref().unwrap_or_default(),
        &PatchParams::apply(crate::cluster::FIELD_MANAGER),
        &Patch::Merge(&patch),
    )
    .await
    .map_err(Box::new)
    .context(KubeSnafu {
        verb: "write the status of",
    })?;
    Ok(Action::requeue(backoff::calm_round()))
}

type TaskMetaOnly = kube::api::DynamicObject;
