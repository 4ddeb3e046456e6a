//! Access tokens (HS256 with a key id, 15 minutes) and the opaque secrets beside them: refresh tokens and API keys.
//!
//! Pure but for the clock and the random source. Two keys may live at a time: the current one signs, every listed one verifies.

use std::collections::BTreeMap;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snafu::{OptionExt, ResultExt, Snafu, ensure};
use uuid::Uuid;

use super::Role;

/// How long an access token is good for.
pub const ACCESS_LIFETIME: std::time::Duration = std::time::Duration::from_mins(15);
/// How long a refresh token is good for; each use gives a new one.
pub const REFRESH_LIFETIME: std::time::Duration = std::time::Duration::from_hours(720);
const REFRESH_MARK: &str = "sxr_";
const API_KEY_MARK: &str = "sxk_";
/// The characters of an API key that are shown again later; 48 bits, to tell keys apart.
const PREFIX_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const ISSUER: &str = "selextract";
const AUDIENCE: &str = "selextract-api";

/// Why the keys of the settings cannot be used, or a token is refused.
#[derive(Debug, Snafu)]
pub enum TokenError {
    /// The setting is not the JSON that it should be.
    #[snafu(display(
        "SELEXTRACT_TOKEN_KEYS is not JSON of the form {{\"current\":\"kid\",\"keys\":{{\"kid\":\"base64\"}}}}"
    ))]
    Form {
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A key is not base64.
    #[snafu(display("the token key {kid:?} is not base64"))]
    Base64 {
        /// Which.
        kid: String,
        /// What is wrong with it.
        source: base64::DecodeError,
    },
    /// A key is too short to be safe.
    #[snafu(display("the token key {kid:?} has {length} bytes and needs at least {KEY_BYTES}"))]
    Short {
        /// Which.
        kid: String,
        /// What it has.
        length: usize,
    },
    /// The current key is not among the keys.
    #[snafu(display("the current token key {kid:?} is not among the keys"))]
    Current {
        /// Which.
        kid: String,
    },
    /// Signing failed.
    #[snafu(display("signing an access token failed"))]
    Sign {
        /// Why.
        source: jsonwebtoken::errors::Error,
    },
    /// The token is not one of ours, or not any more.
    #[snafu(display("the access token is refused: {reason}"))]
    Refused {
        /// For the log, never for the client.
        reason: String,
    },
}

/// The setting `SELEXTRACT_TOKEN_KEYS`.
#[derive(Deserialize)]
struct Setting {
    current: String,
    keys: BTreeMap<String, String>,
}

/// Signs and verifies access tokens.
pub struct TokenKeys {
    current: String,
    signing: EncodingKey,
    verifying: BTreeMap<String, DecodingKey>,
    validation: Validation,
}

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user's id.
    pub sub: Uuid,
    /// The user's name.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// Issued at, seconds since 1970.
    pub iat: u64,
    /// Expires at, seconds since 1970.
    pub exp: u64,
    iss: String,
    aud: String,
}

/// A secret that is shown once and stored only as its SHA-256; 256 random bits need no slow hash.
#[derive(Clone)]
pub struct Secret {
    /// What the client gets.
    pub text: String,
    /// What may be shown again, for API keys.
    pub prefix: String,
    /// What is stored.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKeys")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl TokenKeys {
    /// Reads the setting.
    pub fn parse(setting: &str) -> Result<Self, TokenError> {
        let Setting { current, keys } = serde_json::from_str(setting).context(FormSnafu)?;
        let mut verifying = BTreeMap::new();
        let mut signing = None;
        for (kid, text) in keys {
            let key = BASE64_STANDARD.decode(&text).context(Base64Snafu { kid: &kid })?;
            ensure!(key.len() >= KEY_BYTES, ShortSnafu { kid, length: key.len() });
            if kid == current {
                signing = Some(EncodingKey::from_secret(&key));
            }
            verifying.insert(kid, DecodingKey::from_secret(&key));
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = 0;
        Ok(Self {
            signing: signing.context(CurrentSnafu { kid: &current })?,
            current,
            verifying,
            validation,
        })
    }

    /// An access token for a user, good from `now` (seconds since 1970).
    pub fn sign(&self, sub: Uuid, name: &str, role: Role, now: u64) -> Result<String, TokenError> {
        let header = Header {
            kid: Some(self.current.clone()),
            ..Header::new(Algorithm::HS256)
        };
        let claims = Claims {
            sub,
            name: name.to_owned(),
            role,
            iat: now,
            exp: now + ACCESS_LIFETIME.as_secs(),
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
        };
        jsonwebtoken::encode(&header, &claims, &self.signing).context(SignSnafu)
    }

    /// What a token says, when one of our keys signed it and it has not expired.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(refused)?;
        let kid = header.kid.unwrap_or_default();
        let key = self
            .verifying
            .get(&kid)
            .context(RefusedSnafu { reason: "unknown key" })?;
        let data = jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(refused)?;
        Ok(data.claims)
    }
}

impl Secret {
    /// A new refresh token.
    pub fn refresh() -> Self {
        let text = format!("{REFRESH_MARK}{}", random::<SECRET_BYTES>());
        Self {
            prefix: String::new(),
            hash: hash_of(&text),
            text,
        }
    }

    /// A new API key: `sxk_`, a prefix that stays visible, and the secret.
    pub fn api_key() -> Self {
        let prefix = format!("{API_KEY_MARK}{}", random::<PREFIX_BYTES>());
        let text = format!("{prefix}.{}", random::<SECRET_BYTES>());
        Self {
            hash: hash_of(&text),
            prefix,
            text,
        }
    }
}

/// What is stored of a secret.
pub fn hash_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether a bearer token is an API key and not an access token.
pub fn is_api_key(bearer: &str) -> bool {
    bearer.starts_with(API_KEY_MARK)
}

fn random<const N: usize>() -> String {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn refused(error: jsonwebtoken::errors::Error) -> TokenError {
    TokenError::Refused {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=";
    const NEW: &str = "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=";

    fn keys(current: &str, keys: &[(&str, &str)]) -> TokenKeys {
        let keys: BTreeMap<_, _> = keys.iter().copied().collect();
        TokenKeys::parse(&serde_json::json!({ "current": current, "keys": keys }).to_string()).unwrap()
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    #[test]
    fn a_token_reads_back_as_it_was_signed() {
        let keys = keys("a", &[("a", NEW)]);
        let user = Uuid::now_v7();
        let claims = keys
            .verify(&keys.sign(user, "ann", Role::Member, now()).unwrap())
            .unwrap();
        assert_eq!(
            (claims.sub, claims.name.as_str(), claims.role),
            (user, "ann", Role::Member)
        );
        assert_eq!(claims.exp - claims.iat, 900);
    }

    #[test]
    fn a_token_of_the_former_key_is_good_until_the_key_goes() {
        let token = keys("old", &[("old", OLD)])
            .sign(Uuid::nil(), "a", Role::Member, now())
            .unwrap();
        assert!(keys("new", &[("new", NEW), ("old", OLD)]).verify(&token).is_ok());
        assert!(keys("new", &[("new", NEW)]).verify(&token).is_err());
    }

    #[test]
    fn an_expired_token_is_refused() {
        let keys = keys("a", &[("a", NEW)]);
        let token = keys.sign(Uuid::nil(), "a", Role::Member, now() - 901).unwrap();
        assert!(keys.verify(&token).is_err());
    }

    #[test]
    fn a_token_of_another_algorithm_or_without_a_signature_is_refused() {
        let keys = keys("a", &[("a", NEW)]);
        let token = keys.sign(Uuid::nil(), "a", Role::Admin, now()).unwrap();
        let payload = token.split('.').nth(1).unwrap();
        for header in [r#"{"alg":"none","kid":"a"}"#, r#"{"alg":"HS512","kid":"a"}"#] {
            let forged = format!("{}.{payload}.", BASE64_URL_SAFE_NO_PAD.encode(header));
            assert!(keys.verify(&forged).is_err(), "{header}");
        }
        let key = EncodingKey::from_secret(&BASE64_STANDARD.decode(NEW).unwrap());
        let header = Header {
            kid: Some("a".to_owned()),
            ..Header::new(Algorithm::HS512)
        };
        let claims = keys.verify(&token).unwrap();
        assert!(
            keys.verify(&jsonwebtoken::encode(&header, &claims, &key).unwrap())
                .is_err()
        );
    }

    #[test]
    fn short_keys_and_a_missing_current_key_are_refused_at_the_start() {
        let short = r#"{"current":"a","keys":{"a":"c2hvcnQ="}}"#;
        assert!(matches!(
            TokenKeys::parse(short),
            Err(TokenError::Short { length: 5, .. })
        ));
        let missing = format!(r#"{{"current":"b","keys":{{"a":"{NEW}"}}}}"#);
        assert!(matches!(TokenKeys::parse(&missing), Err(TokenError::Current { .. })));
    }

    #[test]
    fn an_api_key_shows_its_prefix_and_holds_256_random_bits() {
        let (one, two) = (Secret::api_key(), Secret::api_key());
        assert!(one.text.starts_with(&one.prefix) && is_api_key(&one.text));
        assert_eq!(
            BASE64_URL_SAFE_NO_PAD
                .decode(one.text.split('.').nth(1).unwrap())
                .unwrap()
                .len(),
            32
        );
        assert_ne!(one.hash, two.hash);
        assert_eq!(hash_of(&one.text), one.hash);
    }
}
