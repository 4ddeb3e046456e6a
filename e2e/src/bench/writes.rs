//! Who wrote what to the API server: its own counters by resource, the operator's counter, and the audit log where there is one.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    cluster::Layout,
    world::{OPERATOR_NAMESPACE, World},
};

const METHODS: [&str; 6] = ["POST", "PUT", "PATCH", "DELETE", "DELETECOLLECTION", "APPLY"];
const VERBS: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
const OPERATOR: &str = "system:serviceaccount:selextract-system:selextract-operator";

/// What was counted until a moment.
pub struct Counted {
    /// By method and resource, whoever wrote.
    pub everybody: BTreeMap<String, u64>,
    /// What the operator says that it wrote, by kind of thing.
    pub operator: BTreeMap<String, u64>,
    /// How far the audit log goes, where there is one.
    audit: Option<u64>,
}

/// Reads all counters.
pub async fn count(world: &World) -> Result<Counted> {
    let text = world.kubectl(&["get", "--raw=/metrics"])?;
    Ok(Counted {
        everybody: everybody(&text),
        operator: operator(&fetch_operator_metrics(world).await?),
        audit: File::open(Layout::new().log("audit"))
            .and_then(|file| file.metadata())
            .ok()
            .map(|metadata| metadata.len()),
    })
}

/// The pod of the operator.
pub fn operator_pod(world: &World) -> Result<Value> {
    let selector = "app.kubernetes.io/name=selextract-operator";
    let arguments = ["get", "pods", "-n", OPERATOR_NAMESPACE, "-l", selector, "-o", "json"];
    let pods: Value = serde_json::from_str(&world.kubectl(&arguments)?)?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    pods.into_iter()
        .find(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null())
        .context("no pod of the operator runs")
}

/// The text of the operator's metrics.
pub async fn fetch_operator_metrics(world: &World) -> Result<String> {
    let pod = operator_pod(world)?;
    let address = pod["status"]["podIP"].as_str().context("the operator has no address")?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()?;
    let answer = client.get(format!("http://{address}:9090/metrics")).send().await?;
    Ok(answer.error_for_status()?.text().await?)
}

/// What was added since, without what was not. A counter that went back is an error: the program was restarted.
pub fn added(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
    let mut added = BTreeMap::new();
    for (name, old) in before {
        let now = after.get(name).copied().unwrap_or_default();
        ensure!(
            now >= *old,
            "the counter of {name} went back: the program was restarted"
        );
    }
    for (name, now) in after {
        let more = now - before.get(name).copied().unwrap_or_default();
        if more > 0 {
            added.insert(name.clone(), more);
        }
    }
    Ok(added)
}

/// The operator's writes between two moments by the audit log; `None` without one.
pub fn audited(before: &Counted, after: &Counted) -> Result<Option<BTreeMap<String, u64>>> {
    let (Some(from), Some(to)) = (before.audit, after.audit) else {
        return Ok(None);
    };
    ensure!(to >= from, "the audit log was turned over meanwhile");
    let mut file = File::open(Layout::new().log("audit"))?;
    file.seek(SeekFrom::Start(from))?;
    let mut found = BTreeMap::new();
    for line in BufReader::new(std::io::Read::take(file, to - from)).lines() {
        let event: Value = serde_json::from_str(&line?).unwrap_or_default();
        if let Some(what) = write_of_operator(&event) {
            *found.entry(what).or_default() += 1;
        }
    }
    Ok(Some(found))
}

fn write_of_operator(event: &Value) -> Option<String> {
    let verb = event["verb"].as_str()?;
    let ours = event["user"]["username"] == OPERATOR && event["stage"] == "ResponseComplete" && VERBS.contains(&verb);
    let resource = event["objectRef"]["resource"].as_str()?;
    let part = event["objectRef"]["subresource"].as_str();
    ours.then(|| format!("{verb} {}", with_part(resource, part.unwrap_or_default())))
}

/// How many of them are renewals of leases, events, or questions that store nothing; and the others.
pub fn split(writes: &BTreeMap<String, u64>) -> (u64, u64, u64, BTreeMap<String, u64>) {
    let (mut leases, mut events, mut questions, mut others) = (0, 0, 0, BTreeMap::new());
    for (what, number) in writes {
        let resource = what.split(' ').nth(1).unwrap_or(what);
        match resource {
            "leases" => leases += number,
            "events" | "event" => events += number,
            "serviceaccounts/token" | "tokenreviews" | "subjectaccessreviews" => questions += number,
            _ if what == "event" => events += number,
            _ => drop(others.insert(what.clone(), *number)),
        }
    }
    (leases, events, questions, others)
}

/// `a ×1, b ×2`, or "none".
pub fn told(writes: &BTreeMap<String, u64>) -> String {
    if writes.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<_> = writes
        .iter()
        .map(|(what, number)| format!("{what} ×{number}"))
        .collect();
    texts.join(", ")
}

fn everybody(text: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for (labels, value) in samples(text, "apiserver_request_total") {
        let verb = label(labels, "verb");
        if METHODS.contains(&verb) && label(labels, "dry_run").is_empty() {
            let what = format!(
                "{verb} {}",
                with_part(label(labels, "resource"), label(labels, "subresource"))
            );
            *found.entry(what).or_default() += value;
        }
    }
    found
}

/// What the operator says in its metrics that it wrote, by kind of thing.
pub fn operator(text: &str) -> BTreeMap<String, u64> {
    samples(text, "selextract_api_server_writes_total")
        .map(|(labels, value)| (label(labels, "what").to_owned(), value))
        .collect()
}

fn with_part(resource: &str, part: &str) -> String {
    if part.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}/{part}")
    }
}

/// Labels and value of every sample of a counter.
pub fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
    text.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
        Some((labels, whole(value)?))
    })
}

/// A counter's value; big ones are written as 1.2345e+06.
fn whole(value: &str) -> Option<u64> {
    let number = value.parse::<f64>().ok()?;
    format!("{number:.0}").parse().ok()
}

fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    labels
        .split("\",")
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\""))
        .unwrap_or_default()
        .trim_end_matches('"')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "\
# TYPE apiserver_request_total counter
apiserver_request_total{code=\"200\",dry_run=\"\",resource=\"pods\",subresource=\"status\",verb=\"PATCH\"} 3
apiserver_request_total{code=\"201\",dry_run=\"\",resource=\"pods\",subresource=\"status\",verb=\"PATCH\"} 1
apiserver_request_total{code=\"200\",dry_run=\"All\",resource=\"pods\",subresource=\"\",verb=\"APPLY\"} 9
apiserver_request_total{code=\"200\",dry_run=\"\",resource=\"leases\",subresource=\"\",verb=\"PUT\"} 1.2e+02
apiserver_request_total{code=\"200\",dry_run=\"\",resource=\"pods\",subresource=\"\",verb=\"LIST\"} 7
";

    #[test]
    fn writes_are_counted_by_resource_and_reads_and_dry_runs_are_not() {
        let found = everybody(TEXT);
        assert_eq!(told(&found), "PATCH pods/status ×4, PUT leases ×120");
        let (leases, events, questions, others) = split(&found);
        assert_eq!((leases, events, questions), (120, 0, 0));
        assert_eq!(told(&others), "PATCH pods/status ×4");
    }

    #[test]
    fn only_what_was_added_counts_and_a_restart_is_noticed() {
        let before = BTreeMap::from([("apply".to_owned(), 3)]);
        let after = BTreeMap::from([("apply".to_owned(), 3), ("event".to_owned(), 1)]);
        assert_eq!(told(&added(&before, &after).unwrap()), "event ×1");
        assert!(added(&after, &before).is_err());
    }

    #[test]
    fn the_audit_log_tells_the_operators_writes_from_others() {
        let event = |user: &str, verb: &str| {
            json!({ "user": { "username": user }, "verb": verb, "stage": "ResponseComplete",
                    "objectRef": { "resource": "scrapetasks", "subresource": "status" } })
        };
        let what = write_of_operator(&event(OPERATOR, "patch"));
        assert_eq!(what.as_deref(), Some("patch scrapetasks/status"));
        assert_eq!(write_of_operator(&event(OPERATOR, "list")), None);
        assert_eq!(write_of_operator(&event("system:node:node1", "patch")), None);
    }
}
