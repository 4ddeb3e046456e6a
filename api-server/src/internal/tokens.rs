//! Whom the internal listener lets in: the operator, by a service-account token for this one cluster, verified offline.
//!
//! The keys come from a JWKS file that the operator keeps; it is read again when a token names a key that is not in it.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use snafu::{OptionExt, ResultExt, Snafu};
use tokio::{sync::Mutex, time::Instant};

/// How often the file is read at most: a stranger's key ids must not make the disk busy.
const REREAD_AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// Why a token is refused. For the log; the client learns only that it is.
#[derive(Debug, Snafu)]
pub enum Refused {
    /// The token's head cannot be read.
    #[snafu(display("the token cannot be read"))]
    Head {
        /// Why.
        source: jsonwebtoken::errors::Error,
    },
    /// Only RS256 and ES256 are signed by an API server.
    #[snafu(display("the token's algorithm {algorithm:?} is not RS256 or ES256"))]
    AlgorithmName {
        /// What it names.
        algorithm: Algorithm,
    },
    /// No such key.
    #[snafu(display("the token's key {kid:?} is not in the JWKS"))]
    UnknownKey {
        /// Which.
        kid: String,
    },
    /// The key cannot be used.
    #[snafu(display("the key {kid:?} of the JWKS cannot be used"))]
    Key {
        /// Which.
        kid: String,
        /// Why.
        source: jsonwebtoken::errors::Error,
    },
    /// Signature, audience, issuer, subject or lifetime do not hold.
    #[snafu(display("the token does not hold"))]
    Claims {
        /// Why.
        source: jsonwebtoken::errors::Error,
    },
}

/// Why the JWKS file cannot be used.
#[derive(Debug, Snafu)]
pub enum JwksError {
    /// The file cannot be read.
    #[snafu(display("reading {} failed", path.display()))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a JWKS.
    #[snafu(display("{} is not a JWKS", path.display()))]
    Form {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// Who may come in.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The audience of this cluster.
    pub audience: String,
    /// The operator's service account.
    pub subject: String,
    /// The Kubernetes API server's issuer.
    pub issuer: String,
}

/// Verifies the operator's tokens.
#[derive(Debug)]
pub struct OperatorTokens {
    path: PathBuf,
    expected: Expected,
    keys: RwLock<Arc<JwkSet>>,
    reread: Mutex<Instant>,
}

#[derive(serde::Deserialize)]
struct NoClaims {}

impl OperatorTokens {
    /// Reads the JWKS file.
    pub async fn read(path: PathBuf, expected: Expected) -> Result<Self, JwksError> {
        let keys = read(&path).await?;
        Ok(Self {
            path,
            expected,
            keys: RwLock::new(Arc::new(keys)),
            reread: Mutex::new(Instant::now()),
        })
    }

    /// Whether the token is the operator's.
    pub async fn verify(&self, token: &str) -> Result<(), Refused> {
        let header = jsonwebtoken::decode_header(token).context(HeadSnafu)?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return AlgorithmNameSnafu { algorithm: header.alg }.fail();
        }
        let kid = header.kid.unwrap_or_default();
        let key = self.key(&kid).await?;
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.expected.audience]);
        validation.set_issuer(&[&self.expected.issuer]);
        validation.sub = Some(self.expected.subject.clone());
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        jsonwebtoken::decode::<NoClaims>(token, &key, &validation).context(ClaimsSnafu)?;
        Ok(())
    }

    async fn key(&self, kid: &str) -> Result<DecodingKey, Refused> {
        let mut keys = self.current();
        if keys.find(kid).is_none() {
            self.reread().await;
            keys = self.current();
        }
        let key = keys.find(kid).context(UnknownKeySnafu { kid })?;
        DecodingKey::from_jwk(key).context(KeySnafu { kid })
    }

    fn current(&self) -> Arc<JwkSet> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reread(&self) {
        let mut last = self.reread.lock().await;
        if last.elapsed() < REREAD_AT_MOST_EVERY {
            return;
        }
        *last = Instant::now();
        match read(&self.path).await {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys),
            Err(error) => tracing::warn!(%error, "The JWKS could not be read again; the former keys stay."),
        }
    }
}

async fn read(path: &PathBuf) -> Result<JwkSet, JwksError> {
    let text = tokio::fs::read(path).await.context(ReadSnafu { path })?;
    serde_json::from_slice(&text).context(FormSnafu { path })
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use jsonwebtoken::{EncodingKey, Header};
    use rcgen::{KeyPair, PublicKeyData};
    use serde_json::{Value, json};

    use super::*;

    struct Signer {
        kid: &'static str,
        pair: KeyPair,
    }

    impl Signer {
        fn new(kid: &'static str) -> Self {
            let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            Self { kid, pair }
        }

        fn jwk(&self) -> Value {
            // An uncompressed point: 4, x, y.
            let point = self.pair.der_bytes();
            let (x, y) = point[1..].split_at(32);
            let [x, y] = [x, y].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
            json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y })
        }

        fn token(&self, change: &Value) -> String {
            let now = jsonwebtoken::get_current_timestamp();
            let mut claims = json!({
                "aud": ["selextract:ns/n/uid"], "iss": "https://k8s", "sub": "system:serviceaccount:op:op",
                "iat": now, "nbf": now, "exp": now + 600, "kubernetes.io": {},
            });
            claims
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            let header = Header {
                kid: Some(self.kid.to_owned()),
                ..Header::new(Algorithm::ES256)
            };
            jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&self.pair.serialize_der())).unwrap()
        }
    }

    async fn verifier(folder: &tempfile::TempDir, signers: &[&Signer]) -> OperatorTokens {
        write(folder, signers);
        let expected = Expected {
            audience: "selextract:ns/n/uid".to_owned(),
            subject: "system:serviceaccount:op:op".to_owned(),
            issuer: "https://k8s".to_owned(),
        };
        OperatorTokens::read(folder.path().join("jwks.json"), expected)
            .await
            .unwrap()
    }

    fn write(folder: &tempfile::TempDir, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|s| s.jwk()).collect();
        std::fs::write(folder.path().join("jwks.json"), json!({ "keys": keys }).to_string()).unwrap();
    }

    #[tokio::test]
    async fn the_operators_token_comes_in_and_any_other_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::new("one");
        let tokens = verifier(&folder, &[&signer]).await;
        tokens.verify(&signer.token(&json!({}))).await.unwrap();
        for change in [
            json!({ "aud": ["selextract:ns/n/other-uid"] }),
            json!({ "iss": "https://elsewhere" }),
            json!({ "sub": "system:serviceaccount:op:other" }),
            json!({ "exp": 1 }),
            json!({ "nbf": 4_000_000_000_u64 }),
        ] {
            assert!(tokens.verify(&signer.token(&change)).await.is_err(), "{change}");
        }
        assert!(
            tokens.verify(&Signer::new("one").token(&json!({}))).await.is_err(),
            "another key"
        );
        assert!(tokens.verify("not.a.token").await.is_err());
    }

    #[tokio::test]
    async fn a_symmetric_token_is_refused_even_with_the_public_key_as_its_secret() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::new("one");
        let tokens = verifier(&folder, &[&signer]).await;
        let header = Header {
            kid: Some("one".to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let forged =
            jsonwebtoken::encode(&header, &json!({}), &EncodingKey::from_secret(signer.pair.der_bytes())).unwrap();
        assert!(matches!(
            tokens.verify(&forged).await,
            Err(Refused::AlgorithmName { .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_read_when_a_token_names_it_but_not_more_often_than_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (Signer::new("old"), Signer::new("new"));
        let tokens = verifier(&folder, &[&old]).await;
        write(&folder, &[&old, &new]);
        assert!(matches!(
            tokens.verify(&new.token(&json!({}))).await,
            Err(Refused::UnknownKey { .. })
        ));
        tokio::time::advance(REREAD_AT_MOST_EVERY).await;
        tokens.verify(&new.token(&json!({}))).await.unwrap();
    }
}
