//! Each query of the catalogue is asked of a real Prometheus that scraped a platform's metrics.

use std::time::{Duration, Instant};

use selextract_operator::monitoring::queries::{Query, Scope, all};
use selextract_test_services::Prometheus;
use serde_json::Value;

use super::{
    PATIENCE,
    exposition::{configuration, serve},
    wait_until_ready,
};

const WINDOW: Duration = Duration::from_secs(10);

/// What only minutes or a week of measurements, or the kubelets, can answer.
fn is_out_of_reach(query: &Query) -> bool {
    [
        "http_response_trend",
        "cpu_trend",
        "memory_trend",
        "kubelet_cpu",
        "kubelet_memory",
        "kubelet_memory_ratio",
        "prometheus_storage",
        "slo_downtime_ratio",
        "slo_downtime_ratio_of_days",
        "slo_measured_hours",
        "cost_mean_pods",
        "cost_cpu_p95",
    ]
    .contains(&query.name)
        || query.tells_absence()
}

async fn ask(client: &reqwest::Client, server: &Prometheus, query: &str) -> Vec<Value> {
    let url = format!("{}/api/v1/query", server.url());
    let response = client.get(url).query(&[("query", query)]).send().await.unwrap();
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

fn number(sample: &Value) -> f64 {
    sample["value"][1].as_str().unwrap().parse().unwrap()
}

/// Waits until the slowest of them has two scrapes within its window.
async fn wait_for_scrapes(client: &reqwest::Client, server: &Prometheus) {
    let started = Instant::now();
    wait_until_ready(client, server).await;
    loop {
        let rates = ask(client, server, "rate(process_open_fds[10s])").await;
        if rates.len() == 4 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "nothing was scraped: {}", server.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn every_query_matches_a_platform_that_works_and_answers_by_cluster() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Prometheus::start(&configuration(serve().await)).unwrap();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    wait_for_scrapes(&client, &server).await;
    let one = Scope::Cluster {
        namespace: "web",
        name: "shop",
    };
    let another = Scope::Cluster {
        namespace: "web",
        name: "market",
    };
    for query in all() {
        let found = ask(&client, &server, &query.render(&one, Some(WINDOW))).await;
        let everywhere = ask(&client, &server, &query.render(&Scope::All, Some(WINDOW))).await;
        if !is_out_of_reach(query) {
            assert!(!found.is_empty(), "{} matches nothing", query.name);
            assert_eq!(found.len(), everywhere.len(), "{}", query.name);
        }
        for sample in &found {
            assert_eq!(
                (&sample["metric"]["namespace"], &sample["metric"]["cluster"]),
                (&"web".into(), &"shop".into()),
                "{}",
                query.name
            );
            assert!(number(sample).is_finite(), "{} has no value", query.name);
            for label in query.labels() {
                assert!(
                    sample["metric"][label].is_string(),
                    "{} does not tell {label}",
                    query.name
                );
            }
        }
        let elsewhere = ask(&client, &server, &query.render(&another, Some(WINDOW))).await;
        assert_eq!(
            elsewhere.is_empty(),
            !query.tells_absence(),
            "{} answers for another cluster",
            query.name
        );
    }
}

#[tokio::test]
async fn a_dashboards_form_of_each_query_is_one_that_prometheus_reads() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Prometheus::start(&configuration(serve().await)).unwrap();
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    wait_for_scrapes(&client, &server).await;
    for query in all() {
        // As Grafana fills the variables in for "All".
        let filled = query
            .render_for_dashboard()
            .replace("$namespace", ".+")
            .replace("$cluster", ".+")
            .replace("$__rate_interval", "1m");
        assert!(!filled.contains('$'), "{filled}");
        ask(&client, &server, &filled).await;
    }
}
