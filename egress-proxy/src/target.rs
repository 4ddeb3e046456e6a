//! Where a request wants to go, parsed strictly. Pure.
//!
//! A host is a DNS name, a dotted-decimal IPv4 address or a bracketed IPv6 address, each in its one canonical spelling. What some
//! parsers read as an IPv4 address and others as a name (`0x7f.1`, `2130706433`, `0177.0.0.1`) is refused: the platform's engines
//! never write it, because the `url` crate rewrites it first.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hyper::{Uri, http::uri::Authority};
use snafu::{OptionExt, Snafu, ensure};

/// The longest DNS name in its text form.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A host and a port to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

/// A host as the request wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A DNS name in lower case; a dot at its end, which ends the search list, is kept.
    Name(String),
    /// An address literal.
    Address(IpAddr),
}

/// Why a text is not a [`Target`].
#[derive(Debug, Snafu, PartialEq, Eq)]
pub enum ParseTargetError {
    /// User information before an @ belongs to no proxy request.
    #[snafu(display("the authority holds user information"))]
    UserInfo,
    /// CONNECT needs a port, and 0 is none.
    #[snafu(display("the authority has no usable port"))]
    Port,
    /// The host is not in canonical form.
    #[snafu(display("the host is neither a DNS name nor a canonical address"))]
    HostForm,
    /// Only absolute `http://` URLs and CONNECT are for a forward proxy.
    #[snafu(display("the request target is not an absolute http URL"))]
    Scheme,
}

impl Target {
    /// The target of CONNECT: `host:port`, both there.
    pub fn of_connect(uri: &Uri) -> Result<Self, ParseTargetError> {
        let authority = uri.authority().context(HostFormSnafu)?;
        ensure!(uri.scheme().is_none() && uri.path_and_query().is_none(), HostFormSnafu);
        let port = explicit_port(authority)?.context(PortSnafu)?;
        Self::of_authority(authority, port)
    }

    /// The target of an absolute-form request, whose port is 80 when it has none.
    pub fn of_absolute(uri: &Uri) -> Result<Self, ParseTargetError> {
        ensure!(uri.scheme_str() == Some("http"), SchemeSnafu);
        let authority = uri.authority().context(HostFormSnafu)?;
        let port = explicit_port(authority)?.unwrap_or(80);
        Self::of_authority(authority, port)
    }

    fn of_authority(authority: &Authority, port: u16) -> Result<Self, ParseTargetError> {
        ensure!(!authority.as_str().contains('@'), UserInfoSnafu);
        let host = authority.host().parse()?;
        Ok(Self { host, port })
    }

    /// The value of a Host header for this target over plain HTTP.
    pub fn host_header(&self) -> String {
        if self.port == 80 {
            self.host.to_string()
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Host {
    /// The name without the dot at its end, for comparing.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name.strip_suffix('.').unwrap_or(name)),
            Self::Address(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(v4)) => v4.fmt(f),
            Self::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

impl std::str::FromStr for Host {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').context(HostFormSnafu)?;
            let v6: Ipv6Addr = inner.parse().ok().context(HostFormSnafu)?;
            return Ok(Self::Address(v6.into()));
        }
        // The standard library takes dotted decimal without leading zeros and nothing else.
        if let Ok(v4) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(v4.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        ensure!(is_name(name), HostFormSnafu);
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

fn explicit_port(authority: &Authority) -> Result<Option<u16>, ParseTargetError> {
    let after_host = authority
        .as_str()
        .rsplit_once('@')
        .map_or(authority.as_str(), |(_, rest)| rest)
        .strip_prefix(authority.host())
        .context(HostFormSnafu)?;
    let Some(digits) = after_host.strip_prefix(':') else {
        ensure!(after_host.is_empty(), HostFormSnafu);
        return Ok(None);
    };
    ensure!(digits.bytes().all(|byte| byte.is_ascii_digit()), PortSnafu);
    let port: u16 = digits.parse().ok().context(PortSnafu)?;
    ensure!(port != 0, PortSnafu);
    Ok(Some(port))
}

/// Whether the text is a DNS name that no parser takes for an address: labels of letters, digits, `-` and `_`, the last of which is
/// not a number in any base (WHATWG URL, "ends in a number").
fn is_name(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .or_else(|| last.strip_prefix("0X"))
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    !numeric && text.len() <= MAX_NAME && text.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn absolute(text: &str) -> Result<String, ParseTargetError> {
        Target::of_absolute(&text.parse::<Uri>().map_err(|_| ParseTargetError::HostForm)?)
            .map(|target| target.to_string())
    }

    fn connect(text: &str) -> Result<String, ParseTargetError> {
        let authority: Authority = text.parse().map_err(|_| ParseTargetError::HostForm)?;
        let uri = Uri::builder().authority(authority).build().unwrap();
        Target::of_connect(&uri).map(|target| target.to_string())
    }

    #[rstest]
    #[case("http://Example.COM/a?b", "example.com:80")]
    #[case("HTTP://example.com:8080/", "example.com:8080")]
    #[case("http://10.0.0.1/", "10.0.0.1:80")]
    #[case("http://[2001:DB8::1]:81/", "[2001:db8::1]:81")]
    #[case("http://docs.demo.svc./", "docs.demo.svc.:80")]
    #[case("http://_dmarc.example.com/", "_dmarc.example.com:80")]
    fn an_absolute_http_url_names_its_target(#[case] url: &str, #[case] target: &str) {
        assert_eq!(absolute(url).as_deref(), Ok(target));
    }

    #[rstest]
    #[case("http://2130706433/")]
    #[case("http://0x7f000001/")]
    #[case("http://0X7F.1/")]
    #[case("http://0177.0.0.1/")]
    #[case("http://127.1/")]
    #[case("http://127.0.0.01/")]
    #[case("http://127.0.0.1./")]
    #[case("http://1.2.3.4.5/")]
    #[case("http://example.0x/")]
    #[case("http://256.256.256.256/")]
    #[case("http://[::1%25eth0]/")]
    #[case("http://[::1/")]
    #[case("http://::1/")]
    #[case("http://exa%6dple.com/")]
    #[case("http://a..b/")]
    #[case("http://-a.example/")]
    #[case("http://127.0.0.1:6666\\@1.1.1.1/")]
    fn a_host_that_two_parsers_could_read_differently_is_refused(#[case] url: &str) {
        assert!(absolute(url).is_err(), "{url}");
    }

    #[rstest]
    #[case("https://example.com/", ParseTargetError::Scheme)]
    #[case("ftp://example.com/", ParseTargetError::Scheme)]
    #[case("/etc/passwd", ParseTargetError::Scheme)]
    #[case("http://user:word@example.com/", ParseTargetError::UserInfo)]
    #[case("http://user@example.com/", ParseTargetError::UserInfo)]
    #[case("http://example.com:0/", ParseTargetError::Port)]
    #[case("http://example.com:/", ParseTargetError::Port)]
    #[case("http://example.com:65536/", ParseTargetError::Port)]
    fn a_target_that_is_not_plain_http_is_refused(#[case] url: &str, #[case] why: ParseTargetError) {
        assert_eq!(absolute(url), Err(why), "{url}");
    }

    #[rstest]
    #[case("example.com:443", Ok("example.com:443"))]
    #[case("[::ffff:10.0.0.1]:443", Ok("[::ffff:10.0.0.1]:443"))]
    #[case("example.com", Err(ParseTargetError::Port))]
    #[case("user@example.com:443", Err(ParseTargetError::UserInfo))]
    fn connect_needs_a_host_and_a_port_and_nothing_else(
        #[case] authority: &str,
        #[case] target: Result<&str, ParseTargetError>,
    ) {
        assert_eq!(connect(authority), target.map(str::to_owned));
    }

    #[test]
    fn a_name_or_label_that_dns_cannot_carry_is_refused() {
        assert!(format!("{}.example", "a".repeat(64)).parse::<Host>().is_err());
        assert!("a.".repeat(130).parse::<Host>().is_err());
        assert!("a.".repeat(126).parse::<Host>().is_ok());
    }

    #[test]
    fn the_host_header_leaves_the_default_port_out() {
        let target = |text: &str| Target::of_absolute(&text.parse().unwrap()).unwrap().host_header();
        assert_eq!(target("http://example.com:80/"), "example.com");
        assert_eq!(target("http://example.com:8080/"), "example.com:8080");
    }
}
