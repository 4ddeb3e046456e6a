//! What is scraped, and what must come of it, read from the sites' own sources and not through the product.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    documentation::{self, Parameters},
    world::World,
};

/// The kinds of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Many pages by HTTP.
    Paginated,
    /// One page in the browser.
    Browser,
}

/// Both.
pub const KINDS: [Kind; 2] = [Kind::Paginated, Kind::Browser];
/// How many operations the served description of the Kubernetes API holds at the least.
const HTTP_METHODS: [&str; 7] = ["get", "post", "put", "patch", "delete", "head", "options"];

/// The sites of a namespace.
pub struct Sites {
    host: String,
    parameters: Parameters,
    operations: BTreeSet<String>,
}

impl Sites {
    /// Reads what must come of each kind of task.
    pub async fn read(world: &World) -> Result<Self> {
        let address = format!("http://{}", world.service_address("sites")?);
        let found = Self {
            host: format!("sites.{}.svc.cluster.local", world.namespace),
            parameters: Parameters::read(&address).await?,
            operations: operations(&address).await?,
        };
        ensure!(
            found.operations.len() > 20,
            "{} operations only",
            found.operations.len()
        );
        Ok(found)
    }

    /// A task of a kind, as the API takes it.
    pub fn task(&self, kind: Kind) -> Result<Value> {
        let politeness = json!({ "maxConcurrent": 64, "minDelay": "0s" });
        Ok(match kind {
            Kind::Paginated => {
                let mut task = documentation::task(&self.host)?;
                task["politeness"] = politeness;
                task
            }
            Kind::Browser => json!({
                "url": format!("http://{}/swagger/", self.host), "render": "Browser", "timeout": "60s",
                "politeness": politeness,
                "waitConditions": [{ "selector": ".opblock", "timeout": "30s" }],
                "items": ".opblock",
                "fields": [
                    { "name": "method", "selector": ".opblock-summary-method", "required": true },
                    { "name": "path", "type": "Attribute", "attribute": "data-path", "selector": ".opblock-summary-path" },
                ],
            }),
        })
    }

    /// How many of the records that must be there are missing, and how many there are too many.
    pub fn compare(&self, kind: Kind, records: &[Value]) -> Result<(usize, usize)> {
        if kind == Kind::Paginated {
            return self.parameters.compare(records);
        }
        let distinct: BTreeSet<_> = records.iter().map(operation).collect();
        let foreign = distinct.difference(&self.operations).next();
        ensure!(foreign.is_none(), "a record is of another site: {foreign:?}");
        Ok((
            self.operations.difference(&distinct).count(),
            records.len() - distinct.len(),
        ))
    }
}

fn operation(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("method"), text("path").replace('\u{200b}', ""))
}

/// Every operation of the description that the JavaScript page shows.
async fn operations(address: &str) -> Result<BTreeSet<String>> {
    let page = text(&format!("{address}/swagger/swagger-initializer.js")).await?;
    let url = quoted(&page, "url: \"")
        .next()
        .context("the page names no description")?;
    let url = if url.starts_with('/') {
        format!("{address}{url}")
    } else {
        format!("{address}/swagger/{url}")
    };
    let description: Value = serde_json::from_str(&text(&url).await?)?;
    let paths = description["paths"]
        .as_object()
        .context("a description without paths")?;
    let mut found = BTreeSet::new();
    for (path, item) in paths {
        for method in HTTP_METHODS.iter().filter(|method| item.get(**method).is_some()) {
            found.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    Ok(found)
}

async fn text(url: &str) -> Result<String> {
    Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
}

fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}
