//! What the Secrets should hold: what exists is kept, what is missing is generated, certificates are renewed in time. Pure but for the
//! randomness of passwords and keys.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use kube::ResourceExt;
use rand::{Rng, distr::Alphanumeric};
use serde_json::json;

use super::{
    super::certificates::{self, CertificateError, KeyAndCertificate, Record},
    Existing,
};
use crate::{
    build::{
        Child, External, Names, Server,
        secrets::{self as contents, Database, Passwords},
    },
    validated::ValidatedCluster,
};

/// 190 bits, and nothing that a URL or a configuration file would have to escape.
const PASSWORD_LENGTH: usize = 32;

/// Every Secret that should exist, with what exists kept.
///
/// # Errors
/// When a certificate cannot be made.
pub fn contents_of(
    cluster: &ValidatedCluster,
    external: Option<&External>,
    existing: &Existing<'_>,
    now: Timestamp,
) -> Result<Vec<Child>, CertificateError> {
    let names = Names::new(cluster);
    let authority = authority(cluster, existing, now)?;
    let passwords = passwords(&names.with("postgres"), existing);
    let database = match external {
        Some(external) => Database::External(external),
        None => Database::Managed(&passwords),
    };
    let redis = existing.text(&names.with("redis"), "password").unwrap_or_else(password);
    let admin = existing
        .text(&names.with("api"), "admin-password")
        .unwrap_or_else(password);
    let token_keys = existing.text(&names.with("api"), "token-keys").unwrap_or_else(keys);
    // A Secret of an older version lacks it, and gets it beside what it has.
    let data_key = existing.text(&names.with("api"), "data-key").unwrap_or_else(keys);
    let mut children = vec![
        contents::authority(cluster, &authority.certificate, &authority.key),
        contents::database(cluster, database),
        contents::redis(cluster, &redis),
        contents::api(cluster, &admin, &token_keys, &data_key),
        contents::pgbouncer(cluster, database),
    ];
    if external.is_none() {
        children.push(contents::postgres(cluster, &passwords));
    }
    for server in Server::ALL {
        children.push(server_certificate(cluster, server, &authority, existing, now)?);
    }
    Ok(children)
}

fn authority(
    cluster: &ValidatedCluster,
    existing: &Existing<'_>,
    now: Timestamp,
) -> Result<KeyAndCertificate, CertificateError> {
    let name = Names::new(cluster).with("ca");
    if let (Some(certificate), Some(key)) = (existing.text(&name, "ca.crt"), existing.text(&name, "ca.key")) {
        return Ok(KeyAndCertificate { certificate, key });
    }
    certificates::create_authority(&subject(cluster), now)
}

fn server_certificate(
    cluster: &ValidatedCluster,
    server: Server,
    authority: &KeyAndCertificate,
    existing: &Existing<'_>,
    now: Timestamp,
) -> Result<Child, CertificateError> {
    let names = Names::new(cluster);
    let (secret, dns) = (names.tls_secret(server), names.certificate(server));
    let record = existing
        .get(&secret)
        .and_then(|secret| Record::read(secret.annotations()));
    let serving = record.filter(|record| record.serves(&dns, &authority.certificate, now));
    let kept = (
        serving,
        existing.text(&secret, "tls.crt"),
        existing.text(&secret, "tls.key"),
    );
    let (record, pair) = if let (Some(record), Some(certificate), Some(key)) = kept {
        (record, KeyAndCertificate { certificate, key })
    } else {
        let pair = certificates::issue(&subject(cluster), &authority.key, &dns, now)?;
        (Record::new(&dns, &authority.certificate, now), pair)
    };
    let parts = (
        pair.certificate.as_str(),
        pair.key.as_str(),
        authority.certificate.as_str(),
    );
    Ok(contents::tls(cluster, server, parts, json!(record.annotations())))
}

/// The authority's name. It has to stay the same for as long as its key does.
fn subject(cluster: &ValidatedCluster) -> String {
    format!("{}/{}", cluster.namespace, cluster.name)
}

fn passwords(secret: &str, existing: &Existing<'_>) -> Passwords {
    let keep = |key: &str| existing.text(secret, key).unwrap_or_else(password);
    Passwords {
        superuser: keep("superuser-password"),
        owner: keep("owner-password"),
        app: keep("app-password"),
        replication: keep("replication-password"),
    }
}

fn password() -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(PASSWORD_LENGTH)
        .map(char::from)
        .collect()
}

/// One key with its id, as the API reads its token keys and data keys.
fn keys() -> String {
    let key: [u8; 32] = rand::rng().random();
    let id: String = rand::rng().sample_iter(Alphanumeric).take(8).map(char::from).collect();
    json!({"current": id, "keys": {id.clone(): STANDARD.encode(key)}}).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::Secret;

    use super::{super::encoded, *};
    use crate::build::fixture;

    pub fn stored(children: &[Child]) -> BTreeMap<String, Secret> {
        let secrets = children
            .iter()
            .map(|child| serde_json::from_value::<Secret>(encoded(child).object).unwrap());
        secrets.map(|secret| (secret.name_any(), secret)).collect()
    }

    pub fn made(existing: &BTreeMap<String, Secret>, at: Timestamp) -> Vec<Child> {
        contents_of(&fixture::minimal(), None, &Existing(existing), at).unwrap()
    }

    fn named<'a>(children: &'a [Child], name: &str) -> &'a Child {
        children.iter().find(|child| child.name() == name).unwrap()
    }

    #[test]
    fn what_was_generated_once_is_never_generated_again() {
        let now = Timestamp::now();
        let first = made(&BTreeMap::new(), now);
        assert_eq!(made(&stored(&first), now), first);
    }

    #[test]
    fn a_secret_of_an_older_version_gets_the_key_that_it_lacks_and_keeps_the_others() {
        let now = Timestamp::now();
        let first = made(&BTreeMap::new(), now);
        let mut older = stored(&first);
        let data = older.get_mut("shop-api").unwrap().data.as_mut().unwrap();
        data.remove("data-key").unwrap();
        let second = made(&older, now);
        let second = &named(&second, "shop-api").object["stringData"];
        let first = &named(&first, "shop-api").object["stringData"];
        assert_eq!(second["token-keys"], first["token-keys"]);
        assert_eq!(second["admin-password"], first["admin-password"]);
        assert!(second["data-key"].as_str().unwrap().contains("current"));
        assert_ne!(second["data-key"], second["token-keys"]);
    }

    #[test]
    fn two_clusters_never_share_a_password() {
        let now = Timestamp::now();
        let (one, two) = (made(&BTreeMap::new(), now), made(&BTreeMap::new(), now));
        assert_ne!(named(&one, "shop-postgres").object, named(&two, "shop-postgres").object);
        assert_eq!(password().len(), PASSWORD_LENGTH);
    }

    #[test]
    fn certificates_are_renewed_in_time_and_nothing_else_changes_then() {
        let now = Timestamp::now();
        let first = made(&BTreeMap::new(), now);
        let later = now.checked_add(jiff::SignedDuration::from_hours(250 * 24)).unwrap();
        let second = made(&stored(&first), later);
        assert_ne!(
            named(&second, "shop-api-tls").object,
            named(&first, "shop-api-tls").object
        );
        assert_eq!(named(&second, "shop-ca").object, named(&first, "shop-ca").object);
        assert_eq!(
            named(&second, "shop-postgres").object,
            named(&first, "shop-postgres").object
        );
    }

    #[test]
    fn a_new_authority_issues_new_certificates() {
        let now = Timestamp::now();
        let first = made(&BTreeMap::new(), now);
        let mut secrets = stored(&first);
        secrets.remove("shop-ca");
        let second = made(&secrets, now);
        assert_ne!(
            named(&second, "shop-postgres-tls").object,
            named(&first, "shop-postgres-tls").object
        );
    }
}
