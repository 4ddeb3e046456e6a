//! PostgreSQL's documentation as a site to scrape: the demo's task, and what must come of it, read from the pages' source by another way
//! than the product's: following the table of contents and looking for text.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The demo's tasks; the first is the one about the documentation.
const TASKS: &str = include_str!("../demo/tasks.yaml");

/// Defaults that the documentation names, in each of its phrases, and one that it does not name.
const KNOWN: [(&str, Option<&str>); 14] = [
    ("max_connections", Some("100 connections")),
    ("shared_buffers", Some("128 megabytes")),
    ("work_mem", Some("four megabytes")),
    ("maintenance_work_mem", Some("64 megabytes")),
    ("port", Some("5432")),
    ("autovacuum", Some("on")),
    ("search_path", Some("\"$user\", public")),
    ("synchronous_commit", Some("on")),
    ("lc_messages", Some("empty string")),
    ("max_locks_per_transaction", Some("64")),
    ("backslash_quote", Some("safe_encoding")),
    ("random_page_cost", Some("4.0")),
    ("wal_level", Some("replica")),
    ("fsync", None),
];

/// The one parameter for which the documentation names no type.
const UNTYPED: &str = "recovery_target";

/// The demo's task about the documentation, reading it from `http://host/docs/`, as the API takes it.
pub fn task(host: &str) -> Result<Value> {
    use serde::Deserialize as _;
    let first = serde_yaml_ng::Deserializer::from_str(TASKS)
        .next()
        .context("the demo has no task")?;
    let mut task = Value::deserialize(first)?["spec"]["task"].take();
    let url = task["url"].as_str().context("the demo's task has no url")?;
    let (_, path) = url.split_once("/docs/").context("the demo's task reads other pages")?;
    task["url"] = format!("http://{host}/docs/{path}").into();
    Ok(task)
}

/// Every server parameter, by its anchor and its name, with the text of its description. Some share an anchor, some a name.
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads them from the pages below this address.
    pub async fn read(address: &str) -> Result<Self> {
        let index = text(&format!("{address}/docs/runtime-config.html")).await?;
        let mut pages: Vec<&str> = quoted(&index, "href=\"")
            .filter_map(|href| href.split('#').next())
            .filter(|page| page.starts_with("runtime-config-"))
            .collect();
        pages.sort_unstable();
        pages.dedup();
        let mut found = BTreeMap::new();
        for page in pages {
            collect(&text(&format!("{address}/docs/{page}")).await?, &mut found);
        }
        ensure!(
            found.len() > 300,
            "the documentation has {} parameters only",
            found.len()
        );
        Ok(Self(found))
    }

    /// How many parameters the records lack, and how many records there are too many.
    ///
    /// # Errors
    /// When a record is of something else than a parameter.
    pub fn compare(&self, records: &[Value]) -> Result<(usize, usize)> {
        let mut found: Vec<_> = records.iter().map(key).collect::<Result<_>>()?;
        found.sort_unstable();
        found.dedup();
        if let Some(foreign) = found.iter().find(|key| !self.0.contains_key(*key)) {
            bail!("{foreign:?} is no parameter");
        }
        Ok((self.0.len() - found.len(), records.len() - found.len()))
    }

    /// Looks at what the records say: a type each, and the default that the description names, or null.
    pub fn check_contents(&self, records: &[Value]) -> Result<()> {
        for record in records {
            let has_type = record["type"].is_string() || record["parameter"] == UNTYPED;
            ensure!(has_type, "a parameter without its type: {record}");
            let description = &self.0[&key(record)?];
            match record["default"].as_str() {
                Some(default) => ensure!(
                    description.contains(default),
                    "its description has no {default:?}: {record}"
                ),
                None => ensure!(record["default"].is_null(), "a default that is no text: {record}"),
            }
            ensure!(
                record["default"].is_null() || description.to_lowercase().contains("default"),
                "a default that the documentation does not name: {record}"
            );
        }
        for (name, default) in KNOWN {
            let record = records.iter().find(|record| record["parameter"] == name);
            let record = record.with_context(|| format!("{name} is missing"))?;
            ensure!(record["default"].as_str() == default, "not {default:?}: {record}");
        }
        let named = records.iter().filter(|record| record["default"].is_string()).count();
        ensure!(named > 300, "{named} defaults only");
        Ok(())
    }
}

/// The anchor that a record links to, and its name.
fn key(record: &Value) -> Result<String> {
    let link = record["documentation"].as_str().context("a record without its link")?;
    let (_, anchor) = link.split_once('#').context("a link without its anchor")?;
    let name = record["parameter"].as_str().context("a record without its name")?;
    Ok(format!("{anchor} {name}"))
}

/// The parameters of one page.
fn collect(html: &str, found: &mut BTreeMap<String, String>) {
    for rest in html.split("<dt id=\"").skip(1) {
        let (Some((terms, after)), Some(anchor)) = (rest.split_once("</dt>"), rest.split('"').next()) else {
            continue;
        };
        if !anchor.starts_with("GUC-") {
            continue;
        }
        let description = plain(after.split("</dl>").next().unwrap_or_default());
        // Some terms explain a value, not a parameter.
        let names = terms.split("class=\"varname\">").skip(1);
        for name in names.filter_map(|rest| rest.split('<').next()) {
            found.insert(format!("{anchor} {name}"), description.clone());
        }
    }
}

/// The text of HTML, with white space folded.
fn plain(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    for piece in html.split('<') {
        text.push_str(piece.split_once('>').map_or(piece, |(_, text)| text));
    }
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn text(url: &str) -> Result<String> {
    Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
}

fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_demos_task_reads_the_site_that_it_is_told() {
        let task = task("sites.test").unwrap();
        assert_eq!(task["url"], "http://sites.test/docs/runtime-config-file-locations.html");
        let names: Vec<_> = task["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| &field["name"])
            .collect();
        assert_eq!(names, ["parameter", "type", "default", "documentation"]);
    }

    #[test]
    fn terms_of_parameters_are_found_with_their_descriptions() {
        let mut found = BTreeMap::new();
        let html = r#"<dt id="GUC-A"><code class="varname">a</code> <code class="varname">b</code></dt><dd><p>Is <b>5</b>
            &amp; more.</p></dd><dt id="GUC-A-VALUE">x</dt><dd>no</dd><dt id="X"><code class="varname">x</code></dt>"#;
        collect(html, &mut found);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["GUC-A a", "GUC-A b"]);
        assert!(found["GUC-A b"].starts_with("Is 5 & more."), "{found:?}");
    }

    #[test]
    fn a_lost_and_a_doubled_record_are_both_told_and_a_foreign_one_is_an_error() {
        let parameters = Parameters(["A", "B", "C"].map(|name| (format!("{name} x"), String::new())).into());
        let record =
            |anchor: &str| json!({ "parameter": "x", "documentation": format!("http://x/page.html#{anchor}") });
        let found = parameters.compare(&[record("A"), record("A"), record("B")]).unwrap();
        assert_eq!(found, (1, 1));
        assert!(parameters.compare(&[record("Z")]).is_err());
    }
}
