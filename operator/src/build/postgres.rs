//! The primary: one `StatefulSet` of one pod with one volume, which cannot split its brain.

use selextract_crds::DeletionPolicy;
use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, Server, labels,
    pod::{self, Template, env, mount, mount_read_only},
    postgres_config as config, program,
};

/// The exit code of the container `prepare` when the volume holds data that the cluster's Secret does not open; its termination
/// message says so for people. 66 is data of another major version.
pub const FOREIGN_DATA_EXIT_CODE: i32 = 65;

/// What the names of the replicas' slots begin with. The primary's pod drops those of replicas that are no longer wanted.
pub const SLOT_PREFIX: &str = "replica_";

/// The slot of a replica on the primary.
pub fn slot_name(number: u32) -> String {
    format!("{SLOT_PREFIX}{number}")
}

/// Whether volumes outlive the cluster.
pub fn retains(inputs: Inputs<'_>) -> bool {
    inputs.cluster.deletion_policy == DeletionPolicy::Retain
}

pub fn foundation(inputs: Inputs<'_>) -> Vec<Child> {
    let (cluster, names) = (inputs.cluster, Names::new(inputs.cluster));
    if !cluster.postgres.is_managed() {
        return Vec::new();
    }
    let primary = labels::selector(cluster, Component::Postgres);
    // While no replica streams, what only reads is served by the primary.
    let wanted = u32::from(cluster.postgres.read_replicas);
    let readers = if inputs.facts.streaming_replicas.iter().any(|number| *number < wanted) {
        labels::selector(cluster, Component::PostgresReplica)
    } else {
        primary.clone()
    };
    let name = names.component(Component::Postgres);
    let size = (
        cluster.postgres.storage.as_str(),
        cluster.postgres.storage_class_name.as_deref(),
    );
    let mut claim = program::volume_claim(inputs, &names.volume(&name), Component::Postgres, size);
    claim.retained = retains(inputs);
    vec![
        program::service(
            inputs,
            &names.with("postgres-rw"),
            Component::Postgres,
            &primary,
            &[("postgres", 5432)],
        ),
        program::service(
            inputs,
            &names.with("postgres-ro"),
            Component::Postgres,
            &readers,
            &[("postgres", 5432)],
        ),
        program::config_map(inputs, &name, Component::Postgres, &files(inputs)),
        // An object of its own, which no pod is rolled for.
        program::config_map(
            inputs,
            &names.with("postgres-replicas"),
            Component::Postgres,
            &json!({ "wanted": cluster.postgres.read_replicas.to_string() }),
        ),
        claim,
    ]
}

/// The files of primary and replicas.
pub fn files(inputs: Inputs<'_>) -> Value {
    json!({
        "postgresql.conf": config::settings(&inputs.cluster.postgres),
        "pg_hba.conf": config::HBA,
        "prepare.sh": config::PREPARE_PRIMARY,
        "start.sh": format!("set -euo pipefail\n{}{}tidy_slots &\nserve\n", config::TIDY_SLOTS, config::START),
        "replica.sh": config::REPLICA,
        "start-replica.sh": format!("{}{}", config::START, config::START_REPLICA),
        "alive-replica.sh": config::ALIVE_REPLICA,
        "ready-replica.sh": config::READY_REPLICA,
    })
}

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    if !inputs.cluster.postgres.is_managed() {
        return Vec::new();
    }
    let names = Names::new(inputs.cluster);
    let name = names.component(Component::Postgres);
    let ready =
        json!({ "command": ["/usr/lib/postgresql/17/bin/pg_isready", "-q", "-h", "/run/postgresql", "-t", "3"] });
    // 1 says that it starts or ends: it is alive, and to kill it in its recovery would make that begin anew.
    let alive = "/usr/lib/postgresql/17/bin/pg_isready -q -h /run/postgresql -t 3 || [ $? -eq 1 ]";
    let mut container = container(inputs, "/etc/selextract/postgres/start.sh");
    let mut mounts = mounts();
    mounts.push(mount_read_only("replicas", "/etc/selextract/postgres-replicas"));
    container["volumeMounts"] = json!(mounts);
    container["startupProbe"] =
        json!({ "exec": ready, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 3600 });
    container["livenessProbe"] = json!({
        "exec": { "command": ["/bin/bash", "-c", alive] }, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6,
    });
    container["readinessProbe"] =
        json!({ "exec": ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2 });
    let mut template = Template::new(Component::Postgres, &inputs.cluster.postgres.pod, container);
    template.init = vec![prepare(inputs)];
    template.volumes = volumes(inputs, &names.volume(&name));
    template
        .volumes
        .push(pod::config_volume("replicas", &names.with("postgres-replicas")));
    set_common(inputs, &mut template);
    vec![stateful_set(inputs, &name, template, &Value::Null)]
}

/// The container that prepares the primary's volume.
fn prepare(inputs: Inputs<'_>) -> Value {
    json!({
        "name": "prepare",
        "image": inputs.cluster.images.data,
        "command": ["/bin/bash", "/etc/selextract/postgres/prepare.sh"],
        "env": [env("ADOPT", inputs.cluster.adopt_foreign_data)],
        "resources": { "requests": inputs.cluster.postgres.pod.requests, "limits": inputs.cluster.postgres.pod.limits },
        "volumeMounts": mounts(),
    })
}

/// The main container of primary and replicas, without probes.
pub fn container(inputs: Inputs<'_>, script: &str) -> Value {
    json!({
        "image": inputs.cluster.images.data,
        "command": ["/bin/bash", script],
        "ports": [program::port("postgres", 5432)],
        "volumeMounts": mounts(),
    })
}

fn mounts() -> Vec<Value> {
    vec![
        mount("data", config::DATA),
        mount("run", "/run/postgresql"),
        mount("memory", "/dev/shm"),
        mount_read_only("config", "/etc/selextract/postgres"),
        mount_read_only("passwords", "/etc/selextract/postgres-passwords"),
        mount_read_only("tls", "/etc/selextract/postgres-tls"),
        mount_read_only("ca", "/etc/selextract/ca"),
    ]
}

/// The volumes of primary and replicas.
pub fn volumes(inputs: Inputs<'_>, claim: &str) -> Vec<Value> {
    let names = Names::new(inputs.cluster);
    let passwords = [
        ("superuser-password", "superuser-password"),
        ("replication-password", "replication-password"),
    ];
    let shared = format!("{}Mi", (inputs.cluster.postgres.memory_mb / 4).max(64));
    vec![
        json!({ "name": "data", "persistentVolumeClaim": { "claimName": claim } }),
        json!({ "name": "run", "emptyDir": { "medium": "Memory", "sizeLimit": "4Mi" } }),
        json!({ "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": shared } }),
        pod::config_volume("config", &names.component(Component::Postgres)),
        pod::secret_volume("passwords", &names.with("postgres"), &passwords),
        pod::secret_volume(
            "tls",
            &names.tls_secret(Server::Postgres),
            &[("tls.crt", "tls.crt"), ("tls.key", "tls.key")],
        ),
        program::authority(inputs).0,
    ]
}

/// What rolls the pods of primary and replicas, and how long they have to end.
pub fn set_common(inputs: Inputs<'_>, template: &mut Template<'_>) {
    let names = Names::new(inputs.cluster);
    template.secrets = vec![names.with("postgres"), names.tls_secret(Server::Postgres)];
    template.config = files(inputs);
    template.grace = 120;
}

/// A `StatefulSet` of one pod; `more` are further labels that select it.
pub fn stateful_set(inputs: Inputs<'_>, name: &str, template: Template<'_>, more: &Value) -> Child {
    let component = template.component;
    let mut selector = labels::selector(inputs.cluster, component);
    for (key, value) in more.as_object().into_iter().flatten() {
        selector[key] = value.clone();
    }
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": labels::metadata(inputs.cluster, name, component.as_str()),
        "spec": {
            "serviceName": Names::new(inputs.cluster).with("postgres-rw"),
            // Of one pod there is no order to keep; and in order, a pod that never becomes ready is never replaced by a mended one.
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 3,
            "selector": { "matchLabels": selector },
            "template": template.build(inputs),
        },
    });
    Child::workload(object, 1)
}
