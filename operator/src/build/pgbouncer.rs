//! The poolers: one Deployment in front of the primary and one in front of the read replicas, in transaction mode.

use serde_json::json;

use super::{
    Child, Component, Inputs, Names, Server, labels,
    pod::{self, Template, mount_read_only},
    program, secrets,
};

const PORT: u16 = 6432;

/// The authorities that the data image trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// SIGINT lets transactions end and then closes the clients' connections; on SIGTERM `PgBouncer` waits for the clients to go,
/// which they do not.
const START: &str = "\
set -euo pipefail
/usr/sbin/pgbouncer /etc/selextract/pgbouncer/pgbouncer.ini &
pid=$!
trap 'kill -INT \"$pid\"' TERM INT
status=0
while kill -0 \"$pid\" 2>/dev/null; do status=0; wait \"$pid\" || status=$?; done
exit \"$status\"
";

pub fn foundation(inputs: Inputs<'_>) -> Vec<Child> {
    let names = Names::new(inputs.cluster);
    let both = [Component::PgBouncerRw, Component::PgBouncerRo];
    both.into_iter()
        .flat_map(|component| {
            let name = names.component(component);
            let selector = labels::selector(inputs.cluster, component);
            let data = json!({ "pgbouncer.ini": config(inputs, component) });
            [
                program::service(inputs, &name, component, &selector, &[("postgres", PORT)]),
                program::headless_service(inputs, &pods(&name), component, &selector, ("postgres", PORT)),
                program::config_map(inputs, &name, component, &data),
            ]
        })
        .collect()
}

/// The Service that has every pod's address, for each has pools of its own.
fn pods(name: &str) -> String {
    format!("{name}-pods")
}

/// Where the keeper finds the pods of both poolers (`SELEXTRACT_POOLERS`).
pub(super) fn places(names: &Names) -> String {
    [("rw", Component::PgBouncerRw), ("ro", Component::PgBouncerRo)]
        .map(|(pooler, component)| format!("{pooler}={}:{PORT}", pods(&names.component(component))))
        .join(",")
}

pub fn build(inputs: Inputs<'_>) -> Vec<Child> {
    [Component::PgBouncerRw, Component::PgBouncerRo]
        .map(|component| deployment(inputs, component))
        .into()
}

fn deployment(inputs: Inputs<'_>, component: Component) -> Child {
    let (names, pgbouncer) = (Names::new(inputs.cluster), &inputs.cluster.pgbouncer);
    let probe = |period: u32, failures: u32| json!({ "tcpSocket": { "port": "postgres" }, "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures });
    let tls = names.tls_secret(Server::PgBouncer);
    let (authorities, mut mounts) = program::authorities(inputs);
    mounts.extend([
        mount_read_only("config", "/etc/selextract/pgbouncer"),
        mount_read_only("users", "/etc/selextract/pgbouncer-users"),
        mount_read_only("tls", "/etc/selextract/pgbouncer-tls"),
    ]);
    let container = json!({
        "image": inputs.cluster.images.data,
        "command": ["/bin/bash", "-c", START],
        "ports": [program::port("postgres", PORT)],
        "startupProbe": probe(1, 30),
        "livenessProbe": probe(10, 6),
        "readinessProbe": probe(3, 2),
        // Time for the Service to stop sending clients here.
        "lifecycle": { "preStop": { "exec": { "command": ["/bin/sleep", "3"] } } },
        "volumeMounts": mounts,
    });
    let mut template = Template::new(component, &pgbouncer.pod, container);
    template.init = vec![version(inputs)];
    template.volumes = authorities;
    template.volumes.extend([
        pod::config_volume("config", &names.component(component)),
        pod::secret_volume("users", &names.with("pgbouncer"), &[("userlist.txt", "userlist.txt")]),
        pod::secret_volume("tls", &tls, &[("tls.crt", "tls.crt"), ("tls.key", "tls.key")]),
    ]);
    template.secrets = [program::database_secrets(inputs), vec![names.with("pgbouncer"), tls]].concat();
    template.config = json!(config(inputs, component));
    template.grace = 45;
    program::deployment(inputs, template, pgbouncer.replicas)
}

/// Says which `PgBouncer` the image holds: the runtime refuses Ready with one that hands out foreign rows.
fn version(inputs: Inputs<'_>) -> serde_json::Value {
    let pod = &inputs.cluster.pgbouncer.pod;
    json!({
        "name": "version",
        "image": inputs.cluster.images.data,
        "command": ["/bin/bash", "-c", "/usr/sbin/pgbouncer --version | head -n 1 >/dev/termination-log"],
        "resources": { "requests": pod.requests, "limits": pod.limits },
    })
}

/// The settings; the tests of the ledger prove that with them no client ever sees another's row.
fn config(inputs: Inputs<'_>, component: Component) -> String {
    let pgbouncer = &inputs.cluster.pgbouncer;
    let (server, check, authority) = server(inputs, component);
    let statistics = secrets::pooler_roles(inputs.facts.external.as_ref()).join(", ");

    format!(
        "[databases]\nselextract = {server}\n\n[pgbouncer]\n\
         listen_addr = *\nlisten_port = {PORT}\nunix_socket_dir =\n\
         pool_mode = transaction\nmax_client_conn = {}\ndefault_pool_size = {}\nmax_prepared_statements = {}\n\
         ignore_startup_parameters = extra_float_digits\n\
         auth_type = scram-sha-256\nauth_file = /etc/selextract/pgbouncer-users/userlist.txt\nstats_users = {statistics}\n\
         client_tls_sslmode = require\nclient_tls_cert_file = /etc/selextract/pgbouncer-tls/tls.crt\n\
         client_tls_key_file = /etc/selextract/pgbouncer-tls/tls.key\n\
         server_tls_sslmode = {check}\nserver_tls_ca_file = {authority}\n\
         server_connect_timeout = 5\nserver_login_retry = 1\nserver_lifetime = 3600\nserver_idle_timeout = 600\n\
         query_wait_timeout = 30\nclient_login_timeout = 15\nidle_transaction_timeout = 60\n\
         dns_max_ttl = 5\ntcp_keepalive = 1\ntcp_keepidle = 30\ntcp_keepintvl = 10\ntcp_keepcnt = 3\n\
         log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n",
        pgbouncer.max_client_conn, pgbouncer.default_pool_size, pgbouncer.max_prepared_statements,
    )
}

/// The server behind the pooler, how its certificate is checked, and against what.
fn server(inputs: Inputs<'_>, component: Component) -> (String, &'static str, &'static str) {
    let names = Names::new(inputs.cluster);
    let to = |host: &str, port: u16, database: &str| {
        format!("host={} port={port} dbname={}", quoted(host), quoted(database))
    };
    if let (Some(facts), Some(spec)) = (&inputs.facts.external, &inputs.cluster.postgres.external) {
        let end = if component == Component::PgBouncerRw {
            &facts.primary
        } else {
            &facts.read
        };
        let own = "/etc/selextract/external-ca/ca.crt";
        let authority = if spec.ca_key.is_some() { own } else { SYSTEM_AUTHORITIES };
        return (
            to(&end.host, end.port, &end.database),
            spec.ssl_mode.as_str(),
            authority,
        );
    }
    let service = if component == Component::PgBouncerRw {
        "postgres-rw"
    } else {
        "postgres-ro"
    };
    (
        to(&names.with(service), 5432, "selextract"),
        "verify-full",
        "/etc/selextract/ca/ca.crt",
    )
}

/// A value of a connection string in `PgBouncer`'s own form.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::fixture;

    #[test]
    fn prepared_statements_are_tracked_in_transaction_mode() {
        let (cluster, facts) = (fixture::minimal(), fixture::facts());
        let text = config(
            Inputs {
                cluster: &cluster,
                facts: &facts,
            },
            Component::PgBouncerRw,
        );
        for line in [
            "pool_mode = transaction",
            "max_prepared_statements = 200",
            "max_client_conn = 1000",
            "default_pool_size = 20",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn an_external_servers_certificate_is_checked_as_asked() {
        let (cluster, external) = fixture::external();
        let facts = super::super::Facts {
            external: Some(external),
            ..fixture::facts()
        };
        let text = config(
            Inputs {
                cluster: &cluster,
                facts: &facts,
            },
            Component::PgBouncerRo,
        );
        assert!(text.contains("host=db.example.org port=6543 dbname=ledger"), "{text}");
        assert!(
            text.contains("server_tls_sslmode = verify-full\nserver_tls_ca_file = /etc/selextract/external-ca/ca.crt")
        );
        assert!(!text.contains("p@ss"), "a password stands in the ConfigMap");
    }

    #[test]
    fn odd_names_are_quoted() {
        assert_eq!(quoted("it's"), "'it''s'");
    }
}
