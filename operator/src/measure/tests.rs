//! What is news, who is asked together, and what is left of a window after a restart.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::{Json, Router, extract::State as Shared, routing::post};
use serde_json::{Value as JsonValue, json};
use url::form_urlencoded;

use super::*;
use crate::{
    monitoring::{client::Value, queries::SIGNAL},
    scaling::{
        Reason,
        properties::{at, guide},
    },
    validated::Credentials,
};

fn followed(name: &str) -> Followed {
    let (_, worker) = guide();
    let state = State {
        current: 2,
        ready: 2,
        ..State::default()
    };
    Followed {
        place: ("web".into(), name.into()),
        made: Some(at(-3600)),
        endpoint: PrometheusEndpoint {
            url: "http://prometheus.example.org".parse().unwrap(),
            credentials: Credentials::None,
            authority: None,
        },
        policies: Policies {
            api: None,
            worker: Some(worker),
        },
        api: state.clone(),
        worker: state,
        told: (None, Some("Steady".into())),
    }
}

fn answers(backlog: f64) -> Answers {
    answered(backlog, 7.0)
}

fn idle() -> Answers {
    answered(0.0, 0.0)
}

fn answered(backlog: f64, busy: f64) -> Answers {
    let labels = |signal: &str| -> BTreeMap<String, String> {
        [("namespace", "web"), ("cluster", "shop"), (SIGNAL, signal)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };
    let values = signals(backlog, busy).map(|(signal, value)| Value {
        labels: labels(signal),
        at: 0.0,
        value,
    });
    let mut dependency = values[0].clone();
    dependency.labels = labels("scaling_dependencies");
    dependency.labels.insert("dependency".to_owned(), "postgres".to_owned());
    let values = values.into_iter().chain([dependency]);
    let mut moments = history::sort(values.collect())
        .remove(&("web".to_owned(), "shop".to_owned()))
        .unwrap();
    moments.pop_first().unwrap().1
}

fn signals(backlog: f64, busy: f64) -> [(&'static str, f64); 8] {
    [
        ("worker_pods", 2.0),
        ("keeper_pods", 1.0),
        ("worker_cpu_ratio", 0.01 + busy * 0.07),
        ("worker_busy", busy),
        ("task_processing_mean", 2.0),
        ("backlog", backlog),
        ("backlog_wait", 1.0),
        ("backlog_limited", 0.0),
    ]
}

fn none() -> Moments {
    Moments::new()
}

/// What was measured every fifteen seconds before this second.
fn past(answers: &Answers, seconds: std::ops::Range<i64>) -> Moments {
    let moments = seconds.step_by(15);
    moments.map(|second| (at(second), answers.clone())).collect()
}

#[test]
fn another_number_is_news_at_once_and_another_reason_when_it_lasted() {
    let measures = Measures::default();
    measures.follow("u", followed("shop"), at(0));
    let (_, news) = measures.take("u", &none(), &answers(0.0), at(0)).unwrap();
    assert!(!news, "as stored");
    let (decisions, news) = measures.take("u", &none(), &answers(2000.0), at(5)).unwrap();
    assert!(news);
    let decision = decisions.worker.clone().unwrap();
    assert_eq!((decision.to, decision.reason), (3, Reason::QueueLong));
    assert!(decisions.held().worker.is_none());
    measures.set("u", &decisions);
    let states = measures.states("u");
    let worker = states.1.unwrap();
    assert_eq!((worker.current, worker.changed), (3, Some(at(5))));
    assert_eq!(states.0, None, "the API is not sized");
    let news: Vec<_> = (2..=8)
        .map(|look| measures.take("u", &none(), &answers(0.0), at(5 * look)).unwrap().1)
        .collect();
    assert_eq!(
        news,
        [false, false, false, false, false, false, true],
        "30 s of another reason"
    );
    let (decisions, _) = measures.take("u", &none(), &answers(0.0), at(45)).unwrap();
    measures.set("u", &decisions.held());
    assert!(!measures.take("u", &none(), &answers(0.0), at(50)).unwrap().1, "told");
}

#[test]
fn a_silence_that_lasts_is_told_and_so_is_its_end_and_another_cause() {
    let measures = Measures::default();
    measures.follow("u", followed("shop"), at(0));
    let miss = |words, now| measures.miss("u", words, now).unwrap().1;
    let told: Vec<_> = (0..8).map(|look| miss("401", at(5 * look))).collect();
    assert_eq!(told, [false, false, false, false, false, false, true, false], "30 s");
    assert_eq!(measures.silence("u").as_deref(), Some("401"));
    assert!(miss("it does not answer", at(40)));
    assert!(measures.take("u", &none(), &answers(0.0), at(45)).unwrap().1);
    assert_eq!(measures.silence("u"), None);
    assert!(!miss("401", at(50)), "one lost answer is no news");
    assert_eq!(measures.silence("u"), None);
}

#[tokio::test]
async fn a_signal_is_not_a_number_any_more_once_prometheus_is_silent() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = PrometheusEndpoint {
        url: "http://127.0.0.1:1".parse().unwrap(),
        ..followed("shop").endpoint
    };
    let client = Arc::new(Prometheus::new(endpoint.clone()).unwrap());
    let (measures, telemetry) = (Measures::default(), Telemetry::new().unwrap());
    let own = Followed {
        endpoint,
        ..followed("shop")
    };
    let ago = Timestamp::now() - jiff::SignedDuration::from_secs(40);
    measures.follow("u", own, ago);
    let taken = measures.take("u", &none(), &answers(70.0), ago);
    settle(&telemetry, ("web".into(), "shop".into()), taken, &|_| {});
    let queue = |value: &str| {
        let labels = "{cluster=\"shop\",namespace=\"web\",signal=\"queue\",target=\"worker\"}";
        let text = crate::telemetry::text_of(&telemetry);
        assert!(
            text.contains(&format!("selextract_scaling_signal{labels} {value}")),
            "{text}"
        );
    };
    queue("70");
    let server = measures.servers().remove(0);
    look(&measures, &telemetry, server, client, &|_| {}).await;
    queue("NaN");
}

#[test]
fn a_cluster_that_is_made_again_takes_the_place_of_the_one_before() {
    let measures = Measures::default();
    for uid in ["before", "now"] {
        measures.follow(uid, followed("shop"), at(0));
    }
    let servers = measures.servers();
    let found: Vec<_> = servers[0].clusters.iter().map(|looked| looked.uid.as_str()).collect();
    assert_eq!(found, ["now"]);
}

#[test]
fn clusters_of_one_server_are_asked_together() {
    let measures = Measures::default();
    for number in 0..50 {
        measures.follow(&format!("u{number}"), followed(&format!("shop-{number}")), at(0));
    }
    let servers = measures.servers();
    assert_eq!((servers.len(), servers[0].clusters.len()), (1, 50));
    measures.forget("u0");
    assert_eq!(measures.servers()[0].clusters.len(), 49);
}

#[test]
fn after_a_restart_calm_goes_on_where_it_was() {
    let measures = Measures::default();
    measures.follow("u", followed("shop"), at(0));
    let decided = |measures: &Measures, past: &Moments| {
        let (decisions, _) = measures.take("u", past, &idle(), at(0)).unwrap();
        let decision = decisions.worker.unwrap();
        (decision.to, decision.reason)
    };
    assert_eq!(measures.servers()[0].clusters[0].missing, Some(Duration::from_mins(5)));
    let calm = past(&idle(), -315..0);
    assert_eq!(decided(&measures, &calm), (1, Reason::Idle));
    assert_eq!(measures.servers()[0].clusters[0].missing, None, "asked once");

    let mut holed = calm.clone();
    holed.retain(|moment, _| !(at(-100)..at(-40)).contains(moment));
    for (why, past, made) in [
        ("nothing is known", none(), -3600),
        ("too little is known", past(&idle(), -200..0), -3600),
        ("a hole of a minute", holed, -3600),
        ("the one before it was calm", calm.clone(), -100),
    ] {
        let measures = Measures::default();
        let made = Some(at(made));
        measures.follow(
            "u",
            Followed {
                made,
                ..followed("shop")
            },
            at(0),
        );
        assert_eq!(decided(&measures, &past), (2, Reason::Stabilizing), "{why}");
    }
}

/// How often it was asked for now, and for the past.
type Asked = Arc<[AtomicU32; 2]>;

/// A Prometheus that has measured a platform without work as long as anybody asks.
async fn idle_prometheus() -> (PrometheusEndpoint, Asked) {
    let asked = Asked::default();
    let answer = |points: &dyn Fn(f64) -> (&'static str, JsonValue)| {
        let series = signals(0.0, 0.0).map(|(signal, value)| {
            let (key, points) = points(value);
            json!({ "metric": { "namespace": "web", "cluster": "shop", SIGNAL: signal }, key: points })
        });
        let (key, points) = points(1.0);
        let dependency = json!({
            "metric": { "namespace": "web", "cluster": "shop", "dependency": "postgres", SIGNAL: "scaling_dependencies" }, key: points,
        });
        let series: Vec<_> = series.into_iter().chain([dependency]).collect();
        Json(json!({ "data": { "result": series } }))
    };
    let now = async move |Shared(asked): Shared<Asked>| {
        asked[0].fetch_add(1, Ordering::Relaxed);
        let at = Timestamp::now().as_second();
        answer(&|value| ("value", json!([at, value.to_string()])))
    };
    let past = async move |Shared(asked): Shared<Asked>, form: String| {
        asked[1].fetch_add(1, Ordering::Relaxed);
        let form: HashMap<_, _> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let [start, end, step] = ["start", "end", "step"].map(|key| form[key].parse::<usize>().unwrap());
        let moments = || (start..=end).step_by(step);
        answer(&|value| ("values", moments().map(|at| json!([at, value.to_string()])).collect()))
    };
    let router = Router::new()
        .route("/api/v1/query", post(now))
        .route("/api/v1/query_range", post(past))
        .with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    let endpoint = PrometheusEndpoint {
        url,
        ..followed("shop").endpoint
    };
    (endpoint, asked)
}

#[tokio::test]
async fn the_past_is_asked_for_once_at_the_first_look_and_decides_with_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (endpoint, asked) = idle_prometheus().await;
    let client = Arc::new(Prometheus::new(endpoint.clone()).unwrap());
    let (measures, telemetry) = (Measures::default(), Telemetry::new().unwrap());
    let now = Timestamp::now();
    let made = None;
    measures.follow(
        "u",
        Followed {
            made,
            endpoint,
            ..followed("shop")
        },
        now,
    );
    let told = AtomicU32::new(0);
    let counts = || asked.each_ref().map(|count| count.load(Ordering::Relaxed));
    for looks in 1..=2 {
        let server = measures.servers().remove(0);
        look(&measures, &telemetry, server, client.clone(), &|_| {
            told.fetch_add(1, Ordering::Relaxed);
        })
        .await;
        assert_eq!(counts(), [looks, 1]);
        assert_eq!(
            told.load(Ordering::Relaxed),
            looks,
            "a worker less, before any window passed"
        );
    }
}
