//! The cluster's Secrets: what is random is generated once and never overwritten, certificates are renewed, the rest is rendered.
//!
//! A Secret that was deleted by hand is made anew where that is safe. The one that opens an existing database volume is not: only
//! a person has its passwords.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{ResourceExt, runtime::events::EventType};
use rand::{Rng, distr::Alphanumeric};
use selextract_crds::SelextractCluster;
use serde_json::{Value, json};

use super::{
    Tools,
    apply::{ApplyError, Owner, Writer},
    certificates::{self, CertificateError, KeyAndCertificate, Record},
    dereference::Observed,
    objects::{Key, Live},
    status::Fault,
};
use crate::{
    build::{
        Child, Component, External, Names, Server,
        secrets::{self as contents, Database, Passwords},
    },
    canonical,
    validated::ValidatedCluster,
};

/// 190 bits, and nothing that a URL or a configuration file would have to escape.
const PASSWORD_LENGTH: usize = 32;

/// What became of the Secrets.
#[derive(Default)]
pub struct Ensured {
    /// A hash of each one's data, which tells nothing about it.
    pub hashes: BTreeMap<String, String>,
    /// What a person must mend before anything can be built.
    pub fault: Option<Fault>,
}

impl Ensured {
    fn fault(condition: &'static str, reason: &str, message: String) -> Self {
        Self {
            hashes: BTreeMap::new(),
            fault: Some(Fault {
                condition: Some(condition),
                reason: reason.to_owned(),
                message,
            }),
        }
    }
}

/// Makes the Secrets what they should be.
///
/// # Errors
/// When the API server did not take a write.
pub async fn ensure(
    tools: &Tools,
    cluster: &SelextractCluster,
    validated: &ValidatedCluster,
    external: Option<&External>,
    observed: &Observed,
) -> Result<Ensured, ApplyError> {
    let existing = Existing(&observed.secrets);
    if external.is_none()
        && let Some(message) = lost_passwords(validated, &existing, &observed.live)
    {
        return Ok(Ensured::fault("DatabaseReady", "SecretMissing", message));
    }
    let wanted = match contents_of(validated, external, &existing, Timestamp::now()) {
        Ok(wanted) => wanted,
        Err(error) => return Ok(Ensured::fault("CertificatesReady", "NotIssued", error.to_string())),
    };
    if existing.get(&Names::new(validated).with("api")).is_none() && has_data(validated, &observed.live) {
        let note = "The Secret with the administrator's password was gone and was made anew; the password in it is not that of the \
                    user admin, who exists already. Set it with the old password, or as another administrator.";
        tools
            .context
            .event(
                cluster,
                EventType::Warning,
                "AdminPasswordLost",
                "Generate",
                note.to_owned(),
            )
            .await;
    }
    write(tools, validated, &existing, wanted).await
}

/// A hash of a Secret's data that tells nothing about it to those who see the pods' annotations: `salt` is a key.
pub fn hash(salt: &str, data: &BTreeMap<String, ByteString>) -> String {
    let text = json!([salt, data]).to_string();
    canonical::hash_text(&text).chars().take(32).collect()
}

/// The salt for [`hash`]: the authority's key, which only the operator reads.
pub fn salt(observed: &Observed, cluster: &str) -> String {
    Existing(&observed.secrets)
        .text(&format!("{cluster}-ca"), "ca.key")
        .unwrap_or_default()
}

async fn write(
    tools: &Tools,
    validated: &ValidatedCluster,
    existing: &Existing<'_>,
    wanted: Vec<Child>,
) -> Result<Ensured, ApplyError> {
    let owner = Owner {
        namespace: &validated.namespace,
        name: &validated.name,
        uid: &validated.uid,
        adopts: true,
    };
    let context = &tools.context;
    let writer = Writer {
        client: &context.client,
        answers: &tools.answers,
        telemetry: &context.telemetry,
    };
    let mut live: Live = existing
        .0
        .values()
        .map(with_kind)
        .map(|secret| (Key::of(&secret), secret))
        .collect();
    for child in &wanted {
        if let Some(refused) = writer.apply(&owner, &encoded(child), &mut live).await? {
            return Ok(Ensured::fault("CertificatesReady", refused.reason, refused.message));
        }
    }
    let data = |secret: &Value| {
        serde_json::from_value::<BTreeMap<String, ByteString>>(secret["data"].clone()).unwrap_or_default()
    };
    let authority = live.get(&Key {
        kind: "Secret".to_owned(),
        name: Names::new(validated).with("ca"),
    });
    let salt = authority
        .map(&data)
        .and_then(|mut data| data.remove("ca.key"))
        .map(|key| String::from_utf8_lossy(&key.0).into_owned());
    let salt = salt.unwrap_or_default();
    let hashes = live
        .iter()
        .map(|(key, secret)| (key.name.clone(), hash(&salt, &data(secret))))
        .collect();
    Ok(Ensured { hashes, fault: None })
}

/// Every Secret that should exist, with what exists kept.
fn contents_of(
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
    let keys = existing
        .text(&names.with("api"), "token-keys")
        .unwrap_or_else(token_keys);
    let mut children = vec![
        contents::authority(cluster, &authority.certificate, &authority.key),
        contents::database(cluster, database),
        contents::redis(cluster, &redis),
        contents::api(cluster, &admin, &keys),
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

/// Why the database cannot be opened: it has a volume, and the passwords to it are gone.
fn lost_passwords(cluster: &ValidatedCluster, existing: &Existing<'_>, live: &Live) -> Option<String> {
    let secret = Names::new(cluster).with("postgres");
    if !has_data(cluster, live) || existing.text(&secret, "superuser-password").is_some() {
        return None;
    }
    Some(format!(
        "Secret {secret}, which opens the database on PersistentVolumeClaim {}, is gone or has no superuser-password. Restore it (keys \
         superuser-password, owner-password, app-password, replication-password); or delete the claim to begin with an empty database.",
        volume(cluster)
    ))
}

fn volume(cluster: &ValidatedCluster) -> String {
    let names = Names::new(cluster);
    names.volume(&names.component(Component::Postgres))
}

/// Whether the primary's volume was ever bound: before that there is nothing on it.
fn has_data(cluster: &ValidatedCluster, live: &Live) -> bool {
    let claim = live.get(&Key {
        kind: "PersistentVolumeClaim".to_owned(),
        name: volume(cluster),
    });
    claim.is_some_and(|claim| claim.pointer("/status/phase").and_then(Value::as_str) == Some("Bound"))
}

fn password() -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(PASSWORD_LENGTH)
        .map(char::from)
        .collect()
}

fn token_keys() -> String {
    let key: [u8; 32] = rand::rng().random();
    let id: String = rand::rng().sample_iter(Alphanumeric).take(8).map(char::from).collect();
    json!({"current": id, "keys": {id.clone(): STANDARD.encode(key)}}).to_string()
}

/// The Secrets that are there.
struct Existing<'a>(&'a BTreeMap<String, Secret>);

impl Existing<'_> {
    fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// One key's text; an empty one counts as missing.
    fn text(&self, name: &str, key: &str) -> Option<String> {
        let bytes = self.get(name)?.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
    }
}

/// The child with `data` in place of `stringData`, which the API server does not give back.
fn encoded(child: &Child) -> Child {
    let mut child = child.clone();
    if let Some(members) = child.object.as_object_mut()
        && let Some(Value::Object(texts)) = members.remove("stringData")
    {
        let data = texts
            .into_iter()
            .map(|(key, text)| (key, json!(STANDARD.encode(text.as_str().unwrap_or_default()))));
        members.insert("data".to_owned(), data.collect());
    }
    child
}

fn with_kind(secret: &Secret) -> Value {
    let mut value = json!(secret);
    value["apiVersion"] = "v1".into();
    value["kind"] = "Secret".into();
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::fixture;

    fn stored(children: &[Child]) -> BTreeMap<String, Secret> {
        let secrets = children
            .iter()
            .map(|child| serde_json::from_value::<Secret>(encoded(child).object).unwrap());
        secrets.map(|secret| (secret.name_any(), secret)).collect()
    }

    fn made(existing: &BTreeMap<String, Secret>, at: Timestamp) -> Vec<Child> {
        contents_of(&fixture::minimal(), None, &Existing(existing), at).unwrap()
    }

    fn named<'a>(children: &'a [Child], name: &str) -> &'a Child {
        children.iter().find(|child| child.name() == name).unwrap()
    }

    fn live(phase: &str) -> Live {
        let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": volume(&fixture::minimal())}, "status": {"phase": phase}});
        [(Key::of(&claim), claim)].into()
    }

    #[test]
    fn what_was_generated_once_is_never_generated_again() {
        let now = Timestamp::now();
        let first = made(&BTreeMap::new(), now);
        assert_eq!(made(&stored(&first), now), first);
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

    #[test]
    fn the_passwords_of_a_database_with_data_are_not_made_anew() {
        let message = lost_passwords(&fixture::minimal(), &Existing(&BTreeMap::new()), &live("Bound")).unwrap();
        assert!(message.contains("Secret shop-postgres") && message.contains("Restore it"));
        assert_eq!(
            lost_passwords(&fixture::minimal(), &Existing(&BTreeMap::new()), &live("Pending")),
            None
        );
        assert_eq!(
            lost_passwords(&fixture::minimal(), &Existing(&BTreeMap::new()), &Live::new()),
            None
        );
        let secrets = stored(&made(&BTreeMap::new(), Timestamp::now()));
        assert_eq!(
            lost_passwords(&fixture::minimal(), &Existing(&secrets), &live("Bound")),
            None
        );
    }

    #[test]
    fn the_hash_in_the_pods_annotations_cannot_be_guessed_from_the_data() {
        let data: BTreeMap<String, ByteString> =
            [("url".to_owned(), ByteString(b"postgres://a:weak@b/c".to_vec()))].into();
        assert_ne!(hash("one", &data), hash("two", &data));
        assert_eq!(hash("one", &data), hash("one", &data));
    }

    #[test]
    fn a_secret_is_sent_as_the_api_server_gives_it_back() {
        let child = encoded(&contents::redis(&fixture::minimal(), "x"));
        assert!(child.object.get("stringData").is_none());
        assert_eq!(child.object["data"]["password"], "eA==");
    }
}
