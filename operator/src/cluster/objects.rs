//! The kinds of children, and reading the live ones of a cluster. Reads only.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, ListParams},
    discovery::ApiResource,
};
use serde_json::Value;

use super::monitoring::{foreign_kinds, served_kinds};
use crate::build::Served;

/// The label that says who manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that says which cluster an object belongs to.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// The value of [`MANAGED_BY`] on everything of ours.
pub const MANAGER: &str = "selextract-operator";

/// A kind and a name: what a child is called within its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Such as `Deployment`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn of(object: &Value) -> Self {
        let text = |path: &str| {
            object
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            kind: text("/kind"),
            name: text("/metadata/name"),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The live children of a cluster.
pub type Live = BTreeMap<Key, Value>;

/// Every kind of child that is listed and watched; Secrets are not among them, they are read by name only.
pub fn kinds() -> Vec<ApiResource> {
    vec![
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<PersistentVolumeClaim>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<StatefulSet>(&()),
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<Job>(&()),
        ApiResource::erase::<Ingress>(&()),
        ApiResource::erase::<Role>(&()),
        ApiResource::erase::<RoleBinding>(&()),
    ]
}

/// The API of an object's kind, if it is one that this operator handles.
pub fn api_of(client: &Client, namespace: &str, kind: &str) -> Option<Api<DynamicObject>> {
    let resource = kinds()
        .into_iter()
        .chain([ApiResource::erase::<Secret>(&())])
        .chain(foreign_kinds())
        .find(|resource| resource.kind == kind)?;
    Some(Api::namespaced_with(client.clone(), namespace, &resource))
}

/// The selector of everything that belongs to a cluster.
pub fn selector(cluster: &str) -> String {
    format!("{MANAGED_BY}={MANAGER},{INSTANCE}={cluster}")
}

/// Reads every live child of a cluster. Kinds of others that are not served, or not granted, have none.
///
/// # Errors
/// When a list fails.
pub async fn fetch_live(client: &Client, namespace: &str, cluster: &str, served: Served) -> kube::Result<Live> {
    let foreign = served_kinds(served).into_iter().map(|resource| (resource, true));
    let own = kinds().into_iter().map(|resource| (resource, false));
    let lists = own.chain(foreign).map(|(resource, foreign)| {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        async move {
            let items = match api.list(&ListParams::default().labels(&selector(cluster))).await {
                Ok(list) => list.items,
                Err(kube::Error::Api(status)) if foreign && [403, 404].contains(&status.code) => Vec::new(),
                Err(error) => return Err(error),
            };
            Ok::<_, kube::Error>(
                items
                    .into_iter()
                    .map(move |object| to_value(trim(object, &resource), &resource))
                    .collect::<Vec<_>>(),
            )
        }
    });
    Ok(try_join_all(lists)
        .await?
        .into_iter()
        .flatten()
        .map(|object| (Key::of(&object), object))
        .collect())
}

/// Who manages which field matters for replicas alone, and is half of an object's size.
fn trim(mut object: DynamicObject, resource: &ApiResource) -> DynamicObject {
    if !["Deployment", "StatefulSet"].contains(&resource.kind.as_str()) {
        object.managed_fields_mut().clear();
    }
    object
}

/// An object as JSON, with its kind: items of a list come without.
pub fn to_value(object: DynamicObject, resource: &ApiResource) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = resource.api_version.clone().into();
    value["kind"] = resource.kind.clone().into();
    value
}

/// The uid of the object that controls this one.
pub fn controller_uid(object: &Value) -> Option<&str> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners
        .iter()
        .find(|owner| owner["controller"] == true)?
        .get("uid")?
        .as_str()
}

/// Whether an object carries the labels of this cluster.
pub fn has_labels_of(object: &Value, cluster: &str) -> bool {
    let labels = object.pointer("/metadata/labels");
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    label(MANAGED_BY) == Some(MANAGER) && label(INSTANCE) == Some(cluster)
}

/// Whether an object is on its way out.
pub fn is_going(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|at| !at.is_null())
}

/// Namespace and name of an object, for logs and look-ups.
pub fn namespace_and_name<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_never_listed() {
        assert!(kinds().iter().all(|resource| resource.kind != "Secret"));
    }

    #[test]
    fn the_controller_is_the_owner_that_controls() {
        let object = json!({"metadata": {"ownerReferences": [{"uid": "a"}, {"uid": "b", "controller": true}]}});
        assert_eq!(controller_uid(&object), Some("b"));
        assert_eq!(controller_uid(&json!({})), None);
    }

    #[test]
    fn another_clusters_object_is_not_ours() {
        let object = json!({"metadata": {"labels": {MANAGED_BY: MANAGER, INSTANCE: "shop"}}});
        assert!(has_labels_of(&object, "shop"));
        assert!(!has_labels_of(&object, "other"));
    }
}
