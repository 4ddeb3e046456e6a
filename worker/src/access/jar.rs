//! The cookies of one run (RFC 6265, with what its successor adds against http): what the spec gives and what sites set. Pure but for the
//! time that is passed in.

use std::time::{Duration, SystemTime};

use selextract_task::access::{MAX_COOKIE, PlannedCookie, is_public_suffix, is_within};
use url::Url;

use super::date;

/// The most cookies of a domain; the oldest one goes.
const MOST_OF_DOMAIN: usize = 100;
/// The most cookies of a run.
const MOST: usize = 1000;
/// The most bytes of the header that requests carry: servers refuse more.
const MAX_HEADER: usize = 16 << 10;

/// Cookies by domain, path and name.
#[derive(Default)]
pub struct Jar {
    cookies: Vec<Kept>,
}

/// A cookie.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The host or domain that gets it.
    pub domain: String,
    /// Whether only the host itself gets it.
    pub host_only: bool,
    /// The path below which it is sent.
    pub path: String,
    /// Whether it is sent by https alone.
    pub secure: bool,
    /// When it ends; without it, with the run.
    pub expires: Option<SystemTime>,
}

impl Jar {
    /// With these cookies, as many as a jar holds.
    pub fn with(cookies: impl IntoIterator<Item = Kept>) -> Self {
        let mut jar = Self::default();
        cookies.into_iter().for_each(|cookie| jar.put(cookie));
        jar
    }

    /// With the cookies of a spec.
    pub fn of(planned: &[PlannedCookie]) -> Self {
        let kept = |cookie: &PlannedCookie| Kept {
            name: cookie.name.clone(),
            value: cookie.value.clone(),
            domain: cookie.domain.clone(),
            host_only: cookie.host_only,
            path: cookie.path.clone(),
            secure: cookie.secure,
            expires: None,
        };
        Self {
            cookies: planned.iter().map(kept).collect(),
        }
    }

    /// Every cookie.
    pub fn all(&self) -> &[Kept] {
        &self.cookies
    }

    /// Takes a `Set-Cookie` of an answer from this URL. What may not be set is dropped, as in browsers.
    pub fn set(&mut self, url: &Url, header: &str, now: SystemTime) {
        let Some(cookie) = parse(url, header, now) else {
            return;
        };
        let is_secure = url.scheme() == "https";
        if !is_secure && self.cookies.iter().any(|kept| kept.secure && kept.is_of_place(&cookie)) {
            return;
        }
        if cookie.expires.is_some_and(|expires| expires <= now) {
            self.cookies.retain(|kept| !kept.is_of_place(&cookie));
        } else {
            self.put(cookie);
        }
    }

    /// Takes what another jar has.
    pub fn extend(&mut self, cookies: &[Kept]) {
        cookies.iter().cloned().for_each(|cookie| self.put(cookie));
    }

    fn put(&mut self, cookie: Kept) {
        if let Some(known) = self.cookies.iter_mut().find(|kept| kept.is_of_place(&cookie)) {
            // It keeps its place: the order of the header is that of the first setting.
            *known = cookie;
        } else {
            self.make_room(&cookie.domain);
            self.cookies.push(cookie);
        }
    }

    /// The header `Cookie` of a request to this URL.
    pub fn header(&self, url: &Url, now: SystemTime) -> Option<String> {
        let mut found: Vec<&Kept> = self.cookies.iter().filter(|cookie| cookie.goes_to(url, now)).collect();
        // Longer paths first; the sort is stable.
        found.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let mut header = String::new();
        for cookie in found {
            let separator = if header.is_empty() { "" } else { "; " };
            let more = format!("{separator}{}={}", cookie.name, cookie.value);
            if header.len() + more.len() <= MAX_HEADER {
                header.push_str(&more);
            }
        }
        Some(header).filter(|header| !header.is_empty())
    }

    /// Whether a request to this URL would carry a cookie of this name.
    pub fn has(&self, url: &Url, name: &str, now: SystemTime) -> bool {
        self.cookies
            .iter()
            .any(|cookie| cookie.name == name && cookie.goes_to(url, now))
    }

    fn make_room(&mut self, domain: &str) {
        let of_domain = self.cookies.iter().filter(|kept| kept.domain == domain).count();
        let oldest = if of_domain >= MOST_OF_DOMAIN {
            self.cookies.iter().position(|kept| kept.domain == domain)
        } else {
            (self.cookies.len() >= MOST).then_some(0)
        };
        if let Some(oldest) = oldest {
            self.cookies.remove(oldest);
        }
    }
}

impl Kept {
    /// Whether one replaces the other.
    fn is_of_place(&self, other: &Self) -> bool {
        self.name == other.name && self.domain == other.domain && self.path == other.path
    }

    fn goes_to(&self, url: &Url, now: SystemTime) -> bool {
        let host = if self.host_only {
            url.host_str() == Some(self.domain.as_str())
        } else {
            is_within(url, &self.domain)
        };
        host && covers(&self.path, url.path())
            && (!self.secure || url.scheme() == "https")
            && self.expires.is_none_or(|expires| expires > now)
    }
}

/// Section 5.1.4.
fn covers(path: &str, requested: &str) -> bool {
    requested
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || path.ends_with('/') || rest.starts_with('/'))
}

/// Section 5.2, and what of 5.3 needs no jar.
fn parse(url: &Url, header: &str, now: SystemTime) -> Option<Kept> {
    let mut parts = header.split(';');
    let (name, value) = parts.next()?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_clean = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control());
    if name.is_empty() || name.len() + value.len() > MAX_COOKIE || !is_clean(name) || !is_clean(value) {
        return None;
    }
    let mut cookie = Kept {
        name: name.to_owned(),
        value: value.to_owned(),
        domain: url.host_str()?.to_owned(),
        host_only: true,
        path: default_path(url),
        secure: false,
        expires: None,
    };
    let mut lasts = None;
    for part in parts {
        let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match attribute.trim().to_ascii_lowercase().as_str() {
            "domain" if !value.is_empty() => (cookie.domain, cookie.host_only) = domain(value, url)?,
            "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
            "secure" => cookie.secure = true,
            "max-age" => lasts = max_age(value).or(lasts),
            "expires" => cookie.expires = date::parse(value).or(cookie.expires),
            _ => {}
        }
    }
    if let Some(lasts) = lasts {
        cookie.expires = Some(now.checked_add(lasts)?);
    }
    (is_allowed(&cookie, url) && cookie.path.len() <= 1024).then_some(cookie)
}

/// A secure cookie comes by https alone, and the prefixes hold what they promise (RFC 6265bis, sections 4.1.3 and 5.6).
fn is_allowed(cookie: &Kept, url: &Url) -> bool {
    let secure = cookie.secure && url.scheme() == "https";
    let begins = |prefix: &str| {
        cookie
            .name
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let claims_security = cookie.secure || begins("__Secure-") || begins("__Host-");
    let is_of_host = cookie.host_only && cookie.path == "/";
    (secure || !claims_security) && (is_of_host || !begins("__Host-"))
}

/// The domain that a site may set a cookie for, and whether that is its host alone.
fn domain(text: &str, url: &Url) -> Option<(String, bool)> {
    let domain = text.strip_prefix('.').unwrap_or(text).to_ascii_lowercase();
    if !is_within(url, &domain) {
        return None;
    }
    let is_host = url.host_str() == Some(domain.as_str());
    match is_public_suffix(&domain) || url.domain().is_none() {
        true if is_host => Some((domain, true)),
        true => None,
        false => Some((domain, false)),
    }
}

fn max_age(value: &str) -> Option<Duration> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Negative is at once; what is longer than four hundred days is four hundred days.
    let longest = 400 * 24 * 60 * 60;
    let seconds = if value.starts_with('-') {
        0
    } else {
        digits.parse().unwrap_or(longest).min(longest)
    };
    Some(Duration::from_secs(seconds))
}

/// Section 5.1.4: up to the last slash of the path.
fn default_path(url: &Url) -> String {
    match url.path().rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((folder, _)) => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn jar(set: &[(&str, &str)]) -> Jar {
        let mut jar = Jar::default();
        for (url, header) in set {
            jar.set(&url.parse().unwrap(), header, now());
        }
        jar
    }

    fn sent(jar: &Jar, url: &str) -> String {
        jar.header(&url.parse().unwrap(), now()).unwrap_or_default()
    }

    #[test]
    fn a_cookie_goes_back_to_its_host_and_to_a_domain_that_it_names() {
        let jar = jar(&[
            ("https://www.shop.example/", "own=1"),
            ("https://www.shop.example/", "wide=2; Domain=.Shop.Example"),
        ]);
        assert_eq!(sent(&jar, "https://www.shop.example/"), "own=1; wide=2");
        assert_eq!(sent(&jar, "https://api.shop.example/"), "wide=2");
        assert_eq!(sent(&jar, "https://notshop.example/"), "");
        assert_eq!(sent(&jar, "https://shop.example.evil.test/"), "");
    }

    #[test]
    fn nobody_sets_a_cookie_for_others() {
        let set = [
            ("https://shop.co.uk/", "a=1; Domain=co.uk"),
            ("https://shop.example/", "a=1; Domain=other.example"),
            ("https://shop.example/", "a=1; Domain=www.shop.example"),
            ("https://ann.github.io/", "a=1; domain=github.io"),
            ("http://10.0.0.1/", "a=1; domain=0.0.1"),
        ];
        assert!(jar(&set).all().is_empty());
        let own = jar(&[("https://github.io/", "a=1; domain=github.io")]);
        assert_eq!(
            (
                sent(&own, "https://github.io/").as_str(),
                sent(&own, "https://ann.github.io/").as_str()
            ),
            ("a=1", "")
        );
    }

    #[test]
    fn a_secure_cookie_never_travels_by_http_and_http_cannot_replace_it() {
        let jar = jar(&[
            ("https://shop.example/", "id=1; Secure"),
            ("http://shop.example/", "id=2"),
            ("http://shop.example/", "other=3; secure"),
            (
                "https://shop.example/",
                "__Host-x=4; Secure; Path=/; Domain=shop.example",
            ),
            ("https://shop.example/", "__Secure-y=5"),
        ]);
        assert_eq!(sent(&jar, "https://shop.example/"), "id=1");
        assert_eq!(sent(&jar, "http://shop.example/"), "");
    }

    #[test]
    fn paths_cover_what_lies_below_them_and_the_longest_goes_first() {
        let jar = jar(&[
            ("https://shop.example/", "a=1"),
            ("https://shop.example/", "b=2; Path=/list"),
            ("https://shop.example/deep/er/page", "c=3"),
        ]);
        assert_eq!(sent(&jar, "https://shop.example/list/2"), "b=2; a=1");
        assert_eq!(sent(&jar, "https://shop.example/listing"), "a=1");
        assert_eq!(sent(&jar, "https://shop.example/deep/er/x"), "c=3; a=1");
    }

    #[test]
    fn a_cookie_ends_when_it_says_so_and_max_age_goes_before_expires() {
        let url = "https://shop.example/";
        let jar = jar(&[
            (url, "a=1; Max-Age=60; Expires=Thu, 01-Jan-1970 00:00:00 GMT"),
            (url, "b=2; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
            (url, "c=3"),
            (url, "c=; Max-Age=0"),
            (url, "d=4; Max-Age=soon"),
        ]);
        assert_eq!(sent(&jar, url), "a=1; d=4");
        let later = now() + Duration::from_secs(61);
        assert_eq!(jar.header(&url.parse().unwrap(), later).as_deref(), Some("d=4"));
    }

    #[test]
    fn what_a_site_sets_is_bounded() {
        let mut jar = Jar::default();
        let url: Url = "https://shop.example/".parse().unwrap();
        for number in 0..150 {
            jar.set(&url, &format!("n{number}={}", "x".repeat(1000)), now());
        }
        jar.set(&url, &format!("big={}", "x".repeat(4096)), now());
        jar.set(&url, "bad=a\u{1}b", now());
        assert_eq!(jar.all().len(), MOST_OF_DOMAIN);
        assert_eq!(jar.all()[0].name, "n50");
        assert!(jar.header(&url, now()).unwrap().len() <= MAX_HEADER);
        for host in 0..1200 {
            jar.set(&format!("https://h{host}.example/").parse().unwrap(), "a=1", now());
        }
        assert_eq!(jar.all().len(), MOST);
    }
}
