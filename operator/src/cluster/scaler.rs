//! The one legitimate writer of `spec.replicas`: field manager `selextract-scaler`, which sends nothing else.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use snafu::ResultExt;

use super::{
    apply::{ApplyError, Owner, WriteSnafu, Writer},
    objects::{self, Key, Live},
};

/// The field manager of replicas.
pub const SCALER: &str = "selextract-scaler";

/// Somebody's replicas that were put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overruled {
    /// The workload.
    pub key: Key,
    /// The field manager that had changed it.
    pub manager: String,
    /// What it had set.
    pub found: i64,
    /// What it is again.
    pub replicas: i32,
}

/// What has to be done about the replicas of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// They are ours and right.
    Leave,
    /// They are set for the first time, or to another number that is wanted now.
    Set,
    /// Another manager changed them.
    Overrule(String),
}

/// Decides from the live object alone.
pub fn decide(live: &Value, replicas: i32) -> Step {
    let found = live.pointer("/spec/replicas").and_then(Value::as_i64);
    let owners = owners_of_replicas(live);
    let ours = owners.iter().any(|manager| manager == SCALER);
    let other = owners.into_iter().find(|manager| manager != SCALER);
    match (found == Some(replicas.into()), other) {
        (true, _) if ours => Step::Leave,
        // While it is ours, the number changed because the wish did.
        (false, Some(manager)) if !ours => Step::Overrule(manager),
        _ => Step::Set,
    }
}

/// The managers that own `spec.replicas`, by `managedFields`.
pub fn owners_of_replicas(live: &Value) -> Vec<String> {
    let fields = live.pointer("/metadata/managedFields").and_then(Value::as_array);
    let entries = fields.map(Vec::as_slice).unwrap_or_default();
    entries
        .iter()
        .filter(|entry| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some())
        .filter_map(|entry| entry.get("manager")?.as_str().map(str::to_owned))
        .collect()
}

impl Writer<'_> {
    /// Sets the replicas of a live workload if they are not ours or not right.
    ///
    /// # Errors
    /// When it may succeed later.
    pub async fn scale(
        &self,
        owner: &Owner<'_>,
        key: &Key,
        replicas: i32,
        live: &mut Live,
    ) -> Result<Option<Overruled>, ApplyError> {
        let Some(current) = live.get(key) else { return Ok(None) };
        let step = decide(current, replicas);
        if step == Step::Leave || objects::is_going(current) {
            return Ok(None);
        }
        let Some(api) = objects::api_of(self.client, owner.namespace, &key.kind) else {
            return Ok(None);
        };
        let found = current
            .pointer("/spec/replicas")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let patch = json!({
            "apiVersion": "apps/v1", "kind": key.kind, "metadata": {"name": key.name, "namespace": owner.namespace},
            "spec": {"replicas": replicas},
        });
        let applied = api
            .patch(&key.name, &PatchParams::apply(SCALER).force(), &Patch::Apply(&patch))
            .await
            .map_err(Box::new)
            .context(WriteSnafu {
                verb: "scale",
                key: key.clone(),
            })?;
        self.telemetry.wrote("scale");
        tracing::info!(object = %key, namespace = owner.namespace, replicas, found, "Scaled.");
        let mut applied = serde_json::to_value(applied).unwrap_or_default();
        applied["kind"] = key.kind.clone().into();
        live.insert(key.clone(), applied);
        Ok(match step {
            Step::Overrule(manager) => Some(Overruled {
                key: key.clone(),
                manager,
                found,
                replicas,
            }),
            Step::Leave | Step::Set => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(replicas: i64, managers: &[&str]) -> Value {
        let fields: Vec<Value> = managers
            .iter()
            .map(|manager| json!({"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}}))
            .chain([json!({"manager": "selextract-operator", "fieldsV1": {"f:spec": {"f:template": {}}}})])
            .collect();
        json!({"metadata": {"managedFields": fields}, "spec": {"replicas": replicas}})
    }

    #[test]
    fn a_new_deployment_is_born_with_one_and_scaled_in_the_same_pass() {
        assert_eq!(decide(&live(1, &[]), 3), Step::Set);
        assert_eq!(decide(&live(1, &[]), 1), Step::Set);
    }

    #[test]
    fn at_rest_nothing_is_sent() {
        assert_eq!(decide(&live(3, &[SCALER]), 3), Step::Leave);
        assert_eq!(decide(&live(3, &["kubectl", SCALER]), 3), Step::Leave);
    }

    #[test]
    fn another_managers_number_is_overruled_by_name() {
        assert_eq!(decide(&live(7, &["kubectl"]), 3), Step::Overrule("kubectl".into()));
    }

    #[test]
    fn a_changed_wish_is_no_overruling() {
        assert_eq!(decide(&live(3, &[SCALER]), 4), Step::Set);
        assert_eq!(decide(&live(3, &["kubectl", SCALER]), 4), Step::Set);
    }
}
