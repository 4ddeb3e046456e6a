//! Reading what clients ask for: the spec, and what stands beside it in a new task.

use http::HeaderMap;
use selextract_platform::ledger::{idempotency::Idempotency, tasks::NewTask};
use selextract_task::{Duration, Plan, TaskSpec};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    auth::caller::Caller,
    pools::Pools,
    problem::{FieldError, Problem},
    state::AppState,
    strict,
};

/// The priority of a task that names none, in the middle.
pub const DEFAULT_PRIORITY: u8 = 5;
pub(super) const MAX_PRIORITY: u8 = 9;
const MAX_IDEMPOTENCY_KEY: usize = 255;
pub(super) const MAX_TTL: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// The new task, or everything that is wrong with it.
pub(super) fn read_new(body: Map<String, Value>, pools: &Pools) -> Result<NewTask, Problem> {
    let mut errors = Vec::new();
    parse(body, pools, &mut errors).ok_or_else(|| Problem::invalid().errors(errors))
}

/// The spec, which compiles, or everything that is wrong with it.
pub(super) fn read_spec(body: Map<String, Value>, pools: &Pools) -> Result<TaskSpec, Problem> {
    let mut errors = Vec::new();
    let spec: Option<TaskSpec> = strict::decode(Value::Object(body), &mut errors);
    let plan = spec.as_ref().and_then(|spec| compile(spec, pools, &mut errors));
    let checked = spec.filter(|_| plan.is_some() && errors.is_empty());
    checked.ok_or_else(|| Problem::invalid().errors(errors))
}

/// The new task; everything that is wrong with it goes to `errors`.
pub(super) fn parse(mut body: Map<String, Value>, pools: &Pools, errors: &mut Vec<FieldError>) -> Option<NewTask> {
    let priority = match body.shift_remove("priority") {
        None => DEFAULT_PRIORITY,
        Some(value) => read_priority(&value).unwrap_or_else(|| {
            let cure = "must be a whole number from 0 (last) to 9 (first)";
            errors.push(FieldError::new("priority", strict::echo(&value), cure));
            DEFAULT_PRIORITY
        }),
    };
    let ttl = body.shift_remove("ttlAfterFinished").and_then(|value| {
        let ttl = read_ttl(&value);
        if ttl.is_none() {
            let cure = "must be a duration of at most 3650d, such as 24h";
            errors.push(FieldError::new("ttlAfterFinished", strict::echo(&value), cure));
        }
        ttl
    });
    let spec: Option<TaskSpec> = strict::decode(Value::Object(body), errors);
    let plan = spec.as_ref().and_then(|spec| compile(spec, pools, errors));
    let (spec, plan) = spec.zip(plan).filter(|_| errors.is_empty())?;
    Some(NewTask {
        spec,
        host: plan.url.host_str().unwrap_or_default().to_owned(),
        priority,
        ttl: ttl.map(Duration::get),
    })
}

fn compile(spec: &TaskSpec, pools: &Pools, errors: &mut Vec<FieldError>) -> Option<Plan> {
    match spec.compile() {
        Ok(plan) => {
            errors.extend(pools.objection(spec));
            Some(plan)
        }
        Err(violations) => {
            errors.extend(
                violations
                    .iter()
                    .map(|v| FieldError::new(&v.field, &v.value, &v.message)),
            );
            None
        }
    }
}

fn read_priority(value: &Value) -> Option<u8> {
    let number = u8::try_from(value.as_u64()?).ok()?;
    (number <= MAX_PRIORITY).then_some(number)
}

fn read_ttl(value: &Value) -> Option<Duration> {
    let ttl: Duration = value.as_str()?.parse().ok()?;
    (ttl <= MAX_TTL).then_some(ttl)
}

/// The idempotency key of a request with this body, when it has one.
pub(super) fn idempotency_key(headers: &HeaderMap, body: &[u8]) -> Result<Option<Idempotency>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()));
    let key = key
        .ok_or_else(|| Problem::malformed().detail("Idempotency-Key must have 1 to 255 printable ASCII characters"))?;
    Ok(Some(Idempotency {
        key: key.to_owned(),
        body_hash: Sha256::digest(body).into(),
    }))
}

/// Checks the quotas for so many new tasks. A request that is repeated makes no new ones, and is answered as it was.
pub(super) async fn admit(
    state: &AppState,
    caller: &Caller,
    tasks: usize,
    idempotency: Option<&Idempotency>,
) -> Result<(), Problem> {
    let Err(refused) = state.quotas.admit(caller.owner(), tasks).await else {
        return Ok(());
    };
    match idempotency {
        Some(key) if state.ledger.was_used(caller.owner(), key).await? => Ok(()),
        _ => Err(refused),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(body: Value) -> Vec<String> {
        let Value::Object(body) = body else { panic!("an object") };
        let problem = serde_json::to_value(read_new(body, &Pools::default()).unwrap_err()).unwrap();
        let errors = problem["errors"].as_array().unwrap().iter();
        errors
            .map(|error| error["field"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn unknown_fields_and_violations_come_in_one_answer() {
        let body = json!({ "url": "ftp://e.com", "colour": "red", "priority": 11, "fields": [{ "name": "1st", "selektor": "a" }] });
        assert_eq!(
            problems(body),
            ["priority", "colour", "fields[0].selektor", "url", "fields[0].name"]
        );
    }

    #[test]
    fn a_missing_field_is_told_beside_unknown_ones() {
        let fields = problems(json!({ "feilds": [], "url": "https://e.com" }));
        assert_eq!(fields[0], "feilds");
        assert_eq!(fields.len(), 2);
    }

    #[test]
    fn the_priority_is_not_a_part_of_the_spec() {
        let body = json!({ "url": "https://e.com", "priority": 9, "fields": [{ "name": "a" }] });
        let task = read_new(body.as_object().unwrap().clone(), &Pools::default()).unwrap();
        assert_eq!(
            (task.spec.url.as_str(), task.host.as_str(), task.priority),
            ("https://e.com", "e.com", 9)
        );
    }
}
