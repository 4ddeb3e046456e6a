//! The status as tables: what was found, and what is said about it.

use serde_json::json;

use super::{figures::tag, *};
use crate::validated::{Defaults, validate};

fn cluster(spec: &Value) -> ValidatedCluster {
    let cluster = serde_json::from_value(json!({
        "apiVersion": "selextract.io/v1alpha1", "kind": "SelextractCluster",
        "metadata": {"name": "shop", "namespace": "demo", "uid": "u1"}, "spec": spec,
    }))
    .unwrap();
    let defaults = Defaults {
        registry: String::new(),
        tag: "1.2.3".into(),
        namespace: "ops".into(),
        subject: "system:serviceaccount:ops:o".into(),
    };
    validate(&cluster, &defaults).unwrap()
}

fn child(stage: Stage, kind: &str, component: Component, replicas: Option<i32>) -> (Stage, Child) {
    let name = format!("shop-{}", component.as_str());
    let object = json!({"kind": kind, "metadata": {"name": name, "labels": {"app.kubernetes.io/component": component.as_str()}}});
    (
        stage,
        Child {
            object,
            retained: false,
            replicas,
        },
    )
}

fn children() -> Vec<(Stage, Child)> {
    vec![
        child(Stage::Data, "StatefulSet", Component::Postgres, Some(1)),
        child(Stage::Data, "StatefulSet", Component::RedisQueue, Some(1)),
        child(Stage::Data, "Deployment", Component::Egress, Some(1)),
        child(Stage::Pooling, "Deployment", Component::PgBouncerRw, Some(1)),
        child(Stage::Migration, "Job", Component::Migrate, None),
        child(Stage::Programs, "Deployment", Component::Keeper, Some(1)),
        child(Stage::Programs, "Deployment", Component::Api, Some(2)),
        child(Stage::Programs, "Deployment", Component::Worker, Some(1)),
        child(Stage::Programs, "StatefulSet", Component::Prometheus, Some(1)),
    ]
}

fn done(children: &[(Stage, Child)]) -> Live {
    children
        .iter()
        .map(|(_, child)| {
            let mut object = child.object.clone();
            let n = child.replicas.unwrap_or_default();
            object["spec"] = json!({"replicas": n});
            object["status"] = json!({
                "replicas": n, "readyReplicas": n, "updatedReplicas": n, "availableReplicas": n,
                "conditions": [{"type": "Complete", "status": "True"}],
            });
            (Key::of(&object), object)
        })
        .collect()
}

struct Case {
    cluster: Option<ValidatedCluster>,
    children: Vec<(Stage, Child)>,
    live: Live,
    reached: Stage,
    faults: Vec<Fault>,
    refused: Vec<Refused>,
    troubles: BTreeMap<String, Trouble>,
    migration_failure: Option<String>,
    pooler_version: Option<String>,
    server_version: Option<String>,
    sandbox: SandboxNodes,
    upstreams: Option<Refusal>,
    monitoring: MonitoringFound,
}

impl Case {
    fn good() -> Self {
        let children = children();
        Self {
            cluster: Some(cluster(&json!({"profile": "Small"}))),
            live: done(&children),
            children,
            reached: Stage::Programs,
            faults: Vec::new(),
            refused: Vec::new(),
            troubles: BTreeMap::new(),
            migration_failure: None,
            pooler_version: None,
            server_version: None,
            sandbox: SandboxNodes::Present,
            upstreams: None,
            monitoring: MonitoringFound::default(),
        }
    }

    fn after(&self, old: &SelextractClusterStatus, second: i64) -> SelextractClusterStatus {
        let outcome = Outcome {
            cluster: self.cluster.as_ref(),
            children: &self.children,
            live: &self.live,
            reached: self.reached,
            faults: &self.faults,
            refused: &self.refused,
            troubles: &self.troubles,
            migration_failure: self.migration_failure.clone(),
            pooler_version: self.pooler_version.clone(),
            server_version: self.server_version.clone(),
            sandbox: self.sandbox,
            upstreams: self.upstreams.as_ref(),
            monitoring: &self.monitoring,
            decisions: &crate::measure::Decisions::default(),
            due: &crate::accounts::Due::default(),
        };
        next(old, 1, &outcome, Timestamp::from_second(second).unwrap())
    }

    fn status(&self) -> SelextractClusterStatus {
        self.after(&SelextractClusterStatus::default(), 1)
    }

    fn trouble(mut self, component: Component, cause: Cause, message: &str) -> Self {
        self.troubles.insert(
            component.as_str().into(),
            Trouble {
                cause,
                message: message.into(),
            },
        );
        self
    }
}

fn condition(status: &SelextractClusterStatus, kind: &str) -> (String, String, String) {
    let found = status.conditions.iter().find(|c| c.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

fn assert_one_summary(status: &SelextractClusterStatus) {
    let summaries = ["Ready", "Reconciling", "Stalled"]
        .into_iter()
        .filter(|kind| holds(status, kind))
        .count();
    assert_eq!(summaries, 1);
}

#[test]
fn a_whole_platform_is_ready_and_says_where_it_is() {
    let status = Case::good().status();
    assert!(is_ready(&status));
    assert_one_summary(&status);
    assert_eq!(status.image.unwrap().tag, "1.2.3");
    assert_eq!(
        status.endpoints.unwrap().api.as_deref(),
        Some("http://shop-api.demo.svc:8080")
    );
    let api = status
        .components
        .iter()
        .find(|component| component.name == "api")
        .unwrap();
    assert_eq!((api.desired, api.ready), (2, 2));
}

#[test]
fn the_same_findings_give_the_same_status() {
    let case = Case::good();
    let first = case.status();
    assert_eq!(case.after(&first, 1000), first);
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_and_the_others_go_on() {
    let mut case = Case::good().trouble(
        Component::Worker,
        Cause::ImageCannotBePulled,
        "Image x cannot be pulled.",
    );
    let key = Key {
        kind: "Deployment".into(),
        name: "shop-worker".into(),
    };
    case.live.get_mut(&key).unwrap()["status"]["availableReplicas"] = 0.into();
    let status = case.status();
    assert_eq!(
        condition(&status, "WorkersReady"),
        (
            "False".into(),
            "ImageCannotBePulled".into(),
            "Image x cannot be pulled.".into()
        )
    );
    assert!(holds(&status, "ApiReady") && holds(&status, "DatabaseReady"));
    assert_eq!(condition(&status, "Ready").1, "ImageCannotBePulled");
    assert!(holds(&status, "Reconciling"));
    assert_one_summary(&status);
}

#[test]
fn a_refused_spec_stalls_and_takes_nothing_back_that_is_known() {
    let good = Case::good().status();
    let mut case = Case::good();
    (case.cluster, case.children) = (None, Vec::new());
    case.faults = vec![Fault {
        condition: None,
        reason: "InvalidName".into(),
        message: "metadata.name".into(),
    }];
    let status = case.after(&good, 2);
    assert_eq!(condition(&status, "Stalled").1, "InvalidName");
    assert_eq!(status.components, good.components);
    assert_one_summary(&status);
}

#[test]
fn a_later_part_waits_and_the_summary_names_the_part_that_is_wrong() {
    let mut case = Case::good();
    case.reached = Stage::Data;
    let key = Key {
        kind: "StatefulSet".into(),
        name: "shop-postgres".into(),
    };
    case.live.get_mut(&key).unwrap()["status"]["readyReplicas"] = 0.into();
    let status = case.status();
    assert_eq!(condition(&status, "ApiReady").1, "Waiting");
    assert_eq!(condition(&status, "DatabaseReady").1, "Progressing");
    assert!(
        condition(&status, "Ready")
            .2
            .starts_with("DatabaseReady: 0 of 1 pods of shop-postgres")
    );
}

#[test]
fn foreign_data_stalls() {
    let status = Case::good()
        .trouble(
            Component::Postgres,
            Cause::ForeignData,
            "The volume belongs to another cluster.",
        )
        .status();
    assert_eq!(condition(&status, "Stalled").1, "ForeignData");
    assert_eq!(condition(&status, "DatabaseReady").1, "ForeignData");
}

#[test]
fn a_failed_migration_says_its_last_words() {
    let mut case = Case::good();
    case.reached = Stage::Migration;
    case.migration_failure = Some("relation tasks is locked".into());
    let status = case.status();
    assert_eq!(condition(&status, "Migrated").1, "MigrationFailed");
    assert!(condition(&status, "Migrated").2.contains("relation tasks is locked"));
    assert!(holds(&status, "DatabaseReady"));
}

#[test]
fn an_external_database_is_judged_by_the_job_that_talks_to_it() {
    let mut case = Case::good();
    case.cluster = Some(cluster(
        &json!({"postgres": {"provider": "External", "external": {"secretName": "legacy"}}}),
    ));
    assert!(holds(&case.status(), "DatabaseReady"));
    case.migration_failure = Some("the server does not answer".into());
    let status = case.status();
    assert_eq!(condition(&status, "DatabaseReady").1, "CheckFailed");
    assert!(
        condition(&status, "DatabaseReady")
            .2
            .contains("the server does not answer")
    );
    assert_eq!(status.database.unwrap().provider, "External");
}

#[test]
fn a_pooler_that_hands_out_foreign_rows_is_never_ready() {
    for (version, good) in [
        ("PgBouncer 1.18.0", false),
        ("PgBouncer 1.21.0", true),
        ("PgBouncer 1.24.1", true),
        ("unknown", true),
    ] {
        let mut case = Case::good();
        case.pooler_version = Some(version.into());
        assert_eq!(holds(&case.status(), "PoolerReady"), good, "{version}");
    }
}

#[test]
fn the_sandbox_says_how_to_install_it_and_does_not_hold_readiness_up() {
    let mut case = Case::good();
    case.sandbox = SandboxNodes::Absent;
    let status = case.status();
    assert!(
        condition(&status, "BrowserSandbox")
            .2
            .contains("seccompInstaller.enabled=true")
    );
    assert!(is_ready(&status));
    case.sandbox = SandboxNodes::Unknown;
    assert_eq!(condition(&case.status(), "BrowserSandbox").0, "Unknown");
}

#[test]
fn a_sandbox_that_the_spec_turns_off_is_not_blamed_on_the_nodes() {
    for nodes in [SandboxNodes::Present, SandboxNodes::Absent, SandboxNodes::Unknown] {
        let mut case = Case::good();
        case.cluster = Some(cluster(&json!({"worker": {"browser": {"sandbox": "Disabled"}}})));
        case.sandbox = nodes;
        let (status, reason, message) = condition(&case.status(), "BrowserSandbox");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "DisabledBySpec"));
        assert!(message.contains("spec.worker.browser.sandbox is Disabled") && !message.contains("label"));
    }
}

#[test]
fn a_required_sandbox_without_nodes_says_that_no_worker_starts() {
    let mut case = Case::good();
    case.cluster = Some(cluster(&json!({"worker": {"browser": {"sandbox": "Required"}}})));
    case.sandbox = SandboxNodes::Absent;
    let (status, reason, message) = condition(&case.status(), "BrowserSandbox");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ProfileMissing"));
    assert!(message.contains("no worker starts"), "{message}");
}

#[test]
fn the_servers_version_is_told_and_outlives_the_pod_that_told_it() {
    let mut case = Case::good();
    case.server_version = Some("17.6 (Debian 17.6-1)".into());
    let told = case.status();
    let version = |status: &SelextractClusterStatus| status.database.clone().unwrap().server_version;
    assert_eq!(version(&told).as_deref(), Some("17.6 (Debian 17.6-1)"));
    case.server_version = None;
    assert_eq!(version(&case.after(&told, 2)), version(&told));
}

#[test]
fn the_last_decision_outlives_an_outage_of_the_data_and_ends_with_the_sizing() {
    let worker = json!({"desired": 4, "current": 4, "decision": {
        "time": "2026-11-23T00:00:00Z", "from": 3, "to": 4, "wanted": 4, "reason": "QueueLong", "message": "", "signals": [], "constraints": [],
    }, "history": []});
    let old: SelextractClusterStatus = serde_json::from_value(json!({"scaling": {"worker": worker}})).unwrap();
    let told = |reached| {
        let status = Case {
            reached,
            ..Case::good()
        };
        let worker = status.after(&old, 1).scaling.unwrap().worker.unwrap();
        (worker.desired, worker.decision.map(|decision| decision.reason))
    };
    assert_eq!(told(Stage::Data), (4, Some("QueueLong".to_owned())));
    assert_eq!(told(Stage::Programs), (1, None), "the number is the spec's again");
}

#[test]
fn messages_hold_no_pod_names() {
    let mut case = Case::good();
    let key = Key {
        kind: "Deployment".into(),
        name: "shop-api".into(),
    };
    case.live.get_mut(&key).unwrap()["status"]["readyReplicas"] = 1.into();
    case.live.get_mut(&key).unwrap()["status"]["availableReplicas"] = 1.into();
    assert_eq!(
        condition(&case.status(), "ApiReady").2,
        "1 of 2 pods of shop-api are ready and up to date."
    );
}

#[test]
fn the_tag_of_an_image_is_found_behind_ports_and_digests() {
    assert_eq!(tag("registry.example:5000/x/platform:9"), "9");
    assert_eq!(tag("registry.example:5000/x/platform"), "latest");
    assert_eq!(tag("platform@sha256:ab"), "sha256:ab");
}

#[test]
fn a_fault_that_stops_the_building_calls_no_part_ready_and_keeps_what_is_known() {
    let good = Case::good().status();
    let mut case = Case::good();
    case.children = Vec::new();
    case.faults = vec![Fault {
        condition: Some("DatabaseReady"),
        reason: "SecretMissing".into(),
        message: "Secret shop-postgres".into(),
    }];
    let status = case.after(&good, 2);
    assert_eq!(condition(&status, "DatabaseReady").1, "SecretMissing");
    assert_eq!(condition(&status, "QueueReady").0, "Unknown");
    assert_eq!(condition(&status, "Stalled").1, "SecretMissing");
    assert_eq!(status.components, good.components);
}

#[test]
fn a_pool_without_its_secret_is_told_and_nothing_waits_for_it() {
    let mut case = Case::good();
    case.upstreams = Some(Refusal {
        reason: "SecretMissing",
        message: "Pool eu: Secret acme".to_owned(),
    });
    let pools = |case: &Case| {
        let conditions = case.status().conditions;
        conditions.into_iter().find(|condition| condition.type_ == "ProxyPools")
    };
    assert!(pools(&case).is_none(), "there are no pools");
    case.cluster = Some(cluster(&json!({
        "profile": "Small",
        "egress": { "upstreams": [{ "name": "eu", "proxies": [{ "url": "http://10.1.2.3:3128", "credentialsSecretRef": { "name": "acme" } }] }] },
    })));
    let told = pools(&case).unwrap();
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "SecretMissing"));
    assert_eq!(told.message, "Pool eu: Secret acme");
    assert_eq!(condition(&case.status(), "Ready").0, "True");
    case.upstreams = None;
    assert_eq!(pools(&case).unwrap().reason, "Pinned");
}

#[test]
fn monitoring_is_told_apart_and_nothing_waits_for_it() {
    let told = |case: &Case| {
        let status = case.status();
        assert!(is_ready(&status), "{:?}", status.conditions);
        let (status, reason, _) = condition(&status, "MonitoringReady");
        (status, reason)
    };
    let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    let mut case = Case::good();
    assert_eq!(told(&case), is("True", "Available"));
    case.live.retain(|key, _| key.name != "shop-prometheus");
    assert_eq!(told(&case), is("False", "Waiting"));
    let case = Case::good().trouble(Component::Prometheus, Cause::PodsRefused, "quota");
    assert_eq!(told(&case), is("False", "PodsRefused"));
    let mut case = Case::good();
    case.refused.push(Refused {
        key: Key {
            kind: "Role".into(),
            name: "shop-prometheus".into(),
        },
        component: "prometheus".into(),
        reason: "Refused",
        message: "forbidden".into(),
    });
    assert_eq!(told(&case), is("False", "Refused"));
    let mut case = Case::good();
    case.cluster = Some(cluster(
        &json!({ "profile": "Small", "monitoring": { "prometheus": { "rules": true } } }),
    ));
    assert_eq!(told(&case), is("False", "KindMissing"));
    case.monitoring.served.rules = true;
    assert_eq!(told(&case), is("True", "Available"));
    let managed = json!({ "managed": { "kubeletMetrics": true } });
    case.cluster = Some(cluster(
        &json!({ "profile": "Small", "monitoring": { "prometheus": managed } }),
    ));
    case.monitoring.kubelet_right = Some(false);
    assert_eq!(told(&case), is("False", "KubeletMetricsForbidden"));
    case.cluster = Some(cluster(
        &json!({ "profile": "Small", "monitoring": { "prometheus": { "provider": "None" } } }),
    ));
    assert_eq!(told(&case), is("True", "NotWanted"));
    let external = json!({ "provider": "External", "external": { "url": "https://prometheus.example.org" } });
    case.cluster = Some(cluster(
        &json!({ "profile": "Small", "monitoring": { "prometheus": external } }),
    ));
    assert_eq!(told(&case), is("True", "External"));
    case.monitoring.silence = Some("Prometheus answers with 401".into());
    assert_eq!(told(&case), is("False", "NotAnswering"));
    case.cluster = Some(cluster(&json!({ "profile": "Small" })));
    assert_eq!(told(&case), is("False", "NotAnswering"));
}
