//! What is recorded for the look back over days: it says what the scrapes say, and a month of it is read at once.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use selextract_operator::monitoring::{
    client::{Prometheus, SOON},
    queries::{
        Query, Scope,
        recorded::{IS_RECORDED, RECORDED, SCRAPED},
        resources, together,
    },
};
use selextract_test_services::{Prometheus as Server, promtool};
use serde_json::{Value, json};

use super::{
    files_of,
    history::client,
    series::{Series, growing, healthy, name, steady},
};

const SCOPE: Scope<'_> = Scope::Cluster {
    namespace: "web",
    name: "shop",
};
const HOUR: Duration = Duration::from_hours(1);

/// By component; without one, of the platform as a whole.
fn expected(query: &Query) -> Vec<(&'static str, f64)> {
    let programs = |value: f64| {
        ["api", "egress", "keeper", "worker"]
            .map(|component| (component, value))
            .to_vec()
    };
    let with_postgres = |value: f64, postgres: f64| [programs(value), vec![("postgres", postgres)]].concat();
    match query.name {
        "slo_bad_request_ratio" => vec![("", 0.01)],
        "slo_downtime_ratio_of_days" => vec![("", 0.0)],
        "slo_measured_hours" => vec![("", 2.0)],
        "http_request_rate" => vec![("", 1000.0)],
        "cost_tasks_rate" => vec![("", 0.5)],
        "cost_mean_pods" => programs(1.0),
        "cost_cpu_mean" | "cost_cpu_p95" => with_postgres(0.1, 0.2),
        "cost_memory_mean" | "cost_memory_p95" => with_postgres(400.0, 900.0),
        "cost_sent_rate" => vec![("api", 33_333.333), ("egress", 33_333.333)],
        other => unreachable!("{other} is not played"),
    }
}

fn test_of(query: &Query) -> Value {
    let samples: Vec<_> = expected(query)
        .into_iter()
        .map(|(component, value)| {
            let component = if component.is_empty() {
                String::new()
            } else {
                format!(",component=\"{component}\"")
            };
            json!({ "labels": format!("{{namespace=\"web\",cluster=\"shop\"{component}}}"), "value": value })
        })
        .collect();
    let expr = format!("round({}, 0.001)", query.render(&SCOPE, Some(HOUR)));
    json!({ "expr": expr, "eval_time": "2h", "exp_samples": samples })
}

#[test]
fn what_is_recorded_says_what_the_scrapes_say() {
    let (_, files) = files_of(&json!({ "profile": "Small", "monitoring": { "alerts": { "enabled": false } } }));
    let mut series = healthy();
    series.insert(
        name("http_requests_total", "component=\"api\",code=\"2xx\""),
        growing(29_700.0),
    );
    series.insert(
        name("http_requests_total", "component=\"api\",code=\"5xx\""),
        growing(300.0),
    );
    series.insert(
        name(
            "selextract_tasks_ended_total",
            "component=\"worker\",outcome=\"succeeded\"",
        ),
        growing(15.0),
    );
    let postgres = "component=\"postgres\",pod=\"shop-postgres-0\",container=\"postgres\"";
    series.insert(name("container_cpu_usage_seconds_total", postgres), growing(6.0));
    series.insert(name("container_memory_working_set_bytes", postgres), steady(900.0));
    let both: Vec<_> = SCRAPED
        .iter()
        .chain(RECORDED.iter())
        .map(|query| test_of(&query))
        .collect();
    promql(&files["records.yml"], &series, &both);
}

#[test]
fn what_no_scrape_tells_is_recorded_too() {
    let given = json!({ "cpu": "500m", "memory": "1Gi" });
    let (_, files) = files_of(&json!({
        "profile": "Small",
        "postgres": { "pod": { "resources": { "requests": given, "limits": given } } },
        "monitoring": {
            "alerts": { "enabled": false },
            "prometheus": { "managed": { "storage": "1Gi", "kubeletMetrics": true } },
        },
    }));
    let gib = f64::from(1 << 30);
    let postgres = "component=\"postgres\",pod=\"shop-postgres-0\"";
    let mut series = healthy();
    series.insert(name("container_cpu_usage_seconds_total", postgres), growing(6.0));
    series.insert(name("container_memory_working_set_bytes", postgres), steady(0.75 * gib));
    for (part, share) in [
        ("storage_blocks", 0.25),
        ("wal_storage_size", 0.125),
        ("head_chunks_storage_size", 0.125),
    ] {
        let own = "component=\"prometheus\",pod=\"shop-prometheus-0\"";
        let metric = format!("prometheus_tsdb_{part}_bytes");
        series.insert(name(&metric, own), steady(share * gib));
    }
    let cpu = [
        ("api", 0.1),
        ("egress", 0.1),
        ("keeper", 0.1),
        ("worker", 0.1),
        ("postgres", 0.4),
    ];
    let cpu = cpu.map(|(component, value)| (format!("component=\"{component}\""), value));
    let volumes = ["postgres", "prometheus"].map(|volume| (format!("volume=\"{volume}\""), 0.5));
    promql(
        &files["records.yml"],
        &series,
        &[
            played(&resources::CPU_RATIO, &cpu),
            played(&resources::KUBELET_MEMORY_RATIO, &[(postgres.to_owned(), 0.75)]),
            played(&resources::STORAGE_RATIO, &volumes),
        ],
    );
}

/// What a query answers after half an hour: labels and values.
fn played(query: &Query, answers: &[(String, f64)]) -> Value {
    let samples: Vec<_> = answers
        .iter()
        .map(|(labels, value)| json!({ "labels": name("", labels), "value": value }))
        .collect();
    let expr = format!("round({}, 0.001)", query.render(&SCOPE, None));
    json!({ "expr": expr, "eval_time": "30m", "exp_samples": samples })
}

/// Plays series to the recorded rules, and asks.
fn promql(records: &str, series: &Series, tests: &[Value]) {
    let input: Vec<_> = series
        .iter()
        .map(|(series, values)| json!({ "series": series, "values": values }))
        .collect();
    let suite = json!({ "rule_files": ["records.yml"], "evaluation_interval": "1m", "tests": [{
        "interval": "30s", "input_series": input, "promql_expr_test": tests,
    }] });
    promtool(
        &[("records.yml", records), ("suite.yml", &suite.to_string())],
        &["test", "rules", "suite.yml"],
    )
    .unwrap();
}

/// Thirty days of what the rules record, every minute, of one part of a platform.
fn month(now: Timestamp) -> String {
    const MINUTES: i64 = 30 * 24 * 60;
    let mut past = String::new();
    let mut record = |name: &str, labels: &str, value: &dyn Fn(i64) -> f64| {
        for minute in 0..=MINUTES {
            let at = now.as_second() - (MINUTES - minute) * 60;
            let labels = format!("namespace=\"web\",cluster=\"shop\"{labels}");
            writeln!(past, "selextract:{name}{{{labels}}} {} {at}", value(minute)).unwrap();
        }
    };
    // Three hours of thirty days are 1/240.
    record("slo_api_answers", "", &|minute| if minute < 180 { 0.0 } else { 1.0 });
    record("http_request_rate", "", &|_| 100.0);
    record("slo_failed_request_rate", "", &|_| 0.1);
    record("targets", ",component=\"api\"", &|_| 6.0);
    record("cost_pod_cpu", ",component=\"api\",pod=\"a\"", &|_| 0.5);
    past
}

#[tokio::test]
async fn thirty_days_are_looked_back_at_within_the_time_that_an_answer_about_now_has() {
    let now = Timestamp::now();
    let server = Server::start_with_past("{}", &month(now)).unwrap();
    let client: Prometheus = client(&server).await;
    assert!(
        !client
            .query(&IS_RECORDED.render(&SCOPE, None))
            .await
            .unwrap()
            .is_empty()
    );
    let started = Instant::now();
    let days = Duration::from_hours(30 * 24);
    let asked: Vec<_> = RECORDED.iter().collect();
    let found = client.query(&together(&asked, &SCOPE, days)).await.unwrap();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let of = |name: &str| {
        let value = found.iter().find(|value| value.labels["signal"] == name);
        value.unwrap_or_else(|| panic!("{name}")).value
    };
    assert!((of("slo_bad_request_ratio") - 0.001).abs() < 1e-6);
    assert!((of("slo_downtime_ratio_of_days") - 1.0 / 240.0).abs() < 1e-4);
    assert!((719.0..=721.0).contains(&of("slo_measured_hours")));
    assert!((of("cost_mean_pods") - 6.0).abs() < 1e-6);
    assert!((of("cost_cpu_p95") - 0.5).abs() < 1e-6);
}
