//! The Secrets that open the artifacts' bucket, as the user made them. Pure: whether the store answers is found out by the programs.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use selextract_crds::S3Spec;

use crate::{
    build::{ACCESS_KEY_ID, AUTHORITY, SECRET_ACCESS_KEY},
    validated::Refusal,
};

/// The data of a user's Secrets, by their names; a Secret that is not there has none.
pub type UserSecrets = BTreeMap<String, BTreeMap<String, ByteString>>;

/// Checks that everything is there that the programs need.
///
/// # Errors
/// What is missing or wrong. No part of a value is repeated.
pub fn check(spec: &S3Spec, secrets: &UserSecrets) -> Result<(), Refusal> {
    let (field, name) = ("credentialsSecretRef", &spec.credentials_secret_ref.name);
    for key in [ACCESS_KEY_ID, SECRET_ACCESS_KEY] {
        text(secrets, (field, name), key)?;
    }
    if let Some(authority) = &spec.ca_secret_ref {
        let pem = text(secrets, ("caSecretRef", &authority.name), AUTHORITY)?;
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(Refusal {
                reason: "InvalidAuthority",
                message: format!(
                    "Key {AUTHORITY} of Secret {} holds no certificate in PEM form.",
                    authority.name
                ),
            });
        }
    }
    Ok(())
}

fn text<'a>(secrets: &'a UserSecrets, (field, name): (&str, &String), key: &str) -> Result<&'a str, Refusal> {
    let Some(data) = secrets.get(name) else {
        return Err(Refusal {
            reason: "SecretMissing",
            message: format!(
                "Secret {name}, which spec.artifacts.s3.{field}.name names, is not there; make it, or name another."
            ),
        });
    };
    let found = data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    found.filter(|text| !text.trim().is_empty()).ok_or_else(|| Refusal {
        reason: "SecretKeyMissing",
        message: format!(
            "Secret {name}, which spec.artifacts.s3.{field}.name names, has no key {key}, or it is empty; add it."
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> S3Spec {
        let spec =
            json!({ "bucket": "shots", "credentialsSecretRef": { "name": "s3" }, "caSecretRef": { "name": "ca" } });
        serde_json::from_value(spec).unwrap()
    }

    fn secrets(pairs: &[(&str, &str, &str)]) -> UserSecrets {
        let mut all = UserSecrets::new();
        for (secret, key, value) in pairs {
            let data = all.entry((*secret).to_owned()).or_default();
            data.insert((*key).to_owned(), ByteString(value.as_bytes().to_vec()));
        }
        all
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_secret_is_repeated() {
        let told = |pairs: &[(&str, &str, &str)]| {
            let refusal = check(&spec(), &secrets(pairs)).unwrap_err();
            assert!(!refusal.message.contains("hunter2"), "{refusal}");
            (refusal.reason, refusal.message)
        };
        let (reason, message) = told(&[]);
        assert_eq!(reason, "SecretMissing");
        assert!(message.contains("Secret s3") && message.contains("credentialsSecretRef"));
        let id = ("s3", "accessKeyId", "me");
        let (reason, message) = told(&[id, ("s3", "secretAccessKey", " ")]);
        assert_eq!(reason, "SecretKeyMissing");
        assert!(message.contains("has no key secretAccessKey"), "{message}");
        let key = ("s3", "secretAccessKey", "hunter2");
        assert!(
            told(&[id, key])
                .1
                .contains("Secret ca, which spec.artifacts.s3.caSecretRef.name names")
        );
        assert_eq!(told(&[id, key, ("ca", "ca.crt", "hunter2")]).0, "InvalidAuthority");
        let whole = secrets(&[id, key, ("ca", "ca.crt", "-----BEGIN CERTIFICATE-----")]);
        assert_eq!(check(&spec(), &whole), Ok(()));
    }
}
