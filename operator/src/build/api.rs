//! The API: Deployment, Services, the keys of the API server for the internal listener, and the Ingress.

use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, Server, artifacts, labels,
    pod::{self, Template, env, mount_read_only, secret_env},
    program, upstreams,
};

const PUBLIC: u16 = 8080;
const INTERNAL: u16 = 8081;

pub fn foundation(inputs: Inputs<'_>) -> Vec<Child> {
    let names = Names::new(inputs.cluster);
    let selector = labels::selector(inputs.cluster, Component::Api);
    let mut children = vec![
        program::service(
            inputs,
            &names.with("api"),
            Component::Api,
            &selector,
            &[("http", PUBLIC)],
        ),
        program::service(
            inputs,
            &names.with("api-internal"),
            Component::Api,
            &selector,
            &[("internal", INTERNAL)],
        ),
        program::config_map(
            inputs,
            &names.with("jwks"),
            Component::Api,
            &json!({ "jwks.json": inputs.facts.jwks }),
        ),
    ];
    children.extend(ingress(inputs));
    children
}

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let (names, api) = (Names::new(inputs.cluster), &inputs.cluster.api);
    let (authority, authority_mount) = program::authority(inputs);
    let mut container = json!({
        "image": inputs.cluster.images.platform,
        "command": ["/usr/local/bin/selextract-api"],
        "env": environment(inputs),
        "ports": [program::port("http", PUBLIC), program::port("internal", INTERNAL), program::port("telemetry", 9090)],
        "volumeMounts": [
            authority_mount,
            mount_read_only("internal-tls", "/etc/selextract/internal-tls"),
            mount_read_only("jwks", "/etc/selextract/jwks"),
        ],
    });
    program::probes(&mut container);
    let tls = names.tls_secret(Server::Api);
    let mut template = Template::new(Component::Api, &api.pod, container);
    template.volumes = vec![
        authority,
        pod::secret_volume("internal-tls", &tls, &[("tls.crt", "tls.crt"), ("tls.key", "tls.key")]),
        pod::config_volume("jwks", &names.with("jwks")),
    ];
    template.secrets = [
        program::database_secrets(inputs),
        vec![names.with("redis"), names.with("api"), tls],
    ]
    .concat();
    template.grace = 60;
    artifacts::add(inputs, &mut template);
    vec![program::deployment(inputs, template, api.replicas)]
}

fn environment(inputs: Inputs<'_>) -> Vec<Value> {
    let (names, cluster) = (Names::new(inputs.cluster), inputs.cluster);
    let pool = &cluster.api.pool;
    vec![
        secret_env("SELEXTRACT_DATABASE_URL", &names.with("database"), "url"),
        secret_env("SELEXTRACT_DATABASE_READ_URL", &names.with("database"), "read-url"),
        secret_env("SELEXTRACT_REDIS_QUEUE_URL", &names.with("redis"), "queue-url"),
        secret_env("SELEXTRACT_REDIS_CACHE_URL", &names.with("redis"), "cache-url"),
        secret_env("SELEXTRACT_TOKEN_KEYS", &names.with("api"), "token-keys"),
        secret_env("SELEXTRACT_DATA_KEY", &names.with("api"), "data-key"),
        env(
            "SELEXTRACT_INTERNAL_AUDIENCE",
            audience(&cluster.namespace, &cluster.name, &cluster.uid),
        ),
        env("SELEXTRACT_INTERNAL_SUBJECT", cluster.operator_subject.clone()),
        env("SELEXTRACT_INTERNAL_ISSUER", inputs.facts.issuer.clone()),
        env("SELEXTRACT_INTERNAL_JWKS", "/etc/selextract/jwks/jwks.json"),
        env("SELEXTRACT_INTERNAL_TLS_CERT", "/etc/selextract/internal-tls/tls.crt"),
        env("SELEXTRACT_INTERNAL_TLS_KEY", "/etc/selextract/internal-tls/tls.key"),
        env("SELEXTRACT_POOL_SIZE", pool.size),
        env("SELEXTRACT_POOL_OVERFLOW", pool.overflow),
        env("SELEXTRACT_POOL_ACQUIRE_TIMEOUT", pool.acquire_timeout.to_string()),
        env("SELEXTRACT_POOL_MAX_LIFETIME", pool.max_lifetime.to_string()),
        env("SELEXTRACT_PROXY_POOLS", upstreams::names(&cluster.egress.upstreams)),
        // An Ingress controller stands between the clients and the API, and says who they are.
        env("SELEXTRACT_TRUSTED_PROXIES", u8::from(cluster.api.ingress.is_some())),
    ]
}

/// The audience of the operator's token for one cluster, so that no cluster can use it against another.
pub fn audience(namespace: &str, name: &str, uid: &str) -> String {
    format!("selextract:{namespace}/{name}/{uid}")
}

fn ingress(inputs: Inputs<'_>) -> Option<Child> {
    let ingress = inputs.cluster.api.ingress.as_ref()?;
    let name = Names::new(inputs.cluster).with("api");
    let mut metadata = labels::metadata(inputs.cluster, &name, Component::Api.as_str());
    metadata["annotations"] = json!(ingress.annotations);
    let backend = json!({ "service": { "name": name, "port": { "number": PUBLIC } } });
    let mut spec = json!({
        "rules": [{ "host": ingress.host, "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } }],
    });
    if let Some(class) = &ingress.class_name {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(secret) = &ingress.tls_secret_name {
        spec["tls"] = json!([{ "hosts": [ingress.host], "secretName": secret }]);
    }
    let object = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec });
    Some(Child::plain(object))
}
