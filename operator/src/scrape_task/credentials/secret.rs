//! From a Secret of type `selextract.io/credentials` to credentials, or to what is wrong with it: keys are named, values never. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use selextract_task::credentials::{
    BasicLogin, BearerToken, FormLogin, Hidden, LoginSuccess, SecretHeader, SiteCredentials,
};

use super::{Fault, Named};

/// What says that a Secret is meant to be used so: no other Secret of the namespace is ever sent anywhere.
pub const TYPE: &str = "selextract.io/credentials";
const EXTRA: &str = "extra.";

/// The fault of a Secret that is not there.
pub fn missing((namespace, name): &Named) -> Fault {
    Fault {
        reason: "SecretMissing",
        message: format!(
            "There is no Secret {name} in namespace {namespace}, which spec.task.credentials names; create it with type {TYPE}."
        ),
    }
}

/// The fault of a Secret that does not hold credentials.
pub fn invalid((namespace, name): &Named, why: &str) -> Fault {
    Fault {
        reason: "SecretInvalid",
        message: format!("Secret {name} in namespace {namespace} cannot be used: {why}."),
    }
}

/// Reads a Secret.
///
/// # Errors
/// What is wrong with it.
pub fn read(of: &Named, secret: &Secret) -> Result<SiteCredentials, Fault> {
    if secret.type_.as_deref() != Some(TYPE) {
        let why = format!("its type is not {TYPE}, so it is not sent anywhere");
        return Err(invalid(of, &why));
    }
    let mut keys = BTreeMap::new();
    for (key, value) in secret.data.iter().flatten() {
        let text =
            String::from_utf8(value.0.clone()).map_err(|_| invalid(of, &format!("its key {key} is not UTF-8")))?;
        keys.insert(key.clone(), text.trim_end_matches(['\r', '\n']).to_owned());
    }
    let mut keys = Keys { of, keys };
    let credentials = keys.credentials()?;
    if let Some(unknown) = keys.keys.keys().next() {
        return Err(invalid(
            of,
            &format!("its key {unknown} is none of its type of credentials"),
        ));
    }
    if let Err(violations) = credentials.clone().check() {
        return Err(invalid(of, &violations.to_string()));
    }
    Ok(credentials)
}

/// The keys that were not read yet.
struct Keys<'a> {
    of: &'a Named,
    keys: BTreeMap<String, String>,
}

impl Keys<'_> {
    fn credentials(&mut self) -> Result<SiteCredentials, Fault> {
        let mut credentials = SiteCredentials {
            origin: self.need("origin")?,
            allow_http: self.take("allowHttp").is_some_and(|text| text == "true"),
            ..SiteCredentials::default()
        };
        match self.need("type")?.as_str() {
            "Basic" => {
                credentials.basic = Some(BasicLogin {
                    username: self.hidden("username")?,
                    password: self.hidden("password")?,
                });
            }
            "Bearer" => {
                credentials.bearer = Some(BearerToken {
                    token: self.hidden("token")?,
                });
            }
            "Header" => {
                credentials.header = Some(SecretHeader {
                    name: self.need("name")?,
                    value: self.hidden("value")?,
                });
            }
            "FormLogin" => credentials.form_login = Some(self.form()?),
            _ => {
                return Err(invalid(
                    self.of,
                    "its key type is none of Basic, Bearer, Header and FormLogin",
                ));
            }
        }
        Ok(credentials)
    }

    fn form(&mut self) -> Result<FormLogin, Fault> {
        Ok(FormLogin {
            login_url: self.need("loginUrl")?,
            username_field: self.need("usernameField")?,
            password_field: self
                .take("passwordField")
                .unwrap_or_else(|| "input[type=password]".to_owned()),
            username: self.hidden("username")?,
            password: self.hidden("password")?,
            submit: self.take("submit"),
            success: self.success()?,
            extra: self.extra(),
        })
    }

    fn success(&mut self) -> Result<Option<LoginSuccess>, Fault> {
        let status = self.take("successStatus").map(|text| text.parse::<u16>()).transpose();
        let success = LoginSuccess {
            selector: self.take("successSelector"),
            status: status.map_err(|_| invalid(self.of, "its key successStatus is no HTTP status"))?,
            cookie: self.take("successCookie"),
        };
        Ok(Some(success).filter(|success| *success != LoginSuccess::default()))
    }

    fn extra(&mut self) -> BTreeMap<String, Hidden> {
        let names: Vec<String> = self.keys.keys().filter(|key| key.starts_with(EXTRA)).cloned().collect();
        names
            .into_iter()
            .filter_map(|key| Some((key.strip_prefix(EXTRA)?.to_owned(), self.take(&key)?.into())))
            .collect()
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.keys.remove(key)
    }

    fn need(&mut self, key: &str) -> Result<String, Fault> {
        let (namespace, name) = self.of;
        self.keys.remove(key).ok_or_else(|| Fault {
            reason: "SecretMissing",
            message: format!("Secret {name} in namespace {namespace} has no key {key}."),
        })
    }

    fn hidden(&mut self, key: &str) -> Result<Hidden, Fault> {
        self.need(key).map(Hidden::from)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(kind: &str, keys: &[(&str, &str)]) -> Result<SiteCredentials, Fault> {
        let data = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        let secret = Secret {
            type_: Some(kind.to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        };
        read(&("team".into(), "shop".into()), &secret)
    }

    const ORIGIN: (&str, &str) = ("origin", "https://shop.example");

    #[test]
    fn every_type_is_read_from_its_keys() {
        let basic = secret(
            TYPE,
            &[ORIGIN, ("type", "Basic"), ("username", "ann"), ("password", "hush\n")],
        )
        .unwrap();
        assert_eq!(basic.basic.unwrap().password.expose(), "hush");
        let bearer = secret(TYPE, &[ORIGIN, ("type", "Bearer"), ("token", "t")]).unwrap();
        assert!(bearer.bearer.is_some());
        let form = secret(
            TYPE,
            &[
                ORIGIN,
                ("type", "FormLogin"),
                ("loginUrl", "/login"),
                ("usernameField", "email"),
                ("username", "ann"),
                ("password", "hush"),
                ("successStatus", "200"),
                ("extra.tenant", "blue"),
            ],
        );
        let form = form.unwrap().form_login.unwrap();
        assert_eq!(
            (form.success.unwrap().status, form.extra["tenant"].expose()),
            (Some(200), "blue")
        );
        let header = secret(
            TYPE,
            &[ORIGIN, ("type", "Header"), ("name", "X-Api-Key"), ("value", "k")],
        )
        .unwrap();
        assert_eq!(header.header.unwrap().name, "X-Api-Key");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_never_shown() {
        let of = |keys: &[(&str, &str)]| secret(TYPE, keys).unwrap_err();
        let missing = of(&[ORIGIN, ("type", "Basic"), ("username", "hush")]);
        assert_eq!(
            (missing.reason, missing.message.as_str()),
            ("SecretMissing", "Secret shop in namespace team has no key password.")
        );
        for (keys, why) in [
            (&[ORIGIN, ("type", "hush")][..], "its key type"),
            (&[ORIGIN, ("type", "Bearer"), ("token", "hush\u{7}")], "bearer.token"),
            (
                &[ORIGIN, ("type", "Bearer"), ("token", "hush"), ("passwort", "hush")],
                "passwort",
            ),
            (
                &[("origin", "http://shop.example"), ("type", "Bearer"), ("token", "hush")],
                "allowHttp",
            ),
        ] {
            let fault = of(keys);
            assert!(
                fault.reason == "SecretInvalid" && fault.message.contains(why),
                "{}",
                fault.message
            );
            assert!(!fault.message.contains("hush"), "{}", fault.message);
        }
        let other = secret("Opaque", &[ORIGIN, ("type", "Bearer"), ("token", "hush")]).unwrap_err();
        assert!(other.message.contains("not sent anywhere"), "{}", other.message);
    }
}
