//! Reads the records of a task from the platform's API, as its user would, and sets them as a table.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::Kubernetes;

/// How many records are shown.
const SHOWN: usize = 12;
/// The widest column.
const WIDEST: usize = 56;
const TIMEOUT: Duration = Duration::from_secs(30);

/// The records of a task's newest run, as a table with their number.
pub fn read(kubernetes: &Kubernetes, namespace: &str, cluster: &str, task: &str) -> Result<String> {
    let path = "jsonpath={.status.runId}";
    let run = kubernetes
        .kubectl(&["get", "scrapetask", task, "-n", namespace, "-o", path])
        .output()?;
    ensure!(!run.is_empty(), "{task} has no run");
    let password = secret(kubernetes, namespace, cluster)?;
    let forward = Forward::open(kubernetes, namespace, cluster)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let records = runtime.block_on(fetch(&forward.address, &password, &run))?;
    Ok(table(&records))
}

/// The port of the API's Service.
pub fn service_port(kubernetes: &Kubernetes, namespace: &str, cluster: &str) -> Result<String> {
    kubernetes
        .kubectl(&[
            "get",
            "service",
            &format!("{cluster}-api"),
            "-n",
            namespace,
            "-o",
            "jsonpath={.spec.ports[0].port}",
        ])
        .output()
}

fn secret(kubernetes: &Kubernetes, namespace: &str, cluster: &str) -> Result<String> {
    use base64::Engine as _;
    let path = "jsonpath={.data.admin-password}";
    let text = kubernetes
        .kubectl(&["get", "secret", &format!("{cluster}-api"), "-n", namespace, "-o", path])
        .output()?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text.trim())
        .context("the admin's password is no base64")?;
    Ok(String::from_utf8(bytes)?)
}

/// A way to the API that ends with this value.
struct Forward {
    child: Child,
    address: String,
    /// kubectl writes a line for each connection and is killed by the first that nobody could read.
    _output: BufReader<ChildStdout>,
}

impl Forward {
    fn open(kubernetes: &Kubernetes, namespace: &str, cluster: &str) -> Result<Self> {
        let port = service_port(kubernetes, namespace, cluster)?;
        let mut child = kubernetes
            .kubectl_command()
            .args([
                "port-forward",
                "-n",
                namespace,
                &format!("service/{cluster}-api"),
                &format!(":{port}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("kubectl port-forward cannot be started")?;
        let output = child.stdout.take().context("kubectl port-forward has no output")?;
        let mut line = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut line)?;
        let address = line
            .strip_prefix("Forwarding from ")
            .and_then(|rest| rest.split_whitespace().next())
            .map(str::to_owned);
        let mut forward = Self {
            child,
            address: String::new(),
            _output: output,
        };
        forward.address = address.with_context(|| format!("kubectl port-forward said {line:?}"))?;
        Ok(forward)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn fetch(address: &str, password: &str, run: &str) -> Result<Vec<Map<String, Value>>> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let login = json!({ "username": "admin", "password": password });
    let answer = client
        .post(format!("http://{address}/api/v1/auth/login"))
        .json(&login)
        .send()
        .await?
        .error_for_status()?;
    let tokens: Value = answer.json().await?;
    let token = tokens["access_token"]
        .as_str()
        .context("the login gave no access token")?;
    let url = format!("http://{address}/api/v1/tasks/{run}/results?format=ndjson");
    let text = client
        .get(url)
        .bearer_auth(token)
        .send()
        .await?
        .error_for_status()?
        .text()
        .await?;
    text.lines()
        .map(|line| serde_json::from_str(line).context("a record is no JSON object"))
        .collect()
}

fn table(records: &[Map<String, Value>]) -> String {
    let Some(first) = records.first() else {
        return "no records\n".to_owned();
    };
    let columns: Vec<&String> = first.keys().collect();
    let mut lines = vec![columns.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    lines.extend(
        records
            .iter()
            .take(SHOWN)
            .map(|record| columns.iter().map(|name| cell(record.get(*name))).collect()),
    );
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let set = |line: &Vec<String>| {
        let cells: Vec<_> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    let text: String = lines.iter().map(set).collect();
    match records.len().saturating_sub(SHOWN) {
        0 => format!("{text}  ({} records)\n", records.len()),
        more => format!("{text}  ({} records, {more} more than shown)\n", records.len()),
    }
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if text.chars().count() <= WIDEST {
        return text;
    }
    text.chars().take(WIDEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, kind: Value) -> Map<String, Value> {
        Map::from_iter([("name".to_owned(), json!(name)), ("type".to_owned(), kind)])
    }

    #[test]
    fn records_are_set_in_columns_with_their_number() {
        let text = table(&[
            record("port", json!("integer")),
            record("listen_addresses", Value::Null),
        ]);
        assert_eq!(
            text,
            "  NAME              TYPE\n  port              integer\n  listen_addresses\n  (2 records)\n"
        );
    }

    #[test]
    fn a_long_list_says_how_many_are_not_shown() {
        let records: Vec<_> = (0..20).map(|n| record(&n.to_string(), Value::Null)).collect();
        assert!(table(&records).ends_with("(20 records, 8 more than shown)\n"));
    }

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        assert_eq!(cell(Some(&json!("ä".repeat(80)))).chars().count(), WIDEST);
    }
}
