//! The autoscalers, on their defaults; made anew for each backlog, because they wait five minutes before they take pods away.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::platforms::{MOST, QUEUE, THEIRS_WORKER, wait_for_one};
use crate::{bench::reaction::adapter, cluster::PAUSE_IMAGE, world::World};

/// The Deployment whose autoscaler is told the backlog; its pods do nothing.
pub const BY_QUEUE: &str = "by-queue";
/// The autoscaler that goes by CPU.
const BY_CPU: &str = "by-cpu";
/// For the first look and for metrics of a pod that has just begun.
const PATIENCE: Duration = Duration::from_mins(2);

/// They.
pub struct Rivals<'a> {
    world: &'a World,
}

impl<'a> Rivals<'a> {
    /// In this world.
    pub fn new(world: &'a World) -> Self {
        Self { world }
    }

    /// Begins to look; they have their metrics, and want one pod, then. The one by CPU only where it is asked for.
    pub async fn start(&self, with_cpu: bool) -> Result<()> {
        self.world.apply(&deployment().to_string())?;
        wait_for_one(self.world, BY_QUEUE).await?;
        let backlog = json!({ "type": "External", "external": {
            "metric": { "name": adapter::METRIC },
            "target": { "type": "AverageValue", "averageValue": QUEUE.to_string() },
        } });
        let cpu = json!({ "type": "Resource", "resource": {
            "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 70 },
        } });
        let all = [(BY_QUEUE, BY_QUEUE, backlog), (BY_CPU, THEIRS_WORKER, cpu)];
        let wanted = if with_cpu { &all[..] } else { &all[..1] };
        for (name, target, metric) in wanted {
            self.world.apply(&autoscaler(name, target, metric).to_string())?;
        }
        for (name, ..) in wanted {
            let object = format!("hpa/{name}");
            let looked = || {
                let found = self.world.get(&object)?;
                let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let active = conditions
                    .iter()
                    .any(|c| c["type"] == "ScalingActive" && c["status"] == "True");
                Ok((active && found["status"]["desiredReplicas"] == 1).then_some(()))
            };
            self.world
                .wait_until(&format!("{object} has its metrics"), PATIENCE, looked)
                .await?;
        }
        Ok(())
    }

    /// Ends, with what they made.
    pub async fn end(&self) -> Result<()> {
        self.world
            .kubectl(&["delete", "hpa", BY_QUEUE, BY_CPU, "--ignore-not-found"])?;
        self.world
            .kubectl(&["scale", &format!("deployment/{BY_QUEUE}"), "--replicas=1"])?;
        wait_for_one(self.world, BY_QUEUE).await
    }
}

fn autoscaler(name: &str, target: &str, metric: &Value) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": name, "namespace": "NAMESPACE" },
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": target },
            "minReplicas": 1, "maxReplicas": MOST, "metrics": [metric],
        },
    })
}

fn deployment() -> Value {
    let labels = json!({ "app.kubernetes.io/name": BY_QUEUE });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": BY_QUEUE, "namespace": "NAMESPACE" },
        "spec": { "selector": { "matchLabels": labels }, "template": {
            "metadata": { "labels": labels },
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "pause", "image": PAUSE_IMAGE,
                    "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                }],
            },
        } },
    })
}
