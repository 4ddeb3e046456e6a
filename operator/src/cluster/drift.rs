//! Whether a live object already is what is wanted, so that nothing is written at rest. Pure.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::canonical;

/// The annotation that holds the hash of what was applied.
pub const APPLIED_HASH: &str = "selextract.io/applied-hash";

/// What the API server made of an applied object, by uid: it writes some values its own way (`1024Mi` becomes `1Gi`), and what
/// it answered once must not be taken for a hand edit.
#[derive(Debug, Default)]
pub struct Answers(Mutex<HashMap<String, (String, String)>>);

impl Answers {
    /// Remembers that the object, applied with this hash, came back like this.
    pub fn remember(&self, live: &Value, hash: &str) {
        if let Some(uid) = live.pointer("/metadata/uid").and_then(Value::as_str) {
            let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            answers.insert(uid.to_owned(), (hash.to_owned(), substance(live)));
        }
    }

    /// Forgets an object that was deleted.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn hold(&self, live: &Value, hash: &str) -> bool {
        let Some(uid) = live.pointer("/metadata/uid").and_then(Value::as_str) else {
            return false;
        };
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers
            .get(uid)
            .is_some_and(|(known, answer)| known == hash && *answer == substance(live))
    }
}

/// Whether nothing has to be written: the hash is the one that was applied, and the live object still says all of it.
pub fn in_sync(live: &Value, wanted: &Value, hash: &str, answers: &Answers) -> bool {
    let applied = live
        .pointer("/metadata/annotations")
        .and_then(|a| a.get(APPLIED_HASH))
        .and_then(Value::as_str);
    applied == Some(hash) && (says(live, wanted) || answers.hold(live, hash))
}

/// A hash of everything in an object but what others count and report there.
fn substance(live: &Value) -> String {
    let mut live = live.clone();
    if let Some(members) = live.as_object_mut() {
        members.remove("status");
        if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
            for counted in ["managedFields", "resourceVersion", "generation"] {
                metadata.remove(counted);
            }
        }
    }
    canonical::hash_json(&live)
}

/// Whether `live` says everything that `wanted` says; what it says besides is others' affair.
fn says(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| match live.get(name) {
            Some(live) => says(live, wanted),
            None => is_left_out(wanted),
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| says(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

/// What the API server does not store: absent and empty values.
fn is_left_out(wanted: &Value) -> bool {
    match wanted {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_left_out),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(spec: &Value, status: &Value) -> Value {
        json!({
            "metadata": {"uid": "u1", "resourceVersion": "7", "annotations": {APPLIED_HASH: "h"}},
            "spec": spec, "status": status,
        })
    }

    #[test]
    fn what_others_added_is_no_drift() {
        let live = live(
            &json!({"replicas": 6, "template": {"image": "a", "dnsPolicy": "ClusterFirst"}}),
            &json!({"ready": 1}),
        );
        assert!(in_sync(
            &live,
            &json!({"spec": {"template": {"image": "a"}}}),
            "h",
            &Answers::default()
        ));
    }

    #[test]
    fn a_hand_edit_a_removed_field_and_a_changed_wish_are_drift() {
        let answers = Answers::default();
        let edited = live(&json!({"template": {"image": "b"}}), &json!({}));
        assert!(!in_sync(
            &edited,
            &json!({"spec": {"template": {"image": "a"}}}),
            "h",
            &answers
        ));
        let removed = live(&json!({"template": {}}), &json!({}));
        assert!(!in_sync(
            &removed,
            &json!({"spec": {"template": {"image": "a"}}}),
            "h",
            &answers
        ));
        let same = live(&json!({"template": {"image": "a"}}), &json!({}));
        assert!(!in_sync(
            &same,
            &json!({"spec": {"template": {"image": "a"}}}),
            "another",
            &answers
        ));
    }

    #[test]
    fn an_added_list_item_is_drift() {
        let live = live(&json!({"ports": [1, 2]}), &json!({}));
        assert!(!in_sync(
            &live,
            &json!({"spec": {"ports": [1]}}),
            "h",
            &Answers::default()
        ));
    }

    #[test]
    fn empty_values_that_the_api_server_leaves_out_are_no_drift() {
        let live = live(&json!({}), &json!({}));
        let wanted = json!({"spec": {"ingress": [], "env": "", "labels": {}, "none": null}});
        assert!(in_sync(&live, &wanted, "h", &Answers::default()));
        assert!(!in_sync(
            &live,
            &json!({"spec": {"allowPrivilegeEscalation": false}}),
            "h",
            &Answers::default()
        ));
    }

    #[test]
    fn the_api_servers_own_spelling_is_remembered_until_something_else_changes() {
        let answers = Answers::default();
        let wanted = json!({"spec": {"storage": "1024Mi"}});
        let spelled = live(&json!({"storage": "1Gi"}), &json!({}));
        assert!(!in_sync(&spelled, &wanted, "h", &answers));
        answers.remember(&spelled, "h");
        assert!(in_sync(
            &live(&json!({"storage": "1Gi"}), &json!({"phase": "Bound"})),
            &wanted,
            "h",
            &answers
        ));
        assert!(!in_sync(
            &live(&json!({"storage": "2Gi"}), &json!({})),
            &wanted,
            "h",
            &answers
        ));
        answers.forget("u1");
        assert!(!in_sync(&spelled, &wanted, "h", &answers));
    }
}
