//! What is news, who is asked together, and what is left of a window after a restart.

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
    let labels = |signal: &str| {
        [("namespace", "web"), ("cluster", "shop"), (SIGNAL, signal)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    };
    let values = [
        ("worker_pods", 2.0),
        ("keeper_pods", 1.0),
        ("worker_cpu_ratio", 0.01 + busy * 0.07),
        ("worker_busy", busy),
        ("task_processing_mean", 2.0),
        ("backlog", backlog),
        ("backlog_wait", 1.0),
        ("backlog_limited", 0.0),
    ];
    let values = values.map(|(signal, value)| Value {
        labels: labels(signal),
        at: 0.0,
        value,
    });
    let mut moments = history::sort(values.into())
        .remove(&("web".to_owned(), "shop".to_owned()))
        .unwrap();
    moments.pop_first().unwrap().1
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
    let states = measures.states("u").unwrap();
    assert_eq!((states.1.current, states.1.changed), (3, Some(at(5))));
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
