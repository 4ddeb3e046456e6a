//! A node that is only played: pods bound to it become Running and Ready without a process, Jobs succeed at once. API server, scheduler,
//! controllers and volumes are real, so that the operator sees clusters as they are, for the price of their objects.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The node's name.
const NAME: &str = "played-1";
/// The label that pods select it by, and the taint that keeps others off.
const LABEL: &str = "bench.selextract.io/played";
const MANAGER: &str = "selextract-bench";
const INTERVAL: Duration = Duration::from_millis(500);
/// Well within the 20 s after which the local cluster calls a node lost.
const HEARTBEAT: Duration = Duration::from_secs(8);

/// Puts every pod of a cluster with this spec on the played node.
pub fn place(spec: &mut Value) {
    let pod = json!({
        "nodeSelector": { LABEL: "true" },
        "tolerations": [{ "key": LABEL, "operator": "Exists", "effect": "NoSchedule" }],
    });
    for part in ["api", "keeper", "worker", "postgres", "pgbouncer", "egress"] {
        spec[part]["pod"] = pod.clone();
    }
    for redis in ["queue", "cache"] {
        spec["redis"][redis]["pod"] = pod.clone();
    }
}

/// The played node; ends with [`PlayedNode::end`].
pub struct PlayedNode {
    client: Client,
    player: JoinHandle<()>,
}

impl PlayedNode {
    /// Makes the node and begins to play it.
    pub async fn start(client: Client) -> Result<Self> {
        renew_lease(&client).await.context("the played node's lease")?;
        let nodes = Api::<Node>::all(client.clone());
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": NAME, "labels": {
                LABEL: "true", "kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                // As a node whose profile is installed.
                "selextract.io/seccomp-chromium": "v1",
            } },
            "spec": { "taints": [{ "key": LABEL, "value": "true", "effect": "NoSchedule" }] },
        });
        let apply = PatchParams::apply(MANAGER).force();
        nodes
            .patch(NAME, &apply, &Patch::Apply(&node))
            .await
            .context("the played node")?;
        let room = json!({ "cpu": "1000", "memory": "1Ti", "pods": "1000", "ephemeral-storage": "1Ti" });
        let ready = json!({ "type": "Ready", "status": "True", "reason": "Played", "message": "This node is played.",
            "lastHeartbeatTime": Time(Timestamp::now()), "lastTransitionTime": Time(Timestamp::now()) });
        let status = json!({ "status": { "capacity": room, "allocatable": room, "conditions": [ready] } });
        nodes
            .patch_status(NAME, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        let player = tokio::spawn(play(client.clone()));
        Ok(Self { client, player })
    }

    /// Takes the node away; its pods must be gone.
    pub async fn end(self) -> Result<()> {
        self.player.abort();
        Api::<Node>::all(self.client)
            .delete(NAME, &DeleteParams::default())
            .await?;
        Ok(())
    }
}

async fn play(client: Client) {
    let mut renewed = tokio::time::Instant::now();
    loop {
        if renewed.elapsed() > HEARTBEAT {
            match renew_lease(&client).await {
                Ok(()) => renewed = tokio::time::Instant::now(),
                Err(error) => eprintln!("the played node's lease: {error:#}"),
            }
        }
        if let Err(error) = play_pods(&client).await {
            // A conflict with a controller that was faster; the next pass sees what became of it.
            eprintln!("the played node: {error:#}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn renew_lease(client: &Client) -> Result<()> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": NAME },
        "spec": { "holderIdentity": NAME, "leaseDurationSeconds": 40, "renewTime": MicroTime(Timestamp::now()) },
    });
    Api::<Lease>::namespaced(client.clone(), "kube-node-lease")
        .patch(NAME, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&lease))
        .await?;
    Ok(())
}

async fn play_pods(client: &Client) -> Result<()> {
    let here = ListParams::default().fields(&format!("spec.nodeName={NAME}"));
    for pod in Api::<Pod>::all(client.clone()).list(&here).await? {
        let pods = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let done = if pod.meta().deletion_timestamp.is_some() {
            let now = DeleteParams::default().grace_period(0);
            pods.delete(&pod.name_any(), &now).await.map(drop)
        } else if matches!(phase, None | Some("Pending")) {
            let status = Patch::Merge(status_of(&pod));
            pods.patch_status(&pod.name_any(), &PatchParams::default(), &status)
                .await
                .map(drop)
        } else {
            Ok(())
        };
        match done {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => other.with_context(|| format!("pod {}", pod.name_any()))?,
        }
    }
    Ok(())
}

/// What a kubelet would say once everything runs, or has ended where it belongs to a Job.
fn status_of(pod: &Pod) -> Value {
    let now = Time(Timestamp::now());
    let of_job = pod.owner_references().iter().any(|owner| owner.kind == "Job");
    let ended = |message: &str| json!({ "terminated": { "exitCode": 0, "reason": "Completed", "message": message, "startedAt": now, "finishedAt": now } });
    let spec = pod.spec.as_ref();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let main: Vec<_> = main
        .iter()
        .map(|container| {
            let state = if of_job {
                ended("")
            } else {
                json!({ "running": { "startedAt": now } })
            };
            container_status(&container.name, container.image.as_deref(), !of_job, &state)
        })
        .collect();
    let first = spec
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    // The operator reads the pooler's version out of the last words of a container of that name.
    let version = |name: &str| if name == "version" { "PgBouncer 1.24.1" } else { "" };
    let first: Vec<_> = first
        .iter()
        .map(|container| {
            let state = ended(version(&container.name));
            container_status(&container.name, container.image.as_deref(), true, &state)
        })
        .collect();
    let ready = if of_job { "False" } else { "True" };
    let conditions = [
        ("PodScheduled", "True"),
        ("Initialized", "True"),
        ("ContainersReady", ready),
        ("Ready", ready),
    ];
    let conditions =
        conditions.map(|(kind, status)| json!({ "type": kind, "status": status, "lastTransitionTime": now }));
    json!({ "status": {
        "phase": if of_job { "Succeeded" } else { "Running" }, "startTime": now, "conditions": conditions,
        "initContainerStatuses": first, "containerStatuses": main,
    } })
}

fn container_status(name: &str, image: Option<&str>, ready: bool, state: &Value) -> Value {
    json!({ "name": name, "image": image.unwrap_or_default(), "imageID": "", "ready": ready, "started": ready,
            "restartCount": 0, "state": state })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(owner: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "ownerReferences": [{ "apiVersion": "v1", "kind": owner, "name": "o", "uid": "u" }] },
            "spec": { "containers": [{ "name": "main", "image": "i" }], "initContainers": [{ "name": "version" }] },
        }))
        .unwrap()
    }

    #[test]
    fn a_played_pod_is_ready_and_a_jobs_pod_has_succeeded() {
        let serving = status_of(&pod("ReplicaSet"));
        assert_eq!(serving["status"]["phase"], "Running");
        assert_eq!(serving["status"]["containerStatuses"][0]["ready"], true);
        assert!(serving["status"]["initContainerStatuses"][0]["state"]["terminated"]["message"].is_string());
        let done = status_of(&pod("Job"));
        assert_eq!(done["status"]["phase"], "Succeeded");
        assert_eq!(
            done["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
            0
        );
    }
}
