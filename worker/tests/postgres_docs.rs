//! Extraction from HTML that nobody here wrote: PostgreSQL's documentation, by the demo's task. `SELEXTRACT_TEST_DOCS` names the folder
//! of `runtime-config.html`, as Debian's `postgresql-doc-17` (or 15) installs it.
#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use selextract_task::{Plan, TaskSpec};
use selextract_worker::{
    content::Content,
    extract::{Document, Record, extract},
};
use serde::Deserialize;
use url::Url;

/// The demo's first task.
fn plan() -> Plan {
    let tasks = include_str!("../../e2e/demo/tasks.yaml");
    let first = serde_yaml_ng::Deserializer::from_str(tasks).next().unwrap();
    let mut task = serde_json::Value::deserialize(first).unwrap();
    let spec: TaskSpec = serde_json::from_value(task["spec"]["task"].take()).unwrap();
    spec.compile().unwrap()
}

/// The records of all pages, and how many pages there are.
fn scrape(plan: &Plan) -> (Vec<Record>, usize) {
    let folder = PathBuf::from(
        std::env::var_os("SELEXTRACT_TEST_DOCS").expect("SELEXTRACT_TEST_DOCS is not set; make test sets it"),
    );
    let mut records: Vec<Record> = Vec::new();
    let mut next: Option<Url> = Some(plan.url.clone());
    let mut pages = 0;
    while let Some(url) = next.filter(|_| pages < 50) {
        let html = fs::read_to_string(folder.join(url.path().trim_start_matches("/docs/"))).unwrap();
        let document = Document {
            url: &url,
            content: Content::Html,
            text: &html,
        };
        let page = extract(plan, document, Instant::now() + Duration::from_secs(10)).unwrap();
        records.extend(page.records);
        next = page.next;
        pages += 1;
    }
    (records, pages)
}

#[test]
fn every_server_parameter_is_read_with_its_type_and_its_default_across_the_pages() {
    let (records, pages) = scrape(&plan());
    assert_eq!(pages, 17);
    let found: BTreeMap<_, _> = records
        .iter()
        .map(|record| {
            let text = |name: &str| record[name].as_str();
            (text("parameter").unwrap(), (text("type"), text("default")))
        })
        .collect();
    assert_eq!(records.len(), 388);
    assert!(found.len() > 380, "{} parameters", found.len());
    assert!(found.values().filter(|(_, default)| default.is_some()).count() > 310);
    for (name, kind, default) in [
        ("max_connections", "integer", Some("100 connections")),
        ("shared_buffers", "integer", Some("128 megabytes")),
        ("autovacuum", "boolean", Some("on")),
        ("wal_level", "enum", Some("replica")),
        ("search_path", "string", Some("\"$user\", public")),
        ("port", "integer", Some("5432")),
        ("temp_file_limit", "integer", Some("-1")),
        ("archive_command", "string", Some("empty string")),
        ("autovacuum_freeze_max_age", "integer", Some("200 million transactions")),
        ("debug_print_plan", "boolean", Some("off")),
        ("max_identifier_length", "integer", Some("64")),
        (
            "join_collapse_limit",
            "integer",
            Some("the same as from_collapse_limit"),
        ),
        // The documentation names none.
        ("fsync", "boolean", None),
        ("data_directory", "string", None),
    ] {
        assert_eq!(found[name], (Some(kind), default), "{name}");
    }
    let untyped: Vec<_> = found
        .iter()
        .filter(|(_, (kind, _))| kind.is_none())
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(untyped, ["recovery_target"]);
}
