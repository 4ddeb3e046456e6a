//! The keeper's Deployment.

use serde_json::json;

use super::{
    Child, Component, Inputs, Names, artifacts, pgbouncer,
    pod::{Template, env, secret_env},
    program,
};

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let (names, keeper) = (Names::new(inputs.cluster), &inputs.cluster.keeper);
    let (volumes, mounts) = program::authorities(inputs);
    let mut container = json!({
        "image": inputs.cluster.images.platform,
        "command": ["/usr/local/bin/selextract-keeper"],
        "env": [
            secret_env("SELEXTRACT_DATABASE_URL", &names.with("database"), "url"),
            secret_env("SELEXTRACT_DATABASE_DIRECT_URL", &names.with("database"), "direct-url"),
            env("SELEXTRACT_POOLERS", pgbouncer::places(&names)),
            secret_env("SELEXTRACT_REDIS_QUEUE_URL", &names.with("redis"), "queue-url"),
            secret_env("SELEXTRACT_REDIS_CACHE_URL", &names.with("redis"), "cache-url"),
            secret_env("SELEXTRACT_DATA_KEY", &names.with("api"), "data-key"),
            env("SELEXTRACT_EGRESS_PROXY", format!("http://{}:3128", names.with("egress"))),
            env("SELEXTRACT_REFILL_INTERVAL", keeper.spec.refill_interval.to_string()),
            env("SELEXTRACT_SWEEP_INTERVAL", keeper.spec.sweep_interval.to_string()),
            env("SELEXTRACT_RETENTION", keeper.spec.retention.to_string()),
            env("SELEXTRACT_PARTITIONS_AHEAD", keeper.spec.partitions_ahead),
        ],
        "ports": [program::port("telemetry", 9090)],
        "volumeMounts": mounts,
    });
    let postgres = &inputs.cluster.postgres;
    let storage = postgres.storage.units().filter(|_| postgres.is_managed());
    if let (Some(env_list), Some(bytes)) = (container["env"].as_array_mut(), storage) {
        env_list.push(env("SELEXTRACT_POSTGRES_STORAGE", bytes.to_string()));
    }
    program::probes(&mut container);
    let mut template = Template::new(Component::Keeper, &keeper.pod, container);
    template.volumes = volumes;
    template.secrets = [
        program::database_secrets(inputs),
        vec![names.with("redis"), names.with("api")],
    ]
    .concat();
    artifacts::add(inputs, &mut template);
    vec![program::deployment(inputs, template, 1)]
}
