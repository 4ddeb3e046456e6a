//! What is scraped, and what must come of it, read from the sites' own sources and not through the product.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::world::World;

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
    base: String,
    parameters: BTreeSet<String>,
    operations: BTreeSet<String>,
}

impl Sites {
    /// Reads what must come of each kind of task.
    pub async fn read(world: &World) -> Result<Self> {
        let address = format!("http://{}", world.service_address("sites")?);
        let found = Self {
            base: format!("http://sites.{}.svc.cluster.local", world.namespace),
            parameters: parameters(&address).await?,
            operations: operations(&address).await?,
        };
        ensure!(
            found.parameters.len() > 300,
            "{} parameters only",
            found.parameters.len()
        );
        ensure!(
            found.operations.len() > 20,
            "{} operations only",
            found.operations.len()
        );
        Ok(found)
    }

    /// A task of a kind, as the API takes it.
    pub fn task(&self, kind: Kind) -> Value {
        match kind {
            Kind::Paginated => json!({
                "url": format!("{}/docs/runtime-config-file-locations.html", self.base),
                "items": "dt[id^=\"GUC-\"]",
                "fields": [{ "name": "link", "type": "Link", "selector": "a.id_link", "required": true }],
                "pagination": { "nextSelector": ".navheader a[accesskey=\"n\"][href^=\"runtime-config\"]", "maxPages": 50 },
            }),
            Kind::Browser => json!({
                "url": format!("{}/swagger/", self.base), "render": "Browser", "timeout": "60s",
                "waitConditions": [{ "selector": ".opblock", "timeout": "30s" }],
                "items": ".opblock",
                "fields": [
                    { "name": "method", "selector": ".opblock-summary-method", "required": true },
                    { "name": "path", "type": "Attribute", "attribute": "data-path", "selector": ".opblock-summary-path" },
                ],
            }),
        }
    }

    /// How many of the records that must be there are missing, and how many there are too many.
    pub fn compare(&self, kind: Kind, records: &[Value]) -> Result<(usize, usize)> {
        let (expected, found) = match kind {
            Kind::Paginated => (
                &self.parameters,
                records.iter().map(anchor).collect::<Result<Vec<_>>>()?,
            ),
            Kind::Browser => (&self.operations, records.iter().map(operation).collect()),
        };
        let distinct: BTreeSet<_> = found.iter().cloned().collect();
        let foreign = distinct.difference(expected).count();
        ensure!(
            foreign == 0,
            "{foreign} records are of another site: {:?}",
            distinct.difference(expected).next()
        );
        Ok((expected.difference(&distinct).count(), found.len() - distinct.len()))
    }
}

fn anchor(record: &Value) -> Result<String> {
    let link = record["link"].as_str().context("a record without its link")?;
    Ok(link.split_once('#').context("a link without its anchor")?.1.to_owned())
}

fn operation(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("method"), text("path").replace('\u{200b}', ""))
}

/// The anchors of every server parameter on the pages that the chapter's table of contents names.
async fn parameters(address: &str) -> Result<BTreeSet<String>> {
    let index = text(&format!("{address}/docs/runtime-config.html")).await?;
    let pages: BTreeSet<_> = quoted(&index, "href=\"")
        .filter_map(|href| href.split('#').next())
        .filter(|page| page.starts_with("runtime-config-"))
        .collect();
    let mut anchors = BTreeSet::new();
    for page in pages {
        let html = text(&format!("{address}/docs/{page}")).await?;
        anchors.extend(
            quoted(&html, "<dt id=\"")
                .filter(|id| id.starts_with("GUC-"))
                .map(str::to_owned),
        );
    }
    Ok(anchors)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_and_a_doubled_record_are_both_told_and_a_foreign_one_is_an_error() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let sites = Sites {
            base: String::new(),
            parameters: names(&["A", "B", "C"]),
            operations: BTreeSet::new(),
        };
        let record = |name: &str| json!({ "link": format!("http://x/page.html#{name}") });
        let found = sites
            .compare(Kind::Paginated, &[record("A"), record("A"), record("B")])
            .unwrap();
        assert_eq!(found, (1, 1));
        assert!(sites.compare(Kind::Paginated, &[record("Z")]).is_err());
    }
}
