//! The only writer of a cluster's children: server-side apply of what is wanted and differs, deletion of what is no longer wanted.

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    discovery::ApiResource,
};
use serde_json::{Value, json};
use snafu::{OptionExt, ResultExt, Snafu};

use super::{
    drift::{self, APPLIED_HASH, Answers},
    objects::{self, Key, Live},
};
use crate::{build::Child, canonical, telemetry::Telemetry};

/// The field manager of everything but replicas.
pub const FIELD_MANAGER: &str = "selextract-operator";

/// What may be taken over without the cluster's labels: volumes when the spec says so, and Secrets that a person restored.
const ADOPTABLE: [&str; 2] = ["PersistentVolumeClaim", "Secret"];

/// Why applying broke off; it is tried again.
#[derive(Debug, Snafu)]
#[snafu(visibility(pub(super)))]
pub enum ApplyError {
    /// The API server did not do it, and may do it later.
    #[snafu(display("cannot {verb} {key}"))]
    Write {
        /// What was tried.
        verb: &'static str,
        /// To what.
        key: Key,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// The builder made a kind that this operator has no rights for.
    #[snafu(display("{key} is of a kind that is not handled"))]
    Kind {
        /// The object.
        key: Key,
    },
}

/// A child that could not be applied for a reason that a person must remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The child.
    pub key: Key,
    /// The component's label, for the condition that it belongs to.
    pub component: String,
    /// The condition's reason.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

/// Whose children are applied.
pub struct Owner<'a> {
    /// Their namespace.
    pub namespace: &'a str,
    /// The cluster's name.
    pub name: &'a str,
    /// The cluster's uid.
    pub uid: &'a str,
    /// Whether volumes that were not made for it are taken over.
    pub adopts: bool,
}

/// The tools of the writer.
pub struct Writer<'a> {
    /// The API server.
    pub client: &'a Client,
    /// What the API server made of earlier applies.
    pub answers: &'a Answers,
    /// Counts the writes.
    pub telemetry: &'a Telemetry,
}

impl Owner<'_> {
    /// The object as it is applied: with its owner, unless it outlives it, and the hash of all that.
    fn finish(&self, wanted: &Child) -> (Value, String) {
        let mut object = canonical::sorted(&wanted.object);
        object["metadata"]["namespace"] = self.namespace.into();
        if !wanted.retained {
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster", "name": self.name, "uid": self.uid,
                "controller": true, "blockOwnerDeletion": true,
            }]);
        }
        let hash = canonical::hash_json(&object);
        object["metadata"]["annotations"][APPLIED_HASH] = hash.clone().into();
        (object, hash)
    }

    /// Whether an object is the cluster's own: controlled by it, or left by an earlier one of the name, or a volume that is adopted.
    fn owns(&self, key: &Key, live: &Value) -> bool {
        match objects::controller_uid(live) {
            Some(uid) => uid == self.uid,
            None => objects::has_labels_of(live, self.name) || (self.adopts && ADOPTABLE.contains(&key.kind.as_str())),
        }
    }
}

impl Writer<'_> {
    /// Applies one child if it differs. Updates `live`, so that later steps see what was written.
    ///
    /// # Errors
    /// When it may succeed later.
    pub async fn apply(
        &self,
        owner: &Owner<'_>,
        wanted: &Child,
        live: &mut Live,
    ) -> Result<Option<Refused>, ApplyError> {
        let (object, hash) = owner.finish(wanted);
        let key = Key::of(&object);
        let api = objects::api_of(self.client, owner.namespace, &key.kind).context(KindSnafu { key: key.clone() })?;
        let current = match live.get(&key) {
            Some(current) => Some(current.clone()),
            // Not among the cluster's own: before it is made, see whether somebody else's bears the name.
            None => fetch(&api, &key).await?,
        };
        if let Some(current) = &current {
            if objects::is_going(current) {
                return Ok(None);
            }
            if !owner.owns(&key, current) {
                return Ok(Some(taken(&key, &object, owner, current)));
            }
            if drift::in_sync(current, &object, &hash, self.answers) {
                return Ok(None);
            }
        }
        match write(&api, &key, &object, current.is_some()).await {
            Ok(applied) => {
                self.telemetry.wrote("apply");
                tracing::info!(object = %key, namespace = owner.namespace, cluster = owner.name, "Applied.");
                let applied = with_kind(applied, &object);
                self.answers.remember(&applied, &hash);
                live.insert(key, applied);
                Ok(None)
            }
            Err(kube::Error::Api(status)) if is_final(status.code) => Ok(Some(refused(
                &key,
                &object,
                "Refused",
                &format!("{key} is refused by the API server: {}", status.message),
            ))),
            Err(error) => Err(Box::new(error)).context(WriteSnafu { verb: "apply", key }),
        }
    }

    /// Deletes the live children that are the cluster's own and not wanted, `keep` says which are.
    ///
    /// # Errors
    /// When it may succeed later.
    pub async fn prune(
        &self,
        owner: &Owner<'_>,
        live: &mut Live,
        keep: impl Fn(&Key) -> bool,
    ) -> Result<(), ApplyError> {
        let surplus: Vec<Key> = live
            .iter()
            .filter(|(key, object)| {
                objects::controller_uid(object) == Some(owner.uid) && !objects::is_going(object) && !keep(key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in surplus {
            if let Some(object) = live.remove(&key) {
                self.delete(owner.namespace, &key, &object).await?;
            }
        }
        Ok(())
    }

    /// Deletes one object, that very one, with what hangs on it.
    ///
    /// # Errors
    /// When it may succeed later.
    pub async fn delete(&self, namespace: &str, key: &Key, object: &Value) -> Result<(), ApplyError> {
        let api = objects::api_of(self.client, namespace, &key.kind).context(KindSnafu { key: key.clone() })?;
        let uid = object
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if let Some(uid) = &uid {
            self.answers.forget(uid);
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid,
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        match api.delete(&key.name, &params).await {
            Ok(_) => {
                self.telemetry.wrote("delete");
                tracing::info!(object = %key, namespace, "Deleted, it is no longer wanted.");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(Box::new(error)).context(WriteSnafu {
                verb: "delete",
                key: key.clone(),
            }),
        }
    }
}

/// Server-side apply. A hand edit of what identifies an entry of a list, such as a Service's port number, leaves that entry beside the
/// wanted one, which validation may refuse; then the lists are replaced whole and the object is applied once more.
async fn write(api: &Api<DynamicObject>, key: &Key, object: &Value, exists: bool) -> kube::Result<DynamicObject> {
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(&key.name, &params, &Patch::Apply(object)).await {
        Err(kube::Error::Api(status)) if exists && status.code == 422 => {
            let replace = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            match api.patch(&key.name, &replace, &Patch::Merge(object)).await {
                Ok(_) => api.patch(&key.name, &params, &Patch::Apply(object)).await,
                // What was wrong from the start is told by the first answer.
                Err(_) => Err(kube::Error::Api(status)),
            }
        }
        written => written,
    }
}

async fn fetch(api: &Api<DynamicObject>, key: &Key) -> Result<Option<Value>, ApplyError> {
    let found = api.get_opt(&key.name).await.map_err(Box::new).context(WriteSnafu {
        verb: "read",
        key: key.clone(),
    })?;
    Ok(found.map(|object| serde_json::to_value(object).unwrap_or_default()))
}

fn with_kind(applied: DynamicObject, sent: &Value) -> Value {
    let text = |path: &str| sent.get(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let resource = ApiResource {
        group: String::new(),
        version: String::new(),
        api_version: text("apiVersion"),
        kind: text("kind"),
        plural: String::new(),
    };
    objects::to_value(applied, &resource)
}

/// A 4xx that trying again does not mend; conflicts and rate limits pass.
fn is_final(code: u16) -> bool {
    (400..500).contains(&code) && ![401, 404, 408, 409, 429].contains(&code)
}

fn taken(key: &Key, object: &Value, owner: &Owner<'_>, current: &Value) -> Refused {
    if key.kind == "PersistentVolumeClaim" && objects::controller_uid(current).is_none() {
        let message = format!(
            "{key} is there already and was not made for SelextractCluster {}. To start on its data, set spec.adoptForeignData; \
             otherwise delete it or choose another name for the cluster.",
            owner.name
        );
        return refused(key, object, "ForeignData", &message);
    }
    let message = format!(
        "{key} is there already and belongs to somebody else. Delete it or choose another name for the cluster."
    );
    refused(key, object, "NameTaken", &message)
}

fn refused(key: &Key, object: &Value, reason: &'static str, message: &str) -> Refused {
    let component = object
        .pointer("/metadata/labels/app.kubernetes.io~1component")
        .and_then(Value::as_str);
    Refused {
        key: key.clone(),
        component: component.unwrap_or_default().to_owned(),
        reason,
        message: super::pods::shorten(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'static> = Owner {
        namespace: "demo",
        name: "shop",
        uid: "u1",
        adopts: false,
    };

    fn wanted(retained: bool) -> Child {
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop-api"}});
        Child {
            object,
            retained,
            replicas: None,
        }
    }

    fn key(kind: &str) -> Key {
        Key {
            kind: kind.into(),
            name: "shop-postgres-data".into(),
        }
    }

    #[test]
    fn a_child_goes_with_its_cluster_unless_it_is_retained() {
        let (owned, _) = OWNER.finish(&wanted(false));
        assert_eq!(objects::controller_uid(&owned), Some("u1"));
        let (retained, _) = OWNER.finish(&wanted(true));
        assert_eq!(objects::controller_uid(&retained), None);
    }

    #[test]
    fn the_hash_covers_the_owner_so_that_a_changed_deletion_policy_is_applied() {
        assert_ne!(OWNER.finish(&wanted(false)).1, OWNER.finish(&wanted(true)).1);
        assert_eq!(OWNER.finish(&wanted(true)).1, OWNER.finish(&wanted(true)).1);
    }

    #[test]
    fn a_volume_that_was_not_made_for_the_cluster_is_foreign_data() {
        let (key, current) = (
            key("PersistentVolumeClaim"),
            json!({"metadata": {"name": "shop-postgres-data"}}),
        );
        assert!(!OWNER.owns(&key, &current));
        let refused = taken(&key, &json!({}), &OWNER, &current);
        assert_eq!(refused.reason, "ForeignData");
        assert!(refused.message.contains("spec.adoptForeignData"));
        assert!(Owner { adopts: true, ..OWNER }.owns(&key, &current));
    }

    #[test]
    fn a_volume_that_an_earlier_cluster_of_the_name_left_is_found_again() {
        let left = json!({"metadata": {"labels": {objects::MANAGED_BY: objects::MANAGER, objects::INSTANCE: "shop"}}});
        assert!(OWNER.owns(&key("PersistentVolumeClaim"), &left));
    }

    #[test]
    fn an_object_that_another_controls_is_never_touched() {
        let live = json!({"metadata": {
            "labels": {objects::MANAGED_BY: objects::MANAGER, objects::INSTANCE: "shop"},
            "ownerReferences": [{"uid": "somebody", "controller": true}],
        }});
        assert!(!OWNER.owns(&key("Deployment"), &live));
    }

    #[test]
    fn conflicts_and_rate_limits_are_tried_again() {
        assert!([400, 403, 422].into_iter().all(is_final));
        assert!([401, 404, 409, 429, 500, 503].into_iter().all(|code| !is_final(code)));
    }
}
