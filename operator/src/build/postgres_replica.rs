//! The read replicas: a `StatefulSet` each, with a slot each on the primary.
//!
//! They are applied with the programs, not before the migration: a replica that cannot start must not hold back the rest, and until
//! one streams the Service for reading leads to the primary.

use serde_json::json;

use super::{
    Child, Component, Inputs, Names,
    pod::{Template, env},
    postgres, program,
};

const NUMBER: &str = "selextract.io/replica";

fn numbers(inputs: Inputs<'_>) -> std::ops::Range<u32> {
    0..u32::from(inputs.cluster.postgres.read_replicas)
}

/// The volumes. They go with their replica: what they hold is a copy.
pub fn foundation(inputs: Inputs<'_>) -> Vec<Child> {
    let (names, postgres) = (Names::new(inputs.cluster), &inputs.cluster.postgres);
    let size = (postgres.storage.as_str(), postgres.storage_class_name.as_deref());
    numbers(inputs)
        .map(|number| {
            let claim = names.volume(&names.replica(number));
            program::volume_claim(inputs, &claim, Component::PostgresReplica, size)
        })
        .collect()
}

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    numbers(inputs).map(|number| replica(inputs, number)).collect()
}

fn replica(inputs: Inputs<'_>, number: u32) -> Child {
    let names = Names::new(inputs.cluster);
    let name = names.replica(number);
    let script = |name: &str| json!({ "command": ["/bin/bash", format!("/etc/selextract/postgres/{name}")] });
    let mut container = postgres::container(inputs, "/etc/selextract/postgres/start-replica.sh");
    container["env"] = json!([
        env("PRIMARY", names.with("postgres-rw")),
        env("SLOT", postgres::slot_name(number)),
        env(
            "MAX_LAG_MS",
            u64::try_from(inputs.cluster.postgres.max_lag.get().as_millis()).unwrap_or(u64::MAX)
        ),
    ]);
    let ready =
        json!({ "command": ["/usr/lib/postgresql/17/bin/pg_isready", "-q", "-h", "/run/postgresql", "-t", "3"] });
    // A clone of a large database takes hours.
    container["startupProbe"] =
        json!({ "exec": ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 8640 });
    container["livenessProbe"] =
        json!({ "exec": script("alive-replica.sh"), "periodSeconds": 10, "timeoutSeconds": 15, "failureThreshold": 3 });
    container["readinessProbe"] =
        json!({ "exec": script("ready-replica.sh"), "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2 });
    let mut template = Template::new(Component::PostgresReplica, &inputs.cluster.postgres.pod, container);
    template.volumes = postgres::volumes(inputs, &names.volume(&name));
    template.labels = vec![(NUMBER, number.to_string())];
    postgres::set_common(inputs, &mut template);
    postgres::stateful_set(inputs, &name, template, &json!({ NUMBER: number.to_string() }))
}
