//! Extraction from HTML that nobody here wrote: PostgreSQL's documentation. `SELEXTRACT_TEST_DOCS` names the folder of
//! `runtime-config.html`, as Debian's `postgresql-doc-17` (or 15) installs it.
#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use selextract_task::TaskSpec;
use selextract_worker::extract::{Record, extract};
use serde_json::json;
use url::Url;

fn spec() -> TaskSpec {
    serde_json::from_value(json!({
        "url": "http://docs.test/runtime-config.html",
        "items": "div.variablelist > dl.variablelist > dt:has(> span.term > code.varname):has(> span.term > code.type)",
        "fields": [
            { "name": "name", "selector": "span.term > code.varname", "required": true },
            { "name": "type", "selector": "span.term > code.type" },
            { "name": "anchor", "type": "Attribute", "attribute": "id" },
        ],
        "pagination": { "nextSelector": "a[accesskey=n]", "maxPages": 22 },
    }))
    .unwrap()
}

#[test]
fn every_server_parameter_is_read_with_its_type_across_the_pages() {
    let folder = PathBuf::from(
        std::env::var_os("SELEXTRACT_TEST_DOCS").expect("SELEXTRACT_TEST_DOCS is not set; make test sets it"),
    );
    let plan = spec().compile().unwrap();
    let mut records: Vec<Record> = Vec::new();
    let mut next: Option<Url> = Some(plan.url.clone());
    let mut pages = 0;
    while let Some(url) = next.filter(|_| pages < 20) {
        let html = fs::read_to_string(folder.join(url.path().trim_start_matches('/'))).unwrap();
        let page = extract(&plan, &url, &html, Instant::now() + Duration::from_secs(10)).unwrap();
        records.extend(page.records);
        next = page.next;
        pages += 1;
    }
    assert_eq!(pages, 20);
    let types: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record["name"].as_str().unwrap(), record["type"].as_str().unwrap()))
        .collect();
    assert!(types.len() > 300, "{} parameters", types.len());
    assert_eq!(
        (types["max_connections"], types["shared_buffers"]),
        ("integer", "integer")
    );
    assert_eq!((types["autovacuum"], types["wal_level"]), ("boolean", "enum"));
}
