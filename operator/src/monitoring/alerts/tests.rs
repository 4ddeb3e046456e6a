//! The alerts as a whole: names, texts, runbooks. Whether each fires is promtool's affair (operator/tests/alerts.rs).

use std::{collections::BTreeSet, fs, path::Path};

use selextract_telemetry::{LONG_SECONDS, SECONDS, SHORT_SECONDS};

use super::*;
use crate::{build::fixture, validated::ValidatedCluster};

fn rules() -> Vec<Value> {
    rules_of(&fixture::minimal())
}

fn rules_of(cluster: &ValidatedCluster) -> Vec<Value> {
    let alerts = cluster.monitoring.alerts.as_ref().unwrap();
    let scope = Scope::Cluster {
        namespace: "web",
        name: "shop",
    };
    let groups = groups(alerts, &cluster.slo, scope);
    let rules = groups
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

#[test]
fn every_alert_waits_and_says_what_it_means_and_what_to_do() {
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            ["info", "warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        assert!(rule["for"].as_str().unwrap().ends_with(['m', 'h']), "{name}");
        for words in ["summary", "description"] {
            assert!(
                rule["annotations"][words].as_str().unwrap().ends_with(['.', 's']),
                "{name}"
            );
        }
        assert!(
            rule["annotations"]["runbook_url"]
                .as_str()
                .unwrap()
                .ends_with(&format!("/docs/runbooks/{name}.md"))
        );
    }
}

#[test]
fn every_text_is_an_alert_and_every_alert_has_its_runbook() {
    let fired: BTreeSet<String> = rules()
        .iter()
        .map(|rule| rule["alert"].as_str().unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> = names().map(str::to_owned).collect();
    assert_eq!(fired, known);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let pages: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()?
                .strip_suffix(".md")
                .map(str::to_owned)
        })
        .filter(|name| name != "README")
        .collect();
    assert_eq!(pages, known);
}

/// A quantile of a histogram never exceeds its last edge, and says nothing of what lies between two edges.
#[test]
fn every_threshold_is_an_edge_of_its_histogram_with_another_above() {
    let thresholds = selextract_crds::ThresholdsSpec::default();
    let of_api = [
        thresholds.response_time.all(),
        thresholds.login.all(),
        thresholds.dashboard.all(),
        thresholds.task_creation.all(),
        thresholds.task_results.all(),
    ];
    let of_stores = [
        thresholds.database_query.all(),
        thresholds.redis.all(),
        [
            &thresholds.api_to_database,
            &thresholds.api_to_redis,
            &thresholds.worker_to_queue,
        ],
    ];
    for (levels, edges) in [
        (&of_api[..], &SECONDS[..]),
        (&of_stores, &SHORT_SECONDS),
        (&[thresholds.task_processing.all()], &LONG_SECONDS),
    ] {
        for level in levels.iter().flatten().map(|level| level.get().as_secs_f64()) {
            assert!(edges.contains(&level), "{level} is no edge");
            assert!(
                edges.last().is_some_and(|last| *last > level),
                "{level} is never crossed"
            );
        }
    }
}

#[test]
fn the_guides_alerts_have_the_guides_figures() {
    let rules = rules();
    let has = |name: &str, severity: &str, end: &str| {
        rules.iter().any(|rule| {
            rule["alert"] == name
                && rule["labels"]["severity"] == severity
                && rule["expr"].as_str().unwrap().ends_with(end)
        })
    };
    for (name, severity, end) in [
        ("ApiErrorRate", "critical", "> 0.05"),
        ("ApiErrorRate", "warning", "> 0.01"),
        ("ApiResponseTime", "critical", "> 5"),
        ("ApiResponseTime", "warning", "> 2"),
        ("DatabaseDown", "critical", "== 0"),
        ("ApiDown", "critical", "== 0)"),
        ("MemoryUsage", "warning", "> 0.9"),
        ("DiskUsage", "warning", "> 0.85"),
        ("LoginSlow", "critical", "> 1"),
        ("TaskCreationSlow", "info", "> 0.5"),
        ("TaskBacklog", "info", "> 100"),
    ] {
        assert!(has(name, severity, end), "{name} {severity} {end}");
    }
}

#[test]
fn who_promises_nothing_has_no_alert_about_it_and_no_empty_group() {
    let mut cluster = fixture::minimal();
    let burns = |cluster: &ValidatedCluster| {
        let rules = rules_of(cluster);
        let names = rules.iter().filter_map(|rule| rule["alert"].as_str());
        names.filter(|name| name.starts_with("ErrorBudget")).count()
    };
    assert_eq!(burns(&cluster), 2);
    cluster.slo.availability = None;
    assert_eq!(burns(&cluster), 0);
    let groups = groups(cluster.monitoring.alerts.as_ref().unwrap(), &cluster.slo, Scope::All);
    assert!(
        groups
            .as_array()
            .unwrap()
            .iter()
            .all(|group| group["rules"][0].is_object())
    );
}
