//! The migration Job of a spec, and when one that ended runs again. Pure.
//!
//! The Job changes nothing where nothing is to be changed. One that gave up must find the database that has come back; and with an external
//! database it is the only one that can tell why the programs lost it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::workload::{self, Progress};
use crate::build::{Child, Stage};

/// From the end of a Job that gave up to the next.
const AFTER_FAILURE: SignedDuration = SignedDuration::from_mins(1);
/// How long the programs are given to come back by themselves.
const AFTER_LOSS: SignedDuration = SignedDuration::from_secs(30);

/// The migration Job among what should exist.
pub fn job(children: &[(Stage, Child)]) -> Option<&Child> {
    let of_stage = children.iter().filter(|(stage, _)| *stage == Stage::Migration);
    of_stage.map(|(_, child)| child).find(|child| child.kind() == "Job")
}

/// Whether a Job is to run again: it gave up a while ago, or the API, where it is given, stopped to be available after the Job had succeeded.
pub fn is_to_run_again(job: &Value, api: Option<&Value>, now: Timestamp) -> bool {
    let past = |since: Option<Timestamp>, span: SignedDuration| since.is_some_and(|at| now.duration_since(at) >= span);
    match workload::progress(job) {
        Progress::Rolling => false,
        Progress::Failed(_) => past(condition_since(job, "Failed", "True"), AFTER_FAILURE),
        Progress::Done => {
            let lost = api
                .filter(|api| workload::count(api).is_some_and(|count| count.ready == 0))
                .and_then(|api| condition_since(api, "Available", "False"));
            lost > condition_since(job, "Complete", "True") && past(lost, AFTER_LOSS)
        }
    }
}

fn condition_since(object: &Value, kind: &str, status: &str) -> Option<Timestamp> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind && c["status"] == status)?;
    found["lastTransitionTime"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    fn job(kind: &str, ended: i64) -> Value {
        json!({"kind": "Job", "status": {"conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": at(ended).to_string()}
        ]}})
    }

    fn api(available: &str, since: i64) -> Value {
        let ready = i32::from(available == "True");
        json!({"kind": "Deployment", "status": {"readyReplicas": ready, "conditions": [
            {"type": "Available", "status": available, "lastTransitionTime": at(since).to_string()}
        ]}})
    }

    #[test]
    fn a_job_that_gave_up_tries_again_after_a_minute() {
        assert!(!is_to_run_again(&job("Failed", 10), None, at(10)));
        assert!(is_to_run_again(&job("Failed", 10), None, at(11)));
        assert!(!is_to_run_again(&json!({"kind": "Job"}), None, at(11)));
    }

    #[test]
    fn a_loss_of_the_programs_is_looked_into_once() {
        assert!(is_to_run_again(&job("Complete", 10), Some(&api("False", 20)), at(21)));
        assert!(!is_to_run_again(&job("Complete", 10), Some(&api("False", 20)), at(20)));
        // It ran since, and found nothing.
        assert!(!is_to_run_again(&job("Complete", 22), Some(&api("False", 20)), at(60)));
        assert!(!is_to_run_again(&job("Complete", 10), Some(&api("True", 20)), at(60)));
        assert!(!is_to_run_again(&job("Complete", 10), None, at(60)));
    }
}
