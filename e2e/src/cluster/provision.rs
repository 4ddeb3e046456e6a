//! Makes volumes for claims of the storage class `local`: a folder on the node that the scheduler picked, writable for every user.
//! kubelet then gives it to the pod's `fsGroup`. A volume that is released goes with its folder, unless its policy says Retain.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use super::layout::Layout;

/// The name of this provisioner in storage classes and volumes.
pub const PROVISIONER: &str = "selextract.io/local";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// How often it looks: few claims at most, and a pod that waits a quarter of a second for its volume.
const INTERVAL: Duration = Duration::from_millis(250);

/// Works until it is stopped.
pub async fn provision() -> Result<()> {
    let layout = Layout::new();
    let file = Kubeconfig::read_from(layout.pki("provisioner.kubeconfig"))?;
    let client = Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)?;
    loop {
        if let Err(error) = pass(&client, &layout).await {
            // The API server may be starting or restarting; the next pass asks again.
            eprintln!("{error:#}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn pass(client: &Client, layout: &Layout) -> Result<()> {
    // From the API server's cache: nothing of this costs etcd a read.
    let cached = ListParams::default().match_any();
    let claims = Api::<PersistentVolumeClaim>::all(client.clone())
        .list(&cached)
        .await
        .context("claims cannot be listed")?;
    for claim in &claims {
        if let Some(node) = node_to_provision_on(claim) {
            serve(client, layout, claim, node)
                .await
                .with_context(|| format!("claim {}", claim.name_any()))?;
        }
    }
    let volumes = Api::<PersistentVolume>::all(client.clone())
        .list(&cached)
        .await
        .context("volumes cannot be listed")?;
    for volume in volumes.iter().filter(|volume| is_to_remove(volume)) {
        remove(client, layout, volume)
            .await
            .with_context(|| format!("volume {}", volume.name_any()))?;
    }
    Ok(())
}

/// The node that the scheduler chose for a claim that still waits for its volume.
fn node_to_provision_on(claim: &PersistentVolumeClaim) -> Option<&str> {
    let spec = claim.spec.as_ref()?;
    let waits = spec.volume_name.as_deref().unwrap_or_default().is_empty() && claim.meta().deletion_timestamp.is_none();
    if !waits || spec.storage_class_name.is_none() {
        return None;
    }
    claim.annotations().get(SELECTED_NODE).map(String::as_str)
}

async fn serve(client: &Client, layout: &Layout, claim: &PersistentVolumeClaim, node: &str) -> Result<()> {
    let class_name = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.clone())
        .unwrap_or_default();
    let Some(class) = Api::<StorageClass>::all(client.clone()).get_opt(&class_name).await? else {
        return Ok(());
    };
    if class.provisioner != PROVISIONER {
        return Ok(());
    }
    let uid = claim.uid().context("a claim without uid")?;
    let folder = volume_folder(layout, node, &format!("pvc-{uid}"));
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    let volume = volume(claim, &class, node, &folder)?;
    match Api::<PersistentVolume>::all(client.clone())
        .create(&PostParams::default(), &volume)
        .await
    {
        Ok(_) => Ok(()),
        // An earlier pass made it, and the claim is not bound yet.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).context("its volume cannot be created"),
    }
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &str, folder: &Path) -> Result<PersistentVolume> {
    let spec = claim.spec.as_ref().context("a claim without spec")?;
    let uid = claim.uid().context("a claim without uid")?;
    let size = spec
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref())
        .and_then(|r| r.get("storage"))
        .context("a claim without size")?;
    Ok(serde_json::from_value(json!({
        "metadata": { "name": format!("pvc-{uid}"), "annotations": { PROVISIONED_BY: PROVISIONER } },
        "spec": {
            "capacity": { "storage": size },
            "accessModes": spec.access_modes,
            "volumeMode": "Filesystem",
            "storageClassName": class.name_any(),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": uid,
                "name": claim.name_any(), "namespace": claim.namespace(),
            },
            "local": { "path": folder },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] },
            ] }] } },
        },
    }))?)
}

/// Ours, released by its claim, and not to be kept.
fn is_to_remove(volume: &PersistentVolume) -> bool {
    let ours = volume
        .annotations()
        .get(PROVISIONED_BY)
        .is_some_and(|by| by == PROVISIONER);
    let released = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Released");
    let policy = volume
        .spec
        .as_ref()
        .and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    ours && released && policy == Some("Delete")
}

async fn remove(client: &Client, layout: &Layout, volume: &PersistentVolume) -> Result<()> {
    let path = volume
        .spec
        .as_ref()
        .and_then(|s| s.local.as_ref())
        .map(|local| PathBuf::from(&local.path))
        .context("no path")?;
    // A volume's path is data from the API: nothing outside the nodes' own folders is ever removed.
    anyhow::ensure!(
        path.starts_with(layout.data()) && !path.components().any(|c| c == std::path::Component::ParentDir),
        "{} is no folder of this cluster",
        path.display()
    );
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("its folder cannot be removed");
        }
        _ => {}
    }
    match Api::<PersistentVolume>::all(client.clone())
        .delete(&volume.name_any(), &DeleteParams::default())
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).context("it cannot be deleted"),
    }
}

fn volume_folder(layout: &Layout, node: &str, name: &str) -> PathBuf {
    layout.data().join(node).join("volumes").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(annotations: &serde_json::Value, volume: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": { "name": "c", "namespace": "n", "uid": "u", "annotations": annotations },
            "spec": { "storageClassName": "local", "volumeName": volume, "accessModes": ["ReadWriteOnce"],
                      "resources": { "requests": { "storage": "1Gi" } } },
        }))
        .unwrap()
    }

    fn released(policy: &str, by: &str) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": { "name": "v", "annotations": { PROVISIONED_BY: by } },
            "spec": { "persistentVolumeReclaimPolicy": policy },
            "status": { "phase": "Released" },
        }))
        .unwrap()
    }

    #[test]
    fn a_claim_waits_for_the_scheduler_to_pick_a_node() {
        assert_eq!(node_to_provision_on(&claim(&json!({}), "")), None);
        assert_eq!(
            node_to_provision_on(&claim(&json!({ SELECTED_NODE: "node2" }), "")),
            Some("node2")
        );
        assert_eq!(
            node_to_provision_on(&claim(&json!({ SELECTED_NODE: "node2" }), "v")),
            None
        );
    }

    #[test]
    fn a_volume_is_bound_to_its_claim_and_its_node() {
        let class: StorageClass =
            serde_json::from_value(json!({ "metadata": { "name": "local" }, "provisioner": PROVISIONER })).unwrap();
        let volume =
            serde_json::to_value(volume(&claim(&json!({}), ""), &class, "node1", Path::new("/v")).unwrap()).unwrap();
        assert_eq!(volume["spec"]["claimRef"]["uid"], "u");
        assert_eq!(
            volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"][0],
            "node1"
        );
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    }

    #[test]
    fn a_retained_or_foreign_volume_is_left_alone() {
        assert!(is_to_remove(&released("Delete", PROVISIONER)));
        assert!(!is_to_remove(&released("Retain", PROVISIONER)));
        assert!(!is_to_remove(&released("Delete", "someone.else/x")));
    }
}
