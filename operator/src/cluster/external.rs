//! A database that exists, as the user's Secret names it. Pure: whether it answers is found out by the migration Job.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use percent_encoding::percent_decode_str;
use selextract_crds::{ExternalDatabase, SslMode};
use url::Url;

use crate::{
    build::{Endpoint, External},
    validated::Refusal,
};

/// Reads the database from its Secret's data; `None` is a Secret that is not there.
///
/// # Errors
/// What is missing or wrong. No part of a URL is repeated: it holds a password.
pub fn parse(spec: &ExternalDatabase, data: Option<&BTreeMap<String, ByteString>>) -> Result<External, Refusal> {
    let Some(data) = data else {
        let message = format!(
            "Secret {}, which spec.postgres.external.secretName names, is not there.",
            spec.secret_name
        );
        return Err(Refusal {
            reason: "SecretMissing",
            message,
        });
    };
    let primary = endpoint(spec, &spec.key, data)?;
    let read = match &spec.read_key {
        Some(key) => endpoint(spec, key, data)?,
        None => primary.clone(),
    };
    if let Some(key) = &spec.ca_key {
        let authority = text(spec, key, data)?;
        if spec.ssl_mode != SslMode::Require && !authority.contains("-----BEGIN CERTIFICATE-----") {
            let message = format!(
                "Key {key} of Secret {} holds no certificate in PEM form.",
                spec.secret_name
            );
            return Err(Refusal {
                reason: "InvalidAuthority",
                message,
            });
        }
    }
    Ok(External { primary, read })
}

fn text(spec: &ExternalDatabase, key: &str, data: &BTreeMap<String, ByteString>) -> Result<String, Refusal> {
    let found = data
        .get(key)
        .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        .map(str::trim);
    match found {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => {
            let message = format!("Secret {} has no key {key}, or it is empty.", spec.secret_name);
            Err(Refusal {
                reason: "SecretKeyMissing",
                message,
            })
        }
    }
}

fn endpoint(spec: &ExternalDatabase, key: &str, data: &BTreeMap<String, ByteString>) -> Result<Endpoint, Refusal> {
    let text = text(spec, key, data)?;
    let wrong = |what: &str| Refusal {
        reason: "InvalidURL",
        message: format!(
            "Key {key} of Secret {}: {what}; write postgres://role:password@host:port/database.",
            spec.secret_name
        ),
    };
    let url = Url::parse(&text).map_err(|error| wrong(&format!("it is not a URL ({error})")))?;
    if !["postgres", "postgresql"].contains(&url.scheme()) {
        return Err(wrong("its scheme is not postgres"));
    }
    let decode = |part: &str| {
        percent_decode_str(part)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .ok()
    };
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| wrong("it names no host"))?;
    let role = decode(url.username())
        .filter(|role| !role.is_empty())
        .ok_or_else(|| wrong("it names no role"))?;
    let password = url
        .password()
        .and_then(decode)
        .ok_or_else(|| wrong("it holds no password"))?;
    let database = decode(url.path().trim_start_matches('/'))
        .filter(|database| !database.is_empty() && !database.contains('/'))
        .ok_or_else(|| wrong("it names no database"))?;
    Ok(Endpoint {
        host: host.to_owned(),
        port: url.port().unwrap_or(5432),
        database,
        role,
        password,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(extra: &serde_json::Value) -> ExternalDatabase {
        let mut spec = json!({"secretName": "legacy-db"});
        spec.as_object_mut()
            .unwrap()
            .extend(extra.as_object().cloned().unwrap());
        serde_json::from_value(spec).unwrap()
    }

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect()
    }

    #[test]
    fn a_missing_secret_and_a_missing_key_are_named() {
        let refusal = parse(&spec(&json!({})), None).unwrap_err();
        assert_eq!(refusal.reason, "SecretMissing");
        assert!(refusal.message.contains("legacy-db"));
        let refusal = parse(
            &spec(&json!({"key": "dsn"})),
            Some(&data(&[("url", "postgres://a:b@c/d")])),
        )
        .unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.message.as_str()),
            ("SecretKeyMissing", "Secret legacy-db has no key dsn, or it is empty.")
        );
    }

    #[test]
    fn a_bad_url_is_told_without_its_password() {
        for url in [
            "mysql://app:hunter2@db/x",
            "postgres://app:hunter2@db",
            "postgres://:hunter2@db/x",
            "postgres://app@db/hunter2",
            "hunter2",
        ] {
            let refusal = parse(&spec(&json!({})), Some(&data(&[("url", url)]))).unwrap_err();
            assert_eq!(refusal.reason, "InvalidURL", "{url}");
            assert!(!refusal.message.contains("hunter2"), "{}", refusal.message);
        }
    }

    #[test]
    fn reads_go_to_the_primary_when_there_is_no_other_url() {
        let found = parse(
            &spec(&json!({})),
            Some(&data(&[("url", "postgres://app:p%40ss@db.example:6000/ledger")])),
        )
        .unwrap();
        assert_eq!(found.primary.password, "p@ss");
        assert_eq!((found.primary.host.as_str(), found.primary.port), ("db.example", 6000));
        assert_eq!(found.read, found.primary);
    }

    #[test]
    fn an_authority_must_be_a_certificate() {
        let secret = data(&[("url", "postgres://a:b@c/d"), ("ca", "nonsense")]);
        assert_eq!(
            parse(&spec(&json!({"caKey": "ca"})), Some(&secret)).unwrap_err().reason,
            "InvalidAuthority"
        );
    }
}
