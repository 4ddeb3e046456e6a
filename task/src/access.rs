//! What a spec says of its requests' rights: the cookies that it gives. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::plan::Violation;

/// The most cookies of a spec.
const MAX_COOKIES: usize = 50;
/// The most bytes of a cookie's name and value together (RFC 6265, section 6.1).
pub const MAX_COOKIE: usize = 4096;
/// The longest name of credentials or of a pool.
const MAX_NAME: usize = 63;

/// A cookie that requests carry, to the task's own host or a domain above it. What it says is in the spec for everybody to read who can read the task: for a session that must stay secret, store credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cookie {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"))]
    pub name: String,

    /// Its value, as it is sent.
    #[schemars(length(max = 4095))]
    pub value: String,

    /// The domain whose hosts get it: the host of the task's URL or a domain above it that is not a public suffix. Without it the host of the task's URL alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub domain: Option<String>,

    /// The path below which it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/"))]
    pub path: Option<String>,
}

/// A cookie that was checked.
#[derive(Clone, PartialEq, Eq)]
pub struct PlannedCookie {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The host that gets it, or the domain whose hosts get it.
    pub domain: String,
    /// Whether only the host itself gets it.
    pub host_only: bool,
    /// The path below which it is sent.
    pub path: String,
    /// Whether it is sent by https alone, as the task's URL is https.
    pub secure: bool,
}

impl std::fmt::Debug for PlannedCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlannedCookie")
            .field("name", &self.name)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// The cookies of a spec with this URL, without those that `refused` tells of.
pub(crate) fn plan_cookies(cookies: &[Cookie], url: Option<&Url>, refused: &mut Vec<Violation>) -> Vec<PlannedCookie> {
    if cookies.len() > MAX_COOKIES {
        refused.push(Violation::new("cookies", cookies.len(), "at most 50 are allowed"));
    }
    let mut planned = Vec::new();
    for (index, cookie) in cookies.iter().enumerate() {
        let field = format!("cookies[{index}]");
        let before = refused.len();
        check_form(cookie, &field, refused);
        let Some(url) = url else { continue };
        let domain = match &cookie.domain {
            None => Some((url.host_str().unwrap_or_default().to_owned(), true)),
            Some(text) => wide(text, url)
                .map_err(|why| refused.push(Violation::new(format!("{field}.domain"), text, why)))
                .ok(),
        };
        if let Some((domain, host_only)) = domain
            && refused.len() == before
        {
            planned.push(PlannedCookie {
                name: cookie.name.clone(),
                value: cookie.value.clone(),
                domain,
                host_only,
                path: cookie.path.clone().unwrap_or_else(|| "/".to_owned()),
                secure: url.scheme() == "https",
            });
        }
    }
    planned
}

fn check_form(cookie: &Cookie, field: &str, refused: &mut Vec<Violation>) {
    if !crate::plan::is_token(&cookie.name) {
        let cure = "is not a cookie's name; letters, digits and !#$%&'*+-.^_`|~ are";
        refused.push(Violation::new(format!("{field}.name"), &cookie.name, cure));
    }
    if cookie.name.len() + cookie.value.len() > MAX_COOKIE {
        let cure = "name and value have more than 4096 bytes together";
        refused.push(Violation::new(field, &cookie.name, cure));
    }
    if !cookie
        .value
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte) && byte != b';')
        || cookie.value.trim() != cookie.value
    {
        let cure = "must be printable ASCII without a semicolon, and without spaces around it; encode the rest as the site does";
        refused.push(Violation::new(format!("{field}.value"), "(hidden)", cure));
    }
    let is_path =
        |path: &str| path.starts_with('/') && path.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b';');
    if let Some(path) = cookie
        .path
        .as_deref()
        .filter(|path| !is_path(path) || path.len() > 1024)
    {
        refused.push(Violation::new(
            format!("{field}.path"),
            path,
            "is not a path; it begins with /",
        ));
    }
}

/// The domain of a cookie for hosts below it, and whether it is one host's alone.
fn wide(text: &str, url: &Url) -> Result<(String, bool), &'static str> {
    let domain = text.strip_prefix('.').unwrap_or(text).to_ascii_lowercase();
    let host = url.host_str().unwrap_or_default();
    if !is_within(url, &domain) {
        return Err("is neither the host of url nor a domain above it; a task's cookies go nowhere else");
    }
    if domain != host && is_public_suffix(&domain) {
        return Err("is a public suffix, under which hosts belong to many owners; name the site's own domain");
    }
    // An address has no domain, and a host that is a public suffix itself has no hosts of its own below it.
    let alone = !matches!(url.host(), Some(Host::Domain(_))) || is_public_suffix(&domain);
    Ok((domain, alone))
}

/// Whether the host of a URL is this domain or lies below it (RFC 6265, section 5.1.3).
pub fn is_within(url: &Url, domain: &str) -> bool {
    match url.host() {
        Some(Host::Domain(host)) => {
            host == domain
                || host
                    .strip_suffix(domain)
                    .is_some_and(|rest| !domain.is_empty() && rest.ends_with('.'))
        }
        Some(_) => url.host_str() == Some(domain),
        None => false,
    }
}

/// Whether a domain is one under which hosts belong to different owners, by the public suffix list; also one without a dot.
pub fn is_public_suffix(domain: &str) -> bool {
    psl::suffix(domain.as_bytes()).is_none_or(|suffix| suffix.as_bytes() == domain.as_bytes())
}

/// Whether a text can be the name of credentials or of a pool of proxies; it is also a name of a Kubernetes object.
pub fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

/// Refuses what is no name.
pub(crate) fn check_name(field: &str, name: Option<&str>, refused: &mut Vec<Violation>) {
    if let Some(name) = name.filter(|name| !is_name(name)) {
        let cure = "must have 1 to 63 lower-case letters, digits and hyphens, and begin and end with a letter or digit";
        refused.push(Violation::new(field, name, cure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(url: &str, domain: Option<&str>) -> Result<PlannedCookie, String> {
        let cookie = Cookie {
            name: "region".into(),
            value: "eu".into(),
            domain: domain.map(str::to_owned),
            path: None,
        };
        let mut refused = Vec::new();
        let planned = plan_cookies(&[cookie], Some(&url.parse().unwrap()), &mut refused);
        planned.into_iter().next().ok_or_else(|| refused[0].to_string())
    }

    #[test]
    fn a_cookie_goes_to_the_tasks_host_or_to_a_domain_above_it_and_nowhere_else() {
        let own = plan("https://www.shop.example/list", None).unwrap();
        assert_eq!(
            (own.domain.as_str(), own.host_only, own.secure),
            ("www.shop.example", true, true)
        );
        let wide = plan("http://www.shop.example/", Some(".Shop.example")).unwrap();
        assert_eq!(
            (wide.domain.as_str(), wide.host_only, wide.secure),
            ("shop.example", false, false)
        );
        for foreign in ["other.example", "op.example", "a.www.shop.example", ""] {
            let why = plan("https://www.shop.example/", Some(foreign)).unwrap_err();
            assert!(
                why.starts_with("cookies[0].domain") && why.contains("nowhere else"),
                "{why}"
            );
        }
    }

    #[test]
    fn a_public_suffix_gets_no_cookie() {
        for (url, domain) in [
            ("https://shop.co.uk/", "co.uk"),
            ("https://a.github.io/", "github.io"),
            ("https://shop.example/", "example"),
        ] {
            let why = plan(url, Some(domain)).unwrap_err();
            assert!(why.contains("public suffix"), "{why}");
        }
        assert!(plan("http://127.0.0.1:8000/", Some("127.0.0.1")).unwrap().host_only);
        assert!(plan("http://10.0.0.1/", Some("0.0.1")).is_err());
        assert!(plan("http://localhost/", Some("localhost")).unwrap().host_only);
    }

    #[test]
    fn what_would_break_the_header_is_refused_and_the_value_is_not_repeated() {
        let cookie = |name: &str, value: &str, path: &str| Cookie {
            name: name.into(),
            value: value.into(),
            domain: None,
            path: Some(path.into()),
        };
        let url = "https://shop.example/".parse().unwrap();
        for (cookie, field) in [
            (cookie("a b", "x", "/"), "cookies[0].name"),
            (cookie("a", "hush;\r\n", "/"), "cookies[0].value"),
            (cookie("a", "hush\u{e9}", "/"), "cookies[0].value"),
            (cookie("a", "x", "list"), "cookies[0].path"),
            (cookie("a", &"x".repeat(4096), "/"), "cookies[0]"),
        ] {
            let mut refused = Vec::new();
            assert!(plan_cookies(&[cookie], Some(&url), &mut refused).is_empty());
            assert_eq!(refused[0].field, field);
            assert!(!refused[0].to_string().contains("hush"));
        }
    }

    #[test]
    fn names_are_those_of_kubernetes_objects() {
        assert!(is_name("shop-login2") && is_name("a"));
        for wrong in ["", "-a", "a-", "A", "a.b", "a/b", &"x".repeat(64)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
