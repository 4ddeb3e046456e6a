//! How far a live Deployment, `StatefulSet` or Job is. Pure.

use serde_json::Value;

use super::pods::{self, Cause, Trouble};

/// How far a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It does what is wanted of it.
    Done,
    /// It is on its way.
    Rolling,
    /// It was given up: a Job that failed for good.
    Failed(String),
}

/// How many pods a workload should have and has ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Wanted.
    pub desired: i32,
    /// Ready.
    pub ready: i32,
}

/// How far this object is; what is no workload is done by being there.
pub fn progress(live: &Value) -> Progress {
    match live.get("kind").and_then(Value::as_str) {
        Some("Deployment") => deployment(live),
        Some("StatefulSet") => stateful_set(live),
        Some("Job") => job(live),
        _ => Progress::Done,
    }
}

/// The pods of a workload; `None` for other kinds.
pub fn count(live: &Value) -> Option<Count> {
    let kind = live.get("kind").and_then(Value::as_str)?;
    ["Deployment", "StatefulSet"].contains(&kind).then(|| Count {
        desired: clamp(live.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)),
        ready: clamp(number(live, "/status/readyReplicas")),
    })
}

/// Why a Deployment cannot create its pods, such as a quota.
pub fn refused(live: &Value) -> Option<Trouble> {
    let conditions = live.pointer("/status/conditions").and_then(Value::as_array)?;
    let failure = conditions
        .iter()
        .find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")?;
    let message = failure
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or("no cause given");
    Some(Trouble {
        cause: Cause::PodsRefused,
        message: format!("The pods are refused: {}", pods::refusal(message)),
    })
}

fn clamp(count: i64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn number(live: &Value, path: &str) -> i64 {
    live.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

/// Whether the controller has seen the spec as it is now.
fn observed(live: &Value) -> bool {
    number(live, "/status/observedGeneration") >= number(live, "/metadata/generation")
}

fn deployment(live: &Value) -> Progress {
    let wanted = live.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let done = observed(live)
        && number(live, "/status/updatedReplicas") == wanted
        && number(live, "/status/availableReplicas") == wanted
        && number(live, "/status/replicas") == wanted;
    if done { Progress::Done } else { Progress::Rolling }
}

fn stateful_set(live: &Value) -> Progress {
    let wanted = live.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let done = observed(live)
        && number(live, "/status/updatedReplicas") == wanted
        && number(live, "/status/readyReplicas") == wanted;
    if done { Progress::Done } else { Progress::Rolling }
}

fn job(live: &Value) -> Progress {
    let conditions = live.pointer("/status/conditions").and_then(Value::as_array);
    let holds = |kind: &str| conditions.and_then(|all| all.iter().find(|c| c["type"] == kind && c["status"] == "True"));
    if holds("Complete").is_some() {
        return Progress::Done;
    }
    match holds("Failed") {
        Some(failed) => Progress::Failed(failed["message"].as_str().unwrap_or("the Job failed").to_owned()),
        None => Progress::Rolling,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_done_only_when_every_pod_is_new_and_available() {
        let live = |observed: i64, updated: i64, available: i64, all: i64| {
            json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {
                "observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available, "replicas": all,
            }})
        };
        assert_eq!(progress(&live(2, 2, 2, 2)), Progress::Done);
        for (observed, updated, available, all) in [(1, 2, 2, 2), (2, 1, 2, 2), (2, 2, 1, 2), (2, 2, 2, 3)] {
            assert_eq!(progress(&live(observed, updated, available, all)), Progress::Rolling);
        }
    }

    #[test]
    fn a_deployment_of_zero_is_done_with_nothing() {
        let live = json!({"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 0}, "status": {"observedGeneration": 1}});
        assert_eq!(progress(&live), Progress::Done);
    }

    #[test]
    fn a_job_is_done_failed_or_on_its_way() {
        let with = |conditions: Value| progress(&json!({"kind": "Job", "status": {"conditions": conditions}}));
        assert_eq!(with(json!([{"type": "Complete", "status": "True"}])), Progress::Done);
        assert_eq!(
            with(json!([{"type": "Failed", "status": "True", "message": "it was tried too often"}])),
            Progress::Failed("it was tried too often".into())
        );
        assert_eq!(with(json!([])), Progress::Rolling);
    }

    #[test]
    fn a_quota_is_told_without_the_pods_name() {
        let live = json!({"kind": "Deployment", "status": {"conditions": [{
            "type": "ReplicaFailure", "status": "True",
            "message": "pods \"a-b-c\" is forbidden: exceeded quota: small"
        }]}});
        assert_eq!(
            refused(&live).unwrap().message,
            "The pods are refused: exceeded quota: small"
        );
    }
}
