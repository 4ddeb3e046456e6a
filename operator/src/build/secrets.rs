//! The contents of the Secrets. What is random comes as an argument; the runtime generates it once and reads it back ever after.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use selextract_crds::DeletionPolicy;
use serde_json::{Value, json};

use super::{Child, Endpoint, External, Names, Server, labels};
use crate::validated::ValidatedCluster;

/// The passwords of the roles of a database that the operator runs. It has no `Debug` form.
#[derive(Clone, PartialEq, Eq)]
pub struct Passwords {
    /// Of `postgres`.
    pub superuser: String,
    /// Of `selextract_owner`.
    pub owner: String,
    /// Of `selextract_app`.
    pub app: String,
    /// Of `selextract_replication`.
    pub replication: String,
}

/// Whose roles the programs use.
#[derive(Clone, Copy)]
pub enum Database<'a> {
    /// Those that the operator's own PostgreSQL has.
    Managed(&'a Passwords),
    /// The one that the external database's URL names.
    External(&'a External),
}

/// The role of API, keeper and workers.
const APP: &str = "selextract_app";
/// The role that owns the schema.
const OWNER: &str = "selextract_owner";
/// The role of the read replicas.
pub const REPLICATION: &str = "selextract_replication";
/// The database of a managed PostgreSQL, and the one that the poolers offer in any case.
const DATABASE: &str = "selextract";

/// `N-ca`: the cluster's authority.
pub fn authority(cluster: &ValidatedCluster, certificate: &str, key: &str) -> Child {
    secret(cluster, "ca", &json!({ "ca.crt": certificate, "ca.key": key }), None)
}

/// `N-postgres`: the passwords. It opens the volume, so it stays with it.
pub fn postgres(cluster: &ValidatedCluster, passwords: &Passwords) -> Child {
    let data = json!({
        "superuser-password": passwords.superuser,
        "owner-password": passwords.owner,
        "app-password": passwords.app,
        "replication-password": passwords.replication,
    });
    Child {
        retained: cluster.deletion_policy == DeletionPolicy::Retain,
        ..secret(cluster, "postgres", &data, None)
    }
}

/// `N-database`: the URLs.
pub fn database(cluster: &ValidatedCluster, database: Database<'_>) -> Child {
    let names = Names::new(cluster);
    let pooler = |service: &str, role: &str, password: &str| {
        url(
            role,
            password,
            (&names.with(service), 6432, DATABASE),
            "?sslmode=verify-full&sslrootcert=/etc/selextract/ca/ca.crt",
        )
    };
    let data = match database {
        Database::Managed(passwords) => {
            let direct = |role: &str, password: &str, database: &str| {
                let tls = "?sslmode=verify-full&sslrootcert=/etc/selextract/ca/ca.crt";
                url(role, password, (&names.with("postgres-rw"), 5432, database), tls)
            };
            json!({
                "url": pooler("pgbouncer-rw", APP, &passwords.app),
                "read-url": pooler("pgbouncer-ro", APP, &passwords.app),
                "direct-url": direct(OWNER, &passwords.owner, DATABASE),
                "superuser-url": direct("postgres", &passwords.superuser, "postgres"),
            })
        }
        Database::External(External { primary, read }) => json!({
            "url": pooler("pgbouncer-rw", &primary.role, &primary.password),
            "read-url": pooler("pgbouncer-ro", &read.role, &read.password),
            "direct-url": external_url(cluster, primary),
        }),
    };
    secret(cluster, "database", &data, None)
}

/// `N-redis`: the password of queue and cache.
pub fn redis(cluster: &ValidatedCluster, password: &str) -> Child {
    let names = Names::new(cluster);
    let url = |service: &str| format!("redis://:{}@{}:6379/0", encoded(password), names.with(service));
    let data = json!({
        "password": password,
        "queue-url": url("redis-queue"),
        "cache-url": url("redis-cache"),
        "auth.conf": format!("requirepass {password}\n"),
    });
    secret(cluster, "redis", &data, None)
}

/// `N-api`: the first administrator's password and the keys that sign tokens (JSON as `SELEXTRACT_TOKEN_KEYS`). The password lies
/// in the database too, so the Secret stays with the volume.
pub fn api(cluster: &ValidatedCluster, admin_password: &str, token_keys: &str, data_key: &str) -> Child {
    let data = json!({ "admin-password": admin_password, "token-keys": token_keys, "data-key": data_key });
    Child {
        retained: cluster.deletion_policy == DeletionPolicy::Retain,
        ..secret(cluster, "api", &data, None)
    }
}

/// `N-*-tls`: a server's certificate, with annotations that say what it was made for.
pub fn tls(
    cluster: &ValidatedCluster,
    server: Server,
    (certificate, key, authority): (&str, &str, &str),
    annotations: Value,
) -> Child {
    let name = Names::new(cluster).tls_secret(server);
    let suffix = name
        .strip_prefix(&format!("{}-", cluster.name))
        .unwrap_or(&name)
        .to_owned();
    let data = json!({ "tls.crt": certificate, "tls.key": key, "ca.crt": authority });
    let mut child = secret(cluster, &suffix, &data, Some(annotations));
    child.object["type"] = json!("kubernetes.io/tls");
    child
}

/// `N-pgbouncer`: whom the poolers let in, and with which passwords they log in themselves.
pub fn pgbouncer(cluster: &ValidatedCluster, database: Database<'_>) -> Child {
    let mut users = match database {
        Database::Managed(passwords) => vec![(APP, passwords.app.as_str())],
        Database::External(External { primary, read }) => [primary, read]
            .map(|end| (end.role.as_str(), end.password.as_str()))
            .to_vec(),
    };
    users.dedup();
    let quoted = |text: &str| text.replace('"', "\"\"");
    let lines = users
        .iter()
        .map(|(role, password)| format!("\"{}\" \"{}\"\n", quoted(role), quoted(password)));
    secret(
        cluster,
        "pgbouncer",
        &json!({ "userlist.txt": lines.collect::<String>() }),
        None,
    )
}

/// The roles that may read the poolers' statistics: the roles of the application, with which the keeper asks their consoles.
pub fn pooler_roles(external: Option<&External>) -> Vec<&str> {
    match external {
        None => vec![APP],
        Some(External { primary, read }) if primary.role == read.role => vec![&primary.role],
        Some(External { primary, read }) => vec![&primary.role, &read.role],
    }
}

/// An external database's URL as the programs read it, with the check of its certificate that the spec asks for.
pub fn external_url(cluster: &ValidatedCluster, end: &Endpoint) -> String {
    let external = cluster.postgres.external.as_ref();
    let mode = external.map_or("verify-full", |external| external.ssl_mode.as_str());
    let authority = match external.and_then(|external| external.ca_key.as_deref()) {
        Some(_) => "&sslrootcert=/etc/selextract/external-ca/ca.crt",
        None => "",
    };
    url(
        &end.role,
        &end.password,
        (&end.host, end.port, &end.database),
        &format!("?sslmode={mode}{authority}"),
    )
}

fn url(role: &str, password: &str, (host, port, database): (&str, u16, &str), options: &str) -> String {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    format!(
        "postgres://{}:{}@{host}:{port}/{}{options}",
        encoded(role),
        encoded(password),
        encoded(database)
    )
}

/// Underscores stay, so that the roles read as they are called.
fn encoded(text: &str) -> String {
    const SET: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'~');
    utf8_percent_encode(text, SET).to_string()
}

fn secret(cluster: &ValidatedCluster, suffix: &str, data: &Value, annotations: Option<Value>) -> Child {
    let mut metadata = labels::metadata(cluster, &Names::new(cluster).with(suffix), suffix);
    if let Some(annotations) = annotations {
        metadata["annotations"] = annotations;
    }
    Child::plain(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "stringData": data,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::fixture;

    fn text<'a>(child: &'a Child, key: &str) -> &'a str {
        child.object["stringData"][key].as_str().unwrap()
    }

    #[test]
    fn the_programs_reach_the_database_through_the_poolers_and_the_owner_reaches_it_directly() {
        let passwords = fixture::passwords();
        let child = database(&fixture::minimal(), Database::Managed(&passwords));
        assert_eq!(
            text(&child, "url"),
            "postgres://selextract_app:app-secret@shop-pgbouncer-rw:6432/selextract?sslmode=verify-full&sslrootcert=/etc/selextract/ca/ca.crt"
        );
        assert!(
            text(&child, "direct-url")
                .starts_with("postgres://selextract_owner:owner-secret@shop-postgres-rw:5432/selextract?")
        );
        assert!(text(&child, "superuser-url").contains("/postgres?sslmode=verify-full"));
    }

    #[test]
    fn an_external_database_has_no_superuser_and_an_odd_password_survives() {
        let (cluster, external) = fixture::external();
        let child = database(&cluster, Database::External(&external));
        assert!(child.object["stringData"]["superuser-url"].is_null());
        assert_eq!(
            text(&child, "direct-url"),
            "postgres://scraper:p%40ss%2F%22word@db.example.org:6543/ledger?sslmode=verify-full&sslrootcert=/etc/selextract/external-ca/ca.crt"
        );
        assert_eq!(
            text(&pgbouncer(&cluster, Database::External(&external)), "userlist.txt"),
            "\"scraper\" \"p@ss/\"\"word\"\n"
        );
    }

    #[test]
    fn secrets_that_open_volumes_stay_with_them() {
        let passwords = fixture::passwords();
        assert!(postgres(&fixture::minimal(), &passwords).retained);
        assert!(!redis(&fixture::minimal(), "x").retained);
    }
}
