//! The platform that journeys work on, and its parts.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Result;
use selextract_e2e::{
    api::Api,
    documentation::{self, Parameters},
    world::World,
};
use serde_json::Value;

/// From applying a cluster to Ready, with images loaded, on two busy cores.
pub const READY: Duration = Duration::from_mins(4);
/// From applying a task to its end.
pub const DONE: Duration = Duration::from_mins(2);

/// A small platform named `shop` that may scrape the namespace's own sites.
pub const SHOP: &str = "
apiVersion: selextract.io/v1alpha1
kind: SelextractCluster
metadata: {name: shop, namespace: NAMESPACE}
spec:
  profile: Small
  worker: {lease: 5s}
  keeper: {refillInterval: 1s, sweepInterval: 1s}
  egress:
    allow: [{host: sites.NAMESPACE.svc.cluster.local}]
";

/// A platform that is Ready.
pub struct Platform {
    /// The namespace that it is in.
    pub world: World,
}

/// A platform in a namespace of the caller's own, with the sites beside it.
pub async fn start(namespace: &str) -> Result<Platform> {
    let world = World::enter(namespace).await?;
    world.serve_sites()?;
    world.apply(SHOP)?;
    let platform = Platform { world };
    platform.wait_until_ready().await?;
    Ok(platform)
}

/// The platform that journeys share which leave it as they found it.
pub async fn shared() -> Result<Platform> {
    static STARTED: AtomicBool = AtomicBool::new(false);
    const NAMESPACE: &str = "journeys";
    if STARTED.load(Ordering::Relaxed) {
        let world = World::join(NAMESPACE).await?;
        // A journey may have taken the definitions away, and every platform with them.
        if world.get("selextractcluster/shop").is_ok() {
            let platform = Platform { world };
            platform.wait_until_ready().await?;
            return Ok(platform);
        }
    }
    let platform = start(NAMESPACE).await?;
    STARTED.store(true, Ordering::Relaxed);
    Ok(platform)
}

impl Platform {
    /// Waits until the cluster is Ready for its newest generation.
    pub async fn wait_until_ready(&self) -> Result<Value> {
        self.world
            .wait_for_condition("selextractcluster/shop", "Ready", "True", READY)
            .await
    }

    /// Waits until every task has ended.
    pub async fn wait_until_done(&self) -> Result<()> {
        let open = "SELECT count(*) FROM tasks WHERE status IN ('pending', 'running')";
        let ended = || Ok((self.sql(open)? == "0").then_some(()));
        self.world.wait_until("the end of every task", DONE * 3, ended).await
    }

    /// The API, as its administrator.
    pub async fn api(&self) -> Result<Api> {
        self.world.sign_in("shop").await
    }

    /// The demo's task that reads every server parameter of PostgreSQL's documentation, as the API takes it.
    pub fn parameters_task(&self) -> Result<Value> {
        documentation::task(&format!("sites.{}.svc.cluster.local", self.world.namespace))
    }

    /// What must come of it.
    pub async fn expected_parameters(&self) -> Result<Parameters> {
        Parameters::read(&format!("http://{}", self.world.service_address("sites")?)).await
    }

    /// The names of the pods of a component that are not going.
    pub fn pods(&self, component: &str) -> Result<Vec<String>> {
        let selector = format!("app.kubernetes.io/instance=shop,app.kubernetes.io/component={component}");
        let list = self.world.kubectl(&["get", "pods", "-l", &selector, "-o", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        Ok(pods
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// What the primary answers to SQL, as its superuser.
    pub fn sql(&self, sql: &str) -> Result<String> {
        self.sql_on("shop-postgres-0", sql)
    }

    /// What the server in this pod answers to SQL, as its superuser.
    pub fn sql_on(&self, pod: &str, sql: &str) -> Result<String> {
        self.world.sql(pod, sql)
    }

    /// A number of an object, by JSON pointer.
    pub fn number(&self, object: &str, pointer: &str) -> Result<Option<i64>> {
        Ok(self.world.get(object)?.pointer(pointer).and_then(Value::as_i64))
    }
}
