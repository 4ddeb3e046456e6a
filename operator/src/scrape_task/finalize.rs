//! The end of a `ScrapeTask`: its run is canceled; a cluster or a namespace that is going is not waited for.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{controller::Action, events::EventType},
};
use selextract_crds::{ScrapeTask, SelextractCluster};
use serde_json::json;
use snafu::ResultExt;
use tokio::time::timeout;

use super::{
    FINALIZER, Tools, judge,
    link::Reach,
    reconcile::{KubeSnafu, TaskError},
};

/// How long an API that does not answer is waited for.
const GIVE_UP: Duration = Duration::from_mins(2);
const AGAIN: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// What happens to a task that is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Its run is canceled first.
    Cancel,
    /// The API did not answer for too long.
    GiveUp,
    /// The API does not answer yet.
    Wait,
}

/// Ends the run of a task that is being deleted, and lets the object go.
///
/// # Errors
/// When the API server did not take a write.
pub async fn finalize(task: &ScrapeTask, tools: &Tools) -> Result<Action, TaskError> {
    if !task.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = judge::cluster_of(task);
    let guarded = tools.context.clusters.get(&namespace, &name);
    let cluster = guarded.as_deref().and_then(|guarded| guarded.0.as_ref().ok());
    let own = task.namespace().unwrap_or_default();
    if is_going(cluster) || is_terminating(&tools.context.client, &own).await {
        return let_go(task, tools).await;
    }
    let Some(cluster) = cluster else {
        return let_go(task, tools).await;
    };
    let link = tools.links.to(cluster);
    let waited = task
        .meta()
        .deletion_timestamp
        .as_ref()
        .map_or(Duration::ZERO, |at| since(at.0, Timestamp::now()));
    match decide(&link.reach(Duration::from_secs(1)).await, waited) {
        Step::Cancel => match timeout(ANSWER_TIMEOUT, link.remove(&task.uid().unwrap_or_default())).await {
            Ok(Ok(())) => let_go(task, tools).await,
            Ok(Err(_)) | Err(_) if waited >= GIVE_UP => give_up(task, tools).await,
            Ok(Err(_)) | Err(_) => Ok(Action::requeue(AGAIN)),
        },
        Step::GiveUp => give_up(task, tools).await,
        Step::Wait => Ok(Action::requeue(AGAIN)),
    }
}

fn is_going(cluster: Option<&SelextractCluster>) -> bool {
    cluster.is_none_or(|cluster| cluster.meta().deletion_timestamp.is_some())
}

fn decide(reach: &Reach, waited: Duration) -> Step {
    match reach {
        Reach::Up => Step::Cancel,
        Reach::Unknown | Reach::Down(_) if waited >= GIVE_UP => Step::GiveUp,
        Reach::Unknown | Reach::Down(_) => Step::Wait,
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(now.as_second() - then.as_second()).unwrap_or(0))
}

async fn give_up(task: &ScrapeTask, tools: &Tools) -> Result<Action, TaskError> {
    let note = "The cluster's API did not answer for two minutes: the object goes, its run may still be under way.";
    tools
        .context
        .event(task, EventType::Warning, "RunNotCanceled", "Finalize", note.to_owned())
        .await;
    let_go(task, tools).await
}

async fn let_go(task: &ScrapeTask, tools: &Tools) -> Result<Action, TaskError> {
    let others: Vec<&str> = task
        .finalizers()
        .iter()
        .map(String::as_str)
        .filter(|f| *f != FINALIZER)
        .collect();
    write_finalizers(task, &others, tools).await?;
    tools.registry.forget(&task.uid().unwrap_or_default());
    Ok(Action::await_change())
}

/// Writes the list of finalizers over the version that was read; `None` when the object is gone.
///
/// # Errors
/// When the API server did not take it, such as after another's write in between.
pub async fn write_finalizers(
    task: &ScrapeTask,
    finalizers: &[&str],
    tools: &Tools,
) -> Result<Option<ScrapeTask>, TaskError> {
    let api: Api<ScrapeTask> = Api::namespaced(tools.context.client.clone(), &task.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": task.resource_version()}});
    tools.context.telemetry.wrote("finalizer");
    match api
        .patch(
            &task.name_any(),
            &PatchParams::apply(crate::cluster::FIELD_MANAGER),
            &Patch::Merge(&patch),
        )
        .await
    {
        Ok(written) => Ok(Some(written)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(Box::new(error)).context(KubeSnafu {
            verb: "write the finalizers of",
        }),
    }
}

/// Whether a namespace is being deleted; without the right to look, it is not.
pub async fn is_terminating(client: &Client, namespace: &str) -> bool {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.get_opt(namespace).await {
        Ok(Some(found)) => found.meta().deletion_timestamp.is_some(),
        Ok(None) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_canceled_where_the_api_answers() {
        assert_eq!(decide(&Reach::Up, Duration::ZERO), Step::Cancel);
    }

    #[test]
    fn an_api_that_does_not_answer_is_waited_for_two_minutes_and_no_longer() {
        let down = Reach::Down("no".into());
        assert_eq!(decide(&down, Duration::from_secs(119)), Step::Wait);
        assert_eq!(decide(&down, Duration::from_mins(2)), Step::GiveUp);
        assert_eq!(decide(&Reach::Unknown, Duration::from_secs(500)), Step::GiveUp);
    }

    #[test]
    fn a_cluster_that_is_gone_or_going_holds_nothing_up() {
        assert!(is_going(None));
        let mut cluster = SelextractCluster::new("shop", selextract_crds::SelextractClusterSpec::default());
        assert!(!is_going(Some(&cluster)));
        cluster.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            Timestamp::UNIX_EPOCH,
        ));
        assert!(is_going(Some(&cluster)));
    }
}
