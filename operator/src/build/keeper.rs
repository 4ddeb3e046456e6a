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
    let queue = inputs.cluster.queue.volume.as_ref();
    let sizes = [
        (
            "SELEXTRACT_POSTGRES_STORAGE",
            postgres.storage.units().filter(|_| postgres.is_managed()),
        ),
        (
            "SELEXTRACT_REDIS_QUEUE_STORAGE",
            queue.and_then(|(storage, _)| storage.units()),
        ),
    ];
    if let Some(env_list) = container["env"].as_array_mut() {
        let told = sizes
            .iter()
            .filter_map(|(name, bytes)| Some(env(name, (*bytes)?.to_string())));
        env_list.extend(told);
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
