//! Whether a `ScrapeTask` may run as it is written, and what its cluster is told then. Pure.

use kube::{Resource, ResourceExt};
use selextract_crds::{CredentialsFrom, ScheduleSpec, ScrapeTask, SelextractCluster};
use selextract_task::{
    Clock,
    feed::{Schedule, Upsert},
};

use crate::canonical;

/// Why a task does not run: a person has to change it, its cluster or its namespace's admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The condition's reason.
    pub reason: &'static str,
    /// One sentence that names the thing.
    pub message: String,
}

/// The namespace and the name of the cluster that a task names.
pub fn cluster_of(task: &ScrapeTask) -> (String, String) {
    let reference = &task.spec.cluster_ref;
    let namespace = reference
        .namespace
        .clone()
        .or_else(|| task.namespace())
        .unwrap_or_default();
    (namespace, reference.name.clone())
}

/// Checks that the cluster is there and admits the task's namespace.
///
/// # Errors
/// What is wrong.
pub fn admit(task: &ScrapeTask, cluster: Option<&SelextractCluster>) -> Result<(), Fault> {
    let (namespace, name) = cluster_of(task);
    let Some(cluster) = cluster else {
        let message = format!(
            "There is no SelextractCluster {name} in namespace {namespace}, or the operator does not watch that namespace."
        );
        return Err(Fault {
            reason: "ClusterNotFound",
            message,
        });
    };
    let own = task.namespace().unwrap_or_default();
    let admitted = own == namespace
        || cluster
            .spec
            .allowed_namespaces
            .iter()
            .any(|allowed| *allowed == own || allowed == "*");
    if admitted {
        return check_pool(task, cluster);
    }
    let message = format!(
        "SelextractCluster {name} in namespace {namespace} does not admit namespace {own}; add it to its spec.allowedNamespaces."
    );
    Err(Fault {
        reason: "NamespaceNotAllowed",
        message,
    })
}

fn check_pool(task: &ScrapeTask, cluster: &SelextractCluster) -> Result<(), Fault> {
    let Some(wanted) = &task.spec.task.proxy_pool else {
        return Ok(());
    };
    let pools = &cluster.spec.egress.upstreams;
    if pools.iter().any(|pool| pool.name == *wanted) {
        return Ok(());
    }
    let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    Err(Fault {
        reason: "UnknownProxyPool",
        message: format!(
            "spec.task.proxyPool is {wanted:?}, and the cluster's pools (spec.egress.upstreams) are {known:?}; name one of them or add it."
        ),
    })
}

/// Whether the task's status says that this very cluster has accepted it as it is: so it need not be sent again at the operator's start.
/// A cluster that was made after that is another one, and knows nothing.
pub fn is_accepted_by(task: &ScrapeTask, cluster: &SelextractCluster) -> bool {
    let ready = task.status.iter().flat_map(|status| &status.conditions);
    let since = ready
        .filter(|condition| condition.type_ == "Ready" && condition.status == "True")
        .map(|condition| condition.last_transition_time.0)
        .next();
    let made = cluster.meta().creation_timestamp.as_ref().map(|at| at.0);
    task.meta().deletion_timestamp.is_none()
        && cluster.meta().deletion_timestamp.is_none()
        && task.status.as_ref().map(|status| status.observed_generation) == task.meta().generation
        && since.zip(made).is_some_and(|(since, made)| made < since)
        && admit(task, Some(cluster)).is_ok()
}

/// Checks what the task says and makes what the cluster is told.
///
/// # Errors
/// What is wrong.
pub fn compile(task: &ScrapeTask) -> Result<Upsert, Fault> {
    let spec = &task.spec;
    if let Err(violations) = spec.task.compile() {
        return Err(Fault {
            reason: "InvalidTask",
            message: format!("spec.task: {violations}"),
        });
    }
    if spec.credentials_from == CredentialsFrom::Secret && spec.task.credentials.is_none() {
        return Err(Fault {
            reason: "InvalidTask",
            message:
                "spec.credentialsFrom = \"Secret\" needs spec.task.credentials: the name of a Secret of this namespace"
                    .to_owned(),
        });
    }
    let schedule = spec.schedule.as_ref().map(check_schedule).transpose()?;
    let spec_hash = canonical::hash(&spec.task).map_err(|error| Fault {
        reason: "InvalidTask",
        message: format!("spec.task cannot be written as JSON: {error}"),
    })?;
    Ok(Upsert {
        uid: task.uid().unwrap_or_default(),
        namespace: task.namespace().unwrap_or_default(),
        name: task.name_any(),
        spec_hash,
        task: spec.task.clone(),
        priority: spec.priority,
        suspend: spec.suspend,
        schedule,
        on_change: spec.on_change,
        ttl_after_finished: spec.ttl_after_finished,
        successful_runs_history_limit: spec.successful_runs_history_limit,
        failed_runs_history_limit: spec.failed_runs_history_limit,
    })
}

fn check_schedule(schedule: &ScheduleSpec) -> Result<Schedule, Fault> {
    if let Err(wrong) = Clock::parse(&schedule.cron, &schedule.time_zone) {
        return Err(Fault {
            reason: "InvalidSchedule",
            message: format!("spec.schedule.{} = {:?}: {}", wrong.field, wrong.value, wrong.message),
        });
    }
    if let Err(message) = selextract_task::check_starting_deadline(schedule.starting_deadline) {
        return Err(Fault {
            reason: "InvalidSchedule",
            message: format!(
                "spec.schedule.startingDeadline = {}: {message}",
                schedule
                    .starting_deadline
                    .unwrap_or(selextract_task::DEFAULT_STARTING_DEADLINE)
            ),
        });
    }
    Ok(Schedule {
        cron: schedule.cron.clone(),
        time_zone: schedule.time_zone.clone(),
        concurrency_policy: schedule.concurrency_policy,
        starting_deadline: schedule.starting_deadline,
    })
}

#[cfg(test)]
mod tests {
    use selextract_crds::SelextractClusterSpec;
    use serde_json::{Value, json};

    use super::*;

    fn task(spec: &Value) -> ScrapeTask {
        serde_json::from_value(json!({
            "apiVersion": "selextract.io/v1alpha1", "kind": "ScrapeTask",
            "metadata": {"name": "docs", "namespace": "team", "uid": "u1"}, "spec": spec,
        }))
        .unwrap()
    }

    fn good() -> Value {
        json!({
            "clusterRef": {"name": "shop"},
            "task": {"url": "https://example.com/", "fields": [{"name": "title", "selector": "h1"}]},
        })
    }

    fn cluster(allowed: &[&str]) -> SelextractCluster {
        SelextractCluster::new(
            "shop",
            SelextractClusterSpec {
                allowed_namespaces: allowed.iter().map(|&n| n.to_owned()).collect(),
                ..SelextractClusterSpec::default()
            },
        )
    }

    #[test]
    fn a_missing_cluster_is_named() {
        let fault = admit(&task(&good()), None).unwrap_err();
        assert_eq!(fault.reason, "ClusterNotFound");
        assert!(fault.message.contains("shop") && fault.message.contains("team"));
    }

    #[test]
    fn a_cluster_elsewhere_serves_only_the_namespaces_that_it_admits() {
        let mut spec = good();
        spec["clusterRef"]["namespace"] = "platform".into();
        let task = task(&spec);
        assert_eq!(
            admit(&task, Some(&cluster(&[]))).unwrap_err().reason,
            "NamespaceNotAllowed"
        );
        assert_eq!(
            admit(&task, Some(&cluster(&["other"]))).unwrap_err().reason,
            "NamespaceNotAllowed"
        );
        assert_eq!(admit(&task, Some(&cluster(&["team"]))), Ok(()));
        assert_eq!(admit(&task, Some(&cluster(&["*"]))), Ok(()));
    }

    #[test]
    fn a_pool_that_the_cluster_does_not_declare_is_named_with_those_that_it_does() {
        let mut spec = good();
        spec["task"]["proxyPool"] = "eu".into();
        let mut with_pool = cluster(&[]);
        let fault = admit(&task(&spec), Some(&with_pool)).unwrap_err();
        assert!(
            fault.reason == "UnknownProxyPool" && fault.message.contains("\"eu\""),
            "{}",
            fault.message
        );
        with_pool.spec.egress.upstreams = serde_json::from_value(json!([{"name": "eu", "proxies": []}])).unwrap();
        assert_eq!(admit(&task(&spec), Some(&with_pool)), Ok(()));
    }

    #[test]
    fn the_own_namespace_is_always_admitted() {
        assert_eq!(admit(&task(&good()), Some(&cluster(&[]))), Ok(()));
    }

    #[test]
    fn invalid_selectors_and_schemes_are_told_with_field_and_value() {
        let mut spec = good();
        spec["task"]["fields"][0]["selector"] = "h1[".into();
        spec["task"]["url"] = "ftp://example.com/".into();
        let fault = compile(&task(&spec)).unwrap_err();
        assert_eq!(fault.reason, "InvalidTask");
        assert!(
            fault.message.contains("fields[0].selector") && fault.message.contains("url"),
            "{}",
            fault.message
        );
    }

    #[test]
    fn a_schedule_has_five_fields_and_a_real_time_zone() {
        for (cron, zone, good_one) in [
            ("*/5 * * * *", "UTC", true),
            ("0 3 * * MON", "Europe/Berlin", true),
            ("61 * * * *", "UTC", false),
            ("* * * * * *", "UTC", false),
            ("0 3 * * *", "Mars/Olympus", false),
        ] {
            let mut spec = good();
            spec["schedule"] = json!({"cron": cron, "timeZone": zone});
            assert_eq!(compile(&task(&spec)).is_ok(), good_one, "{cron} {zone}");
        }
    }

    #[test]
    fn a_starting_deadline_has_bounds() {
        for (deadline, good_one) in [("9s", false), ("10s", true), ("7d", true), ("8d", false)] {
            let mut spec = good();
            spec["schedule"] = json!({"cron": "0 3 * * *", "startingDeadline": deadline});
            assert_eq!(compile(&task(&spec)).is_ok(), good_one, "{deadline}");
        }
    }

    #[test]
    fn a_status_is_believed_only_if_this_very_cluster_accepted_this_very_spec() {
        let made = |at: &str| {
            let mut cluster = cluster(&[]);
            cluster.metadata.creation_timestamp = serde_json::from_value(at.into()).unwrap();
            cluster
        };
        let mut task = task(&good());
        task.metadata.generation = Some(3);
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-11-24T02:00:00Z"}]);
        task.status = serde_json::from_value(json!({"observedGeneration": 3, "conditions": ready})).unwrap();
        let before = made("2026-11-24T01:00:00Z");
        assert!(is_accepted_by(&task, &before));
        assert!(!is_accepted_by(&task, &made("2026-11-24T03:00:00Z")), "made anew since");
        let mut changed = task.clone();
        changed.metadata.generation = Some(4);
        assert!(!is_accepted_by(&changed, &before));
        task.status.as_mut().unwrap().conditions[0].status = "False".into();
        assert!(!is_accepted_by(&task, &before));
    }

    /// A field that were written at its default would change the hash of every task: the operator's upgrade would run them all again.
    #[test]
    fn an_upgrade_that_knows_more_fields_changes_no_hash() {
        let task = canonical::sorted(&json!(task(&good()).spec.task)).to_string();
        assert_eq!(
            task,
            r#"{"fields":[{"multiple":false,"name":"title","required":false,"selector":"h1","type":"Text"}],"maxRetries":3,"render":"Http","retryDelay":"5s","timeout":"30s","url":"https://example.com/"}"#
        );
    }

    #[test]
    fn the_hash_depends_on_the_task_alone() {
        let mut other = good();
        other["suspend"] = true.into();
        other["priority"] = 9.into();
        let (one, two) = (compile(&task(&good())).unwrap(), compile(&task(&other)).unwrap());
        assert_eq!(one.spec_hash, two.spec_hash);
        other["task"]["maxRetries"] = 1.into();
        assert_ne!(one.spec_hash, compile(&task(&other)).unwrap().spec_hash);
    }
}
