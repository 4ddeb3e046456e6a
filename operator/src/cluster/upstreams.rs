//! The Secrets that open upstream proxies, as the user made them. Pure: whether a proxy takes them is found out by the egress proxy.
//!
//! What is missing keeps nothing from being built: the proxies of such a pool rest, and its other ones are used.

use selextract_crds::UpstreamPool;

use super::bucket::UserSecrets;
use crate::{build::UPSTREAM_KEYS, validated::Refusal};

/// Checks that everything is there that the pools' proxies need; the first that is missing is told.
///
/// # Errors
/// What is missing. No part of a value is repeated.
pub fn check(pools: &[UpstreamPool], secrets: &UserSecrets) -> Result<(), Refusal> {
    for (index, pool) in pools.iter().enumerate() {
        for (number, proxy) in pool.proxies.iter().enumerate() {
            if let Some(secret) = &proxy.credentials_secret_ref {
                let field = format!("spec.egress.upstreams[{index}].proxies[{number}].credentialsSecretRef.name");
                complete(&pool.name, (&field, &secret.name), secrets)?;
            }
        }
    }
    Ok(())
}

fn complete(pool: &str, (field, name): (&str, &str), secrets: &UserSecrets) -> Result<(), Refusal> {
    let Some(data) = secrets.get(name) else {
        return Err(Refusal {
            reason: "SecretMissing",
            message: format!(
                "Pool {pool}: Secret {name}, which {field} names, is not there; make it, or name another."
            ),
        });
    };
    for key in UPSTREAM_KEYS {
        let text = data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
        if text.is_none_or(|text| text.trim().is_empty()) {
            return Err(Refusal {
                reason: "SecretKeyMissing",
                message: format!(
                    "Pool {pool}: Secret {name}, which {field} names, has no key {key}, or it is empty; add it."
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_secret_and_a_missing_key_are_told_with_their_pool_and_without_values() {
        let pools: Vec<UpstreamPool> = serde_json::from_value(json!([
            { "name": "us", "proxies": [{ "url": "http://10.1.2.2:3128" }] },
            { "name": "eu", "proxies": [
                { "url": "http://10.1.2.3:3128" }, { "url": "https://10.1.2.4:3129", "credentialsSecretRef": { "name": "acme" } },
            ] },
        ]))
        .unwrap();
        let secrets = |pairs: &[(&str, &str)]| {
            let data = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
            UserSecrets::from([("acme".to_owned(), data.collect())])
        };
        let missing = check(&pools, &UserSecrets::new()).unwrap_err();
        assert_eq!(missing.reason, "SecretMissing");
        assert_eq!(
            missing.message,
            "Pool eu: Secret acme, which spec.egress.upstreams[1].proxies[1].credentialsSecretRef.name names, is not there; make it, or name \
             another."
        );
        let partial = check(&pools, &secrets(&[("username", "hunter2"), ("password", " ")])).unwrap_err();
        assert_eq!(partial.reason, "SecretKeyMissing");
        assert!(partial.message.contains("Pool eu: Secret acme") && partial.message.contains("has no key password"));
        assert!(!partial.message.contains("hunter2"));
        assert_eq!(check(&pools, &secrets(&[("username", "a"), ("password", "b")])), Ok(()));
    }
}
