//! One spelling for the many that a page's URL has, by which a crawl knows that it was there.
//!
//! The `url` crate has done the rest by then: lower case of scheme and host, default ports, dot segments.

use url::Url;

/// Parameters that say who came from where, and change nothing in the page. Whatever begins with `utm_` is one of them.
const TRACKING: [&str; 14] = [
    "_ga", "_gl", "dclid", "fbclid", "gbraid", "gclid", "gclsrc", "igshid", "mc_cid", "mc_eid", "msclkid", "twclid",
    "wbraid", "yclid",
];
/// Parameters that hold a visitor's session: each visit would be a page of its own. Whatever begins with `aspsessionid` is one of them.
const SESSIONS: [&str; 7] = [
    "cfid",
    "cftoken",
    "jsessionid",
    "oscsid",
    "phpsessid",
    "sessionid",
    "zenid",
];

/// The URL without its fragment, tracking parameters, session ids and empty query; percent-encoding in one spelling. The order of the
/// parameters stays, as it may matter. What is normal stays as it is.
pub fn normal_url(url: &Url) -> Url {
    let mut normal = url.clone();
    normal.set_fragment(None);
    let path = one_encoding(url.path());
    normal.set_path(without_session(&path));
    let query = url.query().map(|query| {
        let kept: Vec<String> = query
            .split('&')
            .map(one_encoding)
            .filter(|pair| !pair.is_empty() && !says_nothing(pair))
            .collect();
        kept.join("&")
    });
    normal.set_query(query.as_deref().filter(|query| !query.is_empty()));
    normal
}

/// Percent-encoding in one spelling (RFC 3986, section 6.2.2): what needs none has none, and the rest is in upper case.
fn one_encoding(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let byte = rest.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        // `from_str_radix` takes a sign too.
        let Some(byte) = byte.filter(|_| rest.as_bytes()[1].is_ascii_hexdigit()) else {
            // One that encodes nothing stands for itself.
            out.push_str("%25");
            rest = &rest[1..];
            continue;
        };
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&rest[..3].to_ascii_uppercase());
        }
        rest = &rest[3..];
    }
    out.push_str(rest);
    out
}

/// A path's own session id, as servlets write it: `/shop;jsessionid=1A2B`.
fn without_session(path: &str) -> &str {
    let lower = path.to_ascii_lowercase();
    lower.find(";jsessionid=").map_or(path, |at| &path[..at])
}

fn says_nothing(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
    name.starts_with("utm_")
        || name.starts_with("aspsessionid")
        || TRACKING.contains(&name.as_str())
        || SESSIONS.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        normal_url(&text.parse().unwrap()).into()
    }

    #[test]
    fn the_spellings_of_one_page_become_one() {
        for (text, expected) in [
            ("HTTP://Site.Test:80/a/../b#top", "http://site.test/b"),
            ("https://site.test:443", "https://site.test/"),
            ("http://site.test:8080/", "http://site.test:8080/"),
            ("http://site.test/?", "http://site.test/"),
            (
                "http://site.test/%7Euser/%c3%a4%2fb",
                "http://site.test/~user/%C3%A4%2Fb",
            ),
            ("http://site.test/%zz%+1%4", "http://site.test/%25zz%25+1%254"),
            ("http://site.test/a?b=2&a=1&b=2", "http://site.test/a?b=2&a=1&b=2"),
            (
                "http://site.test/a?utm_source=x&id=7&UTM_Medium=y&gclid=z&fbclid=",
                "http://site.test/a?id=7",
            ),
            ("http://site.test/a?utm_source=x", "http://site.test/a"),
            ("http://site.test/a?&&q=%41+b&", "http://site.test/a?q=A+b"),
            ("http://site.test/a?%75tm_source=x", "http://site.test/a"),
            (
                "http://site.test/a;jsessionid=1A2B?x=1&PHPSESSID=3",
                "http://site.test/a?x=1",
            ),
            ("http://site.test/a?gclidx=1&utm=2", "http://site.test/a?gclidx=1&utm=2"),
        ] {
            assert_eq!(normal(text), expected, "{text}");
        }
    }

    /// A small generator of odd URLs, the same each time.
    struct Odd(u64);

    impl Odd {
        fn below(&mut self, most: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % most
        }

        fn url(&mut self) -> String {
            const PIECES: [&str; 28] = [
                "a",
                "B",
                "/",
                "//",
                ".",
                "..",
                "/../",
                "%2e",
                "%2E%2e",
                "%2f",
                "%7e",
                "%C3%a4",
                "%",
                "%4",
                "%zz",
                "?",
                "&",
                "=",
                "utm_source=1",
                "gclid=2",
                "#",
                ";",
                ";jsessionid=3",
                "+",
                "ä",
                " ",
                "%25",
                "%2541",
            ];
            let mut url = "http://Site.test/".to_owned();
            for _ in 0..self.below(14) {
                url.push_str(PIECES[self.below(PIECES.len())]);
            }
            url
        }
    }

    #[test]
    fn what_is_normal_stays_as_it_is_and_reads_back_as_itself() {
        let mut odd = Odd(7);
        for _ in 0..20_000 {
            let text = odd.url();
            let Ok(url) = Url::parse(&text) else { continue };
            let once = normal_url(&url);
            assert_eq!(normal_url(&once), once, "{text}");
            assert_eq!(Url::parse(once.as_str()).unwrap(), once, "{text}");
            assert!(once.fragment().is_none() && once.query() != Some(""), "{text}");
        }
    }
}
