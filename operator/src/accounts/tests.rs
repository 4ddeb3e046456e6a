//! What is due when, and what is known when not everything is answered.

use std::{future::IntoFuture, sync::Arc};

use axum::{Json, Router, extract::State as Shared, http::StatusCode, routing::post};
use serde_json::{Value as JsonValue, json};
use url::form_urlencoded;

use super::*;
use crate::{build::fixture, telemetry, validated::Credentials};

fn endpoint(url: &str) -> PrometheusEndpoint {
    PrometheusEndpoint {
        url: url.parse().unwrap(),
        credentials: Credentials::None,
        authority: None,
    }
}

fn followed(ready: bool) -> Followed {
    let cluster = fixture::minimal();
    Followed {
        place: ("web".into(), "shop".into()),
        endpoint: Some(endpoint("http://prometheus.example.org")),
        parts: cost::parts(&cluster, |_| 2, |_| None),
        slo: cluster.slo,
        cost: cluster.cost,
        ready,
    }
}

fn found(answers: f64) -> Found {
    Found {
        answers: Some(answers),
        ..Found::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

#[test]
fn a_status_is_due_once_and_then_when_something_happens() {
    let accounts = Accounts::default();
    assert_eq!(
        accounts.follow("u", followed(true), Due::default(), at(0)),
        Due::default()
    );
    let (_, due) = accounts.take("u", found(1.0), at(0)).unwrap();
    assert!(due, "the first look");
    let first = accounts.follow("u", followed(true), Due::default(), at(1));
    assert!(first.slo.is_some() && first.cost.is_none());
    accounts.wrote("u", first);
    assert!(!accounts.take("u", found(1.0), at(60)).unwrap().1, "nothing happened");
    accounts.follow("u", followed(false), Due::default(), at(70));
    let (_, due) = accounts.take("u", found(0.0), at(120)).unwrap();
    assert!(due, "an outage begins");
}

#[test]
fn costs_are_told_from_what_was_found_once_an_hour() {
    let accounts = Accounts::default();
    accounts.follow("u", followed(true), Due::default(), at(0));
    accounts.take_slowly("u", (&followed(true), Slowly::unmeasured()), at(0));
    let (live, _) = accounts.take("u", found(1.0), at(0)).unwrap();
    assert!(
        live.iter().any(|live| live.name.starts_with("selextract_cost_")),
        "{live:?}"
    );
    let due = accounts.follow("u", followed(true), Due::default(), at(1));
    assert_ne!(due.cost.unwrap().monthly, "0");
}

#[test]
fn what_one_server_measured_is_not_told_of_another_nor_of_none() {
    let accounts = Accounts::default();
    accounts.follow("u", followed(true), Due::default(), at(0));
    let measured = || Slowly {
        availability: Some(slo::Availability {
            bad_requests: Some(0.01),
            ..slo::Availability::default()
        }),
        ..Slowly::unmeasured()
    };
    let told = |accounts: &Accounts| {
        let (live, _) = accounts.take("u", found(1.0), at(0)).unwrap();
        live.iter().any(|live| live.name == "selextract_slo_availability_ratio")
    };
    accounts.take_slowly("u", (&followed(true), measured()), at(0));
    assert!(told(&accounts));
    let none = Followed {
        endpoint: None,
        ..followed(true)
    };
    accounts.follow("u", none.clone(), Due::default(), at(1));
    assert!(!told(&accounts));
    assert_eq!(accounts.list_slowly().len(), 1, "what is reserved is told at once");
    accounts.take_slowly("u", (&none, Slowly::unmeasured()), at(2));
    assert!(accounts.follow("u", none, Due::default(), at(3)).cost.is_some());
    accounts.take_slowly("u", (&followed(true), measured()), at(2));
    assert!(!told(&accounts), "the answer of the one before came late");
}

#[test]
fn figures_fill_in_what_each_part_uses_its_volume_and_what_redis_holds_among_them() {
    let labels = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        component(&owned.collect()).unwrap()
    };
    assert_eq!(labels(&[("component", "api"), ("signal", "cost_cpu_mean")]), "api");
    assert_eq!(labels(&[("volume", "postgres")]), "postgres");
    assert_eq!(labels(&[("redis", "cache")]), "redis-cache");
    let figure = |query: Query, component: &str, value: f64| ((query.name, component.to_owned()), value);
    let used = Use {
        parts: [
            figure(resources::STORAGE, "postgres", 95e9),
            figure(asked::MEMORY_P95, "redis-cache", 1e8),
            figure(asked::REDIS_MEMORY_P95, "redis-cache", 2e8),
            figure(asked::REDIS_MEMORY_P95, "redis-queue", 3e8),
        ]
        .into(),
        ..Use::default()
    };
    let mut parts = followed(true).parts;
    for part in &mut parts {
        used.measure(part);
    }
    let of = |name: &str| parts.iter().find(|part| part.component == name).unwrap().measured;
    assert_eq!(of("postgres").volume_used, Some(95e9));
    assert_eq!(of("redis-cache").memory_p95, Some(2e8), "the greater of both");
    assert_eq!(of("redis-queue").memory_p95, Some(3e8));
}

/// What it was asked.
type Asked = Arc<Mutex<Vec<String>>>;

/// A Prometheus that answers a query so, or not at all.
async fn serve(answer: impl Fn(&str) -> Option<JsonValue> + Clone + Send + Sync + 'static) -> (String, Asked) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked = Asked::default();
    let handler = async move |Shared(asked): Shared<Asked>, form: String| {
        let form: HashMap<_, _> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let query = &form["query"];
        asked.lock().unwrap().push(query.clone());
        let result = answer(query).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        Ok::<_, StatusCode>(Json(json!({ "data": { "result": result } })))
    };
    let router = Router::new()
        .route("/api/v1/query", post(handler))
        .with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, asked)
}

/// Whether a query looks over more than an hour.
fn is_dear(query: &str) -> bool {
    let ranges = ["[2h", "[6h", "[1d", "[3d", "[7d", "[30d"];
    ranges.iter().any(|range| query.contains(range))
}

fn followed_at(url: &str) -> Followed {
    Followed {
        endpoint: Some(endpoint(url)),
        ..followed(true)
    }
}

fn value(signal: &str, label: (&str, &str), value: f64) -> JsonValue {
    json!({ "metric": { "namespace": "web", "cluster": "shop", label.0: label.1, SIGNAL: signal }, "value": [1_800_000_000, value.to_string()] })
}

/// Runs the loops until something is due, and answers what.
async fn run_until_due(accounts: &Accounts, telemetry: &Telemetry) -> Place {
    let (stop, due) = (CancellationToken::new(), Mutex::new(None));
    let tell = |place| {
        *due.lock().unwrap() = Some(place);
        stop.cancel();
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, run(accounts, telemetry, stop.clone(), tell))
        .await
        .unwrap();
    due.into_inner().unwrap().unwrap()
}

#[tokio::test]
async fn a_month_that_is_too_dear_keeps_nothing_else_from_being_known_and_is_not_asked_for_every_minute() {
    let (url, asked) = serve(|query| {
        let up = value("slo_api_answers", ("component", "api"), 1.0);
        (!is_dear(query)).then(|| json!([up, value("http_response_p95", ("component", "api"), 0.2)]))
    })
    .await;
    let (accounts, telemetry) = (Accounts::default(), Telemetry::new().unwrap());
    accounts.follow("u", followed_at(&url), Due::default(), Timestamp::now());
    accounts.all().get_mut("u").unwrap().slowly_at = Instant::now();
    let stop = CancellationToken::new();
    let asked_in_vain = async {
        while !accounts.list_slowly().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    tokio::join!(look_slowly(&accounts, &stop), asked_in_vain);
    let dear = asked.lock().unwrap().iter().filter(|query| is_dear(query)).count();
    assert_eq!(dear, 1, "one answer is enough");
    run_until_due(&accounts, &telemetry).await;
    let due = accounts.follow("u", followed_at(&url), Due::default(), Timestamp::now());
    let status = due.slo.expect("promises are looked at all the same");
    assert!(status.up_since.is_some());
    assert!(status.objectives.iter().any(|objective| objective.level == "Met"));
    assert_ne!(due.cost.expect("what is reserved is known").monthly, "0");
}

#[tokio::test]
async fn an_outage_is_seen_while_prometheus_is_gone_and_where_there_is_none() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for endpoint in [Some(endpoint("http://127.0.0.1:1")), None] {
        let (accounts, telemetry) = (Accounts::default(), Telemetry::new().unwrap());
        let own = |ready| Followed {
            endpoint: endpoint.clone(),
            ..followed(ready)
        };
        accounts.follow("u", own(true), Due::default(), Timestamp::now());
        run_until_due(&accounts, &telemetry).await;
        let up = accounts.follow("u", own(false), Due::default(), Timestamp::now());
        assert!(
            up.slo.as_ref().is_some_and(|status| status.up_since.is_some()),
            "{up:?}"
        );
        accounts.wrote("u", up);
        run_until_due(&accounts, &telemetry).await;
        let down = accounts.follow("u", own(false), Due::default(), Timestamp::now());
        let status = down.slo.expect("an outage");
        assert_eq!(status.outages[0].reason, "NotReady");
        assert!(status.objectives.iter().all(|objective| objective.level == "Unknown"));
        let text = telemetry::text_of(&telemetry);
        assert!(
            text.contains("selextract_slo_outage{cluster=\"shop\",namespace=\"web\"} 1"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_volume_that_is_nearly_full_is_recommended_to_grow_from_what_prometheus_says() {
    let (url, _) = serve(|query| {
        Some(if query.contains("selextract_storage_used_bytes") {
            json!([value("storage", ("volume", "postgres"), 95.0 * f64::from(1 << 30))])
        } else if query.contains("redis_memory_used_bytes") {
            json!([value("cost_redis_memory_p95", ("redis", "cache"), 1e6)])
        } else {
            json!([])
        })
    })
    .await;
    let accounts = Accounts::default();
    let own = followed_at(&url);
    accounts.follow("u", own.clone(), Due::default(), at(0));
    let client = Prometheus::within(PATIENTLY, endpoint(&url)).unwrap();
    let mut found = Slowly::default();
    fetch_slowly(&client, &own.scope(), &mut found).await.unwrap();
    accounts.take_slowly("u", (&own, found), at(0));
    let cost = accounts.follow("u", own, Due::default(), at(1)).cost.unwrap();
    let grow = cost.recommendations.iter();
    let grow: Vec<_> = grow.filter(|one| one.field == "spec.postgres.storage").collect();
    assert_eq!((grow[0].from.as_str(), grow[0].to.as_str()), ("100Gi", "200Gi"));
    let stored = cost.efficiency.iter().find(|one| one.name == "storageUsed").unwrap();
    assert_ne!(stored.level, "Unknown");
}

#[tokio::test]
async fn what_is_recorded_is_looked_back_at_and_the_scrapes_where_nothing_is() {
    for recorded in [true, false] {
        let (url, asked) = serve(move |query| {
            let minutes = value("", ("component", "api"), 120.0);
            let is = recorded && query.contains("[2h]");
            Some(if is { json!([minutes]) } else { json!([]) })
        })
        .await;
        let client = Prometheus::within(PATIENTLY, endpoint(&url)).unwrap();
        let (own, mut found) = (followed_at(&url), Slowly::default());
        fetch_slowly(&client, &own.scope(), &mut found).await.unwrap();
        let month = asked
            .lock()
            .unwrap()
            .iter()
            .filter(|query| query.contains("[30d"))
            .cloned()
            .collect::<String>();
        assert_eq!(month.contains("selextract:http_request_rate"), recorded, "{month}");
        assert_eq!(month.contains("http_requests_total"), !recorded, "{month}");
    }
}
