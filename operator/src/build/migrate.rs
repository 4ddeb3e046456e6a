//! The migration Job. Its name says what it does: the same image and settings are the same Job, which is done once.

use serde_json::{Value, json};

use super::{
    Child, Component, Inputs, Names, labels,
    pod::{self, Template, env, secret_env},
    program,
};

/// How long the migrations of one version may take, with all attempts.
const DEADLINE_SECONDS: u32 = 3600;

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    let names = Names::new(inputs.cluster);
    let (volumes, mounts) = program::authorities(inputs);
    let container = json!({
        "image": inputs.cluster.images.platform,
        "command": ["/usr/local/bin/selextract-keeper", "migrate"],
        "env": environment(inputs),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let mut template = Template::new(Component::Migrate, &inputs.cluster.keeper.pod, container);
    template.volumes = volumes;
    if inputs.cluster.postgres.is_managed() {
        // Another image is another server: the Job runs anew, and says that server's version.
        template.config = json!({ "server": inputs.cluster.images.data });
    }
    template.secrets = [program::database_secrets(inputs), vec![names.with("postgres")]].concat();
    let mut template = template.build(inputs);
    template["spec"]["restartPolicy"] = json!("Never");
    let name = format!(
        "{}-{}",
        names.component(Component::Migrate),
        &pod::short(&template)[..10]
    );
    vec![Child::plain(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": labels::metadata(inputs.cluster, &name, Component::Migrate.as_str()),
        "spec": { "backoffLimit": 6, "activeDeadlineSeconds": DEADLINE_SECONDS, "template": template },
    }))]
}

fn environment(inputs: Inputs<'_>) -> Vec<Value> {
    let names = Names::new(inputs.cluster);
    let (database, postgres) = (names.with("database"), names.with("postgres"));
    let mut environment = vec![
        secret_env("SELEXTRACT_DATABASE_DIRECT_URL", &database, "direct-url"),
        secret_env("SELEXTRACT_ADMIN_PASSWORD", &names.with("api"), "admin-password"),
        // Where the kubelet reads what the Job says at its end: the server's version, or its last words.
        env("SELEXTRACT_REPORT", "/dev/termination-log"),
    ];
    if inputs.cluster.postgres.is_managed() {
        environment.extend([
            secret_env("SELEXTRACT_DATABASE_SUPERUSER_URL", &database, "superuser-url"),
            secret_env("SELEXTRACT_DATABASE_APP_PASSWORD", &postgres, "app-password"),
            secret_env("SELEXTRACT_DATABASE_OWNER_PASSWORD", &postgres, "owner-password"),
            secret_env(
                "SELEXTRACT_DATABASE_REPLICATION_PASSWORD",
                &postgres,
                "replication-password",
            ),
        ]);
    }
    environment
}
