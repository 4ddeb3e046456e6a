//! What holds for everything that is built: snapshots, pod security, names, secrecy.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Child, Facts, Inputs, Names, Server, Stage, desired, fixture,
    secrets::{self, Database},
};
use crate::validated::ValidatedCluster;

fn build(cluster: &ValidatedCluster, facts: &Facts) -> Vec<(Stage, Child)> {
    desired(Inputs { cluster, facts })
}

fn streaming() -> Facts {
    Facts {
        sandbox_nodes: true,
        streaming_replicas: vec![1],
        ..fixture::facts()
    }
}

/// Every cluster of the fixtures with facts that fit.
fn all() -> Vec<(ValidatedCluster, Facts)> {
    let (cluster, external) = fixture::external();
    vec![
        (fixture::minimal(), fixture::facts()),
        (fixture::minimal(), streaming()),
        (fixture::full(), streaming()),
        (fixture::long(), fixture::facts()),
        (
            fixture::bucket(Some("https://minio.storage.svc:9000")),
            fixture::facts(),
        ),
        (
            cluster,
            Facts {
                external: Some(external),
                ..fixture::facts()
            },
        ),
    ]
}

fn templates(children: &[(Stage, Child)]) -> impl Iterator<Item = (&str, &Value)> {
    children
        .iter()
        .map(|(_, child)| (child.name(), &child.object["spec"]["template"]))
        .filter(|(_, t)| t.is_object())
}

fn find<'a>(children: &'a [(Stage, Child)], kind: &str, name: &str) -> &'a Value {
    let found = children
        .iter()
        .find(|(_, child)| child.kind() == kind && child.name() == name);
    &found.unwrap_or_else(|| panic!("{kind} {name} is missing")).1.object
}

fn snapshot(children: &[(Stage, Child)]) -> String {
    let documents = children.iter().map(|(stage, child)| {
        let head = format!(
            "# {stage:?}, retained: {}, replicas: {:?}\n",
            child.retained, child.replicas
        );
        head + &serde_yaml_ng::to_string(&child.object).unwrap()
    });
    documents.collect::<Vec<_>>().join("---\n")
}

#[test]
fn a_minimal_cluster_becomes_these_objects() {
    insta::assert_snapshot!(snapshot(&build(&fixture::minimal(), &fixture::facts())));
}

#[test]
fn a_full_cluster_becomes_these_objects() {
    insta::assert_snapshot!(snapshot(&build(&fixture::full(), &streaming())));
}

#[test]
fn every_pod_is_restricted_and_has_a_read_only_root() {
    for (cluster, facts) in all() {
        for (name, template) in templates(&build(&cluster, &facts)) {
            let spec = &template["spec"];
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(spec["securityContext"]["runAsUser"], 65532, "{name}");
            assert_eq!(
                spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
                "{name}"
            );
            assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
            for field in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(spec[field].is_null(), "{name} {field}");
            }
            for volume in spec["volumes"].as_array().unwrap() {
                let kinds: Vec<_> = volume
                    .as_object()
                    .unwrap()
                    .keys()
                    .filter(|key| *key != "name")
                    .collect();
                let allowed = ["emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"];
                assert!(
                    kinds.iter().all(|kind| allowed.contains(&kind.as_str())),
                    "{name} {kinds:?}"
                );
                assert!(
                    volume["emptyDir"].is_null() || volume["emptyDir"]["sizeLimit"].is_string(),
                    "{name} {volume}"
                );
            }
            for container in containers(spec) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }), "{name}");
                assert!(
                    container["ports"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .all(|p| p["hostPort"].is_null()),
                    "{name}"
                );
                assert!(
                    container["resources"]["limits"]["memory"].is_string(),
                    "{name} has no memory limit"
                );
            }
        }
    }
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|key| spec[key].as_array().into_iter().flatten())
}

#[test]
fn every_mount_has_its_volume_and_every_volume_its_mount() {
    for (cluster, facts) in all() {
        for (name, template) in templates(&build(&cluster, &facts)) {
            let names = |values: &Value| -> BTreeSet<String> {
                let values = values.as_array().into_iter().flatten();
                values.map(|value| value["name"].as_str().unwrap().to_owned()).collect()
            };
            let mounted = containers(&template["spec"])
                .flat_map(|container| names(&container["volumeMounts"]))
                .collect();
            assert_eq!(names(&template["spec"]["volumes"]), mounted, "{name}");
        }
    }
}

#[test]
fn secrets_that_pods_read_are_made_with_those_keys() {
    for (cluster, facts) in all() {
        let made = made_secrets(&cluster, &facts);
        for (name, template) in templates(&build(&cluster, &facts)) {
            for (secret, key) in read_secrets(&template["spec"]) {
                let external = cluster
                    .postgres
                    .external
                    .as_ref()
                    .is_some_and(|e| e.secret_name == secret);
                let users = external || cluster.bucket_secrets().contains(&secret);
                assert!(
                    users || made.contains(&(secret.clone(), key.clone())),
                    "{name} reads {key} of {secret}"
                );
            }
        }
    }
}

fn read_secrets(spec: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let variables = containers(spec).flat_map(|container| container["env"].as_array().into_iter().flatten());
    let references = variables
        .map(|variable| &variable["valueFrom"]["secretKeyRef"])
        .filter(|r| r.is_object());
    let mut read: Vec<_> = references.map(|r| (text(&r["name"]), text(&r["key"]))).collect();
    for volume in spec["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["secret"])
        // What may be missing is somebody else's.
        .filter(|s| s.is_object() && s["optional"] != true)
    {
        let items = volume["items"].as_array().unwrap();
        read.extend(
            items
                .iter()
                .map(|item| (text(&volume["secretName"]), text(&item["key"]))),
        );
    }
    read
}

fn secrets_of(cluster: &ValidatedCluster, facts: &Facts) -> Vec<Child> {
    let passwords = fixture::passwords();
    let database = facts
        .external
        .as_ref()
        .map_or(Database::Managed(&passwords), Database::External);
    let mut children = vec![
        secrets::authority(cluster, "ca-certificate", "ca-secret"),
        secrets::postgres(cluster, &passwords),
        secrets::database(cluster, database),
        secrets::redis(cluster, "redis-secret"),
        secrets::api(cluster, "admin-secret", "token-secret", "data-secret"),
        secrets::pgbouncer(cluster, database),
    ];
    let tls = Server::ALL.map(|server| secrets::tls(cluster, server, ("certificate", "key-secret", "ca"), json!({})));
    children.extend(tls);
    children
}

fn made_secrets(cluster: &ValidatedCluster, facts: &Facts) -> BTreeSet<(String, String)> {
    let children = secrets_of(cluster, facts);
    let keys = |child: &Child| {
        child.object["stringData"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    children
        .iter()
        .flat_map(|child| keys(child).into_iter().map(|key| (child.name().to_owned(), key)))
        .collect()
}

#[test]
fn every_secret_has_a_name_that_is_known() {
    let cluster = fixture::minimal();
    let made: BTreeSet<_> = secrets_of(&cluster, &fixture::facts())
        .iter()
        .map(|c| c.name().to_owned())
        .collect();
    assert_eq!(made, Names::new(&cluster).secrets().into_iter().collect());
}

#[test]
fn no_secret_value_stands_outside_a_secret() {
    for (cluster, facts) in all() {
        for (_, child) in build(&cluster, &facts) {
            let text = child.object.to_string();
            for value in ["-secret\"", "superuser-secret", "app-secret", "p@ss", "p%40ss"] {
                // Names of Secrets end otherwise; only the values of the fixtures end like this.
                assert!(!text.contains(value), "{} {} holds {value}", child.kind(), child.name());
            }
        }
    }
}

#[test]
fn names_and_labels_fit_with_the_longest_cluster_name() {
    let cluster = fixture::long();
    for (_, child) in build(&cluster, &streaming()) {
        // A StatefulSet's pods carry a label of its name and a hash of 10.
        let room = if child.kind() == "StatefulSet" { 52 } else { 63 };
        assert!(
            child.name().len() <= room,
            "{} {} has {}",
            child.kind(),
            child.name(),
            child.name().len()
        );
        for (key, value) in child.object["metadata"]["labels"].as_object().unwrap() {
            assert!(value.as_str().unwrap().len() <= 63, "{} {key}", child.name());
        }
    }
}

#[test]
fn no_two_objects_bear_one_name() {
    for (cluster, facts) in all() {
        let children = build(&cluster, &facts);
        let names: BTreeSet<_> = children.iter().map(|(_, child)| (child.kind(), child.name())).collect();
        assert_eq!(names.len(), children.len());
    }
}

#[test]
fn replicas_are_never_set_and_stages_come_in_order() {
    for (cluster, facts) in all() {
        let children = build(&cluster, &facts);
        for (_, child) in &children {
            assert!(child.object["spec"]["replicas"].is_null(), "{}", child.name());
            let scaled = ["Deployment", "StatefulSet"].contains(&child.kind());
            assert_eq!(child.replicas.is_some(), scaled, "{}", child.name());
        }
        assert!(children.is_sorted_by_key(|(stage, _)| *stage));
    }
}

#[test]
fn volumes_outlive_the_cluster_unless_it_says_otherwise() {
    let claims = |cluster: &ValidatedCluster| -> Vec<(String, bool)> {
        let children = build(cluster, &fixture::facts());
        let claims = children
            .into_iter()
            .filter(|(_, child)| child.kind() == "PersistentVolumeClaim");
        claims
            .map(|(_, child)| (child.name().to_owned(), child.retained))
            .collect()
    };
    assert_eq!(
        claims(&fixture::minimal()),
        [
            ("shop-postgres-data".to_owned(), true),
            ("shop-redis-queue-data".to_owned(), true),
            ("shop-prometheus-data".to_owned(), true)
        ]
    );
    assert!(claims(&fixture::full()).iter().all(|(_, retained)| !retained));
}

#[test]
fn reads_go_to_the_primary_while_no_replica_streams() {
    let cluster = fixture::full();
    for (facts, component) in [(fixture::facts(), "postgres"), (streaming(), "postgres-replica")] {
        let children = build(&cluster, &facts);
        let service = find(&children, "Service", "bazaar-postgres-ro");
        assert_eq!(service["spec"]["selector"]["app.kubernetes.io/component"], component);
    }
}

#[test]
fn a_replica_that_is_no_longer_wanted_is_not_read_from() {
    let facts = Facts {
        streaming_replicas: vec![0, 2],
        ..fixture::facts()
    };
    let children = build(&fixture::minimal(), &facts);
    let service = find(&children, "Service", "shop-postgres-ro");
    assert_eq!(service["spec"]["selector"]["app.kubernetes.io/component"], "postgres");
}

#[test]
fn the_sandbox_is_used_where_the_nodes_have_the_profile() {
    for (facts, mode) in [(fixture::facts(), "off"), (streaming(), "on")] {
        let children = build(&fixture::minimal(), &facts);
        let spec = &find(&children, "Deployment", "shop-worker")["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        let variables = container["env"].as_array().unwrap();
        assert!(variables.contains(&json!({ "name": "SELEXTRACT_BROWSER_SANDBOX", "value": mode })));
        assert_eq!(container["securityContext"]["seccompProfile"].is_object(), mode == "on");
        assert_eq!(spec["nodeSelector"].is_object(), mode == "on");
    }
}

#[test]
fn a_change_of_a_secret_rolls_the_pods_that_read_it_and_no_others() {
    let cluster = fixture::minimal();
    let rolled = |secret: &str| -> Vec<String> {
        let facts = Facts {
            secrets: [(secret.to_owned(), "new".to_owned())].into(),
            ..Facts::default()
        };
        let (one, other) = (build(&cluster, &Facts::default()), build(&cluster, &facts));
        let pairs = templates(&one)
            .zip(templates(&other))
            .filter(|(one, other)| one.1 != other.1);
        pairs.map(|(one, _)| one.0.to_owned()).collect()
    };
    assert_eq!(
        rolled("shop-redis"),
        [
            "shop-redis-queue",
            "shop-redis-cache",
            "shop-keeper",
            "shop-api",
            "shop-worker"
        ]
    );
    assert_eq!(rolled("shop-postgres-tls"), ["shop-postgres"]);
}

#[test]
fn the_migration_of_another_image_is_another_job() {
    let job = |cluster: &ValidatedCluster| {
        let children = build(cluster, &fixture::facts());
        let job = children.iter().find(|(_, child)| child.kind() == "Job");
        job.unwrap().1.name().to_owned()
    };
    let (one, mut other) = (fixture::minimal(), fixture::minimal());
    assert_eq!(job(&one), job(&other));
    other.images.platform = "example.org/platform:2".into();
    assert_ne!(job(&one), job(&other));
}

#[test]
fn another_number_of_replicas_does_not_restart_the_primary() {
    let (one, mut other) = (fixture::minimal(), fixture::minimal());
    other.postgres.read_replicas = 2;
    let template = |cluster: &ValidatedCluster| {
        let children = build(cluster, &fixture::facts());
        find(&children, "StatefulSet", "shop-postgres")["spec"]["template"].clone()
    };
    assert_eq!(template(&one), template(&other));
    assert_eq!(
        find(&build(&other, &fixture::facts()), "ConfigMap", "shop-postgres-replicas")["data"]["wanted"],
        "2"
    );
}

#[test]
fn a_bucket_is_opened_by_worker_api_and_keeper_alone_and_its_secrets_roll_them() {
    let cluster = fixture::bucket(Some("https://minio.storage.svc:9000"));
    let facts = |credentials: &str| Facts {
        secrets: [("s3".to_owned(), credentials.to_owned())].into(),
        ..fixture::facts()
    };
    let (before, after) = (build(&cluster, &facts("one")), build(&cluster, &facts("two")));
    let hash = "/metadata/annotations/selextract.io~1secrets-hash";
    for ((name, template), (_, changed)) in templates(&before).zip(templates(&after)) {
        let variables =
            containers(&template["spec"]).flat_map(|container| container["env"].as_array().into_iter().flatten());
        let told: Vec<_> = variables
            .filter(|variable| {
                variable["name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("SELEXTRACT_S3_"))
            })
            .collect();
        let uses = ["shop-api", "shop-keeper", "shop-worker"].contains(&name);
        assert_eq!(told.len(), if uses { 8 } else { 0 }, "{name}");
        assert_eq!(template.pointer(hash) != changed.pointer(hash), uses, "{name}");
        let secret = told
            .iter()
            .find(|variable| variable["name"] == "SELEXTRACT_S3_SECRET_ACCESS_KEY");
        assert!(secret.is_none_or(|secret| secret["value"].is_null()), "{name}");
        let prefix = told.iter().find(|variable| variable["name"] == "SELEXTRACT_S3_PREFIX");
        assert!(
            prefix.is_none_or(|prefix| prefix["value"] == "team/blue/0b0e7f7c-0000-4000-8000-000000000001"),
            "{name}"
        );
    }
}
