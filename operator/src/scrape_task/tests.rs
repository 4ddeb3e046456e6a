//! The controller against an API server that holds `ScrapeTask`s alone: what it reads and writes, and what it does not.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, patch, post},
};
use clap::Parser;
use kube::{
    Client,
    runtime::{reflector::store::Writer, watcher::Event},
};
use serde_json::{Value, json};
use tokio::{
    sync::broadcast,
    time::{sleep, timeout},
};

use super::{
    reconcile::{Look, settle},
    status::Outcome,
    *,
};
use crate::{
    context::Clusters,
    settings::Settings,
    telemetry::{self, Telemetry},
};

const DEADLINE: Duration = Duration::from_secs(30);
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/team/events";
const TASKS: &str = "/apis/selextract.io/v1alpha1/namespaces/team/scrapetasks";

/// The API server's side.
#[derive(Clone)]
struct Server(Arc<Held>);

struct Held {
    tasks: Mutex<BTreeMap<String, Value>>,
    /// What was asked for, lists and watches apart.
    calls: Mutex<Vec<String>>,
    events: broadcast::Sender<Value>,
}

impl Server {
    fn new() -> Self {
        Self(Arc::new(Held {
            tasks: Mutex::default(),
            calls: Mutex::default(),
            events: broadcast::Sender::new(64),
        }))
    }

    fn client(&self) -> Client {
        let routes = Router::new()
            .route(TASKS, get(list))
            .route(&format!("{TASKS}/{{name}}"), get(read).patch(change))
            .route(&format!("{TASKS}/{{name}}/status"), patch(change))
            .route("/api/v1/namespaces/team/secrets/{name}", get(secret))
            .route(EVENTS, post(event))
            .route(&format!("{EVENTS}/{{name}}"), patch(event))
            .fallback(|| async { StatusCode::NOT_FOUND })
            .with_state(self.clone());
        Client::new(routes, "team")
    }

    fn put(&self, name: &str, mut task: Value) {
        task["metadata"]["resourceVersion"] = "1".into();
        self.with(|tasks| tasks.insert(name.to_owned(), task));
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Value>) -> T) -> T {
        work(&mut self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn called(&self, call: String) {
        self.0.calls.lock().unwrap().push(call);
    }

    fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }

    /// The reason of the condition Ready.
    fn reason(&self, name: &str) -> Value {
        self.with(|tasks| tasks[name]["status"]["conditions"][0]["reason"].clone())
    }
}

async fn list(State(server): State<Server>, Query(query): Query<BTreeMap<String, String>>) -> impl IntoResponse {
    if query.contains_key("watch") {
        let events = server.0.events.subscribe();
        let lines = futures::stream::unfold(events, |mut events| async {
            let event = events.recv().await.ok()?;
            Some((
                Ok::<_, std::convert::Infallible>(Bytes::from(format!("{event}\n"))),
                events,
            ))
        });
        return Body::from_stream(lines).into_response();
    }
    let items: Vec<Value> = server.with(|tasks| tasks.values().cloned().collect());
    Json(json!({"metadata": {"resourceVersion": "1"}, "items": items})).into_response()
}

/// There is one Secret, and it is not meant for tasks.
async fn secret(State(server): State<Server>, Path(name): Path<String>) -> impl IntoResponse {
    // The cluster's authority is asked for at any time.
    if name != "shop-ca" {
        server.called(format!("read secret {name}"));
    }
    if name != "private" {
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
        return (StatusCode::NOT_FOUND, Json(status)).into_response();
    }
    Json(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": name, "resourceVersion": "1"},
        "data": {"token": "aHVzaC1odXNo"},
    }))
    .into_response()
}

async fn event(State(server): State<Server>, Json(event): Json<Value>) -> Json<Value> {
    let part = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    server.called(format!("event {} {}: {}", part("type"), part("reason"), part("note")));
    Json(event)
}

async fn read(State(server): State<Server>, Path(name): Path<String>) -> Json<Value> {
    server.called(format!("read {name}"));
    Json(server.with(|tasks| tasks[&name].clone()))
}

/// A merge patch of what the operator writes: status alone.
async fn change(State(server): State<Server>, Path(name): Path<String>, Json(patch): Json<Value>) -> Json<Value> {
    server.called(format!("write {name}"));
    let changed = server.with(|tasks| {
        let task = tasks.get_mut(&name).unwrap();
        for (member, value) in patch["status"].as_object().into_iter().flatten() {
            task["status"][member] = value.clone();
        }
        let version: u32 = task["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        task["metadata"]["resourceVersion"] = (version + 1).to_string().into();
        task.clone()
    });
    // Before the first watch nobody listens.
    let _ = server.0.events.send(json!({"type": "MODIFIED", "object": changed}));
    Json(changed)
}

fn task(name: &str) -> Value {
    json!({
        "apiVersion": "selextract.io/v1alpha1", "kind": "ScrapeTask",
        "metadata": {"name": name, "namespace": "team", "uid": format!("uid-{name}"), "generation": 1},
        "spec": {"clusterRef": {"name": "shop"}, "task": {"url": "https://example.com/", "fields": [{"name": "title", "selector": "h1"}]}},
        "status": {"observedGeneration": -1, "conditions": []},
    })
}

/// As the operator leaves it once it is accepted.
fn accepted(name: &str) -> Value {
    let mut task = task(name);
    task["status"] = json!({"observedGeneration": 1, "state": "Succeeded", "runId": "0190a0f0-0000-7000-8000-000000000001", "conditions": [
        {"type": "Ready", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-11-24T02:00:00Z"},
    ]});
    task
}

fn shop() -> GuardedCluster {
    serde_json::from_value(json!({
        "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster", "spec": {},
        "metadata": {"name": "shop", "namespace": "team", "uid": "uid-shop", "creationTimestamp": "2026-11-24T01:00:00Z"},
    }))
    .unwrap()
}

/// The operator's side.
struct Operator {
    telemetry: Telemetry,
    clusters: Clusters,
    writer: Writer<GuardedCluster>,
    stop: CancellationToken,
}

impl Operator {
    fn start(server: &Server, clusters: Vec<GuardedCluster>) -> Self {
        let scope = Scope::Namespace("team".into());
        let settings = Settings::try_parse_from(["o", "--namespace", "team"]).unwrap();
        let telemetry = Telemetry::new().unwrap();
        let (known, mut writers) = Clusters::new(std::slice::from_ref(&scope));
        let mut writer = writers.remove(0);
        writer.apply_watcher_event(&Event::Init);
        for cluster in clusters {
            writer.apply_watcher_event(&Event::InitApply(cluster));
        }
        writer.apply_watcher_event(&Event::InitDone);
        known.set_listed(&scope);
        let context = Context::new(
            (server.client(), server.client()),
            settings,
            telemetry.clone(),
            known.clone(),
        );
        let stop = CancellationToken::new();
        tokio::spawn(run(Arc::new(context), vec![scope], stop.clone()));
        Self {
            telemetry,
            clusters: known,
            writer,
            stop,
        }
    }

    fn metric(&self, name: &str) -> i64 {
        let text = telemetry::text_of(&self.telemetry);
        let of_it = text.lines().filter(|line| line.starts_with(name));
        of_it
            .filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok())
            .sum()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What looks at tasks need, without a controller that looks.
fn tools(server: &Server) -> Tools {
    let settings = Settings::try_parse_from(["o", "--namespace", "team"]).unwrap();
    let (clusters, _) = Clusters::new(&[Scope::Namespace("team".into())]);
    let clients = (server.client(), server.client());
    let context = Context::new(clients, settings, Telemetry::new().unwrap(), clusters);
    Tools::new(Arc::new(context), CancellationToken::new())
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.expect("it does not come true");
}

#[tokio::test]
async fn at_its_start_the_operator_neither_reads_nor_writes_what_was_accepted() {
    let server = Server::new();
    for n in 0..450 {
        server.put(&format!("t{n}"), accepted(&format!("t{n}")));
    }
    server.put("new", task("new"));
    let operator = Operator::start(&server, vec![shop()]);
    until(async || operator.metric("selextract_scrape_tasks{") == 451).await;
    until(async || server.reason("new") == "ClusterUnreachable").await;
    assert_eq!(
        server.calls(),
        ["read new", "write new"],
        "only the new one: its status"
    );
}

#[tokio::test]
async fn the_own_writes_come_back_and_call_for_nothing() {
    let server = Server::new();
    server.put("docs", task("docs"));
    let operator = Operator::start(&server, vec![]);
    until(async || server.reason("docs") == "ClusterNotFound").await;
    // Another object's turn comes after the echo of the write.
    server.put("other", task("other"));
    let event = json!({"type": "ADDED", "object": server.with(|tasks| tasks["other"].clone())});
    until(async || server.0.events.receiver_count() > 0).await;
    server.0.events.send(event).unwrap();
    until(async || server.reason("other") == "ClusterNotFound").await;
    until(async || operator.metric("selextract_reconcile_queue_depth") == 0).await;
    assert_eq!(server.calls(), ["read docs", "write docs", "read other", "write other"]);
}

#[tokio::test]
async fn a_cluster_that_comes_has_its_tasks_looked_at_again_and_one_that_only_changes_has_not() {
    let server = Server::new();
    server.put("docs", task("docs"));
    let mut operator = Operator::start(&server, vec![]);
    until(async || server.reason("docs") == "ClusterNotFound").await;
    operator.writer.apply_watcher_event(&Event::Apply(shop()));
    let place = kube::runtime::reflector::ObjectRef::new("shop").within("team");
    operator.clusters.tell(&place);
    until(async || server.reason("docs") == "ClusterUnreachable").await;
    let calls = server.calls().len();
    let mut labelled = shop();
    labelled.labels_mut().insert("team".into(), "red".into());
    operator.writer.apply_watcher_event(&Event::Apply(labelled));
    operator.clusters.tell(&place);
    let mut admits = shop();
    admits.0.as_mut().unwrap().spec.allowed_namespaces = vec!["*".into()];
    operator.writer.apply_watcher_event(&Event::Apply(admits));
    operator.clusters.tell(&place);
    until(async || server.calls().len() > calls).await;
    assert_eq!(server.calls()[calls..], ["read docs"], "the status says it already");
}

#[tokio::test]
async fn what_waits_for_a_quota_says_so_in_the_status_and_once_as_an_event() {
    let server = Server::new();
    server.put("docs", task("docs"));
    let tools = tools(&server);
    let look = async |outcome: Outcome| {
        let stored = server.with(|tasks| tasks["docs"].clone());
        let look = Look {
            uid: "uid-docs",
            news: 0,
            tools: &tools,
        };
        let stored = serde_json::from_value(stored).unwrap();
        settle(&stored, &outcome, &look).await.unwrap();
    };
    let refused = |used: u32| Outcome::Waiting {
        reason: "QuotaExceeded",
        message: format!("The namespace may have no further task for now: {used} of 2."),
    };
    let accepted = |waiting: Option<&str>, held: Option<&str>| {
        let run = json!({
            "id": "0190a0f0-0000-7000-8000-000000000001", "specHash": "h", "state": "pending", "pages": 0, "records": 0,
            "createdAt": "2026-11-24T02:00:00Z", "waiting": waiting,
        });
        Outcome::Accepted {
            run: Some(serde_json::from_value(run).unwrap()),
            next_run_at: None,
            held: held.map(status::tick_waits),
        }
    };
    let events = || -> Vec<String> {
        let calls = server.calls().into_iter();
        calls
            .filter_map(|call| call.strip_prefix("event Warning QuotaExceeded: ").map(str::to_owned))
            .collect()
    };
    for used in [2, 2, 3] {
        look(refused(used)).await;
    }
    assert_eq!(server.reason("docs"), "QuotaExceeded");
    assert_eq!(events(), ["The namespace may have no further task for now: 2 of 2."]);
    look(accepted(None, None)).await;
    assert_eq!((server.reason("docs"), events().len()), (json!("Accepted"), 1));
    for _ in 0..2 {
        look(accepted(Some("QuotaExceeded"), None)).await;
    }
    let told = server.with(|tasks| tasks["docs"]["status"]["conditions"][3].clone());
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("Succeeded"), &json!("QuotaExceeded"))
    );
    assert_eq!(events()[1..], [told["message"].as_str().unwrap().to_owned()]);
    for waiting in [None, Some("QuotaExceeded")] {
        look(accepted(waiting, None)).await;
    }
    assert_eq!(events().len(), 3, "it begins to wait again");
    for used in [1, 1, 2] {
        let why = format!("the quota queued is 1 and {used} are used");
        look(accepted(None, Some(&why))).await;
    }
    let told = server.with(|tasks| tasks["docs"]["status"]["conditions"][4].clone());
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("TickHeld"), &json!("QuotaExceeded"))
    );
    assert_eq!(
        events()[3..],
        ["A tick of the schedule waits within its starting deadline: the quota queued is 1 and 1 are used."]
    );
    look(accepted(None, None)).await;
    let conditions = server.with(|tasks| tasks["docs"]["status"]["conditions"].clone());
    assert_eq!(conditions.as_array().unwrap().len(), 4, "the tick waits no longer");
}

#[tokio::test]
async fn a_secret_is_asked_for_by_its_name_alone_and_what_is_wrong_with_it_is_told_without_its_data() {
    let server = Server::new();
    for name in ["absent", "private"] {
        let mut task = task(name);
        task["spec"]["credentialsFrom"] = "Secret".into();
        task["spec"]["task"]["credentials"] = name.into();
        server.put(name, task);
    }
    let mut of_api = task("api");
    of_api["spec"]["task"]["credentials"] = "absent".into();
    server.put("api", of_api);
    let _operator = Operator::start(&server, vec![shop()]);
    until(async || server.reason("absent") == "SecretMissing").await;
    until(async || server.reason("private") == "SecretInvalid").await;
    until(async || server.reason("api") == "ClusterUnreachable").await;
    let stored = server.with(|tasks| json!(tasks).to_string());
    assert!(
        stored.contains("There is no Secret absent in namespace team") && !stored.contains("hush"),
        "{stored}"
    );
    let mut secrets: Vec<String> = server
        .calls()
        .into_iter()
        .filter(|call| call.contains("secret"))
        .collect();
    secrets.sort();
    secrets.dedup();
    assert_eq!(secrets, ["read secret absent", "read secret private"]);
}
