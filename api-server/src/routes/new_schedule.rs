//! Reading the schedules that clients ask for.

use std::fmt::Write as _;

use selextract_platform::ledger::scrape_tasks::CheckedUpsert;
use selextract_task::{
    Clock, ConcurrencyPolicy, Duration, TaskSpec, check_starting_deadline,
    feed::{OnChange, Schedule, Upsert},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::new_task::{DEFAULT_PRIORITY, MAX_PRIORITY, MAX_TTL};
use crate::{
    pools::Pools,
    problem::{FieldError, Problem},
    strict,
};

const MAX_NAME: usize = 200;
const MAX_HISTORY: u32 = 10_000;

/// A schedule as clients write it, in the words of a `ScrapeTask`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewSchedule {
    name: String,
    cron: String,
    #[serde(default = "utc")]
    time_zone: String,
    #[serde(default)]
    concurrency_policy: ConcurrencyPolicy,
    starting_deadline: Option<Duration>,
    #[serde(default)]
    suspend: bool,
    #[serde(default = "default_priority")]
    priority: u8,
    #[serde(default)]
    on_change: OnChange,
    ttl_after_finished: Option<Duration>,
    successful_runs_history_limit: Option<u32>,
    failed_runs_history_limit: Option<u32>,
    task: TaskSpec,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn default_priority() -> u8 {
    DEFAULT_PRIORITY
}

/// The schedule of this uid, or everything that is wrong with it.
pub(super) fn read_schedule(uid: String, body: Map<String, Value>, pools: &Pools) -> Result<CheckedUpsert, Problem> {
    let mut errors = Vec::new();
    let new: Option<NewSchedule> = strict::decode(Value::Object(body), &mut errors);
    let host = new.as_ref().and_then(|new| check(new, pools, &mut errors));
    match new.zip(host) {
        Some((new, host)) if errors.is_empty() => Ok(CheckedUpsert {
            item: new.upsert(uid),
            no_room: None,
            host,
        }),
        _ => Err(Problem::invalid().errors(errors)),
    }
}

/// The host of the task's first page; everything that is wrong goes to `errors`.
fn check(new: &NewSchedule, pools: &Pools, errors: &mut Vec<FieldError>) -> Option<String> {
    let mut refuse = |field: &str, value: String, message: String| errors.push(FieldError::new(field, value, message));
    if new.name.trim().is_empty() || new.name.chars().count() > MAX_NAME {
        refuse(
            "name",
            strict::echo(&new.name),
            format!("must have 1 to {MAX_NAME} characters"),
        );
    }
    if let Err(wrong) = Clock::parse(&new.cron, &new.time_zone) {
        refuse(wrong.field, format!("{:?}", wrong.value), wrong.message);
    }
    if let (Err(message), Some(deadline)) = (check_starting_deadline(new.starting_deadline), new.starting_deadline) {
        refuse("startingDeadline", deadline.to_string(), message);
    }
    if new.priority > MAX_PRIORITY {
        refuse(
            "priority",
            new.priority.to_string(),
            "must be 0 (last) to 9 (first)".to_owned(),
        );
    }
    if let Some(ttl) = new.ttl_after_finished.filter(|ttl| *ttl > MAX_TTL) {
        refuse(
            "ttlAfterFinished",
            ttl.to_string(),
            format!("must be at most {MAX_TTL}"),
        );
    }
    for (field, limit) in [
        ("successfulRunsHistoryLimit", new.successful_runs_history_limit),
        ("failedRunsHistoryLimit", new.failed_runs_history_limit),
    ] {
        if let Some(limit) = limit.filter(|limit| *limit > MAX_HISTORY) {
            refuse(field, limit.to_string(), format!("must be 0 to {MAX_HISTORY}"));
        }
    }
    match new.task.compile() {
        Ok(plan) => {
            errors.extend(pools.objection(&new.task).map(|error| error.within("task")));
            Some(plan.url.host_str().unwrap_or_default().to_owned())
        }
        Err(violations) => {
            for v in &violations {
                refuse(&format!("task.{}", v.field), v.value.clone(), v.message.clone());
            }
            None
        }
    }
}

impl NewSchedule {
    fn schedule(&self) -> Schedule {
        Schedule {
            cron: self.cron.clone(),
            time_zone: self.time_zone.clone(),
            concurrency_policy: self.concurrency_policy,
            starting_deadline: self.starting_deadline,
        }
    }

    fn upsert(self, uid: String) -> Upsert {
        Upsert {
            uid,
            namespace: String::new(),
            schedule: Some(self.schedule()),
            spec_hash: hash(&self.task),
            name: self.name,
            task: self.task,
            priority: self.priority,
            suspend: self.suspend,
            on_change: self.on_change,
            ttl_after_finished: self.ttl_after_finished,
            successful_runs_history_limit: self.successful_runs_history_limit,
            failed_runs_history_limit: self.failed_runs_history_limit,
        }
    }
}

/// Tells one task from another; its fields are always written in one order.
fn hash(task: &TaskSpec) -> String {
    let text = serde_json::to_vec(task).unwrap_or_default();
    Sha256::digest(&text)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(more: &Value) -> Map<String, Value> {
        let mut body = json!({
            "name": "prices", "cron": "0 6 * * *", "timeZone": "Europe/Berlin",
            "task": { "url": "https://e.com/", "fields": [{ "name": "a" }] },
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.as_object().unwrap().clone()
    }

    fn problems(more: &Value) -> Vec<String> {
        let problem =
            serde_json::to_value(read_schedule("u".to_owned(), body(more), &Pools::default()).unwrap_err()).unwrap();
        let errors = problem["errors"].as_array().unwrap().iter();
        errors
            .map(|error| {
                format!(
                    "{} {}",
                    error["field"].as_str().unwrap(),
                    error["value"].as_str().unwrap_or_default()
                )
            })
            .collect()
    }

    #[test]
    fn a_schedule_is_read_with_its_defaults() {
        let item = read_schedule("u".to_owned(), body(&json!({})), &Pools::default()).unwrap();
        let schedule = item.item.schedule.unwrap();
        assert_eq!((item.host.as_str(), item.item.priority), ("e.com", 5));
        assert_eq!(schedule.concurrency_policy, ConcurrencyPolicy::Forbid);
        assert_eq!(item.item.spec_hash.len(), 64);
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let wrong = json!({
            "colour": "red", "cron": "61 * * * *", "priority": 10, "startingDeadline": "8d", "failedRunsHistoryLimit": 10001,
            "task": { "url": "ftp://e.com/", "fields": [{ "name": "a", "selektor": "b" }] },
        });
        assert_eq!(
            problems(&wrong),
            [
                "task.fields[0].selektor ",
                "colour ",
                "cron \"61 * * * *\"",
                "startingDeadline 8d",
                "priority 10",
                "failedRunsHistoryLimit 10001",
                "task.url ftp://e.com/",
            ]
        );
        assert_eq!(
            problems(&json!({ "timeZone": "Mars/Base" })),
            ["timeZone \"Mars/Base\""]
        );
    }
}
