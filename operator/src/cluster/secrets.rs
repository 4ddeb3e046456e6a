//! The cluster's Secrets: what is random is generated once and never overwritten, certificates are renewed, the rest is rendered.
//!
//! A Secret that was deleted by hand is made anew where that is safe. The one that opens an existing database volume is not: only
//! a person has its passwords.

mod generate;

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::runtime::events::EventType;
use selextract_crds::SelextractCluster;
use serde_json::{Value, json};

use super::{
    Tools,
    apply::{ApplyError, Owner, Writer},
    dereference::Observed,
    objects::{Key, Live},
    status::Fault,
};
use crate::{
    build::{Child, Component, External, Names},
    canonical,
    validated::ValidatedCluster,
};

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
    let wanted = match generate::contents_of(validated, external, &existing, Timestamp::now()) {
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
    use super::{
        generate::tests::{made, stored},
        *,
    };
    use crate::build::{fixture, secrets as contents};

    fn live(phase: &str) -> Live {
        let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": volume(&fixture::minimal())}, "status": {"phase": phase}});
        [(Key::of(&claim), claim)].into()
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
