//! The platform that journeys work on, and its parts.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use selextract_e2e::{api::Api, world::World};
use serde_json::{Value, json};

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
        let platform = Platform { world };
        platform.wait_until_ready().await?;
        return Ok(platform);
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

    /// The API, as its administrator.
    pub async fn api(&self) -> Result<Api> {
        let password = self.world.secret("shop-api", "admin-password")?;
        Api::login(&self.world.service_address("shop-api")?, "admin", &password).await
    }

    /// A task that reads every server parameter of PostgreSQL's documentation, as the API takes it.
    pub fn parameters_task(&self) -> Value {
        json!({
            "name": "PostgreSQL's server parameters",
            "url": format!("http://sites.{}.svc.cluster.local/docs/runtime-config-file-locations.html", self.world.namespace),
            "items": "dt[id^=\"GUC-\"]",
            "fields": [
                { "name": "parameter", "selector": ".term > .varname", "required": true },
                { "name": "type", "selector": ".term > .type" },
                { "name": "documentation", "type": "Link", "selector": "a.id_link" },
            ],
            "pagination": { "nextSelector": ".navheader a[accesskey=\"n\"][href^=\"runtime-config\"]", "maxPages": 50 },
        })
    }

    /// The anchors of every server parameter, read from the pages' source by another way than the product's: following the table of
    /// contents and looking for the text.
    pub async fn expected_parameters(&self) -> Result<BTreeSet<String>> {
        let base = format!("http://{}/docs", self.world.service_address("sites")?);
        let index = text(&format!("{base}/runtime-config.html")).await?;
        let mut pages: BTreeSet<&str> = quoted(&index, "href=\"")
            .filter_map(|href| href.split('#').next())
            .filter(|href| href.starts_with("runtime-config-"))
            .collect();
        // The chapter's introduction and the appendix of short options define no parameter.
        pages.retain(|page| !page.is_empty());
        let mut anchors = BTreeSet::new();
        for page in pages {
            let html = text(&format!("{base}/{page}")).await?;
            let terms = html
                .split("<dt id=\"")
                .skip(1)
                .filter_map(|rest| rest.split("</dt>").next());
            // Some terms explain a value, not a parameter.
            let parameters = terms.filter(|term| term.starts_with("GUC-") && term.contains("class=\"varname\""));
            anchors.extend(parameters.filter_map(|term| term.split('"').next()).map(str::to_owned));
        }
        Ok(anchors)
    }

    /// The anchors that records link to.
    pub fn anchors(records: &[Value]) -> Result<BTreeSet<String>> {
        records
            .iter()
            .map(|record| {
                let link = record["documentation"].as_str().context("a record without its link")?;
                Ok(link.split_once('#').context("a link without its anchor")?.1.to_owned())
            })
            .collect()
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
        let script = "PGPASSWORD=$(cat /etc/selextract/postgres-passwords/superuser-password) \
                      exec psql -XAt -h /run/postgresql -U postgres -d selextract -c \"$1\"";
        let exec = [
            "exec",
            "shop-postgres-0",
            "-c",
            "postgres",
            "--",
            "bash",
            "-c",
            script,
            "psql",
            sql,
        ];
        Ok(self.world.kubectl(&exec)?.trim().to_owned())
    }

    /// A number of an object, by JSON pointer.
    pub fn number(&self, object: &str, pointer: &str) -> Result<Option<i64>> {
        Ok(self.world.get(object)?.pointer(pointer).and_then(Value::as_i64))
    }
}

async fn text(url: &str) -> Result<String> {
    Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
}

fn quoted<'a>(html: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    html.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}
