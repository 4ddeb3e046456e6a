//! The workers' Deployment, with Chromium's sandbox where the nodes have the profile.

use selextract_crds::SandboxMode;
use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, SANDBOX_LABEL, artifacts,
    pod::{Template, env, field_env, secret_env},
    program, upstreams,
};

/// The file under the kubelet's `seccomp` folder.
const PROFILE: &str = "profiles/selextract-chromium.json";

/// How long a worker has to finish its page: the longest page (120 s) plus 15 s, and a margin for the hand-over.
const GRACE_SECONDS: u32 = 150;

/// Whether Chromium's sandbox is on in this cluster's workers.
pub fn sandboxed(inputs: Inputs<'_>) -> bool {
    match inputs.cluster.worker.browser.sandbox {
        SandboxMode::Auto => inputs.facts.sandbox_nodes,
        SandboxMode::Required => true,
        SandboxMode::Disabled => false,
    }
}

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let (names, worker) = (Names::new(inputs.cluster), &inputs.cluster.worker);
    let (authority, authority_mount) = program::authority(inputs);
    let mut container = json!({
        "image": inputs.cluster.images.browser,
        // Chromium leaves orphans; tini takes them in.
        "command": ["/usr/bin/tini", "--", "/usr/local/bin/selextract-worker"],
        "env": environment(inputs),
        "ports": [program::port("telemetry", 9090)],
        "volumeMounts": [authority_mount],
    });
    program::probes(&mut container);
    let mut template = Template::new(Component::Worker, &worker.pod, container);
    template.volumes = vec![authority];
    template.tmp = "2Gi";
    template.grace = GRACE_SECONDS;
    template.secrets = [
        program::database_secrets(inputs),
        vec![names.with("redis"), names.with("api")],
    ]
    .concat();
    artifacts::add(inputs, &mut template);
    let mut child = program::deployment(inputs, template, worker.replicas);
    if sandboxed(inputs) {
        let pod = &mut child.object["spec"]["template"]["spec"];
        pod["containers"][0]["securityContext"]["seccompProfile"] =
            json!({ "type": "Localhost", "localhostProfile": PROFILE });
        pod["nodeSelector"][SANDBOX_LABEL.0] = json!(SANDBOX_LABEL.1);
    }
    vec![child]
}

fn environment(inputs: Inputs<'_>) -> Vec<Value> {
    let (names, worker) = (Names::new(inputs.cluster), &inputs.cluster.worker);
    let mut variables = vec![
        secret_env("SELEXTRACT_DATABASE_URL", &names.with("database"), "url"),
        secret_env("SELEXTRACT_REDIS_QUEUE_URL", &names.with("redis"), "queue-url"),
        secret_env("SELEXTRACT_DATA_KEY", &names.with("api"), "data-key"),
        env(
            "SELEXTRACT_EGRESS_PROXY",
            format!("http://{}:3128", names.with("egress")),
        ),
        field_env("SELEXTRACT_WORKER_NAME", "metadata.name"),
        env("SELEXTRACT_CONCURRENCY", worker.concurrency),
        env("SELEXTRACT_LEASE", worker.lease.to_string()),
        env("SELEXTRACT_MAX_TASKS", worker.max_tasks),
        env("SELEXTRACT_DRAIN_TIMEOUT", "135s"),
        env(
            "SELEXTRACT_BROWSER_SANDBOX",
            if sandboxed(inputs) { "on" } else { "off" },
        ),
        env("SELEXTRACT_BROWSER_MAX_PAGES", worker.browser.max_pages),
        env("SELEXTRACT_BROWSER_MAX_AGE", worker.browser.max_age.to_string()),
        env("SELEXTRACT_BROWSER_MAX_MEMORY_MB", worker.browser_memory_mb),
    ];
    if !inputs.cluster.egress.upstreams.is_empty() {
        let pools = format!("http://{}:{}", names.with("egress"), upstreams::PORT);
        variables.push(env("SELEXTRACT_EGRESS_POOLS", pools));
    }
    variables.extend(
        worker
            .contact
            .as_deref()
            .map(|contact| env("SELEXTRACT_CONTACT", contact)),
    );
    variables
}
