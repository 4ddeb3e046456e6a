//! Credentials for a site: what the API stores encrypted, what a Kubernetes Secret holds, and what a worker uses. Bound to one origin.
//!
//! Pure. Nothing secret is ever shown: [`Hidden`] has no readable `Debug`, and no violation repeats a value.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    Locator,
    plan::{Violation, Violations, is_token},
};

/// The longest secret.
const MAX_SECRET: usize = 4096;
const MAX_EXTRA: usize = 16;

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Credentials for one origin: exactly one of basic, bearer, header and `formLogin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteCredentials {
    /// The origin that gets them, such as `https://shop.example`: scheme, host and port. No request to any other origin carries them, by whatever redirect it came.
    #[schemars(length(min = 8, max = 300))]
    pub origin: String,

    /// Allows an http origin: the credentials then travel in clear text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,

    /// A user and a password in the header Authorization (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicLogin>,

    /// A token in the header Authorization (RFC 6750).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerToken>,

    /// A secret in a header of its own, such as X-Api-Key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<SecretHeader>,

    /// A user and a password that are entered into the site's login form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form_login: Option<FormLogin>,
}

/// A user and a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BasicLogin {
    /// The user. A colon in it is refused.
    #[schemars(length(min = 1, max = 4096), extend("writeOnly" = true))]
    pub username: Hidden,

    /// The password.
    #[schemars(length(max = 4096), extend("writeOnly" = true))]
    pub password: Hidden,
}

/// A token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BearerToken {
    /// The token, without the word Bearer.
    #[schemars(length(min = 1, max = 4096), extend("writeOnly" = true))]
    pub token: Hidden,
}

/// A header with a secret value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretHeader {
    /// The header's name.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,

    /// Its value.
    #[schemars(length(min = 1, max = 4096), extend("writeOnly" = true))]
    pub value: Hidden,
}

/// A login by the site's own form. A run logs in once before its first page, and once more when the site has forgotten it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FormLogin {
    /// The page with the form: a URL of the origin, or a path.
    #[schemars(length(min = 1, max = 2048))]
    pub login_url: String,

    /// The field for the user: its name, or a CSS selector.
    #[schemars(length(min = 1, max = 1024))]
    pub username_field: String,

    /// The field for the password: its name, or a CSS selector.
    #[serde(default = "password_field")]
    #[schemars(length(min = 1, max = 1024))]
    pub password_field: String,

    /// The user.
    #[schemars(length(min = 1, max = 4096), extend("writeOnly" = true))]
    pub username: Hidden,

    /// The password.
    #[schemars(length(min = 1, max = 4096), extend("writeOnly" = true))]
    pub password: Hidden,

    /// In the browser: what is clicked to send the form, its name or a CSS selector. Without it the form is submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub submit: Option<String>,

    /// Further fields by name, such as a tenant. The form's hidden fields are sent without being named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "writeOnly" = true))]
    pub extra: BTreeMap<String, Hidden>,

    /// What a login that went well looks like; all that is given must hold. Without it: the field for the password is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<LoginSuccess>,
}

/// How a login that went well is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoginSuccess {
    /// A CSS selector that matches in the page after the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub selector: Option<String>,

    /// The HTTP status of the page after the login, redirects followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,

    /// The name of a cookie that the site has set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cookie: Option<String>,
}

fn password_field() -> String {
    "input[type=password]".to_owned()
}

/// Credentials that were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The origin, as `url` writes it.
    pub origin: Url,
    /// How they are shown to the site.
    pub way: Way,
}

/// How credentials are shown to a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The header Authorization.
    Basic(BasicLogin),
    /// The header Authorization.
    Bearer(BearerToken),
    /// A header.
    Header(SecretHeader),
    /// A login by a form.
    Form {
        /// The page with the form.
        page: Url,
        /// What to enter, its fields as CSS selectors.
        login: Box<FormLogin>,
    },
}

impl Way {
    /// The kind, as users name it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Basic(_) => "basic",
            Self::Bearer(_) => "bearer",
            Self::Header(_) => "header",
            Self::Form { .. } => "formLogin",
        }
    }
}

impl SiteCredentials {
    /// Checks everything.
    ///
    /// # Errors
    /// Every violation there is, without any secret.
    pub fn check(self) -> Result<Checked, Violations> {
        let mut refused = Vec::new();
        let origin = read_origin(&self.origin, self.allow_http, &mut refused);
        let kinds = self.kinds();
        if kinds.len() != 1 {
            let cure = "give exactly one of basic, bearer, header and formLogin";
            refused.push(Violation::new("", kinds.join(", "), cure));
        }
        let way = self.way(origin.as_ref(), &mut refused);
        match (origin, way) {
            (Some(origin), Some(way)) if refused.is_empty() => Ok(Checked { origin, way }),
            _ => Err(Violations::of(refused)),
        }
    }

    fn kinds(&self) -> Vec<&'static str> {
        let given = [
            (self.basic.is_some(), "basic"),
            (self.bearer.is_some(), "bearer"),
            (self.header.is_some(), "header"),
            (self.form_login.is_some(), "formLogin"),
        ];
        given.into_iter().filter(|(is, _)| *is).map(|(_, kind)| kind).collect()
    }

    fn way(self, origin: Option<&Url>, refused: &mut Vec<Violation>) -> Option<Way> {
        if let Some(basic) = self.basic {
            check_secret("basic.password", &basic.password, 0, refused);
            check_secret("basic.username", &basic.username, 1, refused);
            if basic.username.expose().contains(':') {
                let cure = "has a colon, which Basic cannot carry (RFC 7617, section 2)";
                refused.push(Violation::new("basic.username", HIDDEN, cure));
            }
            return Some(Way::Basic(basic));
        }
        if let Some(bearer) = self.bearer {
            check_header_value("bearer.token", &bearer.token, refused);
            return Some(Way::Bearer(bearer));
        }
        if let Some(mut header) = self.header {
            header.name.make_ascii_lowercase();
            check_header_name(&header.name, refused);
            check_header_value("header.value", &header.value, refused);
            return Some(Way::Header(header));
        }
        let login = check_form(self.form_login?, refused);
        let page = login_page(&login.login_url, origin?, refused)?;
        Some(Way::Form {
            page,
            login: Box::new(login),
        })
    }
}

const HIDDEN: &str = "(hidden)";

fn read_origin(text: &str, allow_http: bool, refused: &mut Vec<Violation>) -> Option<Url> {
    let cure = "must be a scheme, a host and perhaps a port, such as https://shop.example";
    let bare = |url: &Url| {
        url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(url) = url.filter(bare) else {
        // It may hold a user and a password.
        refused.push(Violation::new("origin", HIDDEN, cure));
        return None;
    };
    if url.scheme() == "http" && !allow_http {
        let cure = "is http, by which credentials travel in clear text; write https, or set allowHttp";
        refused.push(Violation::new("origin", text, cure));
        return None;
    }
    Some(url)
}

fn login_page(text: &str, origin: &Url, refused: &mut Vec<Violation>) -> Option<Url> {
    let page = origin.join(text).ok().filter(|page| page.origin() == origin.origin());
    let page = page.filter(|page| page.username().is_empty() && page.password().is_none() && text.len() <= 2048);
    if page.is_none() {
        let cure = "must be a path, or a URL of the origin: the password goes nowhere else";
        refused.push(Violation::new("formLogin.loginUrl", HIDDEN, cure));
    }
    page
}

/// The login with its fields as CSS selectors.
fn check_form(mut login: FormLogin, refused: &mut Vec<Violation>) -> FormLogin {
    check_secret("formLogin.username", &login.username, 1, refused);
    check_secret("formLogin.password", &login.password, 1, refused);
    check_selector("formLogin.usernameField", &mut login.username_field, refused);
    check_selector("formLogin.passwordField", &mut login.password_field, refused);
    if let Some(submit) = &mut login.submit {
        check_selector("formLogin.submit", submit, refused);
    }
    if login.extra.len() > MAX_EXTRA {
        refused.push(Violation::new(
            "formLogin.extra",
            login.extra.len(),
            "at most 16 are allowed",
        ));
    }
    for (name, value) in &login.extra {
        let field = format!("formLogin.extra[{:?}]", name.chars().take(40).collect::<String>());
        if name.is_empty() || name.len() > 256 {
            refused.push(Violation::new(&field, name, "must have 1 to 256 characters"));
        }
        check_secret(&field, value, 0, refused);
    }
    check_success(login.success.as_ref(), refused);
    login
}

fn check_success(success: Option<&LoginSuccess>, refused: &mut Vec<Violation>) {
    let Some(success) = success else { return };
    if success.selector.is_none() && success.status.is_none() && success.cookie.is_none() {
        let cure = "says nothing; give selector, status or cookie, or remove it";
        refused.push(Violation::new("formLogin.success", "", cure));
    }
    if let Some(selector) = &success.selector {
        check_css("formLogin.success.selector", selector, refused);
    }
    if let Some(status) = success.status.filter(|status| !(200..600).contains(status)) {
        refused.push(Violation::new("formLogin.success.status", status, "must be 200 to 599"));
    }
    if let Some(cookie) = success
        .cookie
        .as_deref()
        .filter(|cookie| !is_token(cookie) || cookie.len() > 256)
    {
        refused.push(Violation::new(
            "formLogin.success.cookie",
            cookie,
            "is not a cookie's name",
        ));
    }
}

/// A plain word is the name of a field.
fn check_selector(field: &str, text: &mut String, refused: &mut Vec<Violation>) {
    let is_word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    if is_word(text) {
        *text = format!("[name=\"{text}\"]");
    }
    check_css(field, text, refused);
}

fn check_css(field: &str, text: &str, refused: &mut Vec<Violation>) {
    match Locator::parse(text) {
        _ if text.len() > 1024 => refused.push(Violation::new(field, text, "has more than 1024 characters")),
        Ok(Locator::Css(_)) => {}
        Ok(_) => refused.push(Violation::new(field, text, "must be a field's name or a CSS selector")),
        Err(why) => refused.push(Violation::new(field, text, why)),
    }
}

fn check_secret(field: &str, secret: &Hidden, least: usize, refused: &mut Vec<Violation>) {
    let length = secret.0.len();
    if length < least || length > MAX_SECRET {
        let cure = format!("must have {least} to {MAX_SECRET} bytes");
        refused.push(Violation::new(field, HIDDEN, cure));
    }
}

fn check_header_value(field: &str, secret: &Hidden, refused: &mut Vec<Violation>) {
    check_secret(field, secret, 1, refused);
    if !secret.0.bytes().all(|byte| (0x20..0x7f).contains(&byte)) || secret.0.trim() != secret.0 {
        let cure = "must be printable ASCII without spaces around it";
        refused.push(Violation::new(field, HIDDEN, cure));
    }
}

fn check_header_name(name: &str, refused: &mut Vec<Violation>) {
    if !is_token(name) || name.len() > 100 {
        refused.push(Violation::new(
            "header.name",
            name,
            "is not a header name (RFC 9110, section 5.1)",
        ));
    } else if name != "authorization" && crate::plan::is_reserved_header(name) {
        refused.push(Violation::new(
            "header.name",
            name,
            "is set by the platform and cannot be given",
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(value: Value) -> Result<Checked, Vec<String>> {
        let credentials: SiteCredentials = serde_json::from_value(value).unwrap();
        credentials
            .check()
            .map_err(|violations| violations.iter().map(ToString::to_string).collect())
    }

    fn form(more: &Value) -> Value {
        let mut login = json!({
            "loginUrl": "/login?next=%2F", "usernameField": "email", "username": "ann-x", "password": "hush",
        });
        login.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "origin": "https://shop.example", "formLogin": login })
    }

    #[test]
    fn a_form_login_stays_within_its_origin_and_a_word_is_a_fields_name() {
        let checked = check(form(&json!({}))).unwrap();
        let Way::Form { page, login } = checked.way else {
            panic!("a form")
        };
        assert_eq!(page.as_str(), "https://shop.example/login?next=%2F");
        assert_eq!(
            (login.username_field.as_str(), login.password_field.as_str()),
            ("[name=\"email\"]", "input[type=password]")
        );
        for elsewhere in [
            "https://evil.example/login",
            "//evil.example/",
            "http://shop.example/login",
            "javascript:0",
        ] {
            let why = check(form(&json!({ "loginUrl": elsewhere }))).unwrap_err();
            assert!(why[0].starts_with("formLogin.loginUrl"), "{why:?}");
        }
    }

    #[test]
    fn an_origin_is_https_unless_clear_text_is_allowed_in_so_many_words() {
        let with = |origin: &str, allow: bool| {
            check(json!({ "origin": origin, "allowHttp": allow, "bearer": { "token": "hush" } }))
        };
        assert_eq!(
            with("https://Shop.example:443/", false).unwrap().origin.as_str(),
            "https://shop.example/"
        );
        assert!(with("http://shop.example", false).unwrap_err()[0].contains("allowHttp"));
        assert!(with("http://shop.example:8080", true).is_ok());
        for wrong in [
            "ftp://shop.example",
            "https://ann:hush@shop.example",
            "https://shop.example/list",
            "shop.example",
        ] {
            let why = with(wrong, true).unwrap_err();
            assert!(why[0].starts_with("origin") && !why[0].contains("hush"), "{why:?}");
        }
    }

    #[test]
    fn exactly_one_kind_is_given_and_every_mistake_is_told_without_a_secret() {
        let both = json!({
            "origin": "https://shop.example", "basic": { "username": "a:b", "password": "hush" }, "bearer": { "token": "hush\n" },
        });
        let why = check(both).unwrap_err().join("; ");
        assert!(
            why.contains("exactly one") && why.contains("colon") && !why.contains("hush"),
            "{why}"
        );
        assert!(check(json!({ "origin": "https://shop.example" })).unwrap_err()[0].contains("exactly one"));
        let header = |name: &str, value: &str| {
            check(json!({ "origin": "https://shop.example", "header": { "name": name, "value": value } }))
        };
        assert!(header("X-Api-Key", "hush").is_ok());
        assert!(
            header("Host", "hush").is_err()
                && header("Cookie", "hush").is_err()
                && header("x", "hush\r\nHost: e").is_err()
        );
    }

    #[test]
    fn nothing_secret_is_in_the_debug_form() {
        let shown = format!("{:?}", check(form(&json!({ "extra": { "tenant": "hush" } }))).unwrap());
        assert!(!shown.contains("hush") && !shown.contains("ann-x"), "{shown}");
    }
}
