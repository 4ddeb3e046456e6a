//! What may be reached: the public internet on some ports, and what the allow list opens beyond it. Pure.
//!
//! The file's form is in `docs/ARCHITECTURE.md` (`SELEXTRACT_EGRESS_CONFIG`).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use snafu::{ResultExt, Snafu, ensure};

use crate::{
    address,
    target::{Host, Target},
    upstream::config::{FilePool, Pool, PoolError, compile},
};

/// The ports that are open when the file names none.
const DEFAULT_PORTS: [u16; 2] = [80, 443];
/// More entries than an allow list needs, so that each request's check stays cheap.
const MAX_ENTRIES: usize = 1000;

/// The compiled configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    ports: Vec<u16>,
    allow: Vec<Entry>,
    pools: Vec<Pool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    matcher: Matcher,
    ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    /// Exactly this name.
    Name(String),
    /// Every name that ends in this, which begins with a dot.
    Suffix(String),
    Network(IpNet),
}

/// Why a configuration is refused.
#[derive(Debug, Snafu)]
pub enum PolicyError {
    /// Not the JSON that the file must hold.
    #[snafu(display("the egress configuration is not valid: {source}"))]
    Json {
        /// What the parser found.
        source: serde_json::Error,
    },
    /// An allow entry that names both or neither of host and network.
    #[snafu(display("allow[{index}] must have exactly one of host and cidr"))]
    EntryForm {
        /// The entry's place.
        index: usize,
    },
    /// A host that cannot match.
    #[snafu(display("allow[{index}].host {host:?} is neither a DNS name nor *. before one (for an address use cidr)"))]
    HostForm {
        /// The entry's place.
        index: usize,
        /// What was given.
        host: String,
    },
    /// A network that does not parse.
    #[snafu(display("allow[{index}].cidr {cidr:?} is not a network like 10.9.0.0/16"))]
    CidrForm {
        /// The entry's place.
        index: usize,
        /// What was given.
        cidr: String,
    },
    /// Pools that cannot be used.
    #[snafu(display("{source}"))]
    Pools {
        /// What is wrong with them.
        source: PoolError,
    },
    /// Port 0.
    #[snafu(display("port 0 cannot be allowed"))]
    PortZero,
    /// Too long a list.
    #[snafu(display("the allow list has {count} entries; at most {MAX_ENTRIES} are taken"))]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    ports: Option<Vec<u16>>,
    #[serde(default)]
    allow: Vec<FileEntry>,
    #[serde(default)]
    upstreams: Vec<FilePool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    host: Option<String>,
    cidr: Option<String>,
    ports: Option<Vec<u16>>,
}

impl Default for Policy {
    /// The closed default: the public internet on 80 and 443.
    fn default() -> Self {
        Self {
            ports: DEFAULT_PORTS.to_vec(),
            allow: Vec::new(),
            pools: Vec::new(),
        }
    }
}

impl Policy {
    /// Reads the configuration file's content.
    pub fn parse(json: &[u8]) -> Result<Self, PolicyError> {
        let file: File = serde_json::from_slice(json).context(JsonSnafu)?;
        let count = file.allow.len();
        ensure!(count <= MAX_ENTRIES, TooManySnafu { count });
        let ports = file.ports.unwrap_or_else(|| DEFAULT_PORTS.to_vec());
        let mut allow = Vec::with_capacity(count);
        for (index, entry) in file.allow.into_iter().enumerate() {
            let matcher = parse_matcher(index, entry.host, entry.cidr)?;
            let ports = entry.ports.unwrap_or_else(|| ports.clone());
            allow.push(Entry { matcher, ports });
        }
        let mut all_ports = ports.iter().chain(allow.iter().flat_map(|entry| &entry.ports));
        ensure!(all_ports.all(|port| *port != 0), PortZeroSnafu);
        let pools = compile(file.upstreams).context(PoolsSnafu)?;
        Ok(Self { ports, allow, pools })
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// Whether any address could be reached on the target's port: asked before a name is resolved.
    pub fn may_resolve(&self, target: &Target) -> bool {
        self.ports.contains(&target.port) || self.allow.iter().any(|entry| entry.ports.contains(&target.port))
    }

    /// Whether the target may be reached at this address, which its name resolved to.
    pub fn admits(&self, target: &Target, address: IpAddr) -> bool {
        (self.ports.contains(&target.port) && address::is_global(address))
            || self
                .allow
                .iter()
                .any(|entry| entry.ports.contains(&target.port) && entry.matcher.opens(&target.host, address))
    }

    /// How many entries the allow list has.
    pub fn entries(&self) -> usize {
        self.allow.len()
    }
}

impl Matcher {
    fn opens(&self, host: &Host, address: IpAddr) -> bool {
        let by_name =
            |matches: &dyn Fn(&str) -> bool| host.name().is_some_and(matches) && !address::is_never_a_host(address);
        match self {
            Self::Name(name) => by_name(&|asked| asked == name),
            Self::Suffix(suffix) => by_name(&|asked| asked.len() > suffix.len() && asked.ends_with(suffix.as_str())),
            Self::Network(network) => network.contains(&address::canonical(address)),
        }
    }
}

fn parse_matcher(index: usize, host: Option<String>, cidr: Option<String>) -> Result<Matcher, PolicyError> {
    match (host, cidr) {
        (Some(host), None) => parse_host(&host).ok_or(PolicyError::HostForm { index, host }),
        (None, Some(cidr)) => match cidr
            .parse::<IpNet>()
            .or_else(|_| cidr.parse::<IpAddr>().map(IpNet::from))
        {
            Ok(network) => Ok(Matcher::Network(network)),
            Err(_) => CidrFormSnafu { index, cidr }.fail(),
        },
        _ => EntryFormSnafu { index }.fail(),
    }
}

fn parse_host(text: &str) -> Option<Matcher> {
    let (name, wildcard) = text.strip_prefix("*.").map_or((text, false), |suffix| (suffix, true));
    let host: Host = name.parse().ok()?;
    let name = host.name()?;
    Some(if wildcard {
        Matcher::Suffix(format!(".{name}"))
    } else {
        Matcher::Name(name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn target(text: &str) -> Target {
        Target::of_absolute(&format!("http://{text}/").parse().unwrap()).unwrap()
    }

    fn admits(policy: &Policy, host: &str, address: &str) -> bool {
        policy.admits(&target(host), address.parse().unwrap())
    }

    #[test]
    fn the_default_opens_the_public_internet_on_two_ports_and_nothing_else() {
        let closed = Policy::default();
        assert!(admits(&closed, "example.com", "93.184.215.14"));
        assert!(admits(&closed, "example.com:443", "93.184.215.14"));
        assert!(!admits(&closed, "example.com:8080", "93.184.215.14"));
        assert!(!admits(&closed, "example.com", "10.0.0.1"));
        assert!(!closed.may_resolve(&target("example.com:22")));
        assert_eq!(Policy::parse(b"{}").unwrap(), closed);
    }

    #[test]
    fn an_empty_list_of_ports_closes_the_internet() {
        let policy = Policy::parse(br#"{"ports":[]}"#).unwrap();
        assert!(!admits(&policy, "example.com", "93.184.215.14"));
    }

    #[test]
    fn a_host_entry_opens_the_private_addresses_of_exactly_that_name() {
        let policy = Policy::parse(br#"{"allow":[{"host":"Docs.demo.svc.cluster.local","ports":[80]}]}"#).unwrap();
        assert!(admits(&policy, "docs.demo.svc.cluster.local", "10.96.0.7"));
        assert!(admits(&policy, "DOCS.demo.svc.cluster.local.", "fd00::7"));
        assert!(!admits(&policy, "docs.demo.svc.cluster.local:443", "10.96.0.7"));
        assert!(!admits(&policy, "docs.demo.svc", "10.96.0.7"));
        assert!(!admits(&policy, "xdocs.demo.svc.cluster.local", "10.96.0.7"));
        assert!(!admits(&policy, "10.96.0.7", "10.96.0.7"));
        assert!(!admits(&policy, "docs.demo.svc.cluster.local", "169.254.169.254"));
    }

    #[test]
    fn a_suffix_entry_opens_names_below_it_and_not_the_suffix_itself() {
        let policy = Policy::parse(br#"{"allow":[{"host":"*.intranet.example"}]}"#).unwrap();
        assert!(admits(&policy, "wiki.intranet.example", "10.0.0.1"));
        assert!(admits(&policy, "a.b.intranet.example", "10.0.0.1"));
        assert!(!admits(&policy, "intranet.example", "10.0.0.1"));
        assert!(!admits(&policy, "evilintranet.example", "10.0.0.1"));
    }

    #[test]
    fn a_network_entry_opens_its_addresses_whatever_the_name() {
        let policy =
            Policy::parse(br#"{"allow":[{"cidr":"10.9.0.0/16","ports":[8080]},{"cidr":"fd00:9::1"}]}"#).unwrap();
        assert!(admits(&policy, "10.9.1.2:8080", "10.9.1.2"));
        assert!(admits(&policy, "any.example:8080", "::ffff:10.9.1.2"));
        assert!(!admits(&policy, "10.9.1.2", "10.9.1.2"));
        assert!(!admits(&policy, "10.10.0.0:8080", "10.10.0.0"));
        assert!(admits(&policy, "any.example:443", "fd00:9::1"));
        assert!(!admits(&policy, "any.example:443", "fd00:9::2"));
    }

    #[rstest]
    #[case(r#"{"allow":[{}]}"#, "allow[0] must have exactly one")]
    #[case(
        r#"{"allow":[{"host":"a.b","cidr":"10.0.0.0/8"}]}"#,
        "allow[0] must have exactly one"
    )]
    #[case(r#"{"allow":[{"cidr":"10.0.0.0/8"},{"host":"*"}]}"#, "allow[1].host")]
    #[case(r#"{"allow":[{"host":"10.0.0.1"}]}"#, "use cidr")]
    #[case(r#"{"allow":[{"host":"a.*.b"}]}"#, "allow[0].host")]
    #[case(r#"{"allow":[{"cidr":"10.0.0.0/33"}]}"#, "allow[0].cidr")]
    #[case(r#"{"ports":[0]}"#, "port 0")]
    #[case(r#"{"ports":[70000]}"#, "not valid")]
    #[case(r#"{"alow":[]}"#, "unknown field")]
    #[case("", "not valid")]
    fn a_configuration_that_means_nothing_is_refused_with_its_place(#[case] json: &str, #[case] says: &str) {
        let error = Policy::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
