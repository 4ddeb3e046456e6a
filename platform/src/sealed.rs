//! Secrets of users at rest: AES-256-GCM with a key of the cluster's Secret. A sealed text says which key it was, so that keys can change.
//!
//! Pure but for the random source. Two keys may live at a time: the current one seals, every listed one opens.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use rand::RngCore;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::Deserialize;
use snafu::{OptionExt, ResultExt, Snafu};

/// Why the keys of the settings cannot be used, or a text cannot be opened.
#[derive(Debug, Snafu)]
pub enum SealError {
    /// The setting is not the JSON that it should be.
    #[snafu(display(
        "SELEXTRACT_DATA_KEY is not JSON of the form {{\"current\":\"kid\",\"keys\":{{\"kid\":\"base64 of 32 bytes\"}}}}"
    ))]
    Form {
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A key is not 32 bytes in base64.
    #[snafu(display("the data key {kid:?} is not 32 bytes in base64"))]
    Key {
        /// Which.
        kid: String,
    },
    /// The current key is not among the keys.
    #[snafu(display("the current data key {kid:?} is not among the keys"))]
    Current {
        /// Which.
        kid: String,
    },
    /// A stored secret was sealed with a key that is not there, or was changed.
    #[snafu(display("a stored secret cannot be opened; is its data key still there?"))]
    Open,
}

/// The setting `SELEXTRACT_DATA_KEY`.
#[derive(Deserialize)]
struct Setting {
    current: String,
    keys: BTreeMap<String, String>,
}

/// Seals and opens secrets.
pub struct Seal {
    current: String,
    keys: BTreeMap<String, LessSafeKey>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Seal {
    /// Reads the setting.
    pub fn parse(setting: &str) -> Result<Self, SealError> {
        let Setting { current, keys } = serde_json::from_str(setting).context(FormSnafu)?;
        let mut read = BTreeMap::new();
        for (kid, text) in keys {
            let key = BASE64_STANDARD.decode(&text).ok();
            let key = key.and_then(|key| UnboundKey::new(&AES_256_GCM, &key).ok());
            let key = key.context(KeySnafu { kid: &kid })?;
            read.insert(kid, LessSafeKey::new(key));
        }
        read.get(&current).context(CurrentSnafu { kid: &current })?;
        Ok(Self { current, keys: read })
    }

    /// Seals a text for one place: it opens nowhere else.
    pub fn seal(&self, place: &str, text: &str) -> Result<String, SealError> {
        let key = self.keys.get(&self.current).context(OpenSnafu)?;
        // 96 random bits: a repeat is not to be feared below billions of secrets (NIST SP 800-38D, section 8.3).
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut bytes = text.as_bytes().to_vec();
        let tag = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut bytes);
        tag.ok().context(OpenSnafu)?;
        let sealed = [nonce.as_slice(), &bytes].concat();
        Ok(format!("{}:{}", self.current, BASE64_STANDARD.encode(sealed)))
    }

    /// Opens a text that was sealed for this place.
    pub fn open(&self, place: &str, sealed: &str) -> Result<String, SealError> {
        let (kid, text) = sealed.split_once(':').context(OpenSnafu)?;
        let key = self.keys.get(kid).context(OpenSnafu)?;
        let mut bytes = BASE64_STANDARD.decode(text).ok().context(OpenSnafu)?;
        let (nonce, rest) = bytes.split_at_mut_checked(NONCE_LEN).context(OpenSnafu)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok().context(OpenSnafu)?;
        let opened = key
            .open_in_place(nonce, Aad::from(place), rest)
            .ok()
            .context(OpenSnafu)?;
        String::from_utf8(opened.to_vec()).ok().context(OpenSnafu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(current: &str, kids: &[&str]) -> Seal {
        let keys: BTreeMap<_, _> = kids
            .iter()
            .map(|kid| (*kid, BASE64_STANDARD.encode(kid.repeat(32).as_bytes())))
            .collect();
        Seal::parse(&serde_json::json!({ "current": current, "keys": keys }).to_string()).unwrap()
    }

    #[test]
    fn a_secret_opens_in_its_place_alone_and_with_an_older_key_too() {
        let old = seal("a", &["a"]).seal("webhook/1", "hidden").unwrap();
        assert!(!old.contains("hidden"));
        let both = seal("b", &["a", "b"]);
        assert_eq!(both.open("webhook/1", &old).unwrap(), "hidden");
        assert!(both.open("webhook/2", &old).is_err());
        assert!(seal("b", &["b"]).open("webhook/1", &old).is_err());
        let new = both.seal("webhook/1", "hidden").unwrap();
        assert!(new.starts_with("b:") && new != both.seal("webhook/1", "hidden").unwrap());
        for broken in ["", "b:", "b:AAAA", "x:AAAA", &new[..new.len() - 4]] {
            assert!(both.open("webhook/1", broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_is_named_and_not_shown() {
        let short = r#"{"current":"a","keys":{"a":"c2hvcnQ="}}"#;
        let error = Seal::parse(short).unwrap_err().to_string();
        assert!(error.contains("\"a\"") && !error.contains("c2hvcnQ"), "{error}");
        assert!(Seal::parse(r#"{"current":"b","keys":{}}"#).is_err());
        assert!(Seal::parse("key").is_err());
    }
}
