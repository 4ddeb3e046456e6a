//! Which workers go when some go: those with the least to do, told to Kubernetes as the pods' deletion cost just before their number falls.
//!
//! A worker that is told to go finishes what it does, so a wrong cost loses nothing; a right one ends in seconds what else takes a drain.
//! The cost is written at that moment only, since each change of it is a write to the API server (as the Kubernetes documentation warns).

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::Tools;
use crate::{
    measure::Decisions,
    monitoring::{
        client::{Prometheus, Value},
        queries::{Scope, scaling},
    },
    validated::{PrometheusEndpoint, ValidatedCluster},
};

/// Kubernetes removes pods with a lower one first.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Tells Kubernetes how busy each worker is, if some are to go and some are to stay. What fails is logged: the workers go all the same.
pub async fn tell(
    decisions: &Decisions,
    endpoint: Option<&PrometheusEndpoint>,
    cluster: &ValidatedCluster,
    tools: &Tools,
) {
    let some_go = decisions
        .worker
        .as_ref()
        .is_some_and(|decision| decision.to < decision.from && decision.to > 0);
    let Some(endpoint) = endpoint.filter(|_| some_go) else {
        return;
    };
    let scope = Scope::Cluster {
        namespace: &cluster.namespace,
        name: &cluster.name,
    };
    let answer = match Prometheus::new(endpoint.clone()) {
        Ok(prometheus) => prometheus.query(&scaling::BUSY_BY_POD.render(&scope, None)).await,
        Err(error) => Err(error),
    };
    let busy = match answer {
        Ok(values) => costs(values),
        Err(error) => {
            tracing::warn!(%error, cluster = cluster.name, namespace = cluster.namespace, "Which workers are idle is not known.");
            return;
        }
    };
    let pods: Api<Pod> = Api::namespaced(tools.context.client.clone(), &cluster.namespace);
    let written = busy.iter().map(|(pod, cost)| {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { COST: cost.to_string() } } }));
        let pods = pods.clone();
        async move {
            // A pod that has gone since is none that could be removed.
            match pods.patch_metadata(pod, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => tracing::warn!(%error, pod, "Its deletion cost could not be set."),
                Ok(_) => tools.context.telemetry.wrote("annotate"),
            }
        }
    });
    join_all(written).await;
}

/// The cost of each pod: its tasks.
fn costs(values: Vec<Value>) -> Vec<(String, i32)> {
    let cost = |Value { mut labels, value, .. }: Value| {
        #[expect(clippy::cast_possible_truncation, reason = "a small whole number, bounded before")]
        let tasks = value.clamp(0.0, 1e6) as i32;
        Some((labels.remove("pod")?, tasks))
    };
    values.into_iter().filter_map(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_cost_is_its_tasks() {
        let value = |pod: &str, value| Value {
            labels: [("pod".to_owned(), pod.to_owned())].into(),
            at: 0.0,
            value,
        };
        let found = costs(vec![value("shop-worker-a", 3.0), value("shop-worker-b", f64::NAN)]);
        assert_eq!(
            found,
            [("shop-worker-a".to_owned(), 3), ("shop-worker-b".to_owned(), 0)]
        );
    }
}
