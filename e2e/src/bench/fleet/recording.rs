//! What the pods of a whole cluster told at rest, during a backlog and after it: one text of each component every five seconds.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::{api::Api, documentation, world::World};

/// How many tasks may wait before the operator wants another worker.
pub const QUEUE: u32 = 5;
/// Whose pods are scraped.
pub const COMPONENTS: [&str; 4] = ["api", "keeper", "worker", "egress"];
/// As often as API and workers are scraped.
pub const EVERY: Duration = Duration::from_secs(5);
/// When the backlog comes, and how many moments there are: three minutes.
const BACKLOG_AT: usize = 9;
const MOMENTS: usize = 36;
const BACKLOG: usize = 100;

/// The texts, in the order of time.
pub struct Recording {
    moments: Vec<BTreeMap<String, String>>,
}

impl Recording {
    /// Records for three minutes, with a backlog in the first.
    pub async fn take(world: &World, cluster: &str) -> Result<Self> {
        let api = world.sign_in(cluster).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(EVERY).build()?;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut moments = Vec::new();
        while moments.len() < MOMENTS {
            ticks.tick().await;
            if moments.len() == BACKLOG_AT {
                post(world, &api).await?;
            }
            moments.push(moment(world, cluster, &http).await?);
        }
        Ok(Self { moments })
    }

    /// What a component told at a moment; after the last comes the first.
    pub fn text(&self, component: &str, moment: usize) -> Option<&str> {
        let index = moment % self.moments.len().max(1);
        self.moments.get(index)?.get(component).map(String::as_str)
    }

    /// How much there is.
    pub fn told(&self) -> String {
        let series: usize = self
            .moments
            .first()
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|text| samples(text))
            .sum();
        format!(
            "{} moments of {series} series, {} s, a backlog of {BACKLOG} tasks after {} s",
            self.moments.len(),
            self.moments.len() as u64 * EVERY.as_secs(),
            BACKLOG_AT as u64 * EVERY.as_secs(),
        )
    }
}

fn samples(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

async fn post(world: &World, api: &Api) -> Result<()> {
    let mut task = documentation::task(&format!("sites.{}.svc.cluster.local", world.namespace))?;
    task["politeness"] = json!({ "minDelay": "0s", "maxConcurrent": 16 });
    api.create_tasks(&vec![task; BACKLOG]).await
}

/// The first pod of each component that answers, as for what it tells one is like the other.
async fn moment(world: &World, cluster: &str, http: &reqwest::Client) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for component in COMPONENTS {
        for address in addresses(world, cluster, component).await? {
            let answer = http.get(format!("http://{address}/metrics")).send().await;
            if let Ok(answer) = answer
                && answer.status().is_success()
            {
                texts.insert(component.to_owned(), answer.text().await?);
                break;
            }
        }
    }
    ensure!(texts.len() == COMPONENTS.len(), "only {:?} answer", texts.keys());
    Ok(texts)
}

async fn addresses(world: &World, cluster: &str, component: &str) -> Result<Vec<String>> {
    let pods = world.pods(cluster, component).await?;
    pods.iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| address(pod).transpose())
        .collect()
}

/// Where a pod tells its metrics; `None` before it has an address.
pub fn address(pod: &Pod) -> Result<Option<String>> {
    let Some(ip) = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) else {
        return Ok(None);
    };
    let spec: Value = serde_json::to_value(&pod.spec)?;
    let port = spec["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .find(|port| port["name"] == "telemetry")
        .and_then(|port| port["containerPort"].as_u64())
        .with_context(|| format!("the pod {} has no port telemetry", pod.name_any()))?;
    Ok(Some(format!("{ip}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_last_moment_comes_the_first() {
        let moment = |text: &str| BTreeMap::from([("api".to_owned(), text.to_owned())]);
        let recording = Recording {
            moments: vec![moment("a 1\n"), moment("a 2\n")],
        };
        assert_eq!(recording.text("api", 3), Some("a 2\n"));
        assert_eq!(recording.text("keeper", 0), None);
    }
}
