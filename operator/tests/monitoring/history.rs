//! The past of a window, read back from a real Prometheus that knows it.

use std::{fmt::Write as _, time::Duration};

use jiff::{SignedDuration, Timestamp};
use selextract_operator::{
    monitoring::{client::Prometheus, history::fetch_past, queries::Scope},
    scaling::{Decision, Reason, State, Window, decide_api, readings::Expected},
    validated::{Credentials, PrometheusEndpoint},
};
use selextract_test_services::Prometheus as Server;
use serde_json::json;

const FIVE: Duration = Duration::from_mins(5);
const SCOPE: Scope<'_> = Scope::Cluster {
    namespace: "web",
    name: "shop",
};

/// Two API pods of this cluster whose CPU is busy to this share, every five seconds within these, seen from `now`; as `OpenMetrics`.
fn pods(out: &mut String, cluster: &str, cpu: f64, seconds: std::ops::Range<i32>, now: Timestamp) {
    for pod in ["a", "b"] {
        let labels = format!("namespace=\"web\",cluster=\"{cluster}\",component=\"api\",pod=\"{pod}\"");
        let mut series = |name: &str, value: &dyn Fn(f64) -> f64| {
            for second in seconds.clone().step_by(5) {
                let at = now.as_second() + i64::from(second);
                writeln!(out, "{name}{{{labels}}} {} {at}", value(f64::from(second))).unwrap();
            }
        };
        series("up", &|_| 1.0);
        series("selextract_container_cpu_seconds_total", &|second| {
            cpu * (second + 3600.0)
        });
        series("selextract_container_cpu_capacity_cores", &|_| 1.0);
        series("http_requests_total", &|_| 5.0);
    }
    // Beside them a keeper that says that the database answers.
    let labels = format!("namespace=\"web\",cluster=\"{cluster}\",component=\"keeper\",pod=\"c\"");
    for (name, more) in [("up", ""), ("selextract_dependency_up", ",dependency=\"postgres\"")] {
        for second in seconds.clone().step_by(5) {
            let at = now.as_second() + i64::from(second);
            writeln!(out, "{name}{{{labels}{more}}} 1 {at}").unwrap();
        }
    }
}

pub async fn client(server: &Server) -> Prometheus {
    let _ = rustls::crypto::ring::default_provider().install_default();
    super::wait_until_ready(&reqwest::Client::new(), server).await;
    Prometheus::new(PrometheusEndpoint {
        url: server.url().parse().unwrap(),
        credentials: Credentials::None,
        authority: None,
    })
    .unwrap()
}

/// What a new operator decides for two API pods at its first look, and how many moments it read back.
async fn first_look(client: &Prometheus, now: Timestamp) -> (Decision, usize) {
    let spec = json!({ "scaling": { "api": {} } });
    let cluster = super::cluster(&spec);
    let policy = cluster.scaling.api.policy().unwrap();
    let past = fetch_past(client, (&SCOPE, 1), FIVE, now).await.unwrap();
    assert!(past.keys().all(|(_, name)| name == "shop"), "{:?}", past.keys());
    let mut window = Window::default();
    let expected = Expected { api: 2, worker: 0 };
    let moments = past.into_values().flatten();
    let samples: Vec<_> = moments.map(|(at, answers)| answers.sample(expected, at)).collect();
    for sample in &samples {
        window.push(sample.clone(), FIVE);
    }
    let state = State {
        current: 2,
        ready: 2,
        ..State::default()
    };
    (decide_api(policy, &window, &state, now), samples.len())
}

#[tokio::test]
async fn five_minutes_of_busy_pods_count_for_an_operator_that_just_started() {
    let now = Timestamp::now();
    let mut past = String::new();
    pods(&mut past, "shop", 0.9, -420..60, now);
    pods(&mut past, "market", 0.1, -420..60, now);
    let server = Server::start_with_past("{}", &past).unwrap();
    let (decision, moments) = first_look(&client(&server).await, now).await;
    assert_eq!((decision.to, decision.reason), (3, Reason::CpuHigh), "{decision:?}");
    assert_eq!(moments, 22);
    // Both clusters are read back at once.
    let both = fetch_past(&client(&server).await, (&Scope::All, 2), FIVE, now)
        .await
        .unwrap();
    assert_eq!(both.len(), 2);
    // Looked at later, nobody has measured for a while: the past says nothing about now.
    let (decision, _) = first_look(&client(&server).await, now + SignedDuration::from_secs(120)).await;
    assert_eq!(
        (decision.to, decision.reason),
        (2, Reason::SignalsUnknown),
        "{decision:?}"
    );
}

#[tokio::test]
async fn a_short_past_a_hole_in_it_and_none_change_nothing() {
    let now = Timestamp::now();
    let mut short = String::new();
    pods(&mut short, "shop", 0.9, -200..60, now);
    let mut holed = String::new();
    pods(&mut holed, "shop", 0.9, -420..-180, now);
    pods(&mut holed, "shop", 0.9, -60..60, now);
    for past in [short, holed] {
        let server = Server::start_with_past("{}", &past).unwrap();
        let (decision, _) = first_look(&client(&server).await, now).await;
        assert_eq!(decision.to, 2, "{decision:?}");
        assert_ne!(decision.reason, Reason::SignalsUnknown, "{decision:?}");
    }
    let server = Server::start("{}").unwrap();
    let (decision, moments) = first_look(&client(&server).await, now).await;
    assert_eq!((decision.reason, moments), (Reason::SignalsUnknown, 0), "{decision:?}");
}
