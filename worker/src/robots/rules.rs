//! robots.txt as RFC 9309 has it: which group is ours, and which of its rules decides about a URL. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

/// How robots.txt calls us (RFC 9309, section 2.2.1).
pub const PRODUCT_TOKEN: &str = "selextract";
/// The longest `Crawl-delay` that is obeyed; who wants us less often can disallow us.
const MAX_CRAWL_DELAY: Duration = selextract_task::MAX_DELAY.get();
/// The most sitemaps that are remembered.
const MAX_SITEMAPS: usize = 50;

/// What a site lets us fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    ours: Vec<Rule>,
    /// How long we are to rest between two pages.
    pub crawl_delay: Option<Duration>,
    /// Its sitemaps, as they are written.
    pub sitemaps: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    allows: bool,
    /// Normalised, with `*` and a last `$`.
    pattern: String,
}

impl Rules {
    /// Reads what holds for us: all groups that name us, else all groups for everybody.
    pub fn parse(text: &str) -> Self {
        let mut ours = Group::default();
        let mut everybodys = Group::default();
        let mut sitemaps = Vec::new();
        let mut names = Names::default();
        for (key, value) in text
            .trim_start_matches('\u{feff}')
            .lines()
            .flat_map(|l| l.split('\r'))
            .filter_map(line)
        {
            match key.to_ascii_lowercase().as_str() {
                "user-agent" => names.add(value),
                "allow" | "disallow" => {
                    names.complete = true;
                    // An empty rule rules nothing.
                    if !value.is_empty() {
                        let rule = Rule {
                            allows: key.eq_ignore_ascii_case("allow"),
                            pattern: pattern(value),
                        };
                        names.each(&mut ours, &mut everybodys, |group| group.rules.push(rule.clone()));
                    }
                }
                "crawl-delay" => {
                    let delay = crawl_delay(value);
                    names.each(&mut ours, &mut everybodys, |group| {
                        group.crawl_delay = delay.or(group.crawl_delay);
                    });
                }
                "sitemap" if sitemaps.len() < MAX_SITEMAPS && value.len() <= 2048 => sitemaps.push(value.to_owned()),
                _ => {}
            }
            names.each(&mut ours, &mut everybodys, |group| group.named = true);
        }
        let group = if ours.named { ours } else { everybodys };
        Self {
            ours: group.rules,
            crawl_delay: group.crawl_delay,
            sitemaps,
        }
    }

    /// The rule that forbids this URL, as it is written; `None` when it may be fetched.
    pub fn objection(&self, url: &Url) -> Option<String> {
        if url.path() == "/robots.txt" {
            return None;
        }
        let mut path = normalised(url.path());
        if let Some(query) = url.query() {
            path.push('?');
            path.push_str(&normalised(query));
        }
        // The longest pattern decides; of two that are as long, the one that allows.
        let decides = self
            .ours
            .iter()
            .filter(|rule| matches(&rule.pattern, &path))
            .max_by_key(|rule| (rule.pattern.len(), rule.allows))?;
        (!decides.allows).then(|| format!("Disallow: {}", decides.pattern))
    }

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        let rules: usize = self.ours.iter().map(|rule| rule.pattern.len() + 40).sum();
        let sitemaps: usize = self.sitemaps.iter().map(|sitemap| sitemap.len() + 24).sum();
        rules + sitemaps + 100
    }
}

#[derive(Default)]
struct Group {
    named: bool,
    rules: Vec<Rule>,
    crawl_delay: Option<Duration>,
}

/// Whom the lines at hand are for.
#[derive(Default)]
struct Names {
    us: bool,
    everybody: bool,
    /// A rule was seen, so that the next name begins another group.
    complete: bool,
}

impl Names {
    fn add(&mut self, name: &str) {
        if self.complete {
            *self = Self::default();
        }
        let token = name
            .find(|c: char| !(c.is_ascii_alphabetic() || c == '-' || c == '_'))
            .map_or(name, |end| &name[..end]);
        self.us |= token.eq_ignore_ascii_case(PRODUCT_TOKEN);
        self.everybody |= name.starts_with('*');
    }

    fn each(&self, ours: &mut Group, everybodys: &mut Group, mut act: impl FnMut(&mut Group)) {
        if self.us {
            act(ours);
        }
        if self.everybody {
            act(everybodys);
        }
    }
}

fn line(text: &str) -> Option<(&str, &str)> {
    let text = text.split('#').next().unwrap_or_default();
    let (key, value) = text.split_once(':')?;
    Some((key.trim(), value.trim()))
}

fn pattern(value: &str) -> String {
    let pattern = normalised(value);
    if pattern.starts_with(['/', '*']) {
        pattern
    } else {
        format!("/{pattern}")
    }
}

fn crawl_delay(value: &str) -> Option<Duration> {
    let seconds: f64 = value.parse().ok()?;
    let cap = MAX_CRAWL_DELAY.as_secs_f64();
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(cap)))
}

/// Octets as they are compared (section 2.2.2): what is not ASCII is percent-encoded, what need not be is not, and hex is upper case.
fn normalised(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index).copied() {
        let escaped = (byte == b'%')
            .then(|| bytes.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        index += if escaped.is_some() { 3 } else { 1 };
        match escaped {
            Some(octet) if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) => out.push(octet.into()),
            Some(octet) => escape(octet, &mut out),
            None if byte.is_ascii_graphic() => out.push(byte.into()),
            None => escape(byte, &mut out),
        }
    }
    out
}

fn escape(octet: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    for nibble in [octet >> 4, octet & 15] {
        out.push(DIGITS[usize::from(nibble)].into());
    }
}

/// Whether the path begins as the pattern says; `*` stands for anything, a last `$` for the end. Greedy from the left is enough: the
/// earliest place for each piece leaves the most for the next.
fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, anchored) = pattern.strip_suffix('$').map_or((pattern, false), |rest| (rest, true));
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| path.strip_prefix(first)) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return !anchored || rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if anchored && pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &str) -> Url {
        format!("https://example.com{path}").parse().unwrap()
    }

    fn allows(text: &str, path: &str) -> bool {
        Rules::parse(text).objection(&url(path)).is_none()
    }

    /// RFC 9309, section 5.1, with our name in the place of the examples'.
    const SIMPLE: &str = "User-Agent: *\nDisallow: *.gif$\nDisallow: /example/\nAllow: /publications/\n\n\
        User-Agent: foobot\nDisallow:/\nAllow:/example/page.html\nAllow:/example/allowed.gif\n\n\
        User-Agent: selextract\nUser-Agent: bazbot\nDisallow: /example/page.html\n\nUser-Agent: quxbot\n";

    #[test]
    fn the_group_that_names_us_holds_and_no_other() {
        assert!(!allows(SIMPLE, "/example/page.html"));
        assert!(allows(SIMPLE, "/example/") && allows(SIMPLE, "/a.gif"));
    }

    #[test]
    fn without_a_group_of_ours_the_one_for_everybody_holds() {
        let text = SIMPLE.replace("selextract", "barbot");
        assert!(!allows(&text, "/example/page.html"));
        assert!(!allows(&text, "/pictures/a.gif"));
        assert!(allows(&text, "/pictures/a.gif?size=2"));
        assert!(allows(&text, "/publications/"));
    }

    #[test]
    fn the_longest_match_decides() {
        // RFC 9309, section 5.2.
        let text = "User-Agent: selextract\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n";
        assert!(!allows(text, "/example/page/disallowed.gif"));
        assert!(allows(text, "/example/page/other.gif"));
        assert!(
            allows("User-agent: *\nDisallow: /a\nAllow: /a\n", "/a"),
            "of two equal ones the one that allows"
        );
    }

    #[test]
    fn groups_with_the_same_name_are_one() {
        // RFC 9309, section 2.2.1.
        let text =
            "user-agent: SELEXTRACT/2.0\ndisallow: /foo\ndisallow: /bar\n\nuser-agent: Selextract\ndisallow: /baz\n";
        assert!(["/foo", "/bar", "/baz"].iter().all(|path| !allows(text, path)));
        assert!(!allows(&text.replace('\n', "\r"), "/bar"));
    }

    #[test]
    fn an_empty_group_of_ours_lets_us_go_anywhere() {
        assert!(allows(
            "User-agent: *\nDisallow: /\nUser-agent: selextract\nDisallow:\n",
            "/x"
        ));
        assert!(allows("", "/") && allows("<html><body>not found</body></html>", "/"));
    }

    #[test]
    fn percent_encodings_are_compared_as_octets() {
        // The table of RFC 9309, section 2.2.2.
        for (rule, path, matches) in [
            ("/foo/bar?baz=quz", "/foo/bar?baz=quz", true),
            ("/foo/bar/\u{30c4}", "/foo/bar/%e3%83%84", true),
            ("/foo/bar/%E3%83%84", "/foo/bar/\u{30c4}", true),
            ("/foo/bar/%62%61%7A", "/foo/bar/baz", true),
        ] {
            assert_eq!(
                !allows(&format!("User-agent: *\nDisallow: {rule}"), path),
                matches,
                "{rule} {path}"
            );
        }
    }

    #[test]
    fn the_special_characters_are_a_star_and_a_last_dollar() {
        // RFC 9309, section 2.2.3, and Google's published table.
        for (rule, path, matches) in [
            ("/", "/any", true),
            ("*", "/any", true),
            ("/$", "/any", false),
            ("/fish", "/fish.html", true),
            ("/fish", "/Fish.asp", false),
            ("/fish*", "/fishheads/yummy.html", true),
            ("/fish/", "/fish", false),
            ("/*.php", "/folder/any.php.file.html", true),
            ("/*.php$", "/filename.php?parameters", false),
            ("/*.php$", "/a.php/b.php", true),
            ("/fish*.php", "/fishheads/catfish.php?p", true),
            ("/a*b*c$", "/abcbc", true),
            ("/path/file-with-a-%2A.html", "/path/file-with-a-%2a.html", true),
            ("private", "/private/x", true),
        ] {
            assert_eq!(
                !allows(&format!("User-agent: *\nDisallow: {rule}"), path),
                matches,
                "{rule} {path}"
            );
        }
    }

    #[test]
    fn crawl_delay_and_sitemaps_are_read_and_bounded() {
        let text = "\u{feff}Sitemap: https://example.com/a.xml # ours\nUser-agent: *\nCrawl-delay: 1.5\nUser-agent: other\nDisallow: /x";
        let rules = Rules::parse(text);
        assert_eq!(rules.crawl_delay, Some(Duration::from_millis(1500)));
        assert_eq!(rules.sitemaps, ["https://example.com/a.xml"]);
        assert!(!allows(text, "/x"), "a Crawl-delay does not end a group's names");
        for (given, delay) in [
            ("86400", Some(60)),
            ("-1", None),
            ("NaN", None),
            ("inf", Some(60)),
            ("soon", None),
        ] {
            let rules = Rules::parse(&format!("User-agent: *\nCrawl-delay: {given}"));
            assert_eq!(rules.crawl_delay.map(|delay| delay.as_secs()), delay, "{given}");
        }
    }

    #[test]
    fn robots_txt_itself_is_always_allowed() {
        assert!(allows("User-agent: *\nDisallow: /", "/robots.txt"));
    }

    #[test]
    fn the_rule_that_forbids_is_named() {
        let rules = Rules::parse("User-agent: *\nDisallow: /admin");
        assert_eq!(rules.objection(&url("/admin/x")).unwrap(), "Disallow: /admin");
    }

    #[test]
    fn a_hostile_file_is_judged_in_linear_time() {
        let text = format!("User-agent: *\nDisallow: /{}b\n", "a*".repeat(1000)).repeat(200);
        assert!(allows(&text, &format!("/{}", "a".repeat(2000))));
    }
}
